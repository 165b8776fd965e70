//! The dates of certificates are reported before they are reached, and when they are, wherever a certificate is
//! configured.

use std::path::Path;
use std::time::Instant;

use rcgen::{CertificateParams, KeyPair};
use rustls::ALL_VERSIONS;
use time::{Duration, OffsetDateTime};

use crate::fixture::{Gateway, PATIENCE, Place, Setup};
use crate::gateway::authority::Authority;
use crate::gateway::certificate_checks::check;
use crate::gateway::tls::connect_as;
use crate::support::tls::believing;

const DAY: Duration = Duration::DAY;

/// A certificate for this address that is valid for these numbers of days before and after now.
fn write(dir: &Path, name: &str, before: i32, after: i32) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned(), "192.0.2.9".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - DAY * before, now + DAY * after);
    // The certificate is written last: a half-renewed pair does not count.
    std::fs::write(dir.join("cert.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
}

fn told(gateway: &Gateway, member: &str) -> Vec<String> {
    let told = gateway.admin_get("/readyz").json()["certificates"][member].clone();
    serde_json::from_value(told).unwrap()
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Whether the gateway serves the certificate in a file.
fn serves(gateway: &Gateway, file: &Path) -> bool {
    connect_as(gateway, believing(file, ALL_VERSIONS).with_no_client_auth(), "localhost").is_ok()
}

fn metric(gateway: &Gateway, subject: &str) -> Option<i64> {
    let metrics = gateway.admin_get("/metrics").body;
    let line = metrics.lines().find(|line| {
        line.starts_with("fedgate_certificate_not_after_timestamp_seconds{") && line.contains(&format!("\"{subject}\""))
    });
    line.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as i64)
}

#[test]
fn a_certificate_that_ends_within_a_month_is_reported_and_stays_served() {
    let place = Place::prepare(&Setup::default());
    write(&place.dir, "ours", 60, 29);
    let (code, text) = check(&place, &[]);
    assert!(
        code == 0 && text.contains("warning: ") && text.contains("the certificate of `CN=ours` expires on"),
        "{text}"
    );
    assert!(text.contains("`CN=ours` for localhost, 192.0.2.9, valid from "), "{text}");
    let (code, text) = check(&place, &[("FEDGATE_TLS_EXPIRY_WARNING_DAYS", "28")]);
    assert!(code == 0 && !text.contains("expires on"), "{text}");
    let began = Instant::now();
    let gateway = Gateway::start_at(place, &[]);
    wait("the warning", || told(&gateway, "warnings").iter().any(|line| line.contains("`CN=ours` expires on")));
    assert!(gateway.logged("`CN=ours` expires on", began, PATIENCE).is_some());
    assert!(gateway.log_line("`CN=ours` expires on", began).unwrap().contains("WARN"));
    assert_eq!((told(&gateway, "faults").len(), gateway.admin_get("/readyz").status), (0, 200));
    let end = metric(&gateway, "CN=ours").unwrap();
    let expected = OffsetDateTime::now_utc().unix_timestamp() + 29 * DAY.whole_seconds();
    assert!(end.abs_diff(expected) < 120, "{end} is not {expected}");
    // A renewal ends the warning, and replaces the figure.
    write(&gateway.dir, "renewed", 1, 90);
    wait("no warning", || told(&gateway, "warnings").is_empty() && metric(&gateway, "CN=renewed").is_some());
    assert_eq!(metric(&gateway, "CN=ours"), None);
    let files = gateway.admin_get("/readyz").json()["certificates"]["files"].clone();
    assert!(files[0]["path"].as_str().unwrap().ends_with("cert.pem") && files[0]["valid_to"].is_string(), "{files}");
}

#[test]
fn a_renewal_that_is_not_valid_is_refused_and_what_is_in_force_is_served() {
    let place = Place::prepare(&Setup::default());
    write(&place.dir, "good", 1, 90);
    let good = place.dir.join("good.pem");
    std::fs::copy(place.dir.join("cert.pem"), &good).unwrap();
    let gateway = Gateway::start_at(place, &[]);
    for (before, after, words) in [(9, -1, "`CN=bad` has expired on"), (-2, 90, "`CN=bad` is not valid before")] {
        write(&gateway.dir, "bad", before, after);
        wait(words, || told(&gateway, "faults").iter().any(|fault| fault.contains(words)));
        let faults = told(&gateway, "faults");
        assert!(faults.iter().any(|fault| fault.ends_with("the last good content stays in force")), "{faults:?}");
        assert!(serves(&gateway, &good), "{words}");
        assert!(metric(&gateway, "CN=bad").is_none() && metric(&gateway, "CN=good").is_some());
    }
    write(&gateway.dir, "new", 1, 80);
    wait("the good renewal", || told(&gateway, "faults").is_empty() && metric(&gateway, "CN=new").is_some());
}

#[test]
fn a_certificate_that_is_not_valid_at_the_start_is_served_with_an_alarm_and_renewed() {
    let place = Place::prepare(&Setup::default());
    write(&place.dir, "old", 9, -1);
    let (code, text) = check(&place, &[]);
    assert!(code == 2 && text.contains("fault: ") && text.contains("`CN=old` has expired on"), "{text}");
    let began = Instant::now();
    let gateway = Gateway::start_at(place, &[]);
    assert!(gateway.logged("`CN=old` has expired on", began, PATIENCE).is_some());
    let line = gateway.log_line("`CN=old` has expired on", began).unwrap();
    assert!(line.contains("ERROR") && line.contains("unless the clock of this machine is wrong"), "{line}");
    wait("the alarm", || !told(&gateway, "faults").is_empty());
    wait("that it is ready", || gateway.admin_get("/readyz").status == 200);
    assert!(metric(&gateway, "CN=old").unwrap() < OffsetDateTime::now_utc().unix_timestamp());
    write(&gateway.dir, "new", 1, 80);
    wait("the renewal", || told(&gateway, "faults").is_empty() && metric(&gateway, "CN=new").is_some());
    assert!(serves(&gateway, &gateway.dir.join("cert.pem")));
}

#[test]
fn certificates_for_upstreams_and_authorities_are_reported_too() {
    let now = OffsetDateTime::now_utc();
    let (old, new) = (Authority::until("Old", now - DAY), Authority::until("New", now + DAY * 20));
    let (spent, near) = (new.sign("spent", 5, now - Duration::HOUR), new.sign("near", 6, now + DAY * 9));
    let more = "[[upstream]]\nname = \"lab\"\nservers = [\"https://127.0.0.1:1\"]\n\
                tls = { ca_file = \"lab-ca.pem\", certificate = \"lab.pem\", key = \"lab.key\" }\n";
    let place = Place::prepare(&Setup { configuration: more, ..Setup::default() });
    let put = |authorities: &str, identity: &crate::gateway::authority::Identity| {
        std::fs::write(place.dir.join("lab-ca.pem"), authorities).unwrap();
        identity.write(&place.dir.join("lab.pem"), &place.dir.join("lab.key"));
    };
    let clients = place.dir.join("clients.pem");
    std::fs::write(&clients, &new.pem).unwrap();
    let clients = clients.display().to_string();
    let asked = [("FEDGATE_TLS_CLIENT_CERTIFICATES", "optional"), ("FEDGATE_TLS_CLIENT_CA", clients.as_str())];
    put(&new.pem, &spent);
    let (code, text) = check(&place, &asked);
    assert!(code == 2 && text.contains("the certificate of `CN=spent` has expired on"), "{text}");
    assert!(
        text.contains("(`upstream.lab.tls.certificate`)") && text.contains("clients.pem (`tls.client_ca`)"),
        "{text}"
    );
    assert!(text.contains("`CN=New`, valid from"), "{text}");
    put(&old.pem, &near);
    let (code, text) = check(&place, &asked);
    assert!(code == 2 && text.contains("fault: ") && text.contains("the authority `CN=Old` has expired on"), "{text}");
    put(&format!("{}{}", old.pem, new.pem), &near);
    let (code, text) = check(&place, &asked);
    assert_eq!(code, 0, "one of two is enough: {text}");
    for words in [
        "the authority `CN=Old` has expired on",
        "the certificate of `CN=near` expires on",
        "clients.pem: the authority `CN=New` expires on",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let gateway = Gateway::start_at(place, &asked);
    wait("a fault", || told(&gateway, "faults").iter().any(|fault| fault.contains("`CN=Old` has expired on")));
    wait("a warning", || told(&gateway, "warnings").iter().any(|line| line.contains("`CN=near` expires on")));
    assert!(metric(&gateway, "CN=near").is_some() && metric(&gateway, "CN=Old").is_some());
}

#[test]
fn a_renewed_key_that_everybody_can_read_is_refused_until_it_is_a_secret_again() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::prepare(&Setup::default());
    write(&place.dir, "good", 1, 90);
    let good = place.dir.join("good.pem");
    std::fs::copy(place.dir.join("cert.pem"), &good).unwrap();
    let gateway = Gateway::start_at(place, &[]);
    let mode = |mode: u32| {
        std::fs::set_permissions(gateway.dir.join("cert.key"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o644);
    write(&gateway.dir, "open", 1, 80);
    wait("the fault", || told(&gateway, "faults").iter().any(|fault| fault.contains("everybody on this machine")));
    assert!(serves(&gateway, &good));
    mode(0o640);
    wait("the renewal", || told(&gateway, "faults").is_empty() && metric(&gateway, "CN=open").is_some());
}
