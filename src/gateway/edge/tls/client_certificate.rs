//! A client's certificate after the handshake: its holder, and its last verification.

use std::sync::{Mutex, Weak};
use std::time::Instant;

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::LoadedTls;

/// The facts of a verified client certificate.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// SHA-256 of the whole certificate.
    pub(crate) sha256: [u8; 32],
    /// The common name of its subject, if it has exactly one.
    pub(crate) common_name: Option<String>,
    /// The certificate, then those that the client sent with it.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) checked: Mutex<Option<CheckedCertificate>>,
}

/// The result of the last verification.
#[derive(Debug, Clone)]
pub(super) struct CheckedCertificate {
    /// The settings that verified it. Weak, but it still keeps the address from being reused, so that no other
    /// settings compare equal.
    pub(super) by: Weak<LoadedTls>,
    pub(super) when: Instant,
    /// The end of its validity; none if it was refused.
    pub(super) until: Option<UnixTime>,
}

impl ClientCertificate {
    /// Takes a chain that the handshake, or that of the resumed session, has verified.
    pub(crate) fn new(chain: &[CertificateDer<'static>]) -> Option<Self> {
        let certificate = chain.first()?;
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, certificate);
        let parsed = X509Certificate::from_der(certificate).ok();
        let common_name = parsed.and_then(|(_, certificate)| {
            let mut names = certificate.subject().iter_common_name();
            let name = names.next()?.as_str().ok()?.to_owned();
            // Two common names have no single reading as an account, so neither counts.
            names.next().is_none().then_some(name)
        });
        let sha256 = digest.as_ref().try_into().ok()?;
        Some(Self { sha256, common_name, chain: chain.to_vec(), checked: Mutex::default() })
    }
}
