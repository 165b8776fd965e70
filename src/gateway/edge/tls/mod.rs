//! TLS settings: certificates by name, client certificates and versions, reloaded while the gateway runs. The
//! handshake itself is in [`handshake`].
//!
//! The one rule: only content that was loaded and checked whole is served. Each pair of certificate and key, the
//! authorities of clients, and their revocation lists are separate parts. A renewed part serves new handshakes
//! within a second. If a part is bad or half-written, its last good content stays in force, and other parts are
//! not affected. Suites and groups are those of Mozilla's intermediate profile, version 5.7, without its one suite
//! that has no elliptic curves; there is no early data, no renegotiation and no compression.

pub(crate) mod handshake;
mod error;
mod signatures;
mod server_chain;
mod key_pairs;
mod authorities;
mod revocation_file;
mod revocation;
mod client_verifier;
mod refusal_log;
mod client_certificate;
mod alarms;
mod certificate_file;
mod reload;
mod findings;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::observe::GatewayMetrics;
pub(crate) use alarms::{AlarmBoard, AlarmTone};
use authorities::AuthorityFile;
pub use certificate_file::CertificateFile;
pub(crate) use certificate_file::{CertificateUse, LoadedCertificates};
use client_certificate::CheckedCertificate;
pub(crate) use client_certificate::ClientCertificate;
use client_verifier::{ClientVerifier, seconds};
pub use error::TlsError;
use error::file_fault;
use fedgate_base::config::{ClientCertificates, TlsConfig, TlsVersion};
use fedgate_base::pem;
pub use findings::CertificateFinding;
use key_pairs::CertificatesByName;
use refusal_log::RefusalLog;
pub(crate) use refusal_log::{RefusedCertificate, noting};
use reload::SeenFiles;
use revocation::RevocationLists;

/// How long a verified client certificate counts without another verification, while no file changes.
const TRUSTED_FOR: Duration = Duration::from_secs(60);

/// The settings of new handshakes.
pub(crate) struct ServedTls {
    current: ArcSwap<LoadedTls>,
    config: TlsConfig,
    parts: Mutex<TlsParts>,
    /// The state of the files when this was loaded.
    read: Vec<(TlsPart, SeenFiles)>,
    faults: AlarmBoard<TlsPart>,
    ahead: AlarmBoard<TlsPart>,
    refusals: RefusalLog,
}

/// A part: loaded as one, and apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TlsPart {
    /// A certificate and its key, by their place in the configuration.
    Pair(usize),
    Authorities,
    Lists,
}

/// The last good content of each part.
#[derive(Clone, Default)]
struct TlsParts {
    pairs: Vec<Arc<CertifiedKey>>,
    authorities: Option<Arc<AuthorityFile>>,
    lists: Option<Arc<RevocationLists>>,
}

/// The settings that the parts make together.
#[derive(Debug)]
struct LoadedTls {
    server: Arc<ServerConfig>,
    clients: Option<Arc<ClientVerifier>>,
}

