//! The section `[tls]`: certificates, versions, and the certificates of clients.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::check::ValueCheck;
use super::error::ConfigError;
use super::exposure::SecretExposure;
use super::section::section;

/// Certificates and protocol versions.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The certificates, each for the names that it holds. The first also serves every other name.
    pub certificates: Vec<CertificateConfig>,
    /// The lowest protocol version.
    pub min_version: TlsVersion,
    /// Whether clients are asked for a certificate.
    pub client_certificates: ClientCertificates,
    /// PEM file: the authorities that may sign client certificates.
    pub client_ca: PathBuf,
    /// How to proceed if the certificate of an authority has expired.
    pub client_ca_expired: WhenExpired,
    /// PEM or DER file: the authorities' revocation lists.
    pub client_crl: Option<PathBuf>,
    /// How to proceed if a revocation list has expired.
    pub client_crl_expired: WhenExpired,
    /// Whether a list counts if its issuer is not among the authorities.
    pub client_crl_unknown_issuer: UnknownIssuer,
    /// The accounts of client certificates.
    pub clients: ClientsConfig,
    /// How long browsers must use only TLS (HSTS); zero sends no such header.
    pub hsts: Duration,
    /// How long before its expiry a certificate is warned of; zero means never.
    pub expiry_warning: Duration,
}

/// One certificate and its key.
#[derive(Debug, Clone)]
pub struct CertificateConfig {
    /// PEM file: the certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key.
    pub key: PathBuf,
    /// How to treat a key that everybody can read.
    pub exposure: SecretExposure,
}

/// The account for a client certificate.
#[derive(Debug, Clone, Default)]
pub struct ClientsConfig {
    /// Accounts by the SHA-256 fingerprint of the whole certificate.
    pub accounts: HashMap<[u8; 32], String>,
    /// Whether the common name of any other certificate is an account id.
    pub common_name: bool,
}

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No.
    Off,
    /// Yes, but a client without one may connect.
    Optional,
    /// Yes, and a client without one cannot connect.
    Required,
}

/// The consequence if clients depend on something that has expired. It is logged in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenExpired {
    /// None.
    Warn,
    /// The clients that depend on it are refused.
    Refuse,
}

/// How to treat a revocation list that cannot be verified when it is read, because its issuer's certificate is
/// missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownIssuer {
    /// Refuse its file.
    Refuse,
    /// Verify it when a client presents the certificate of its issuer.
    Accept,
}

/// A permitted TLS protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246), only with ECDHE and AEAD suites.
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// More than the lifetime of any certificate from a public authority.
const MOST_WARNING_DAYS: u64 = 3650;
/// Two years, as browsers' preload lists require.
const MOST_HSTS_SECONDS: u64 = 2 * 366 * 24 * 3600;

