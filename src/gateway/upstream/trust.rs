//! TLS with servers: whom to believe, and as whom to appear.
//!
//! pingora panics on material it cannot use, so it is only ever given what was loaded and checked here. It also verifies
//! nothing where it is given no name; the one rule is that it always is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::config::{UpstreamConfig, UpstreamTlsConfig};

/// Why a file that TLS with an upstream needs cannot be used.
#[derive(Debug, Error)]
#[error("{}: {problem}; `upstream.{upstream}.tls.{key}` must name {wanted}", .file.display())]
pub struct TrustError {
    upstream: String,
    file: PathBuf,
    problem: String,
    key: &'static str,
    wanted: &'static str,
}

/// Whom to believe, and as whom to appear.
#[derive(Default)]
pub(super) struct Trust {
    pub(super) authorities: Option<Arc<CaType>>,
    pub(super) identity: Option<Arc<CertKey>>,
}

impl Trust {
    /// Loads and checks the files of one upstream.
    pub(super) fn load(config: &UpstreamConfig) -> Result<Self, TrustError> {
        let UpstreamTlsConfig { ca_file, identity, server_name: _ } = &config.tls;
        let fault = |file: &Path, problem: String, key, wanted| TrustError {
            upstream: config.name.clone(),
            file: file.to_owned(),
            problem,
            key,
            wanted,
        };
        let mut trust = Self::default();
        if let Some(file) = ca_file {
            let fault = |problem| fault(file, problem, "ca_file", "a PEM file with the authorities' certificates");
            let certificates = certificates(file).map_err(fault)?;
            let mut store = RootCertStore::empty();
            for certificate in &certificates {
                store.add(certificate.clone()).map_err(|error| fault(format!("cannot be used ({error})")))?;
            }
            let wrapped = certificates.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509));
            trust.authorities = Some(Arc::from(wrapped.collect::<Vec<_>>()));
        }
        if let Some(identity) = identity {
            let chain_fault = |problem| {
                fault(&identity.certificate, problem, "certificate", "a PEM file with a certificate and its chain")
            };
            let key_fault = |problem| fault(&identity.key, problem, "key", "the private key of `certificate`, in PEM");
            let chain = certificates(&identity.certificate).map_err(chain_fault)?;
            let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|error| key_fault(described(&error)))?;
            let certified = CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider())
                .map_err(|error| key_fault(format!("does not fit ({error})")))?;
            certified.keys_match().map_err(|error| key_fault(format!("does not fit ({error})")))?;
            let chain = chain.into_iter().map(|der| der.to_vec()).collect();
            trust.identity = Some(Arc::new(CertKey::new(chain, key.secret_der().to_vec())));
        }
        Ok(trust)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = || -> Result<Vec<_>, rustls::pki_types::pem::Error> { CertificateDer::pem_file_iter(file)?.collect() };
    let certificates = read().map_err(|error| described(&error))?;
    if certificates.is_empty() {
        return Err("holds no certificate".into());
    }
    // What pingora would panic on.
    match certificates.iter().find_map(|der| rustls::server::ParsedCertificate::try_from(der).err()) {
        Some(error) => Err(format!("holds a certificate that cannot be read ({error})")),
        None => Ok(certificates),
    }
}

fn described(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => format!("cannot be read ({error})"),
        rustls::pki_types::pem::Error::NoItemsFound => "holds none".into(),
        other => format!("is not PEM ({other})"),
    }
}
