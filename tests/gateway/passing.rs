//! The headers of a request that reach an upstream.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fixture::{Gateway, Place, Setup, find_header};
use crate::gateway::http2::{END_HEADERS, END_STREAM, HEADERS, block_of, frame, open, read};
use crate::scripted::until;

/// Some headers of each kind that services take for an identity, and one unknown header.
const DROPPED: &[&str] = &[
    "remote-groups",
    "x-auth-request-email",
    "x-webauth-name",
    "x-consumer-username",
    "x-authentik-username",
    "x-pomerium-claim-email",
    "x-goog-iap-jwt-assertion",
    "cf-access-jwt-assertion",
    "x-amzn-oidc-data",
    "x-ms-client-principal-name",
    "client-cert",
    "x-ssl-client-dn",
    "ssl-client-verify",
    "impersonate-user",
    "x-original-path",
    "fedgate-assertion",
    "x-clinic",
];
const PASSED: &[&str] = &["x-provenance", "prefer", "idempotency-key", "sec-ch-ua", "x-csrf-token", "b3"];

/// The configuration of the one upstream, which the fixture leaves open at its end.
fn with_upstream(more: &str) -> Gateway {
    Gateway::start_as(&Setup { configuration: more, ..Setup::default() })
}

/// The head that the upstream saw last, after one request over each version of HTTP with these headers.
fn seen_over_both(gateway: &Gateway, names: &[&str]) -> [String; 2] {
    let lines: String = names.iter().map(|name| format!("{name}: sent-by-a-client\r\n")).collect();
    assert_eq!(gateway.request("GET", "/people/ANA", "ANA", &lines).status, 200);
    let mut stream = open(gateway);
    let more: Vec<_> = names.iter().map(|name| (*name, "sent-by-a-client")).collect();
    let block = block_of("GET", "/people/ANA", &more);
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).unwrap();
    read(&mut stream, |kind, stream| kind == HEADERS && stream == 1);
    let seen = gateway.upstream.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    [seen[0].clone(), seen[1].clone()]
}

#[test]
fn only_listed_headers_reach_an_upstream_over_either_version() {
    let gateway = Gateway::start();
    let names = [DROPPED, PASSED].concat();
    for seen in seen_over_both(&gateway, &names) {
        let count = seen.matches("sent-by-a-client").count();
        assert_eq!(count, PASSED.len(), "{seen}");
        for passed in PASSED {
            assert_eq!(find_header(&seen, passed).as_deref(), Some("sent-by-a-client"), "{passed}");
        }
    }
}

#[test]
fn an_operator_lets_further_names_pass_to_one_upstream() {
    let gateway = with_upstream("request_headers = [\"X-Clinic\", \"hx-*\"]\n");
    for seen in seen_over_both(&gateway, &["x-clinic", "hx-request", "x-ward", "x-webauth-name"]) {
        assert_eq!(seen.matches("sent-by-a-client").count(), 2, "{seen}");
        assert!(find_header(&seen, "x-clinic").is_some() && find_header(&seen, "hx-request").is_some(), "{seen}");
    }
}

#[test]
fn a_dropped_name_is_logged_once_and_each_is_counted() {
    let since = Instant::now();
    let gateway = Gateway::start();
    let long = format!("x-{}", "a".repeat(300));
    let lines = format!("X-Clinic: 7\r\n{long}: 7\r\nX-Forwarded-For: 192.0.2.1\r\nAccept: */*\r\n");
    for _ in 0..3 {
        assert_eq!(gateway.request("GET", "/people/ANA", "ANA", &lines).status, 200);
    }
    // Two in each of three requests. The gateway's own headers do not count.
    until("each is counted", || gateway.figure("fedgate_request_headers_dropped_total{upstream=\"his\"}") == 6.0);
    let words = "the request header `x-clinic` is not passed on";
    assert!(gateway.logged(words, since, Duration::from_secs(20)).is_some());
    assert!(gateway.logged("request header `x-aaa", since, Duration::from_secs(20)).is_some());
    assert_eq!(gateway.log_lines(words, since), 1);
    assert_eq!(gateway.log_lines("is not passed on", since), 2);
    let line = gateway.log_line("request header `x-aaa", since).unwrap();
    assert!(line.contains("a…`") && line.len() < 500, "{line}");
}

#[test]
fn check_warns_of_names_that_services_believe() {
    let place = Place::prepare(&Setup::default());
    let config = place.dir.join("fedgate.toml");
    let plain = std::fs::read_to_string(&config).unwrap();
    let check = |entries: &str| {
        std::fs::write(&config, format!("{plain}request_headers = [{entries}]\n")).unwrap();
        let out =
            Command::new(env!("CARGO_BIN_EXE_fedgate")).args(["check", "--config"]).arg(&config).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, quiet) = check("\"X-Clinic\", \"hx-*\"");
    assert!(code == Some(0) && !quiet.contains("request_headers"), "{quiet}");
    let (code, warned) = check("\"Remote-User\", \"X-WebAuth-*\"");
    assert_eq!(code, Some(0), "{warned}");
    for words in
        ["`upstream.his.request_headers` lets clients send `remote-user`", "has `x-webauth-*`, which reaches names"]
    {
        assert!(warned.contains(words), "{words}: {warned}");
    }
    for (entry, remedy) in [
        ("X_Clinic", "write names of letters, digits and `-`"),
        ("Fedgate-Assertion", "leave it out"),
        ("Authorization", "write forward_authorization = true instead"),
    ] {
        let (code, fault) = check(&format!("\"{entry}\""));
        assert!(code == Some(2) && fault.contains(&format!("`{entry}`")) && fault.contains(remedy), "{fault}");
    }
    let _ = std::fs::remove_dir_all(&place.dir);
}
