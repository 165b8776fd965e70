//! TLS: certificates by name, client certificates, versions, and all of it live while the gateway runs.
//!
//! The one rule: what is served was loaded and checked whole. Each pair of certificate and key, the authorities of clients
//! and their revocation lists are parts of their own: a renewed one serves new handshakes within a second, a bad or
//! half-written one leaves its last good content in force and every other part alone. Suites and groups are those of
//! Mozilla's intermediate profile, version 5.7, less its one suite without elliptic curves; there is no early data, no
//! renegotiation and no compression.

mod error;
mod signed;
mod chain;
mod pairs;
mod authorities;
mod list_file;
mod lists;
mod verifier;
mod refused;
mod holder;
mod alarms;
mod held;
mod follow;
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
pub use error::TlsError;
use error::file_fault;
use fedgate_base::config::{ClientCertificates, TlsConfig, TlsVersion};
use fedgate_base::pem;
pub use findings::CertificateFinding;
use follow::SeenFiles;
pub use held::CertificateFile;
pub(crate) use held::{CertificateUse, HeldFile};
use holder::CheckedCertificate;
pub(crate) use holder::ClientCertificate;
use lists::RevocationLists;
use pairs::ByName;
use refused::RefusalLog;
pub(crate) use refused::{RefusedCertificate, noting};
use verifier::{ClientVerifier, seconds};

/// How long a client certificate that was found good counts as such, while no file changes.
const TRUSTED_FOR: Duration = Duration::from_secs(60);

/// What new handshakes are served with.
pub(crate) struct ServedTls {
    current: ArcSwap<LoadedTls>,
    config: TlsConfig,
    parts: Mutex<TlsParts>,
    /// What the files held when this was made.
    read: Vec<(TlsPart, SeenFiles)>,
    faults: AlarmBoard<TlsPart>,
    ahead: AlarmBoard<TlsPart>,
    refusals: RefusalLog,
}

/// What is loaded together, and apart from the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TlsPart {
    /// A certificate and its key, by its place in the configuration.
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

/// What the parts make together.
#[derive(Debug)]
struct LoadedTls {
    server: Arc<ServerConfig>,
    clients: Option<Arc<ClientVerifier>>,
}

impl ServedTls {
    /// Loads what the configuration names.
    ///
    /// # Errors
    /// Everything that is wrong.
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

    /// Whether nobody is served without a certificate.
    pub(crate) fn requires_certificates(&self) -> bool {
        self.config.client_certificates == ClientCertificates::Required
    }

    /// What is wrong with the files now.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.all()
    }

    /// What soon will be.
    pub(crate) fn ahead(&self) -> Vec<String> {
        self.ahead.all()
    }

    /// Whether the certificate of an open connection is one that would be taken now: not expired, nor revoked since. A
    /// resumed session is not asked for it again, nor is a connection that lasts.
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
        if let Some(last) = checked.as_ref().filter(|last| last.by.ptr_eq(&by))
            && when.saturating_duration_since(last.when) < TRUSTED_FOR
        {
            match last.until {
                Some(until) if time <= until => return true,
                // It has ended since.
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

    /// Tells of a certificate that a handshake has refused.
    pub(crate) fn refuses(&self, client: IpAddr, refused: &RefusedCertificate, metrics: &GatewayMetrics) {
        self.refusals.tell(Some(client), refused, metrics);
    }

    /// The authorities in force, to be compared.
    fn authorities(&self) -> Weak<AuthorityFile> {
        self.parts().authorities.as_ref().map(Arc::downgrade).unwrap_or_default()
    }

    fn parts(&self) -> MutexGuard<'_, TlsParts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TlsPart {
    /// Each part of a configuration, in the order in which they are loaded first: lists are verified with authorities.
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

    /// What is wrong with one of its files.
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

    /// Puts what its files hold into its place among the parts; on a fault the parts are as they were.
    fn load(self, config: &TlsConfig, parts: &mut TlsParts, contents: &[Zeroizing<Vec<u8>>]) -> Result<(), TlsError> {
        let content = |at: usize| contents.get(at).map(|bytes| bytes.as_slice()).unwrap_or_default();
        let fault = |problem| self.fault(config, 0, problem);
        match self {
            Self::Pair(at) => {
                let Some(names) = config.certificates.get(at) else { return Ok(()) };
                let loaded = pairs::load(names, content(0), content(1))?;
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

    /// What handshakes are served with.
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
        let by_name = ByName::new(&self.pairs).ok_or_else(|| TlsError::Settings("there is no certificate".into()))?;
        let mut server = builder.with_cert_resolver(Arc::new(by_name));
        // What is not HTTP/2 is read as HTTP/1, of the version that its request line names.
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        // Keys of its own: a session that was begun with other certificates is not resumed.
        server.ticketer = ring::Ticketer::new().map_err(settings)?;
        Ok(LoadedTls { server: Arc::new(server), clients })
    }
}

/// The process's cryptography, limited to the suites of the versions that may be spoken.
fn provider(min_version: TlsVersion) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if min_version == TlsVersion::Tls13 {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    }
    provider
}

/// The moment that dates are compared with, in seconds since 1970.
pub(crate) fn now() -> i64 {
    seconds(UnixTime::now())
}

/// Installs the cryptography that connections to upstreams and to PostgreSQL take.
pub(crate) fn install_provider() {
    // A second gateway in the same process finds the first one's.
    let _ = CryptoProvider::install_default(ring::default_provider());
}

#[cfg(test)]
mod tests;
