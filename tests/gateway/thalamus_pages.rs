//! Pages of other persons, in front of a stand-in that finds a page by its id alone.

use serde_json::json;

use crate::fixture::{CANARY, Gateway, Response, basic};
use crate::gateway::fields::{code, guarded, send, start};
use crate::gateway::thalamus::{HASH, Thalamus};
use crate::gateway::tls::connect_h2;

/// The answer for a page that does not exist or is another person's, in Thalamus' words.
const NO_PAGE: &str = "Book or page or not found";

fn read(gateway: &Gateway, method: &str, target: &str, account: &str) -> Response {
    gateway.request(method, target, account, "")
}

/// The request lines that the stand-in has seen since the last call.
fn asked(thalamus: &Thalamus) -> Vec<String> {
    let heads = std::mem::take(&mut thalamus.state().heads);
    heads.iter().map(|head| head.lines().next().unwrap().replace(" HTTP/1.1", "")).collect()
}

fn without_id(answer: &Response) -> serde_json::Value {
    let mut json = answer.json();
    json["request_id"] = json!(null);
    json
}

#[test]
fn a_page_of_another_person_is_like_a_missing_one() {
    let (gateway, thalamus) = guarded();
    let own = read(&gateway, "GET", "/pols/ANA/a1?x=1", "ANA");
    assert_eq!((own.status, own.json()), (200, json!({ "id": "a1", "book": "ANA", "info": "of a1" })));
    assert_eq!(own.header("content-type").as_deref(), Some("application/json"));
    // The page that was read is the answer: verifying a password is slow there.
    assert_eq!(asked(&thalamus), ["GET /pols/ANA/a1"]);
    assert_eq!(gateway.record()["decision"], "allow");
    assert_eq!(read(&gateway, "HEAD", "/pols/ANA/a1", "ANA").status, 200);
    gateway.record();
    let missing = read(&gateway, "GET", "/pols/ANA/none", "ANA");
    assert_eq!((code(&missing), missing.json()["error"].as_str()), ((404, "not_found".into()), Some(NO_PAGE)));
    let record = gateway.record();
    assert_eq!((&record["decision"], &record["status"]), (&json!("allow"), &json!(404)));
    // A professional cannot reach it by another person's path either: the record would name that person.
    for (target, account) in [("/pols/ANA/b1", "ANA"), ("/pols/ANA/b1", "DOC"), ("/pols/ANA/n1", "ANA")] {
        let answer = read(&gateway, "GET", target, account);
        assert_eq!(without_id(&answer), without_id(&missing), "{target}, {account}");
        let record = gateway.record();
        assert_eq!(
            (&record["decision"], &record["reason"], &record["subject.id"], &record["account"]),
            (&json!("refuse"), &json!("other_record"), &json!("ANA"), &json!(account)),
            "{record}"
        );
        let head = read(&gateway, "HEAD", target, account);
        assert_eq!((head.status, head.body.as_str()), (404, ""));
        gateway.record();
    }
    assert_eq!(read(&gateway, "GET", "/pols/BOB/b1", "DOC").status, 200);
    // A page that names no person is readable for a caller who may read every page.
    assert_eq!(read(&gateway, "GET", "/pols/ANA/n1", "DOC").status, 200);
    assert!(thalamus.state().heads.iter().all(|head| head.starts_with("GET /pols/")), "{:?}", thalamus.state().heads);
}

