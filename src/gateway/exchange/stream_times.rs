//! The times of a stream, and why it does not run on.
//!
//! The one rule: each of its waits has an end. What ends first wakes the stream, which then judges itself.
//!
//! For [`super::stream`], [`super::websocket`] and [`super::call`].

use std::time::{Duration, Instant};

use pingora_core::Error;

use super::admit::CertificateInUse;
use fedgate_core::reasons::StreamEnd;

/// Why a stream does not run on.
pub(super) enum StreamStop {
    /// The gateway ends it.
    Ended(StreamEnd),
    /// The client or the server has failed it.
    Failed(Box<Error>),
}

/// The times of a stream.
pub(super) struct StreamTimes {
    /// When it has run for as long as it may.
    pub(super) end: Option<Instant>,
    pub(super) silence: Duration,
    /// The client's certificate, if the stream counts on one.
    pub(super) certificate: Option<CertificateLook>,
}

/// The next look at a certificate. It stays due while pieces come, however many.
pub(super) struct CertificateLook {
    pub(super) used: CertificateInUse,
    pub(super) every: Duration,
    pub(super) next: Instant,
}

impl StreamTimes {
    /// When something has to be looked at, if nothing moves any more.
    pub(super) fn wake(&self, moved: Instant) -> Instant {
        let silent = moved + self.silence;
        [Some(silent), self.end, self.next_look()].into_iter().flatten().min().unwrap_or(silent)
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.certificate.as_ref().map(|look| look.next)
    }

    pub(super) fn look_is_due(&self) -> bool {
        self.next_look().is_some_and(|next| Instant::now() >= next)
    }
}

impl From<Box<Error>> for StreamStop {
    fn from(error: Box<Error>) -> Self {
        Self::Failed(error)
    }
}

impl From<StreamEnd> for StreamStop {
    fn from(end: StreamEnd) -> Self {
        Self::Ended(end)
    }
}
