//! Allowed requests, and how they arrive.

use std::time::SystemTime;

use fedgate_base::config::Config;
use fedgate_core::assertion::{AssertionVerifier, HEADER, RecordScope};

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
    let claims =
        AssertionVerifier::from_config(&config.assertion).unwrap().verify(token.as_bytes(), SystemTime::now()).unwrap();
    assert_eq!(
        (&*claims.sub, &*claims.endpoint, &*claims.method, &*claims.path),
        ("ANA", "page", "GET", "/pols/ANA/1")
    );
    assert_eq!((claims.scope, claims.subject.as_deref()), (RecordScope::Own, Some("ANA")));
    assert_eq!(claims.roles.to_vec(), ["end_user"]);
    assert!(claims.grants.is_empty());
    assert_eq!(find_header(request, "x-request-id").as_deref(), Some(&*claims.rid));
    assert_eq!(answer.header("x-request-id").as_deref(), Some(&*claims.rid));
    for name in ["server", "via", "x-powered-by", "x-accel-redirect", "x-aspnet-version"] {
        assert_eq!(answer.header(name), None, "what the upstream tells of itself is scrubbed");
    }
}

#[test]
fn only_a_caller_that_may_write_accounts_carries_the_grant() {
    let gateway = Gateway::start();
    let config = Config::load(&gateway.dir.join("fedgate.toml")).unwrap();
    let verifier = AssertionVerifier::from_config(&config.assertion).unwrap();
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
fn an_upgrade_is_judged_like_any_other_request_and_refused_where_it_would_be_forwarded() {
    let gateway = Gateway::start();
    let send = |account: &str, target: &str, protocol: &str| {
        let authorization = if account.is_empty() {
            String::new()
        } else {
            format!("Authorization: {}\r\n", crate::fixture::basic(account, crate::fixture::CANARY))
        };
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{authorization}Upgrade: {protocol}\r\n");
        gateway.send(format!("{head}Connection: Upgrade\r\n\r\n").as_bytes())
    };
    assert_eq!(send("", "/people/ANA", "websocket\r\nConnection: close").status, 401);
    assert_eq!(send("ANA", "/people/DOC", "websocket\r\nConnection: close").status, 403);
    gateway.record();
    gateway.record();
    for protocol in ["websocket", "x", "h2c, websocket"] {
        // No header asks for the end of the connection.
        let refused = send("ANA", "/people/ANA", protocol);
        assert_eq!((refused.status, &refused.json()["code"]), (400, &"upgrade_not_served".into()), "{protocol}");
        assert_eq!(refused.header("connection").as_deref(), Some("close"), "what follows may be of another protocol");
        let record = gateway.record();
        assert_eq!((&record["reason"], &record["status"]), (&"upgrade_not_served".into(), &400.into()));
        assert_eq!((&record["decision"], &record["account"]), (&"refuse".into(), &"ANA".into()), "who asked for it");
    }
    assert!(gateway.upstream.seen().is_empty());
    assert_eq!(send("ANA", "/people/ANA", "h2c\r\nConnection: close").status, 200, "the same request, over HTTP/1.1");
    assert_eq!(find_header(&gateway.upstream.seen()[0], "upgrade"), None);
}

#[test]
fn a_credential_that_signs_in_a_connection_is_refused_where_it_would_be_forwarded() {
    for (forwards, status) in [("true", 400), ("false", 200)] {
        let configuration = format!("forward_authorization = {forwards}\n");
        let gateway = Gateway::start_as(&crate::fixture::Setup { configuration: &configuration, ..Default::default() });
        for credential in ["NTLM TlRMTVNTUAABAAAA", "Negotiate YII="] {
            // The page is public, so the gateway has not read the credential.
            let answer = gateway.request("GET", "/", "", &format!("Authorization: {credential}\r\n"));
            assert_eq!(answer.status, status, "{credential}");
            let record = gateway.record();
            if status == 400 {
                assert_eq!(answer.json()["code"], "connection_credential");
                assert_eq!(record["reason"], "connection_credential");
            }
            let protected = gateway.request("GET", "/people/ANA", "", &format!("Authorization: {credential}\r\n"));
            assert_eq!(protected.status, 401, "it signs nobody in here");
            gateway.record();
        }
        assert_eq!(gateway.request("GET", "/people/ANA", "ANA", "").status, 200);
        let seen = gateway.upstream.seen();
        assert!(seen.iter().all(|seen| !seen.contains("NTLM") && !seen.contains("Negotiate")), "{seen:?}");
    }
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
