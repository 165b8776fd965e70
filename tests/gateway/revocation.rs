//! The certificate files while the gateway serves: each is followed separately, and a faulty one cannot undo what
//! is in force.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use rcgen::KeyPair;
use rustls::version::TLS13;

use crate::fixture::{Gateway, PATIENCE};
use crate::gateway::authority::{Authority, start, start_in, status};
use crate::gateway::tls::connect_as;
use crate::support::tls::believing;

/// Waits until the condition holds.
fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// The faults of certificate files in `/readyz`.
fn faults(gateway: &Gateway) -> Vec<String> {
    let faults = gateway.admin_get("/readyz").json()["certificates"]["faults"].clone();
    serde_json::from_value(faults).unwrap()
}

fn wait_for_fault(gateway: &Gateway, words: &str) {
    wait(words, || faults(gateway).iter().any(|fault| fault.contains(words)));
    wait("what was good last is served", || gateway.admin_get("/readyz").status == 200);
    let metrics = gateway.admin_get("/metrics").body;
    assert!(!metrics.contains("\nfedgate_certificate_faults 0\n"), "the metric tells it, too");
    assert!(gateway.logged(words, Instant::now() - PATIENCE * 4, PATIENCE).is_some(), "and the log: {words}");
}

fn wait_for_none(gateway: &Gateway) {
    wait("no fault", || faults(gateway).is_empty());
    assert!(gateway.admin_get("/metrics").body.contains("\nfedgate_certificate_faults 0\n"));
}

#[test]
fn a_file_without_a_valid_list_leaves_the_last_one_in_force_and_is_reported_until_mended() {
    let (authority, stranger) = (Authority::new("Laboratories"), Authority::new("Strangers"));
    let gateway = start(&authority, "optional", "", |_| {});
    let file = gateway.dir.join("revoked.pem");
    let (revoked, other) = (authority.client("DOC", 66), authority.client("DOC", 67));
    let strangers = stranger.revocation_list(9, &[]).pem().unwrap();
    let older = authority.revocation_list(0, &[]).pem().unwrap();
    let (own, second) = (authority.revocation_list(1, &[66]), authority.revocation_list(2, &[]));
    let (own_pem, second_pem) = (own.pem().unwrap(), second.pem().unwrap());
    let joined = format!("{}{own_pem}", second_pem.trim_end());
    let with_der = [own_pem.as_bytes(), second.der()].concat();
    #[rustfmt::skip]
    let cases: [(&[u8], &str); 7] = [
        (b"",                            "holds no revocation list"),
        (b"<html>502 Bad Gateway</html>", "holds no revocation list"),
        (authority.pem.as_bytes(),       "holds no revocation list"),
        (strangers.as_bytes(),           "whose certificate is not in `tls.client_ca`"),
        (older.as_bytes(),               "older than the one in force"),
        (joined.as_bytes(),              "the end of a line is missing, as where files were joined"),
        (&with_der,                      "is no text (DER after PEM"),
    ];
    for (content, words) in cases {
        std::fs::write(&file, content).unwrap();
        wait_for_fault(&gateway, words);
        assert_eq!(status(&gateway, Some(&revoked), "", &TLS13), 0, "revoked still: {words}");
        assert_eq!(status(&gateway, Some(&other), "", &TLS13), 200, "{words}");
    }
    std::fs::remove_file(&file).unwrap();
    wait_for_fault(&gateway, "cannot be read");
    assert_eq!(status(&gateway, Some(&revoked), "", &TLS13), 0, "revoked still");
    // In DER, as authorities publish it, and by a rename.
    std::fs::write(gateway.dir.join("new"), authority.revocation_list(2, &[67]).der()).unwrap();
    std::fs::rename(gateway.dir.join("new"), &file).unwrap();
    wait("the renewed list", || status(&gateway, Some(&other), "", &TLS13) == 0);
    assert_eq!(status(&gateway, Some(&revoked), "", &TLS13), 200, "revoked no more");
    wait_for_none(&gateway);
}

