//! TLS with servers: whose certificates to believe, and which certificate to present.
//!
//! The one rule: pingora is always given a name to verify; without one it verifies nothing. It panics on material
//! that it cannot use, so it receives only what was loaded and checked here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use crate::gateway::edge::tls::{CertificateUse, LoadedCertificates};
use fedgate_base::config::{UpstreamConfig, UpstreamTlsConfig};
use fedgate_base::pem::{self, HeldCertificate};

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

/// The authorities and the client certificate of one upstream.
#[derive(Default)]
pub(super) struct UpstreamTrust {
    pub(super) authorities: Option<Arc<CaType>>,
    pub(super) identity: Option<Arc<CertKey>>,
    /// The certificates in its files.
    pub(super) held: Vec<LoadedCertificates>,
}

impl UpstreamTrust {
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
        let held = |key: &str, path: &Path, holding, certificates: &[CertificateDer<'_>]| LoadedCertificates {
            key: format!("upstream.{}.tls.{key}", config.name),
            path: path.to_owned(),
            holding,
            certificates: HeldCertificate::all(certificates),
        };
        if let Some(file) = ca_file {
            let fault = |problem| fault(file, problem, "ca_file", "a PEM file with the authorities' certificates");
            let certificates = certificates(file).map_err(fault)?;
            pem::authorities(&certificates).map_err(fault)?;
            trust.held.push(held("ca_file", file, CertificateUse::Authorities, &certificates));
            let wrapped = certificates.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509));
            trust.authorities = Some(Arc::from(wrapped.collect::<Vec<_>>()));
        }
        if let Some(identity) = identity {
            let chain_fault = |problem| {
                fault(&identity.certificate, problem, "certificate", "a PEM file with a certificate and its chain")
            };
            let key_fault = |problem| fault(&identity.key, problem, "key", "the private key of `certificate`, in PEM");
            let chain = certificates(&identity.certificate).map_err(chain_fault)?;
            let key = pem::key(&identity.key).map_err(key_fault)?;
            // A key that everybody on the machine can read is refused.
            if let Some(fault) = identity.exposure.fault(&identity.key) {
                return Err(key_fault(fault));
            }
            pem::certified(chain.clone(), key.clone_key())
                .map_err(|error| key_fault(format!("does not fit ({error})")))?;
            trust.held.push(held("certificate", &identity.certificate, CertificateUse::Chain, &chain));
            let chain = chain.into_iter().map(|der| der.to_vec()).collect();
            trust.identity = Some(Arc::new(CertKey::new(chain, key.secret_der().to_vec())));
        }
        Ok(trust)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = pem::certificates(file)?;
    // pingora would panic on an unreadable certificate.
    match certificates.iter().find_map(|der| rustls::server::ParsedCertificate::try_from(der).err()) {
        Some(error) => Err(format!("holds a certificate that cannot be read ({error})")),
        None => Ok(certificates),
    }
}