#[test]
fn a_page_of_another_is_not_changed_and_nothing_of_the_change_is_forwarded() {
    let (gateway, thalamus) = guarded();
    let before = thalamus.state().pages.clone();
    let body = br#"{"info":"forged"}"#;
    for (method, target, account) in [
        ("PATCH", "/pols/ANA/b1", "ANA"),
        ("PATCH", "/pols/ANA/b1", "DOC"),
        ("PATCH", "/pols/ANA/n1", "ANA"),
        ("PATCH", "/pols/ANA/none", "ANA"),
        ("DELETE", "/pols/ANA/b1", "ADM"),
    ] {
        let body: &[u8] = if method == "PATCH" { body } else { b"" };
        let answer = send(&gateway, method, target, account, "", body);
        assert_eq!(code(&answer), (404, "not_found".into()), "{method} {target}");
        assert_eq!(answer.json()["error"], "Page not found");
        assert_eq!(asked(&thalamus), [format!("GET {target}")], "{method} {target}: nothing but the look");
        let reason = if target.ends_with("none") { "own" } else { "other_record" };
        assert_eq!(gateway.record()["reason"], reason, "{method} {target}");
    }
    assert_eq!(thalamus.state().pages, before);
    assert_eq!(send(&gateway, "PATCH", "/pols/ANA/a1", "ANA", "", body).status, 200);
    assert_eq!(asked(&thalamus), ["GET /pols/ANA/a1", "PATCH /pols/ANA/a1"]);
    assert_eq!(thalamus.state().pages["a1"]["info"], "forged");
    assert_eq!(send(&gateway, "PATCH", "/pols/BOB/b1", "DOC", "", body).status, 200);
    // Thalamus serves no DELETE of pages, and answers so itself.
    assert_eq!(send(&gateway, "DELETE", "/pols/ANA/a1", "ADM", "", b"").status, 405);
}

#[test]
fn a_page_names_no_other_book_than_that_of_its_path() {
    let (gateway, thalamus) = guarded();
    for (method, target) in [("POST", "/pols/ANA/new"), ("PATCH", "/pols/ANA/a1")] {
        for body in [
            r#"{"id":"x","book":"BOB"}"#,
            r#"{"b\u006fok":["ANA"]}"#,
            r#"{"book":"ANA","book":"BOB"}"#,
            r#"{"book":7}"#,
        ] {
            let answer = send(&gateway, method, target, "ANA", "", body.as_bytes());
            assert_eq!(code(&answer), (403, "member_not_permitted".into()), "{method} {body}");
        }
        assert_eq!(asked(&thalamus), Vec::<String>::new());
    }
    // The phone sends null for pages that were written before an account was entered.
    for (number, body) in
        [r#"{"id":"1","book":"ANA"}"#, r#"{"id":"2","book":null}"#, r#"{"id":"3","book":""}"#, "{}"].iter().enumerate()
    {
        let target = format!("/pols/ANA/new{number}");
        assert_eq!(send(&gateway, "POST", &target, "ANA", "", body.as_bytes()).status, 200, "{body}");
    }
    assert_eq!(send(&gateway, "PATCH", "/pols/ANA/a1", "ANA", "", br#"{"book":"ANA"}"#).status, 200);
    assert_eq!(thalamus.state().pages.len(), 7);
}

#[test]
fn a_page_that_cannot_be_looked_at_is_not_changed() {
    let (gateway, thalamus) = guarded();
    for (page, shown, changed) in [
        ("CRASH", (500, ""), (502, "owner_unknown")),
        ("HTML", (502, "answer_withheld"), (502, "owner_unknown")),
        ("LIST", (502, "answer_withheld"), (502, "owner_unknown")),
        ("DENIED", (401, ""), (401, "")),
    ] {
        let target = format!("/pols/ANA/{page}");
        let code_of = |answer: &Response| match answer.body.as_str() {
            "" => (answer.status, String::new()),
            _ => code(answer),
        };
        let answer = read(&gateway, "GET", &target, "ANA");
        assert_eq!(code_of(&answer), (shown.0, shown.1.to_owned()), "{page}: {answer:?}");
        assert!(!answer.body.contains(HASH));
        assert_eq!(answer.header("www-authenticate").is_some(), shown.0 == 401, "{page}");
        let record = gateway.record();
        assert_eq!(record["status"], shown.0, "{record}");
        let answer = send(&gateway, "PATCH", &target, "ANA", "", b"{}");
        assert_eq!(code_of(&answer), (changed.0, changed.1.to_owned()), "{page}: {answer:?}");
        assert!(asked(&thalamus).iter().all(|line| line.starts_with("GET ")), "{page}");
        let record = gateway.record();
        assert_eq!(record["status"], changed.0, "{record}");
    }
}

#[test]
fn a_withheld_answer_to_head_has_its_status_alone_over_both_versions() {
    let (gateway, _thalamus) = guarded();
    let told = read(&gateway, "GET", "/pols/ANA/HTML", "ANA");
    assert_eq!(code(&told), (502, "answer_withheld".into()));
    let over_http1 = read(&gateway, "HEAD", "/pols/ANA/HTML", "ANA");
    assert_eq!((over_http1.status, over_http1.body.as_str()), (502, ""));
    let (status, headers, bytes) = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut sender = connect_h2(&gateway).await.ready().await.unwrap();
        let request = http::Request::head("https://localhost/pols/ANA/HTML");
        let request = request.header("authorization", basic("ANA", CANARY)).body(()).unwrap();
        let (head, mut body) = sender.send_request(request, true).unwrap().0.await.unwrap().into_parts();
        let mut bytes = 0;
        while let Some(chunk) = body.data().await {
            bytes += chunk.unwrap().len();
        }
        (head.status.as_u16(), head.headers, bytes)
    });
    assert_eq!((status, bytes), (502, 0));
    assert_eq!(headers["content-length"].to_str().ok(), told.header("content-length").as_deref());
    assert_eq!(over_http1.header("content-length"), told.header("content-length"));
    for _ in 0..3 {
        let record = gateway.record();
        assert_eq!((&record["status"], &record["reason"]), (&json!(502), &json!("answer_withheld")));
    }
}

#[test]
fn a_silent_service_is_reported_as_such_and_nothing_is_changed() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let environment = ("FEDGATE_GATEWAY_THALAMUS_FIELD_GUARD", "true");
    let closed = crate::support::free_address();
    for (address, status, expected) in [(address, 504, "upstream_timeout"), (closed, 502, "upstream_unreachable")] {
        let upstream = format!(
            "[[upstream]]\nname = \"t\"\naddress = \"127.0.0.1:8080\"\nassertion = false\nforward_authorization = true\n\
             connect_timeout_ms = 500\nread_timeout_ms = 300\nservers = [\"{address}\"]\n"
        );
        let upstream = upstream.replace("address = \"127.0.0.1:8080\"\n", "# 127.0.0.1:8080\n");
        let (gateway, _) = start(&upstream, "127.0.0.1:8080", environment);
        for method in ["GET", "PATCH"] {
            let answer = send(&gateway, method, "/pols/ANA/a1", "ANA", "", if method == "GET" { b"" } else { b"{}" });
            assert_eq!(code(&answer), (status, expected.to_owned()), "{method}: {answer:?}");
            let record = gateway.record();
            assert_eq!((&record["decision"], &record["reason"]), (&json!("fail"), &json!(expected)));
        }
    }
}