#[test]
fn a_faulty_part_holds_up_no_other() {
    let (authority, more) = (Authority::new("Laboratories"), Authority::new("Pharmacies"));
    let pair = |dir: &Path, name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![format!("{name}.example")]).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.self_signed(&key).unwrap().pem()).unwrap();
        key.serialize_pem()
    };
    let whole =
        |dir: &Path, name: &str| crate::support::write_private(&dir.join(format!("{name}.key")), pair(dir, name));
    let sni = "[[tls.sni]]\ncertificate = \"one.pem\"\nkey = \"one.key\"\n[[tls.sni]]\ncertificate = \"two.pem\"\nkey = \"two.key\"\n";
    let gateway = start(&authority, "optional", sni, |dir| ["one", "two"].iter().for_each(|name| whole(dir, name)));
    // The first pair is half renewed, the second is not PEM, and the third is missing.
    let kept = believing(&gateway.dir.join("cert.pem"), rustls::ALL_VERSIONS).with_no_client_auth();
    let new_key = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(gateway.dir.join("cert.key"), new_key).unwrap();
    std::fs::write(gateway.dir.join("one.key"), "half a ke").unwrap();
    wait_for_fault(&gateway, "cert.key: is not the key of the certificate in");
    wait_for_fault(&gateway, "one.key: holds none");
    // All other files are renewed meanwhile.
    whole(&gateway.dir, "two");
    let (client, pharmacy) = (authority.client("DOC", 5), more.client("DOC", 5));
    let trusting_two = || believing(&gateway.dir.join("two.pem"), rustls::ALL_VERSIONS).with_no_client_auth();
    wait("the renewed pair", || connect_as(&gateway, trusting_two(), "two.example").is_ok());
    std::fs::write(gateway.dir.join("clients.pem"), format!("{}{}", more.pem, authority.pem)).unwrap();
    wait("the added authority", || status(&gateway, Some(&pharmacy), "", &TLS13) == 200);
    let lists = [authority.revocation_list(2, &[5]), more.revocation_list(1, &[])].map(|list| list.pem().unwrap());
    std::fs::write(gateway.dir.join("revoked.pem"), lists.concat()).unwrap();
    wait("the renewed lists", || status(&gateway, Some(&client), "", &TLS13) == 0);
    assert_eq!(status(&gateway, Some(&pharmacy), "", &TLS13), 200);
    assert!(connect_as(&gateway, kept, "localhost").is_ok(), "the last good pair is served");
    assert_eq!(faults(&gateway).len(), 2, "{:?}", faults(&gateway));
    whole(&gateway.dir, "one");
    crate::fixture::certificate(&gateway.dir);
    wait_for_none(&gateway);
}

#[test]
fn a_list_that_comes_before_its_authority_is_taken_with_it() {
    let (authority, more) = (Authority::new("Laboratories"), Authority::new("Pharmacies"));
    let gateway = start(&authority, "optional", "", |_| {});
    let lists = [authority.revocation_list(2, &[5]), more.revocation_list(1, &[6])].map(|list| list.pem().unwrap());
    std::fs::write(gateway.dir.join("revoked.pem"), lists.concat()).unwrap();
    wait_for_fault(&gateway, "`CN=Pharmacies`, whose certificate is not");
    let known = authority.client("DOC", 5);
    wait("the list of the other authority", || status(&gateway, Some(&known), "", &TLS13) == 0);
    std::fs::write(gateway.dir.join("clients.pem"), format!("{}{}", more.pem, authority.pem)).unwrap();
    wait_for_none(&gateway);
    assert_eq!(status(&gateway, Some(&authority.client("DOC", 5)), "", &TLS13), 0);
    assert_eq!(status(&gateway, Some(&more.client("DOC", 6)), "", &TLS13), 0);
    // Without that authority, its list is again of an unknown issuer, and its certificates need no list to be
    // refused.
    std::fs::write(gateway.dir.join("clients.pem"), &authority.pem).unwrap();
    wait("the authority that left", || status(&gateway, Some(&more.client("DOC", 7)), "", &TLS13) == 0);
    assert_eq!(status(&gateway, Some(&authority.client("DOC", 5)), "", &TLS13), 0, "revoked still");
}