impl ServedTls {
    /// Loads the files that the configuration names.
    ///
    /// # Errors
    /// All faults that were found.
    pub(crate) fn load(config: &TlsConfig) -> Result<Arc<Self>, Vec<TlsError>> {
        let (mut parts, mut read, mut faults) = (TlsParts::default(), vec![], vec![]);
        for part in TlsPart::all(config) {
            let seen = SeenFiles::read(&part.files(config)).map_err(|(at, problem)| part.fault(config, at, problem));
            match seen.and_then(|(seen, contents)| part.load(config, &mut parts, &contents).map(|()| seen)) {
                Ok(seen) => read.push((part, seen)),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(parts.together(config).map_err(|fault| vec![fault])?),
            config: config.clone(),
            parts: Mutex::new(parts),
            read,
            faults: AlarmBoard::new(AlarmTone::Fault),
            ahead: AlarmBoard::new(AlarmTone::Ahead),
            refusals: RefusalLog::new(),
        }))
    }

    /// The settings of a handshake that begins now.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// Whether a client needs a certificate to be served.
    pub(crate) fn requires_certificates(&self) -> bool {
        self.config.client_certificates == ClientCertificates::Required
    }

    /// The faults of the files now.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.all()
    }

    /// The faults that will come soon, such as an expiry.
    pub(crate) fn ahead(&self) -> Vec<String> {
        self.ahead.all()
    }

    /// Whether the certificate of an open connection would be accepted now: not expired, and not revoked since.
    /// Neither a resumed session nor a long connection is asked for its certificate again.
    ///
    /// Cost: the verification of a chain when the files have changed, and once a minute; a lock otherwise.
    pub(crate) fn still_trusts(
        &self,
        certificate: &ClientCertificate,
        client: Option<IpAddr>,
        metrics: &GatewayMetrics,
    ) -> bool {
        let loaded = self.current.load_full();
        let Some(verifier) = &loaded.clients else { return false };
        let (by, when, time) = (Arc::downgrade(&loaded), Instant::now(), UnixTime::now());
        let mut checked = certificate.checked.lock().unwrap_or_else(PoisonError::into_inner);
        // The last result counts only for the same files and for a minute; the clock may have passed an end since.
        if let Some(last) = checked.as_ref().filter(|last| last.by.ptr_eq(&by))
            && when.saturating_duration_since(last.when) < TRUSTED_FOR
        {
            match last.until {
                Some(until) if time <= until => return true,
                // A certificate of its path has expired since, so it is verified again.
                Some(_) => {}
                None => return false,
            }
        }
        let Some((leaf, sent)) = certificate.chain.split_first() else { return false };
        let verified = verifier.verify(leaf, sent, time);
        if let Err(distrust) = &verified {
            let refused = RefusedCertificate::new(leaf, distrust.reason.clone());
            self.refusals.tell(client, &refused, metrics);
        }
        let until = verified.ok();
        *checked = Some(CheckedCertificate { by, when, until });
        until.is_some()
    }

    /// Logs a certificate that a handshake has refused.
    pub(crate) fn refuses(&self, client: IpAddr, refused: &RefusedCertificate, metrics: &GatewayMetrics) {
        self.refusals.tell(Some(client), refused, metrics);
    }

    /// The authorities in force, for comparison only.
    fn authorities(&self) -> Weak<AuthorityFile> {
        self.parts().authorities.as_ref().map(Arc::downgrade).unwrap_or_default()
    }

    fn parts(&self) -> MutexGuard<'_, TlsParts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TlsPart {
    /// Each part of a configuration, in the order of the first load: lists are verified with the authorities.
    fn all(config: &TlsConfig) -> Vec<Self> {
        let asked = config.client_certificates != ClientCertificates::Off;
        let pairs = (0..config.certificates.len()).map(Self::Pair);
        let lists = asked && config.client_crl.is_some();
        pairs.chain(asked.then_some(Self::Authorities)).chain(lists.then_some(Self::Lists)).collect()
    }

    fn files(self, config: &TlsConfig) -> Vec<&Path> {
        match self {
            Self::Pair(at) => match config.certificates.get(at) {
                Some(pair) => vec![&pair.certificate, &pair.key],
                None => vec![],
            },
            Self::Authorities => vec![&config.client_ca],
            Self::Lists => config.client_crl.as_deref().into_iter().collect(),
        }
    }

    /// The fault of one of its files.
    fn fault(self, config: &TlsConfig, at: usize, problem: String) -> TlsError {
        let (key, wanted) = match (self, at) {
            (Self::Pair(_), 0) => ("tls.certificate", "a PEM file with the certificate and its chain"),
            (Self::Pair(_), _) => ("tls.key", "a PEM file with the private key"),
            (Self::Authorities, _) => {
                ("tls.client_ca", "a PEM file with the certificates of the authorities of clients")
            }
            (Self::Lists, _) => {
                ("tls.client_crl", "a file with the revocation lists of those authorities, in PEM, or one in DER")
            }
        };
        let files = self.files(config);
        file_fault(files.get(at).copied().unwrap_or(Path::new("")), key, wanted)(problem)
    }

    /// Puts the content of its files into its place among the parts; on a fault the parts stay as they were.
    fn load(self, config: &TlsConfig, parts: &mut TlsParts, contents: &[Zeroizing<Vec<u8>>]) -> Result<(), TlsError> {
        let content = |at: usize| contents.get(at).map(|bytes| bytes.as_slice()).unwrap_or_default();
        let fault = |problem| self.fault(config, 0, problem);
        match self {
            Self::Pair(at) => {
                let Some(names) = config.certificates.get(at) else { return Ok(()) };
                let loaded = key_pairs::load(names, content(0), content(1))?;
                match parts.pairs.get_mut(at) {
                    Some(pair) => *pair = loaded,
                    None => parts.pairs.push(loaded),
                }
            }
            Self::Authorities => {
                let found = pem::certificates_in(content(0)).and_then(|found| AuthorityFile::new(&found));
                parts.authorities = Some(Arc::new(found.map_err(fault)?));
            }
            Self::Lists => {
                let Some(authorities) = &parts.authorities else { return Ok(()) };
                let (before, unknown) = (parts.lists.as_deref(), config.client_crl_unknown_issuer);
                let lists = RevocationLists::take(content(0), authorities, before, unknown).map_err(fault)?;
                parts.lists = Some(Arc::new(lists));
            }
        }
        Ok(())
    }
}

