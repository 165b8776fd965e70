//! `fedgate check` and certificate files: a fault is found before a client meets it.

use std::path::Path;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};
use time::OffsetDateTime;

use crate::fixture::{Place, Setup};
use crate::gateway::authority::{Authority, Identity, block};

/// The output of `fedgate check` for a gateway's files, and its exit code.
pub(crate) fn check(place: &Place, environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.args(["check", "--config"]).arg(place.dir.join("fedgate.toml"));
    let out = command.envs(environment.iter().copied()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code().unwrap(), text)
}

fn write(dir: &Path, identity: &Identity, order: &[usize]) {
    let chain: String = order.iter().map(|&at| block("CERTIFICATE", &identity.chain[at])).collect();
    std::fs::write(dir.join("cert.pem"), chain).unwrap();
    std::fs::write(dir.join("cert.key"), block("PRIVATE KEY", identity.key.secret_der())).unwrap();
}

fn server(days: i64, purposes: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.extended_key_usages = purposes.to_vec();
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) =
        (now - time::Duration::DAY * 2, now + time::Duration::DAY * i32::try_from(days).unwrap());
    params
}

#[test]
fn check_finds_a_server_certificate_that_no_client_accepts() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let place = Place::prepare(&Setup::default());
    let root = Authority::new("Root");
    let (north, south) = (root.intermediate("North", 2), root.intermediate("South", 3));
    let below = north.intermediate("Below", 4);
    let good = below.identity(&server(1, &[ServerAuth, ClientAuth]));
    let plain = below.identity(&server(1, &[]));
    let mut foreign = below.identity(&server(1, &[]));
    foreign.chain.push(south.client("x", 1).chain[1].clone());
    #[rustfmt::skip]
    let cases: [(&Identity, &[usize], i32, &str); 8] = [
        (&good,                                      &[0, 1, 2], 0, ""),
        (&plain,                                     &[0, 1, 2], 0, ""),
        (&below.identity(&server(1, &[ClientAuth])), &[0, 1, 2], 2, "fault: DIR/cert.pem: the certificate is not for servers: it is only for clients"),
        (&below.identity(&server(-1, &[])),          &[0, 1, 2], 2, "fault: DIR/cert.pem: the certificate of `CN=rcgen self signed cert` has expired on"),
        (&good,                                      &[0, 2, 1], 2, "fault: DIR/cert.pem: the certificates are in the wrong order"),
        (&good,                                      &[0, 2],    2, "that of its issuer, `CN=Below`, is missing"),
        (&foreign,                                   &[0, 3],    2, "is followed by one that has not issued it"),
        (&good,                                      &[1, 0, 2], 2, "cert.pem: has the certificate of `tls.key` after others, which is the wrong order"),
    ];
    for (identity, order, code, words) in cases {
        write(&place.dir, identity, order);
        let (found, text) = check(&place, &[]);
        assert_eq!(found, code, "{words}: {text}");
        assert!(text.contains(&words.replace("DIR", &place.dir.display().to_string())), "{words}: {text}");
        // A chain that ends with an issuer of the gateway's own clients is reported, and may be intended.
        let is_whole = code == 0;
        assert!(
            !is_whole || text.contains("warning: ") && text.contains("ends with a certificate of `CN=Root`"),
            "{text}"
        );
    }
    write(&place.dir, &good, &[0]);
    let (code, text) = check(&place, &[]);
    assert!(code == 0 && text.contains("warning: ") && text.contains("a certificate of `CN=Below`"), "{text}");
    std::fs::write(place.dir.join("cert.key"), rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let (code, text) = check(&place, &[]);
    assert!(code == 2 && text.contains("cert.key: is not the key of the certificate in"), "{text}");
    std::fs::remove_dir_all(&place.dir).unwrap();
}

#[test]
fn check_finds_authorities_and_lists_that_have_expired() {
    let place = Place::prepare(&Setup::default());
    let hour_ago = OffsetDateTime::now_utc() - time::Duration::HOUR;
    let (old, new) = (Authority::until("Old", hour_ago), Authority::new("New"));
    let (ca, crl) = (place.dir.join("clients.pem"), place.dir.join("revoked.pem"));
    let (ca_text, crl_text) = (ca.display().to_string(), crl.display().to_string());
    let base = [
        ("FEDGATE_TLS_CLIENT_CERTIFICATES", "optional"),
        ("FEDGATE_TLS_CLIENT_CA", &ca_text),
        ("FEDGATE_TLS_CLIENT_CRL", &crl_text),
    ];
    let with = |more: (&'static str, &'static str)| check(&place, &[&base[..], &[more]].concat());
    std::fs::write(&ca, &old.pem).unwrap();
    std::fs::write(&crl, old.revocation_list(1, &[]).pem().unwrap()).unwrap();
    let (code, text) = check(&place, &base);
    assert!(code == 2 && text.contains("fault: ") && text.contains("the authority `CN=Old` has expired on"), "{text}");
    let (code, text) = with(("FEDGATE_TLS_CLIENT_CA_EXPIRED", "warn"));
    assert!(code == 0 && text.contains("the authority `CN=Old` has expired on"), "{text}");
    std::fs::write(&ca, format!("{}{}", old.pem, new.pem)).unwrap();
    std::fs::write(&crl, new.revocation_list_until(1, &[], hour_ago).pem().unwrap()).unwrap();
    let (code, text) = check(&place, &base);
    assert_eq!(code, 0, "one authority is good, and a list counts as the key says: {text}");
    for words in ["the authority `CN=Old` has expired on", "the list of `CN=New` has expired on"] {
        assert!(text.contains("warning: ") && text.contains(words), "{text}");
    }
    let (code, text) = with(("FEDGATE_TLS_CLIENT_CRL_EXPIRED", "refuse"));
    assert!(code == 2 && text.contains("every certificate of that authority is refused"), "{text}");
    std::fs::remove_dir_all(&place.dir).unwrap();
}

#[test]
fn one_fingerprint_is_for_one_account() {
    let entry = |account: &str, digit: &str| {
        format!("[[tls.client]]\naccount = \"{account}\"\nsha256 = \"{}\"\n", digit.repeat(32))
    };
    for (second, code, words) in
        [(entry("ADM", "ab"), 2, "to both `DOC` and `ADM`"), (entry("DOC", "ab"), 0, ""), (entry("ADM", "cd"), 0, "")]
    {
        let configuration = entry("DOC", "AB") + &second;
        let place = Place::prepare(&Setup { configuration: &entry("DOC", "AB"), ..Setup::default() });
        let file = place.dir.join("fedgate.toml");
        let text = std::fs::read_to_string(&file).unwrap().replace(&entry("DOC", "AB"), &configuration);
        std::fs::write(&file, text).unwrap();
        let (found, text) = check(&place, &[]);
        assert!(found == code && text.contains(words), "{text}");
        std::fs::remove_dir_all(&place.dir).unwrap();
    }
}
