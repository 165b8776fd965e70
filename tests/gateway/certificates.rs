//! Certificates by name, and clients that sign in by certificate.

use std::io::{Read, Write};
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use crate::fixture::{CANARY, PATIENCE, basic};
use crate::gateway::authority::{Authority, Identity, client, start, status};
use crate::gateway::tls::connect_as;
use crate::support::tls::believing;

#[test]
fn a_certificate_signs_its_account_in_and_nobody_else() {
    let (authority, stranger) = (Authority::new("Laboratories"), Authority::new("Laboratories"));
    let node = authority.client("a laboratory", 7);
    let digits = node.fingerprint().to_uppercase().into_bytes();
    let listed: Vec<_> = digits.chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect();
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
        // A name and password take precedence over the certificate.
        let as_ana = format!("Authorization: {}\r\n", basic("ANA", CANARY));
        assert_eq!(ask(Some(&node), &as_ana), 403);
        let wrong = format!("Authorization: {}\r\n", basic("ANA", "wrong"));
        assert_eq!(ask(Some(&node), &wrong), 401);
        assert_eq!(ask(None, &format!("Authorization: {}\r\n", basic("DOC", CANARY))), 200);
    }
    // A cached certificate login ends with its account's rights, like any other.
    let config = gateway.dir.join("fedgate.toml");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
    let out = command.args(["account", "disable", "DOC", "--wait", "--config"]).arg(config).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(status(&gateway, Some(&node), "", &rustls::version::TLS13), 401);
}

#[test]
fn where_a_certificate_is_required_there_is_no_connection_without_one_and_a_revocation_is_followed() {
    let authority = Authority::new("Laboratories");
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
    std::fs::write(gateway.dir.join("revoked.pem"), authority.revocation_list(2, &[12, 66]).pem().unwrap()).unwrap();
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
        crate::support::write_private(&dir.join("other.key"), key.serialize_pem());
    };
    let more = "[[tls.sni]]\ncertificate = \"other.pem\"\nkey = \"other.key\"\n";
    let gateway = start(&Authority::new("Laboratories"), "off", more, write);
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

#[test]
fn a_key_that_became_readable_for_all_is_reported_while_it_stays_in_force() {
    use std::os::unix::fs::PermissionsExt;
    let gateway = crate::fixture::Gateway::start();
    let mode = |mode| {
        std::fs::set_permissions(gateway.dir.join("cert.key"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let is_told = || {
        gateway.admin_get("/readyz").json()["certificates"]["faults"].to_string().contains("everybody on this machine")
    };
    for (bits, told) in [(0o644, true), (0o600, false)] {
        mode(bits);
        let deadline = std::time::Instant::now() + PATIENCE;
        while is_told() != told {
            assert!(std::time::Instant::now() < deadline, "{bits:o}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert_eq!(gateway.get("/people/ANA", "ANA").status, 200, "what was read is in force");
    }
}
