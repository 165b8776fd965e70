//! The version of HTTP that streams use with an upstream.
//!
//! The one rule: an upstream that answers HTTP/2 in another language gets HTTP/1.1 for a while, and is tried again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long such an upstream gets HTTP/1.1.
const HTTP1_FOR: Duration = Duration::from_secs(60);

/// The version of one upstream.
pub(super) struct StreamVersion {
    http2: bool,
    http1_until: Mutex<Option<Instant>>,
}

impl StreamVersion {
    pub(super) fn new(http2: bool) -> Self {
        Self { http2, http1_until: Mutex::default() }
    }

    /// Whether it is HTTP/2 now.
    pub(super) fn is_http2(&self) -> bool {
        let until = *self.http1_until.lock().unwrap_or_else(PoisonError::into_inner);
        self.http2 && until.is_none_or(|until| Instant::now() >= until)
    }

    /// Notes that it is HTTP/1.1; true for the first time.
    pub(super) fn becomes_http1(&self) -> bool {
        let mut until = self.http1_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.replace(Instant::now() + HTTP1_FOR).is_none()
    }
}
