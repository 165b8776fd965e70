//! A client's certificate after the handshake: whose it is, and when it was last found good.

use std::sync::{Mutex, Weak};
use std::time::Instant;

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::LoadedTls;

/// What a verified client certificate says of its holder.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// SHA-256 of the whole certificate.
    pub(crate) sha256: [u8; 32],
    /// The common name of its subject, if it has exactly one.
    pub(crate) common_name: Option<String>,
    /// The certificate, then what the client sent with it.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) checked: Mutex<Option<CheckedCertificate>>,
}

/// What was last found out of a certificate.
#[derive(Debug, Clone)]
pub(super) struct CheckedCertificate {
    /// By what. Weak, which still keeps another from being taken for the same.
    pub(super) by: Weak<LoadedTls>,
    pub(super) when: Instant,
    /// Until when it was found good; none where it was refused.
    pub(super) until: Option<UnixTime>,
}

impl ClientCertificate {
    /// Of a chain that the handshake, or one before it, has verified.
    pub(crate) fn new(chain: &[CertificateDer<'static>]) -> Option<Self> {
        let certificate = chain.first()?;
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, certificate);
        let parsed = X509Certificate::from_der(certificate).ok();
        let common_name = parsed.and_then(|(_, certificate)| {
            let mut names = certificate.subject().iter_common_name();
            let name = names.next()?.as_str().ok()?.to_owned();
            names.next().is_none().then_some(name)
        });
        let sha256 = digest.as_ref().try_into().ok()?;
        Some(Self { sha256, common_name, chain: chain.to_vec(), checked: Mutex::default() })
    }
}