impl TlsParts {
    /// Takes one part from others.
    fn replace(&mut self, part: TlsPart, mut others: Self) {
        match part {
            TlsPart::Pair(at) => {
                if let (Some(pair), Some(new)) = (self.pairs.get_mut(at), others.pairs.get_mut(at)) {
                    std::mem::swap(pair, new);
                }
            }
            TlsPart::Authorities => self.authorities = others.authorities,
            TlsPart::Lists => self.lists = others.lists,
        }
    }

    /// The settings of handshakes.
    fn together(&self, config: &TlsConfig) -> Result<LoadedTls, TlsError> {
        let provider = Arc::new(provider(config.min_version));
        let settings = |error: rustls::Error| TlsError::Settings(error.to_string());
        let versions: &[_] = match config.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
        let builder = builder.map_err(settings)?;
        let clients = self.authorities.clone().map(|authorities| {
            let algorithms = provider.signature_verification_algorithms;
            Arc::new(ClientVerifier::new(config, authorities, self.lists.clone(), algorithms))
        });
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier) as Arc<dyn ClientCertVerifier>),
            None => builder.with_no_client_auth(),
        };
        let by_name =
            CertificatesByName::new(&self.pairs).ok_or_else(|| TlsError::Settings("there is no certificate".into()))?;
        let mut server = builder.with_cert_resolver(Arc::new(by_name));
        // Without `h2`, the stream is read as HTTP/1, in the version that its request line names.
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        // New ticket keys with every change: a session that began under other certificates, or under other
        // revocation lists, is not resumed.
        server.ticketer = ring::Ticketer::new().map_err(settings)?;
        Ok(LoadedTls { server: Arc::new(server), clients })
    }
}

/// The process's cryptography, limited to the suites of the allowed versions.
fn provider(min_version: TlsVersion) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if min_version == TlsVersion::Tls13 {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    }
    provider
}

/// The time that dates are compared with, in seconds since 1970.
pub(crate) fn now() -> i64 {
    seconds(UnixTime::now())
}

/// Installs the cryptography for connections to upstreams and to PostgreSQL.
pub(crate) fn install_provider() {
    // A second gateway in the same process finds that of the first.
    let _ = CryptoProvider::install_default(ring::default_provider());
}

#[cfg(test)]
mod tests;
