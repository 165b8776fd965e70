//! TLS: certificates by name, client certificates, versions, and all of it live while the gateway runs.
//!
//! The one rule: what is served was loaded and checked whole. Renewed files serve new handshakes within a second; a bad or
//! half-written set leaves the old one in force. Suites and groups are those of Mozilla's intermediate profile, version
//! 5.7, less its one suite without elliptic curves; there is no early data, no renegotiation and no compression.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::{CertificateConfig, ClientCertificates, TlsConfig, TlsVersion};
use crate::pem;
use crate::reload::{Signature, on_disk};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a client certificate that was found good counts as such, while no file changes.
const TRUSTED_FOR: Duration = Duration::from_secs(60);

/// Why a certificate cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be used.
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
    /// A certificate and a key do not belong together.
    #[error("{}: is not the key of the certificate in {}; `tls.key` must name the key it was made with", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// rustls does not take the settings.
    #[error("TLS cannot be set up: {0}")]
    Settings(String),
}

/// What new handshakes are served with.
pub(super) struct Tls {
    current: ArcSwap<Loaded>,
    config: TlsConfig,
    /// The files as they were before they were read.
    read: Vec<Option<Signature>>,
}

/// What was loaded together.
struct Loaded {
    server: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// Loads what the configuration names.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(super) fn load(config: &TlsConfig) -> Result<Arc<Self>, TlsError> {
        let read = signatures(config);
        Ok(Arc::new(Self { current: ArcSwap::from_pointee(load(config)?), config: config.clone(), read }))
    }

    /// The settings of a handshake that begins now.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().server)
    }

    /// Whether the certificate of an open connection is one that would be taken now: not expired, nor revoked since. A
    /// resumed session is not asked for it again, nor is a connection that lasts.
    ///
    /// Cost: the verification of a chain when the files have changed, and once a minute; a lock otherwise.
    pub(super) fn still_trusts(&self, certificate: &ClientCertificate) -> bool {
        let loaded = self.current.load_full();
        let Some(verifier) = &loaded.clients else { return false };
        let (by, now) = (Arc::downgrade(&loaded), Instant::now());
        let mut checked = certificate.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |when: Instant| now.saturating_duration_since(when) < TRUSTED_FOR;
        if checked.as_ref().is_some_and(|(known, when)| known.ptr_eq(&by) && is_recent(*when)) {
            return true;
        }
        let Some((leaf, intermediates)) = certificate.chain.split_first() else { return false };
        let trusted = verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).is_ok();
        *checked = trusted.then_some((by, now));
        trusted
    }

    /// Follows the files; runs until it is dropped.
    pub(super) async fn keep_current(self: Arc<Self>) {
        let mut seen = self.read.clone();
        let mut told = String::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let (tls, known) = (Arc::clone(&self), seen.clone());
            let look = move || {
                let now = signatures(&tls.config);
                (now != known).then(|| load(&tls.config).map(|loaded| (now, loaded)))
            };
            let hangs = || tracing::error!("the files of the certificates do not answer, their file system hangs");
            match on_disk(look, hangs).await {
                Ok(None) => {
                    if !std::mem::take(&mut told).is_empty() {
                        tracing::info!("the files of the certificates are again those in force");
                    }
                }
                Ok(Some(Ok((now, loaded)))) => {
                    self.current.store(Arc::new(loaded));
                    // A load that failed is tried again: what kept it may have been of the moment.
                    seen = now;
                    let first = self.config.certificates.first().map(|pair| pair.certificate.display().to_string());
                    tracing::info!("{}: the renewed certificates serve new connections", first.unwrap_or_default());
                    told.clear();
                }
                Ok(Some(Err(fault))) if fault.to_string() != told => {
                    told = fault.to_string();
                    tracing::error!("{told}; the last good certificate stays in force");
                }
                Ok(Some(Err(_))) | Err(_) => {}
            }
        }
    }
}

fn signatures(config: &TlsConfig) -> Vec<Option<Signature>> {
    config.files().iter().map(|file| Signature::of(file)).collect()
}

fn load(config: &TlsConfig) -> Result<Loaded, TlsError> {
    let provider = Arc::new(provider(config.min_version));
    let settings = |error: rustls::Error| TlsError::Settings(error.to_string());
    let versions: &[_] = match config.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions);
    let builder = builder.map_err(settings)?;
    let clients = client_verifier(config, &provider)?;
    let builder = match &clients {
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(ByName::load(config)?));
    // What is not HTTP/2 is read as HTTP/1, of the version that its request line names.
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    server.ticketer = ring::Ticketer::new().map_err(settings)?;
    Ok(Loaded { server: Arc::new(server), clients })
}

/// The process's cryptography, limited to the suites of the versions that may be spoken.
fn provider(min_version: TlsVersion) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if min_version == TlsVersion::Tls13 {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    }
    provider
}

/// Installs the cryptography that connections to upstreams and to PostgreSQL take.
pub(super) fn install_provider() {
    // A second gateway in the same process finds the first one's.
    let _ = CryptoProvider::install_default(ring::default_provider());
}