section!(TlsSection {
    certificate: PathBuf = "certs/fedgate.pem".into(),
    key: PathBuf = "certs/fedgate.key".into(),
    min_version: String = "1.2".into(),
    sni: Vec<PairSection> = vec![],
    client_certificates: String = "off".into(),
    client_ca: String = String::new(),
    client_ca_expired: String = "refuse".into(),
    client_crl: String = String::new(),
    client_crl_expired: String = "warn".into(),
    client_crl_unknown_issuer: String = "refuse".into(),
    client_common_name: bool = false,
    client: Vec<ClientSection> = vec![],
    hsts_seconds: u64 = 0,
    expiry_warning_days: u64 = 30,
});

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PairSection {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientSection {
    account: String,
    sha256: String,
}

impl TlsSection {
    /// Whether clients are asked for certificates.
    pub(super) fn asks_clients(&self) -> bool {
        self.client_certificates != "off"
    }

    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<TlsConfig, ConfigError> {
        let first = PairSection { certificate: self.certificate, key: self.key };
        let pair = |pair: PairSection| CertificateConfig {
            certificate: check.path(pair.certificate),
            key: check.path(pair.key),
            exposure: check.exposure,
        };
        let min_version = match self.min_version.as_str() {
            "1.2" => TlsVersion::Tls12,
            "1.3" => TlsVersion::Tls13,
            other => {
                return Err(check.fault("tls.min_version", format!("is `{other}`"), "write \"1.2\" or \"1.3\""));
            }
        };
        let client_certificates = match self.client_certificates.as_str() {
            "off" => ClientCertificates::Off,
            "optional" => ClientCertificates::Optional,
            "required" => ClientCertificates::Required,
            other => {
                let remedy = "write \"off\", \"optional\" or \"required\"";
                return Err(check.fault("tls.client_certificates", format!("is `{other}`"), remedy));
            }
        };
        if client_certificates != ClientCertificates::Off && self.client_ca.is_empty() {
            let remedy = "name a PEM file with the certificates of the authorities that sign for clients";
            return Err(check.fault("tls.client_ca", "is missing, and `tls.client_certificates` is not off", remedy));
        }
        let unknown_issuer = match self.client_crl_unknown_issuer.as_str() {
            "refuse" => UnknownIssuer::Refuse,
            "accept" => UnknownIssuer::Accept,
            other => {
                let remedy = "write \"refuse\" or \"accept\"";
                return Err(check.fault("tls.client_crl_unknown_issuer", format!("is `{other}`"), remedy));
            }
        };
        Ok(TlsConfig {
            certificates: std::iter::once(first).chain(self.sni).map(pair).collect(),
            min_version,
            client_certificates,
            client_ca: check.path(self.client_ca.into()),
            client_ca_expired: when_expired("tls.client_ca_expired", &self.client_ca_expired, check)?,
            client_crl: check.optional_path(&self.client_crl),
            client_crl_expired: when_expired("tls.client_crl_expired", &self.client_crl_expired, check)?,
            client_crl_unknown_issuer: unknown_issuer,
            clients: ClientsConfig { accounts: accounts(self.client, check)?, common_name: self.client_common_name },
            hsts: check.within("tls.hsts_seconds", self.hsts_seconds, 0, MOST_HSTS_SECONDS).map(Duration::from_secs)?,
            expiry_warning: check
                .within("tls.expiry_warning_days", self.expiry_warning_days, 0, MOST_WARNING_DAYS)
                .map(|days| Duration::from_secs(days * 24 * 3600))?,
        })
    }
}

fn when_expired(key: &str, value: &str, check: &ValueCheck<'_>) -> Result<WhenExpired, ConfigError> {
    match value {
        "warn" => Ok(WhenExpired::Warn),
        "refuse" => Ok(WhenExpired::Refuse),
        other => Err(check.fault(key, format!("is `{other}`"), "write \"warn\" or \"refuse\"")),
    }
}

/// Accounts by certificate fingerprint. One certificate for two accounts is refused, because it is unclear which of
/// them signs in.
fn accounts(clients: Vec<ClientSection>, check: &ValueCheck<'_>) -> Result<HashMap<[u8; 32], String>, ConfigError> {
    let mut accounts = HashMap::<_, String>::new();
    for client in clients {
        let digest = fingerprint(&client.sha256).ok_or_else(|| {
            let remedy = "write the 64 hex digits of `openssl x509 -in FILE -noout -fingerprint -sha256`";
            check.fault("tls.client.sha256", format!("is `{}`", client.sha256), remedy)
        })?;
        if let Some(other) = accounts.get(&digest).filter(|other| **other != client.account) {
            let problem = format!("gives `{}` to both `{other}` and `{}`", client.sha256, client.account);
            return Err(check.fault("tls.client.sha256", problem, "leave one of the two entries out"));
        }
        accounts.insert(digest, client.account);
    }
    Ok(accounts)
}

/// 32 bytes in hex, with or without openssl's colons.
pub(super) fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.iter().map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
}
