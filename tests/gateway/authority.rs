//! Certificate authorities for tests, the certificates that they sign, and clients that present those.

use std::io::{Read, Write};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber,
};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::fixture::{Gateway, Place, Setup};
use crate::gateway::tls::connect_as;
use crate::support::tls::believing;

const DAY: Duration = Duration::DAY;

/// An authority, or an intermediate.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
    /// Its certificate, and those of its issuers without the root.
    chain: Vec<CertificateDer<'static>>,
}

/// A chain, and the key of its first certificate.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self::until(name, OffsetDateTime::now_utc() + DAY)
    }

    pub(crate) fn until(name: &str, end: OffsetDateTime) -> Self {
        let (params, key) = (authority_params(name, 1, end), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, chain: vec![] }
    }

    pub(crate) fn intermediate(&self, name: &str, serial: u64) -> Self {
        let params = authority_params(name, serial, OffsetDateTime::now_utc() + DAY);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = std::iter::once(certificate.der().clone()).chain(self.chain.iter().cloned()).collect();
        Self { issuer: Issuer::new(params, key), pem: certificate.pem(), chain }
    }

    pub(crate) fn client(&self, common_name: &str, serial: u64) -> Identity {
        self.sign(common_name, serial, OffsetDateTime::now_utc() + DAY)
    }

    /// A client certificate that expires at `end`.
    pub(crate) fn sign(&self, common_name: &str, serial: u64, end: OffsetDateTime) -> Identity {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = named(common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = (OffsetDateTime::now_utc() - DAY, end);
        self.identity(&params)
    }

    /// A certificate of these parameters, signed.
    pub(crate) fn identity(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let chain = std::iter::once(certificate).chain(self.chain.iter().cloned()).collect();
        Identity { chain, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    pub(crate) fn revocation_list(&self, number: u64, serials: &[u64]) -> rcgen::CertificateRevocationList {
        self.revocation_list_until(number, serials, OffsetDateTime::now_utc() + DAY)
    }

    pub(crate) fn revocation_list_until(
        &self,
        number: u64,
        serials: &[u64],
        next_update: OffsetDateTime,
    ) -> rcgen::CertificateRevocationList {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - DAY,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - DAY * 2,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap()
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn authority_params(name: &str, serial: u64, end: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = named(name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (OffsetDateTime::now_utc() - DAY * 2, end);
    params
}

impl Identity {
    /// Writes the chain and the key.
    pub(crate) fn write(&self, chain: &Path, key: &Path) {
        let blocks: String = self.chain.iter().map(|der| block("CERTIFICATE", der)).collect();
        std::fs::write(chain, blocks).unwrap();
        crate::support::write_private(key, block("PRIVATE KEY", self.key.secret_der()));
    }

    /// The SHA-256 of the certificate, in hex.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.chain[0]);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A section of PEM.
pub(crate) fn block(kind: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
}

/// Settings of a client that presents a certificate, or none.
pub(crate) fn client(
    gateway: &Gateway,
    identity: Option<&Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let builder = believing(&gateway.dir.join("cert.pem"), &[version]);
    let mut config = match identity {
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// The status of one request on a new connection; 0 without an answer.
pub(crate) fn status(
    gateway: &Gateway,
    identity: Option<&Identity>,
    authorization: &str,
    version: &'static rustls::SupportedProtocolVersion,
) -> u16 {
    let config = client(gateway, identity, version);
    let Ok(mut stream) = connect_as(gateway, config, "localhost") else { return 0 };
    let request = format!("GET /people HTTP/1.1\r\nHost: localhost\r\n{authorization}Connection: close\r\n\r\n");
    if stream.write_all(request.as_bytes()).is_err() {
        return 0;
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap())
}

/// A gateway that requests client certificates of an authority, which has revoked number 66.
pub(crate) fn start(authority: &Authority, asked: &str, more: &str, write: impl FnOnce(&Path)) -> Gateway {
    start_in(authority, asked, more, &[], write)
}

/// The same with environment variables.
pub(crate) fn start_in(
    authority: &Authority,
    asked: &str,
    more: &str,
    environment: &[(&str, &str)],
    write: impl FnOnce(&Path),
) -> Gateway {
    let setup = Setup { configuration: more, ..Setup::default() };
    let place = Place::prepare(&setup);
    std::fs::write(place.dir.join("clients.pem"), &authority.pem).unwrap();
    std::fs::write(place.dir.join("revoked.pem"), authority.revocation_list(1, &[66]).pem().unwrap()).unwrap();
    write(&place.dir);
    let (ca, crl) = (place.dir.join("clients.pem"), place.dir.join("revoked.pem"));
    let (ca, crl) = (ca.display().to_string(), crl.display().to_string());
    let own = [
        ("FEDGATE_TLS_CLIENT_CERTIFICATES", asked),
        ("FEDGATE_TLS_CLIENT_CA", &ca),
        ("FEDGATE_TLS_CLIENT_CRL", &crl),
        ("FEDGATE_TLS_CLIENT_COMMON_NAME", "true"),
    ];
    let environment: Vec<_> = own.into_iter().chain(environment.iter().copied()).collect();
    Gateway::start_at(place, &environment)
}