#[test]
fn pages_of_others_are_guarded_over_http2_and_left_alone_without_the_guard() {
    let over_http2 = |gateway: &Gateway, method: &str, body: &'static [u8]| {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut sender = connect_h2(gateway).await.ready().await.unwrap();
            let request = http::Request::builder().method(method).uri("https://localhost/pols/ANA/b1");
            let request = request.header("authorization", basic("ANA", CANARY)).body(()).unwrap();
            let (answer, mut sent) = sender.send_request(request, body.is_empty()).unwrap();
            if !body.is_empty() {
                sent.send_data(body.into(), true).unwrap();
            }
            answer.await.unwrap().status().as_u16()
        })
    };
    let (gateway, thalamus) = guarded();
    assert_eq!(over_http2(&gateway, "GET", b""), 404);
    assert_eq!(over_http2(&gateway, "PATCH", br#"{"info":"x"}"#), 404);
    assert_eq!(thalamus.state().pages["b1"]["info"], "of b1");
    let shipped = std::fs::read_to_string("examples/thalamus/fedgate.toml").unwrap();
    let upstream = &shipped[shipped.find("[[upstream]]").unwrap()..];
    let (gateway, thalamus) = start(upstream, "127.0.0.1:8080", ("FEDGATE_GATEWAY_THALAMUS_FIELD_GUARD", "false"));
    assert_eq!(over_http2(&gateway, "GET", b""), 200);
    assert_eq!(over_http2(&gateway, "PATCH", br#"{"info":"x"}"#), 200);
    assert_eq!(thalamus.state().pages["b1"]["info"], "x");
}
