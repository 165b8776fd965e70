//! The log of refused client certificates: address, certificate, and reason.
//!
//! The one rule: each line is bounded, and so is the number of lines, so that a client that keeps trying fills no
//! disk. Certificate fields reach a terminal as plain text only.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::observe::GatewayMetrics;
use fedgate_base::pem::shown;

/// Most lines in a window, and its length.
const MOST_LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

tokio::task_local! {
    /// The certificate that the handshake of this task has refused.
    static NOTED: RefCell<Option<RefusedCertificate>>;
}

/// A certificate that was refused.
#[derive(Debug)]
pub(crate) struct RefusedCertificate {
    subject: String,
    sha256: String,
    reason: String,
}

impl RefusedCertificate {
    pub(super) fn new(certificate: &CertificateDer<'_>, reason: String) -> Self {
        let parsed = X509Certificate::from_der(certificate).ok();
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, certificate);
        Self {
            subject: parsed.map_or_else(String::new, |(_, certificate)| shown(certificate.subject())),
            sha256: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            reason,
        }
    }
}

/// Notes a certificate that the handshake of this task refuses.
pub(super) fn note(certificate: &CertificateDer<'_>, reason: String) {
    // Outside of a handshake, as in tests, there is nothing to note it for.
    let _ = NOTED.try_with(|noted| *noted.borrow_mut() = Some(RefusedCertificate::new(certificate, reason)));
}

/// Runs a handshake; returns its result and the certificate that it refused, if any.
pub(crate) async fn noting<T>(handshake: impl Future<Output = T>) -> (T, Option<RefusedCertificate>) {
    let noting = async {
        let made = handshake.await;
        (made, NOTED.with(RefCell::take))
    };
    NOTED.scope(RefCell::default(), noting).await
}

/// Logs refused certificates.
pub(super) struct RefusalLog(Mutex<NoticeWindow>);

/// The count of log lines in a window, and of those left out.
struct NoticeWindow {
    began: Instant,
    lines: u32,
    untold: u64,
}

impl RefusalLog {
    pub(super) fn new() -> Self {
        Self(Mutex::new(NoticeWindow { began: Instant::now(), lines: 0, untold: 0 }))
    }

    /// Counts a refusal, and logs it if the window has room.
    pub(super) fn tell(&self, client: Option<IpAddr>, refused: &RefusedCertificate, metrics: &GatewayMetrics) {
        // Counted before the bound on lines, so that metrics show the whole of a flood.
        metrics.connections.certificates_refused.inc();
        let Some(untold) = self.room(Instant::now()) else { return };
        let client = client.map(tracing::field::display);
        let RefusedCertificate { subject, sha256, reason } = refused;
        tracing::warn!(client, subject, sha256, reason, untold, "a client certificate is refused");
    }

    /// Takes room for a line, if there is any; returns the number of lines left out before it.
    fn room(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.began) >= WINDOW {
            (window.began, window.lines) = (now, 0);
        }
        if window.lines >= MOST_LINES {
            window.untold += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_in_a_window_and_what_was_left_out_is_counted() {
        let log = RefusalLog::new();
        let began = Instant::now();
        let told = (0..100).filter(|_| log.room(began).is_some()).count();
        assert_eq!(told, MOST_LINES as usize);
        assert_eq!(log.room(began + WINDOW), Some(100 - u64::from(MOST_LINES)));
        assert_eq!(log.room(began + WINDOW), Some(0));
    }
}