#[test]
fn a_revoked_intermediate_is_noticed_and_an_expired_list_refuses_where_a_key_says_so() {
    let authority = Authority::new("Laboratories");
    let (good, bad) = (authority.intermediate("North", 20), authority.intermediate("South", 66));
    let gateway = start_in(&authority, "optional", "", &[("FEDGATE_TLS_CLIENT_CRL_EXPIRED", "refuse")], |_| {});
    assert_eq!(status(&gateway, Some(&good.client("DOC", 1)), "", &TLS13), 200);
    assert_eq!(status(&gateway, Some(&bad.client("DOC", 1)), "", &TLS13), 0);
    assert!(gateway.logged("its intermediate `CN=South` is revoked", Instant::now() - PATIENCE, PATIENCE).is_some());
    let expired = authority.revocation_list_until(2, &[], time::OffsetDateTime::now_utc() - time::Duration::HOUR);
    std::fs::write(gateway.dir.join("revoked.pem"), expired.pem().unwrap()).unwrap();
    wait_for_fault(&gateway, "the list of `CN=Laboratories` has expired on");
    assert_eq!(status(&gateway, Some(&good.client("DOC", 1)), "", &TLS13), 0, "by the key");
    std::fs::write(gateway.dir.join("revoked.pem"), authority.revocation_list(3, &[]).pem().unwrap()).unwrap();
    wait("a list that is valid", || status(&gateway, Some(&good.client("DOC", 1)), "", &TLS13) == 200);
    wait_for_none(&gateway);
}

#[test]
fn a_gateway_does_not_start_with_a_list_that_is_none() {
    let authority = Authority::new("Laboratories");
    let stranger = Authority::new("Strangers").revocation_list(1, &[]).pem().unwrap();
    let gateway = start(&authority, "optional", "", |_| {});
    let run = |command: &str| {
        let mut fedgate = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
        fedgate.args([command, "--config"]).arg(gateway.dir.join("fedgate.toml"));
        for (key, value) in [("CERTIFICATES", "optional"), ("CA", "clients.pem"), ("CRL", "revoked.pem")] {
            fedgate.env(format!("FEDGATE_TLS_CLIENT_{key}"), value);
        }
        let out = fedgate.output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let good = authority.revocation_list(2, &[]).pem().unwrap();
    let joined = format!("{}{good}", good.trim_end());
    let indented = format!("{good}{}", good.replace("-----BEGIN", " -----BEGIN"));
    for (content, words) in [
        ("", "holds no revocation list; `tls.client_crl` must name"),
        (&stranger, "whose certificate is not in"),
        (&joined, "the end of a line is missing"),
        (&indented, "begins or ends a section and is not whole"),
    ] {
        std::fs::write(gateway.dir.join("revoked.pem"), content).unwrap();
        for command in ["serve", "check"] {
            let (code, text) = run(command);
            assert_eq!(code, Some(2), "{text}");
            assert!(text.contains(words) && text.contains("revoked.pem"), "{text}");
        }
    }
}

#[test]
fn a_file_that_may_not_be_read_or_is_no_file_changes_nothing() {
    let authority = Authority::new("Laboratories");
    let gateway = start(&authority, "optional", "", |_| {});
    let revoked = authority.client("DOC", 66);
    let file = gateway.dir.join("revoked.pem");
    // A FIFO without a writer, and a directory.
    std::fs::remove_file(&file).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    wait_for_fault(&gateway, "it is not a regular file");
    assert_eq!(status(&gateway, Some(&revoked), "", &TLS13), 0);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(status(&gateway, Some(&revoked), "", &TLS13), 0);
    // The swap of a mounted directory: a symbolic link that changes its target in one step.
    std::fs::remove_dir(&file).unwrap();
    for (name, number, serial) in [("first", 2, 66), ("second", 3, 67)] {
        std::fs::write(gateway.dir.join(name), authority.revocation_list(number, &[serial]).pem().unwrap()).unwrap();
    }
    std::os::unix::fs::symlink("first", &file).unwrap();
    wait_for_none(&gateway);
    assert_eq!(status(&gateway, Some(&revoked), "", &TLS13), 0);
    std::os::unix::fs::symlink("second", gateway.dir.join("swap")).unwrap();
    std::fs::rename(gateway.dir.join("swap"), &file).unwrap();
    wait("the other list", || status(&gateway, Some(&authority.client("DOC", 67)), "", &TLS13) == 0);
    // Root may read every file.
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(gateway.dir.join("second"), std::fs::Permissions::from_mode(0o0)).unwrap();
        wait_for_fault(&gateway, "Permission denied");
    }
}
