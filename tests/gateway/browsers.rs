//! The requests that a page of another origin may send, and the answers that it may read.

use crate::fixture::Gateway;

#[test]
fn every_answer_carries_cors_and_errors_too() {
    let gateway = Gateway::start();
    for (target, account, status) in [
        ("/people/ANA", "ANA", 200),
        ("/people/ANA", "", 401),
        ("/people/DOC", "ANA", 403),
        ("/x", "ANA", 404),
        ("/pols/ANA/hang", "ANA", 504),
        ("//", "ANA", 400),
    ] {
        let without = gateway.get(target, account);
        assert_eq!(
            (without.status, without.header("access-control-allow-origin").as_deref()),
            (status, Some("*")),
            "{target}"
        );
        for origin in ["https://portal.example", "null"] {
            let with = gateway.request("GET", target, account, &format!("Origin: {origin}\r\n"));
            assert_eq!(with.header("access-control-allow-origin").as_deref(), Some(origin), "{target}");
            assert_eq!(with.header("vary").as_deref(), Some("Origin"));
            assert_eq!(
                with.head.matches("llow-").count(),
                with.head.to_lowercase().matches("access-control-allow-origin").count(),
                "the upstream's own are gone: {}",
                with.head
            );
            assert_eq!(with.header("access-control-allow-credentials"), None);
        }
    }
}

#[test]
fn a_preflight_is_answered_here_without_credentials() {
    let gateway = Gateway::start();
    let ask = "Origin: https://portal.example\r\nAccess-Control-Request-Method: PATCH\r\n";
    let answer = gateway.request(
        "OPTIONS",
        "/people/ANA",
        "",
        &format!("{ask}Access-Control-Request-Headers: authorization, content-type\r\n"),
    );
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("https://portal.example"));
    assert_eq!(
        answer.header("access-control-allow-methods").as_deref(),
        Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
    );
    assert_eq!(answer.header("access-control-allow-headers").as_deref(), Some("authorization, content-type"));
    assert_eq!(answer.header("allow").as_deref(), Some("GET, HEAD, POST, PATCH, DELETE, OPTIONS"));
    assert_eq!(gateway.request("OPTIONS", "/people/ANA", "", ask).header("access-control-allow-headers"), None);
    let unknown = gateway.request("OPTIONS", "/nowhere", "", ask);
    assert_eq!(
        (unknown.status, unknown.header("access-control-allow-origin").as_deref()),
        (404, Some("https://portal.example"))
    );
    assert_eq!(gateway.request("OPTIONS", "*", "", "").status, 200);
    assert!(gateway.upstream.seen().is_empty());
}

#[test]
fn origins_can_be_restricted() {
    let policy = std::fs::read_to_string("policies/roles.cfg").unwrap();
    let gateway = Gateway::start_with("[cors]\nallowed_origins = [\"https://portal.example\"]\n", &policy);
    let ask = |origin: &str| gateway.request("GET", "/people/ANA", "ANA", &format!("Origin: {origin}\r\n"));
    assert_eq!(
        ask("https://portal.example").header("access-control-allow-origin").as_deref(),
        Some("https://portal.example")
    );
    for origin in ["https://evil.example", "https://portal.example.evil.example", "null", "http://portal.example"] {
        let answer = ask(origin);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None), "{origin}");
        assert_eq!(answer.header("vary").as_deref(), Some("Origin"));
    }
}
