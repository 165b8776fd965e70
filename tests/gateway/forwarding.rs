//! What is allowed, and how it arrives.

use std::time::SystemTime;

use fedgate::assertion::{HEADER, Scope, Verifier};
use fedgate::config::Config;

use crate::fixture::{Gateway, find_header};

#[test]
fn an_allowed_request_arrives_as_judged_with_an_assertion() {
    let gateway = Gateway::start();
    let answer =
        gateway.request("GET", "/pols/ANA/1?since=2020&x=%2f..", "ANA", "X-Forwarded-For: 6.6.6.6\r\nAccept: */*\r\n");
    assert_eq!((answer.status, answer.body.as_str()), (200, "true"));
    let seen = gateway.upstream.seen();
    let request = seen.first().expect("it was forwarded");
    assert!(request.starts_with("GET /pols/ANA/1?since=2020&x=%2f.. HTTP/1.1\r\n"), "{request}");
    assert_eq!(find_header(request, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(find_header(request, "x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(find_header(request, "authorization"), None, "the password stays here");
    let config = Config::load(&gateway.dir.join("fedgate.toml")).unwrap();
    let token = find_header(request, HEADER).expect("an assertion");
    let claims = Verifier::from_config(&config.assertion).unwrap().verify(token.as_bytes(), SystemTime::now()).unwrap();
    assert_eq!(
        (&*claims.sub, &*claims.endpoint, &*claims.method, &*claims.path),
        ("ANA", "page", "GET", "/pols/ANA/1")
    );
    assert_eq!((claims.scope, claims.subject.as_deref()), (Scope::Own, Some("ANA")));
    assert_eq!(claims.roles.to_vec(), ["end_user"]);
    assert!(claims.grants.is_empty());
    assert_eq!(find_header(request, "x-request-id").as_deref(), Some(&*claims.rid));
    assert_eq!(answer.header("x-request-id").as_deref(), Some(&*claims.rid));
    for name in ["server", "via", "x-powered-by", "x-accel-redirect", "x-aspnet-version"] {
        assert_eq!(answer.header(name), None, "what the upstream tells of itself is scrubbed");
    }
}

#[test]
fn only_who_may_write_accounts_carries_the_grant() {
    let gateway = Gateway::start();
    let config = Config::load(&gateway.dir.join("fedgate.toml")).unwrap();
    let verifier = Verifier::from_config(&config.assertion).unwrap();
    for (account, target, granted) in
        [("ANA", "/people/ANA", false), ("DOC", "/people/ANA", false), ("ADM", "/people/ANA", true)]
    {
        let body = format!(
            "PATCH {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}",
            crate::fixture::basic(account, crate::fixture::CANARY)
        );
        assert_eq!(gateway.send(body.as_bytes()).status, 200);
        let seen = gateway.upstream.seen();
        let token = find_header(seen.last().unwrap(), HEADER).unwrap();
        let claims = verifier.verify(token.as_bytes(), SystemTime::now()).unwrap();
        assert_eq!(claims.grants.contains(&"account".to_owned()), granted, "{account}");
    }
}

#[test]
fn head_is_allowed_as_get_and_public_pages_need_nobody() {
    let gateway = Gateway::start();
    assert_eq!(gateway.request("HEAD", "/people/ANA", "ANA", "").status, 200);
    assert_eq!(gateway.request("HEAD", "/people/DOC", "ANA", "").status, 403);
    let refused = gateway.request("HEAD", "/people/ANA", "", "");
    assert_eq!((refused.status, refused.body.as_str()), (401, ""));
    assert_eq!(gateway.get("/", "").status, 200);
    assert_eq!(gateway.get("/static/style.css", "").status, 200);
    assert_eq!(gateway.upstream.seen().len(), 3);
}

#[test]
fn an_upgrade_request_is_judged_like_any_other_and_not_upgraded() {
    let gateway = Gateway::start();
    let upgrade = "Upgrade: x\r\n";
    let send = |account: &str, target: &str| {
        let authorization = if account.is_empty() {
            String::new()
        } else {
            format!("Authorization: {}\r\n", crate::fixture::basic(account, crate::fixture::CANARY))
        };
        gateway
            .send(
                format!(
                    "GET {target} HTTP/1.1\r\nHost: a\r\n{authorization}{upgrade}Connection: upgrade, close\r\n\r\n"
                )
                .as_bytes(),
            )
            .status
    };
    assert_eq!(send("", "/people/ANA"), 401);
    assert_eq!(send("ANA", "/people/DOC"), 403);
    assert!(gateway.upstream.seen().is_empty());
    assert_eq!(send("ANA", "/people/ANA"), 200);
    assert_eq!(find_header(&gateway.upstream.seen()[0], "upgrade"), None);
}

#[test]
fn headers_that_a_connection_header_names_are_not_taken_away_from_the_gateway() {
    let gateway = Gateway::start();
    let authorization = crate::fixture::basic("ANA", crate::fixture::CANARY);
    let answer = gateway.send(
        format!("GET /people/ANA HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nConnection: close, Fedgate-Assertion, X-Request-Id\r\n\r\n").as_bytes(),
    );
    assert_eq!(answer.status, 200);
    assert!(find_header(&gateway.upstream.seen()[0], HEADER).is_some());
}