/// Server certificates by the names they hold.
#[derive(Debug)]
struct ByName {
    /// Lower-case names; one that begins with `*.` stands for one label more.
    names: HashMap<String, Arc<CertifiedKey>>,
    /// For clients that send no name, or one that no certificate holds.
    first: Arc<CertifiedKey>,
}

impl ByName {
    fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let mut names = HashMap::new();
        let mut first = None;
        for pair in &config.certificates {
            let certified = load_certificate(pair)?;
            for name in certified.cert.first().map(dns_names).unwrap_or_default() {
                names.entry(name).or_insert_with(|| Arc::clone(&certified));
            }
            first.get_or_insert(certified);
        }
        let first = first.ok_or_else(|| TlsError::Settings("there is no certificate".into()))?;
        Ok(Self { names, first })
    }

    fn of(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let parent = || name.split_once('.').and_then(|(_, parent)| self.names.get(&format!("*.{parent}")));
        self.names.get(&name).or_else(parent)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.of(name));
        Some(Arc::clone(named.unwrap_or(&self.first)))
    }
}

/// The DNS names of a certificate (RFC 6125: its alternative names; the common name counts no more).
fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return vec![] };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return vec![] };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

/// Loads certificate and key, and checks that they belong together.
fn load_certificate(pair: &CertificateConfig) -> Result<Arc<CertifiedKey>, TlsError> {
    const WANTED: &str = "a PEM file with the certificate and its chain";
    let unusable = file_fault(&pair.certificate, "tls.certificate", WANTED);
    let chain = pem::certificates(&pair.certificate).map_err(&unusable)?;
    let key = pem::key(&pair.key).map_err(file_fault(&pair.key, "tls.key", "a PEM file with the private key"))?;
    pem::certified(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: pair.certificate.clone(), key: pair.key.clone() }
        }
        other => unusable(format!("cannot be used ({other})")),
    })
}

/// What is wrong with a file, as an error that names it.
fn file_fault(path: &Path, key: &'static str, wanted: &'static str) -> impl Fn(String) -> TlsError {
    move |problem| TlsError::File { path: path.to_owned(), problem, key, wanted }
}

/// Who checks the certificates of clients, if any are asked for.
fn client_verifier(
    config: &TlsConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    if config.client_certificates == ClientCertificates::Off {
        return Ok(None);
    }
    let wanted = "a PEM file with the certificates of the authorities of clients";
    let unusable = file_fault(&config.client_ca, "tls.client_ca", wanted);
    let authorities =
        pem::certificates(&config.client_ca).and_then(|found| pem::authorities(&found)).map_err(&unusable)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider));
    if let Some(path) = &config.client_crl {
        let wanted = "a PEM file with the revocation lists of those authorities";
        let lists =
            pem::read(path, |pem| CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>());
        // An authority that has published no list yet revokes nothing.
        builder = builder
            .with_crls(lists.map_err(file_fault(path, "tls.client_crl", wanted))?)
            .allow_unknown_revocation_status()
            .only_check_end_entity_revocation();
    }
    if config.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(Some).map_err(|error| unusable(error.to_string()))
}

/// What a verified client certificate says of its holder.
#[derive(Debug)]
pub(super) struct ClientCertificate {
    /// SHA-256 of the whole certificate.
    pub(super) sha256: [u8; 32],
    /// The common name of its subject, if it has exactly one.
    pub(super) common_name: Option<String>,
    /// The certificate, then what the client sent with it.
    chain: Vec<CertificateDer<'static>>,
    /// By what it was last found good, and when. Weak, which still keeps another from being taken for the same.
    checked: Mutex<Option<(Weak<Loaded>, Instant)>>,
}

impl ClientCertificate {
    /// Of a chain that the handshake, or one before it, has verified.
    pub(super) fn new(chain: &[CertificateDer<'static>]) -> Option<Self> {
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

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn served(names: &[&str]) -> (Vec<String>, Arc<CertifiedKey>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let der = certificate.der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (dns_names(&der), Arc::new(CertifiedKey::from_der(vec![der], key, &ring::default_provider()).unwrap()))
    }

    #[test]
    fn a_certificate_serves_the_names_it_holds_and_a_wildcard_one_label() {
        let (names, first) = served(&["clinic.example", "192.0.2.1"]);
        assert_eq!(names, ["clinic.example"]);
        let (wildcard_names, wildcard) = served(&["*.Hospital.example"]);
        let entries = names.into_iter().map(|name| (name, Arc::clone(&first)));
        let wildcards = wildcard_names.into_iter().map(|name| (name, Arc::clone(&wildcard)));
        let by_name = ByName { names: entries.chain(wildcards).collect(), first: Arc::clone(&first) };
        for (name, expected) in [
            ("clinic.example", Some(&first)),
            ("CLINIC.example", Some(&first)),
            ("a.hospital.example", Some(&wildcard)),
            ("a.b.hospital.example", None),
            ("hospital.example", None),
            ("x.clinic.example", None),
            ("", None),
        ] {
            let found = by_name.of(name);
            assert!(found.map(Arc::as_ptr) == expected.map(Arc::as_ptr), "{name}");
        }
    }
}
