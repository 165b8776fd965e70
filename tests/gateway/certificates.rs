//! Certificates by name, and clients that sign in by certificate.

use std::io::{Read, Write};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber,
};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::fixture::{CANARY, Gateway, PATIENCE, Place, Setup, basic};
use crate::support::tls::believing;
use crate::tls::connect_as;

/// An authority of the test's own.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn client(&self, common_name: &str, serial: u64) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn revocation_list(&self, serials: &[u64]) -> String {
        let day = time::Duration::days(1);
        let now = time::OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now - day,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - day,
            next_update: now + day,
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn client(
    gateway: &Gateway,
    identity: Option<&Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> ClientConfig {
    let builder = believing(&gateway.dir.join("cert.pem"), &[version]);
    let mut config = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// The status of one request over a connection of its own; 0 when there was none.
fn status(
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

fn start(authority: &Authority, asked: &str, more: &str, write: impl FnOnce(&Path)) -> Gateway {
    let setup = Setup { configuration: more, ..Setup::default() };
    let place = Place::prepare(&setup);
    std::fs::write(place.dir.join("clients.pem"), &authority.pem).unwrap();
    std::fs::write(place.dir.join("revoked.pem"), authority.revocation_list(&[66])).unwrap();
    write(&place.dir);
    let dir = place.dir.clone();
    let environment = [
        ("FEDGATE_TLS_CLIENT_CERTIFICATES", asked.to_owned()),
        ("FEDGATE_TLS_CLIENT_CA", dir.join("clients.pem").display().to_string()),
        ("FEDGATE_TLS_CLIENT_CRL", dir.join("revoked.pem").display().to_string()),
        ("FEDGATE_TLS_CLIENT_COMMON_NAME", "true".to_owned()),
    ];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Gateway::start_at(place, &environment)
}

#[test]
fn a_certificate_signs_its_account_in_and_nobody_else() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let node = authority.client("a laboratory", 7);
    let digest = ring::digest::digest(&ring::digest::SHA256, &node.0);
    let listed: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let listed = format!("[[tls.client]]\naccount = \"DOC\"\nsha256 = \"{}\"\n", listed.join(":"));
    let gateway = start(&authority, "optional", &listed, |_| {});
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let ask = |identity: Option<&Identity>, authorization: &str| status(&gateway, identity, authorization, version);
        assert_eq!(ask(Some(&node), ""), 200, "the listed account may");
        assert_eq!(ask(Some(&authority.client("ADM", 8)), ""), 200, "a common name is an account");
        assert_eq!(ask(Some(&authority.client("ANA", 9)), ""), 403, "of its own rights alone");
        assert_eq!(ask(Some(&authority.client("NOBODY", 10)), ""), 401);
        assert_eq!(ask(Some(&authority.client("OFF", 11)), ""), 401, "switched off");
        assert_eq!(ask(None, ""), 401);
        assert_eq!(ask(Some(&stranger.client("ADM", 8)), ""), 0, "another authority's");
        assert_eq!(ask(Some(&authority.client("ADM", 66)), ""), 0, "revoked");
        // Who says a name and a password is that one.
        let as_ana = format!("Authorization: {}\r\n", basic("ANA", CANARY));
        assert_eq!(ask(Some(&node), &as_ana), 403);
        let wrong = format!("Authorization: {}\r\n", basic("ANA", "wrong"));
        assert_eq!(ask(Some(&node), &wrong), 401);
        assert_eq!(ask(None, &format!("Authorization: {}\r\n", basic("DOC", CANARY))), 200);
    }
    // A cached one is gone with its account's rights, as any is.
    let config = gateway.dir.join("fedgate.toml");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
    let out = command.args(["account", "disable", "DOC", "--wait", "--config"]).arg(config).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(status(&gateway, Some(&node), "", &rustls::version::TLS13), 401);
}

#[test]
fn where_a_certificate_is_required_there_is_no_connection_without_one_and_a_revocation_is_followed() {
    let authority = Authority::new();
    let gateway = start(&authority, "required", "", |_| {});
    let node = authority.client("DOC", 12);
    let ask = |identity: Option<&Identity>, authorization: &str| {
        status(&gateway, identity, authorization, &rustls::version::TLS13)
    };
    assert_eq!(ask(None, &format!("Authorization: {}\r\n", basic("DOC", CANARY))), 0);
    assert_eq!(ask(Some(&node), ""), 200);
    let mut open = connect_as(&gateway, client(&gateway, Some(&node), &rustls::version::TLS13), "localhost").unwrap();
    let mut on_open = || {
        open.write_all(b"GET /people HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let count = open.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..count]).split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(on_open(), "200");
    std::fs::write(gateway.dir.join("revoked.pem"), authority.revocation_list(&[12, 66])).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while ask(Some(&node), "") != 0 {
        assert!(std::time::Instant::now() < deadline, "the new list is never followed");
    }
    assert_eq!(on_open(), "401", "nor does a connection that was open keep what is revoked");
    assert_eq!(ask(Some(&authority.client("DOC", 13)), ""), 200);
}

#[test]
fn each_name_is_served_with_its_own_certificate() {
    let write = |dir: &Path| {
        let key = KeyPair::generate().unwrap();
        let names = vec!["other.example".to_owned(), "*.wild.example".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        std::fs::write(dir.join("other.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.join("other.key"), key.serialize_pem()).unwrap();
    };
    let more = "[[tls.sni]]\ncertificate = \"other.pem\"\nkey = \"other.key\"\n";
    let gateway = start(&Authority::new(), "off", more, write);
    let trusting = |file: &str| believing(&gateway.dir.join(file), rustls::ALL_VERSIONS).with_no_client_auth();
    for (name, file) in
        [("localhost", "cert.pem"), ("other.example", "other.pem"), ("clinic.wild.example", "other.pem")]
    {
        assert!(connect_as(&gateway, trusting(file), name).is_ok(), "{name}");
    }
    for (name, file) in [("localhost", "other.pem"), ("other.example", "cert.pem"), ("unknown.example", "cert.pem")] {
        assert!(connect_as(&gateway, trusting(file), name).is_err(), "{name}");
    }
}
