//! Which certificate a database server may present.
//!
//! The one rule: a certificate must be signed by a trusted authority, or be in the operator's file itself. `sslmode`
//! decides what else is verified. An expired certificate is always refused.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use thiserror::Error as ThisError;

use super::DbError;
use crate::config::{CertificateTrust, ConnectionString, PostgresConfig};
use crate::pem;

/// Trusts the authorities in the operator's file; without a file, the system's.
///
/// # Errors
/// [`DbError::Settings`]: the file cannot be read, or holds no usable certificate.
pub(super) fn server_verifier(
    config: &PostgresConfig,
    read: &ConnectionString,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, DbError> {
    let asked = read.trust;
    let written = if read.authorities.is_some() { AuthoritiesKey::Parameter } else { AuthoritiesKey::File };
    let (mut roots, mut named) = (RootCertStore::empty(), Vec::new());
    match &config.ca_file {
        Some(file) => {
            let unusable = |problem: String| written.unusable(file, &problem);
            named = pem::certificates(file).map_err(unusable)?;
            if roots.add_parsable_certificates(named.clone()) == (0, named.len()) {
                return Err(unusable("holds no usable certificate".into()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().unwrap_or_default());
        }
    }
    if roots.is_empty() {
        return Ok(Arc::new(NobodyTrusted(provider)));
    }
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let authorities = authorities.map_err(|error| DbError::Settings { key: "ca_file", problem: error.to_string() })?;
    Ok(Arc::new(ServerTrust { authorities, named, asked }))
}

/// The key by which the operator has named the file of authorities.
#[derive(Debug, Clone, Copy)]
enum AuthoritiesKey {
    /// `store.ca_file`.
    File,
    /// `sslrootcert` of the connection string.
    Parameter,
}

impl AuthoritiesKey {
    /// Why a file is unusable, with the key that the operator knows.
    fn unusable(self, file: &Path, problem: &str) -> DbError {
        let (key, named) = match self {
            Self::File => ("ca_file", "names"),
            Self::Parameter => ("uri", "names, as `sslrootcert`,"),
        };
        let remedy = "put the authority's certificate there as PEM";
        DbError::Settings { key, problem: format!("{named} `{}`, which {problem}; {remedy}", file.display()) }
    }
}

/// Verifies the certificate of a server.
#[derive(Debug)]
pub(super) struct ServerTrust {
    authorities: Arc<WebPkiServerVerifier>,
    /// The certificates in the operator's file, which may include the server's own.
    named: Vec<CertificateDer<'static>>,
    asked: CertificateTrust,
}

impl ServerTrust {
    fn is_named(&self, certificate: &CertificateDer<'_>) -> bool {
        self.named.iter().any(|named| named.as_ref() == certificate.as_ref())
    }

    /// Whether a refused certificate is accepted after all.
    fn is_taken(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>, fault: &CertificateError) -> bool {
        let is_named = self.is_named(certificate);
        match fault {
            // Signature and dates were verified before this fault.
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => match self.asked {
                CertificateTrust::Authority => true,
                CertificateTrust::Usual => is_named,
                CertificateTrust::Full => false,
            },
            // `openssl req -x509` marks its certificates as authorities. The dates were verified before this fault.
            CertificateError::Other(other) if is_named && is_authority(other) => match self.asked {
                CertificateTrust::Authority | CertificateTrust::Usual => true,
                CertificateTrust::Full => webpki::EndEntityCert::try_from(certificate)
                    .is_ok_and(|parsed| parsed.verify_is_valid_for_subject_name(name).is_ok()),
            },
            _ => false,
        }
    }
}

fn is_authority(other: &rustls::OtherError) -> bool {
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

impl ServerCertVerifier for ServerTrust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.authorities.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(fault)) if self.is_taken(certificate, name, &fault) => {
                Ok(ServerCertVerified::assertion())
            }
            // The operator's file holds the certificate, so only its name can be wrong.
            Err(Error::InvalidCertificate(CertificateError::Other(other)))
                if is_authority(&other) && self.is_named(certificate) =>
            {
                Err(CertificateError::NotValidForName.into())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Trusts no certificate: the system has no authorities, and the operator has named none. Plain connections need none.
#[derive(Debug)]
struct NobodyTrusted(Arc<CryptoProvider>);

impl ServerCertVerifier for NobodyTrusted {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(CertificateError::UnknownIssuer.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a server's certificate was refused, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub(super) enum UntrustedServer {
    /// No trusted authority signed it.
    #[error(
        "the server's certificate is signed by no trusted authority: name the authority's certificate, or the \
         server's own where it signed itself, in `store.ca_file` or by `sslrootcert` in `store.uri`"
    )]
    Unknown,
    /// It is for another host.
    #[error(
        "the server's certificate is for another name than that in `store.uri`: name the host as the certificate \
         does, or ask only for its authority with `sslmode=verify-ca`"
    )]
    OtherName,
    /// It has expired.
    #[error("the server's certificate has expired: renew it, or look at the clock of this machine")]
    Expired,
    /// It is marked as an authority's.
    #[error(
        "the server's certificate is that of an authority, which serves only where `store.ca_file` (or \
         `sslrootcert`) holds it itself"
    )]
    Authority,
    /// The server does not speak TLS.
    #[error("the server does not speak TLS, which `sslmode` in `store.uri` asks for")]
    NoTls,
    /// Another reason.
    #[error("the server's certificate is refused ({0})")]
    Other(String),
}

impl UntrustedServer {
    /// The reason in a TLS fault, if the certificate is the reason.
    pub(super) fn of(error: &Error) -> Option<Self> {
        let Error::InvalidCertificate(fault) = error else { return None };
        Some(match fault {
            CertificateError::UnknownIssuer => Self::Unknown,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::OtherName,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::Other(other) if is_authority(other) => Self::Authority,
            other => Self::Other(other.to_string()),
        })
    }
}
