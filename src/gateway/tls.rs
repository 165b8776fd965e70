//! TLS: the certificate, checked before anything listens with it, live after that, and the protocol versions.
//!
//! The one rule: pingora panics on a bad certificate, so it is only ever given one that was loaded and checked here. A
//! renewed pair of files serves new handshakes within a second; a bad or half-written pair leaves the old one in force.
//! Suites: those of Mozilla's intermediate profile, which are all that ring offers.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::listeners::tls::TlsSettings;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::config::{TlsConfig, TlsVersion};
use crate::reload::Signature;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A certificate with its key, ready to be served.
pub(super) type Certificate = Arc<CertifiedKey>;

/// Why a certificate cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// One of the two files cannot be used.
    #[error("{}: {problem}; `{key}` must name {wanted}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// The configuration key that names it.
        key: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// The two do not belong together.
    #[error("{}: is not the key of the certificate in {}; `tls.key` must name the key it was made with", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// pingora does not take the settings.
    #[error("TLS cannot be set up: {0}")]
    Settings(String),
}

/// Loads certificate and key, and checks that they belong together.
///
/// # Errors
/// See [`TlsError`].
pub(super) fn load_certificate(config: &TlsConfig) -> Result<Certificate, TlsError> {
    let chain: Vec<CertificateDer<'static>> =
        pem(&config.certificate, "tls.certificate", "a PEM file with the certificate and its chain", |path| {
            CertificateDer::pem_file_iter(path)?.collect()
        })?;
    let file = |problem: String| TlsError::File {
        path: config.certificate.clone(),
        problem,
        key: "tls.certificate",
        wanted: "a PEM file with the certificate and its chain",
    };
    if chain.is_empty() {
        return Err(file("holds no certificate".into()));
    }
    let key =
        pem(&config.key, "tls.key", "a PEM file with the private key", |path| PrivateKeyDer::from_pem_file(path))?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
    let certified = certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: config.certificate.clone(), key: config.key.clone() }
        }
        other => file(format!("cannot be used ({other})")),
    })?;
    match certified.keys_match() {
        Ok(()) => Ok(Arc::new(certified)),
        Err(_) => Err(TlsError::Mismatch { certificate: config.certificate.clone(), key: config.key.clone() }),
    }
}

fn pem<T>(
    path: &Path,
    key: &'static str,
    wanted: &'static str,
    read: impl FnOnce(&Path) -> Result<T, rustls::pki_types::pem::Error>,
) -> Result<T, TlsError> {
    read(path).map_err(|error| {
        let problem = match error {
            rustls::pki_types::pem::Error::Io(error) => format!("cannot be read ({error})"),
            rustls::pki_types::pem::Error::NoItemsFound => "holds none".into(),
            other => format!("is not PEM ({other})"),
        };
        TlsError::File { path: path.to_owned(), problem, key, wanted }
    })
}

/// Installs the process's cryptography, limited to the suites of the versions that may be spoken.
pub(super) fn install_provider(min_version: TlsVersion) {
    let mut provider = ring::default_provider();
    if min_version == TlsVersion::Tls13 {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    }
    // A second gateway in the same process finds the first one's.
    let _ = CryptoProvider::install_default(provider);
}

/// The certificate that new handshakes are served with.
pub(super) struct Served(ArcSwap<CertifiedKey>);

impl Served {
    pub(super) fn new(certificate: Certificate) -> Arc<Self> {
        Arc::new(Self(ArcSwap::new(certificate)))
    }

    /// Follows the two files; runs until it is dropped.
    pub(super) async fn keep_current(self: Arc<Self>, config: TlsConfig) {
        let mut seen = signatures(&config);
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = signatures(&config);
            if now == seen {
                continue;
            }
            match load_certificate(&config) {
                Ok(certificate) => {
                    self.0.store(certificate);
                    tracing::info!("{}: the renewed certificate serves new connections", config.certificate.display());
                    told.clear();
                }
                Err(fault) if fault.to_string() != told => {
                    told = fault.to_string();
                    tracing::error!("{told}; the last good certificate stays in force");
                }
                Err(_) => {}
            }
            seen = now;
        }
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Certificate> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}

fn signatures(config: &TlsConfig) -> [Option<Signature>; 2] {
    [Signature::of(&config.certificate), Signature::of(&config.key)]
}

/// Settings of one listener.
pub(super) fn settings(certificate: &Arc<Served>) -> Result<TlsSettings, TlsError> {
    let mut settings = TlsSettings::intermediate("", "").map_err(|e| TlsError::Settings(e.to_string()))?;
    settings.set_cert_resolver(Arc::clone(certificate) as Arc<dyn ResolvesServerCert>);
    settings.enable_h2();
    Ok(settings)
}
