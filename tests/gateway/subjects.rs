//! Routes that find their person elsewhere than in the path, in front of a service that follows a script.

use crate::fixture::{Gateway, Response};
use crate::gateway::fields::send;
use crate::scripted::{Exchange, OK, Server};

/// A record of ANA at `/r/own`, of another at `/r/other`, and what else a service may answer.
fn records(exchange: &mut Exchange<'_>) -> bool {
    let head = exchange.request.to_ascii_lowercase();
    let path = head.split(' ').nth(1).unwrap().split('?').next().unwrap().to_owned();
    let answer = |status: &str, kind: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nETag: W/\"3\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let json = "application/json";
    let answer = match path.as_str() {
        _ if !head.starts_with("get ") => return exchange.write(OK),
        "/r/own" => answer("200 OK", json, r#"{"owner":"ANA","secret":1,"n":{"secret":2,"x":3}}"#),
        "/r/other" => answer("200 OK", json, r#"{"owner":"BOB","secret":1}"#),
        "/r/mixed" => answer("200 OK", json, r#"[{"owner":"ANA"},{"owner":"BOB"}]"#),
        "/r/text" => answer("200 OK", "text/plain", "owner ANA"),
        "/r/half" => answer("200 OK", json, r#"{"owner":"ANA""#),
        "/r/nobodys" => answer("200 OK", json, r#"{"note":"BOB's"}"#),
        "/r/empty" => answer("200 OK", json, "[]"),
        "/r/emptied" => answer("200 OK", json, r#"{"owner":[],"note":"BOB's"}"#),
        "/r/moved" => answer("302 Found", json, r#"{"owner":"BOB"}"#),
        "/r/broken" => answer("500 Internal Server Error", json, r#"{"owner":"BOB"}"#),
        "/r/huge" => answer("200 OK", json, &format!(r#"{{"owner":"ANA","x":"{}"}}"#, "x".repeat(17 << 20))),
        "/q" => answer("200 OK", json, "{}"),
        _ => answer("404 Not Found", json, "{}"),
    };
    exchange.write(answer.as_bytes());
    false
}

fn fronted() -> (Server, Gateway) {
    let server = Server::start(records);
    let configuration = format!(
        "[[upstream]]\nname = \"r\"\naddress = \"{}\"\nassertion = false\n\
         [[route]]\npath = \"/r/{{id}}\"\nmethods = [\"GET\", \"PUT\", \"PATCH\", \"DELETE\"]\nendpoint = \"record\"\nupstream = \"r\"\nhide = [\"secret\"]\n\
         [route.subject]\nanswer = [\"/owner\"]\nbody = [\"/owner\"]\nif_match = true\n\
         [[route]]\npath = \"/q\"\nmethods = [\"GET\"]\nendpoint = \"record\"\nupstream = \"r\"\n\
         [route.subject]\nquery = [\"owner\"]\nmissing = \"own\"\nforms = [\"of/{{id}}\", \"{{id}}\"]\n",
        server.address
    );
    let policy = r#"[{"role": "end_user", "permissions": {"GET": ["record"], "PUT": ["record"], "PATCH": ["record"], "DELETE": ["record"], "global": "False"}},
        {"role": "health_professional", "permissions": {"GET": ["record"], "PUT": ["record"], "global": "True"}}]"#;
    (server, Gateway::start_with(&configuration, policy))
}

fn code(answer: &Response) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_record_that_names_its_person_is_shown_to_that_person_without_hidden_members() {
    let (server, gateway) = fronted();
    let own = gateway.get("/r/own", "ANA");
    assert_eq!((own.status, own.body.as_str()), (200, r#"{"owner":"ANA","n":{"x":3}}"#));
    assert_eq!(own.header("etag"), None, "it describes the record with its hidden members");
    // As it comes, in chunks.
    assert!(gateway.get("/r/own", "DOC").body.contains(r#"{"owner":"ANA","n":{"x":3}}"#));
    for (target, expected) in [
        ("/r/other", (404, "not_found")),
        ("/r/mixed", (404, "not_found")),
        ("/r/none", (404, "not_found")),
        ("/r/text", (404, "not_found")),
        ("/r/half", (404, "not_found")),
        ("/r/huge", (404, "not_found")),
        ("/r/nobodys", (404, "not_found")),
        ("/r/emptied", (404, "not_found")),
        ("/r/own?x", (403, "not_permitted")),
    ] {
        let answer = gateway.get(target, "ANA");
        assert_eq!(code(&answer), (expected.0, expected.1.to_owned()), "{target}: {}", answer.body);
        assert!(!answer.body.contains("BOB"), "{target}");
    }
    assert_eq!(gateway.get("/r/empty", "ANA").body, "[]");
    for (target, status) in [("/r/moved", 302), ("/r/broken", 500)] {
        let answer = gateway.get(target, "ANA");
        assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{target}");
        assert_eq!(answer.header("location"), None);
    }
    assert!(server.seen().iter().all(|request| request.starts_with("GET /r/")), "{:?}", server.seen());
}

#[test]
fn a_change_is_forwarded_after_the_record_was_read_and_only_for_that_version() {
    let (server, gateway) = fronted();
    let changes = || {
        let seen = server.seen();
        let of_change = |request: &&String| !request.starts_with("GET ");
        let condition = |request: &String| {
            request.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("if-match: ").map(str::to_owned))
        };
        seen.iter().filter(of_change).map(condition).collect::<Vec<_>>()
    };
    for (method, target, expected) in [
        ("PUT", "/r/other", 404),
        ("DELETE", "/r/other", 404),
        ("PATCH", "/r/mixed", 404),
        ("PUT", "/r/none", 404),
        ("PUT", "/r/text", 404),
        ("PUT", "/r/nobodys", 404),
        ("PUT", "/r/emptied", 404),
        ("PUT", "/r/empty", 404),
        ("DELETE", "/r/empty", 404),
        ("PUT", "/r/half", 404),
        ("PUT", "/r/broken", 502),
        ("PUT", "/r/moved", 502),
    ] {
        let body: &[u8] = if method == "DELETE" { b"" } else { br#"{"owner":"ANA"}"# };
        assert_eq!(send(&gateway, method, target, "ANA", "", body).status, expected, "{method} {target}");
    }
    let own_body = br#"{"owner":"ANA"}"#;
    for (headers, status) in [
        ("If-Match: \"9\"\r\n", 412),
        ("Content-Range: bytes 0-1/2\r\n", 403),
        ("X-Provenance: {}\r\n", 403),
        ("If-None-Exist: owner=BOB\r\n", 403),
    ] {
        assert_eq!(send(&gateway, "PUT", "/r/own", "ANA", headers, own_body).status, status, "{headers}");
    }
    for (method, body) in [
        ("PATCH", r#"[{"op":"replace","path":"/owner","value":"BOB","owner":"ANA"}]"#),
        ("PUT", r#"{"owner":"BOB"}"#),
        ("PUT", "{}"),
        ("PUT", "[]"),
    ] {
        assert_eq!(send(&gateway, method, "/r/own", "ANA", "", body.as_bytes()).status, 403, "{method} {body}");
    }
    assert_eq!(changes(), []);
    // The condition is that of the record that was judged, whatever the client's allows beside.
    for headers in ["", "If-Match: *\r\n", "If-Match:\r\n", "If-Match: \"1\", W/\"3\"\r\n"] {
        assert_eq!(send(&gateway, "PUT", "/r/own", "ANA", headers, own_body).status, 200, "{headers}");
    }
    assert_eq!(send(&gateway, "DELETE", "/r/own", "ANA", "", b"").status, 200);
    // Whoever may change every record is not held up by a look at it.
    assert_eq!(send(&gateway, "PUT", "/r/other", "DOC", "", b"{}").status, 200);
    let own = Some("w/\"3\"".to_owned());
    assert_eq!(changes(), [vec![own; 5], vec![None]].concat());
}

#[test]
fn a_guarded_member_may_be_written_in_an_own_record_that_the_body_names() {
    let server = Server::good();
    let configuration = format!(
        "[[upstream]]\nname = \"r\"\naddress = \"{}\"\nassertion = false\n\
         [[route]]\npath = \"/g\"\nmethods = [\"POST\"]\nendpoint = \"record\"\nupstream = \"r\"\n\
         [route.subject]\nbody = [\"/owner\"]\n[[route.guard]]\nmembers = [\"status\"]\npermission = \"grade\"\n\
         [[route.guard]]\nmembers = [\"rank\"]\npermission = \"rank\"\n",
        server.address
    );
    let policy = r#"[{"role": "end_user", "permissions": {"POST": ["record", "grade"], "global": "False"}}]"#;
    let gateway = Gateway::start_with(&configuration, policy);
    for (body, status) in [
        (r#"{"owner":"ANA","status":1}"#, 200),
        (r#"{"status":1,"owner":"ANA"}"#, 200),
        (r#"{"owner":"BOB","status":1}"#, 403),
        (r#"{"status":1}"#, 403),
        (r#"{"owner":"ANA","rank":1}"#, 403),
    ] {
        assert_eq!(send(&gateway, "POST", "/g", "ANA", "", body.as_bytes()).status, status, "{body}");
    }
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn the_parameter_that_is_missing_is_added_and_the_service_sees_what_was_judged() {
    let (server, gateway) = fronted();
    for (target, account, status) in [
        ("/q", "ANA", 200),
        ("/q?", "ANA", 200),
        ("/q?owner=ANA", "ANA", 200),
        ("/q?owner=of/ANA", "ANA", 200),
        ("/q?owner=of%2fBOB", "ANA", 403),
        ("/q?Owner=BOB", "ANA", 403),
        ("/q?x=1", "ANA", 403),
        ("/q?x=1&owner=BOB", "DOC", 200),
        ("/q", "DOC", 200),
    ] {
        assert_eq!(gateway.get(target, account).status, status, "{target} {account}");
    }
    let lines: Vec<_> = server.seen().iter().map(|request| request.lines().next().unwrap().to_owned()).collect();
    let asked = ["/q?owner=of/ANA", "/q?owner=of/ANA", "/q?owner=ANA", "/q?owner=of/ANA", "/q?x=1&owner=BOB", "/q"];
    assert_eq!(lines, asked.map(|target| format!("GET {target} HTTP/1.1")));
}
