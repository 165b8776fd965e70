//! Refused requests, of which no byte reaches the upstream.

use crate::fixture::{CANARY, Gateway, basic};

#[test]
fn no_caller_enters_without_a_right_password_and_all_get_the_same_answer() {
    let gateway = Gateway::start();
    let header = |value: &str| gateway.request("GET", "/people/ANA", "", &format!("Authorization: {value}\r\n"));
    let wrong = [
        gateway.get("/people/ANA", ""),
        header("Basic"),
        header("Basic ="),
        header("Basic !"),
        header("Bearer QU5BOmNhbmFyeS1iMXJk"),
        header(&basic("ANA", "wrong")),
        header(&basic("NOBODY", CANARY)),
        header(&basic("ana", CANARY)),
        header(&basic("OFF", CANARY)),
        header(&basic("ANA", "")),
        gateway.get("/nowhere", ""),
    ];
    for answer in &wrong {
        assert_eq!((answer.status, answer.body.as_str()), (401, "Unauthorized Access"));
        assert_eq!(
            answer.header("www-authenticate").as_deref(),
            Some("Basic realm=\"Authentication Required\", charset=\"UTF-8\"")
        );
        assert_eq!(answer.header("content-type").as_deref(), Some("text/html; charset=utf-8"));
        assert_eq!(answer.head.lines().count(), wrong[0].head.lines().count(), "one set of headers: {}", answer.head);
    }
    assert!(gateway.upstream.seen().is_empty());
    assert_eq!(header(&basic("ANA", CANARY).replace("Basic", "bAsIc")).status, 200);
}

#[test]
fn a_forbidden_request_is_403_with_a_code_and_a_missing_thing_404() {
    let gateway = Gateway::start();
    #[rustfmt::skip]
    let cases = [
        // method, target, account, status, code
        ("GET",    "/people/DOC",   "ANA", 403, "not_permitted"),
        ("GET",    "/people/AN",    "ANA", 403, "not_permitted"),
        ("GET",    "/people/ana",   "ANA", 403, "not_permitted"),
        ("GET",    "/people",       "ANA", 403, "not_permitted"),
        ("DELETE", "/people/ANA",   "DOC", 403, "not_permitted"),
        ("GET",    "/password/ANA", "DOC", 403, "not_permitted"),
        ("GET",    "/nowhere",      "ANA", 404, "not_found"),
        ("GET",    "/PEOPLE",       "ADM", 404, "not_found"),
        ("PUT",    "/people/ANA",   "ADM", 405, "method_not_allowed"),
        ("PUT",    "/people/ANA",   "",    405, "method_not_allowed"),
        ("DELETE", "/login",        "ADM", 405, "method_not_allowed"),
    ];
    for (method, target, account, status, code) in cases {
        let answer = gateway.request(method, target, account, "");
        assert_eq!(answer.status, status, "{method} {target} {account}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
        let body = answer.json();
        assert_eq!(body["code"], code, "{method} {target}");
        assert_eq!(body["request_id"].as_str().map(str::len), Some(32));
        assert!(body["error"].is_string());
    }
    assert!(gateway.upstream.seen().is_empty());
    assert_eq!(gateway.get("/password/DOC", "DOC").status, 200, "the same person as end_user, for her own");
}

#[test]
fn a_path_with_more_than_one_reading_is_refused_before_anyone_is_asked() {
    let gateway = Gateway::start();
    let paths = "/people/../adm /people/./7 /.. /people/%2e%2e/adm /people/..%2fadm /people/7%2F8 //adm /people//7 /pols//1 \
                 /people\\..\\adm /people%5c.. /adm;x=1 /adm%00 /people/7%0d%0aX:1 /%61dm /people/%252e%252e/adm /people/%ff \
                 /people/%c0%ae /people/%zz adm ?x http://evil/adm /adm#x /people/";
    for path in paths.split(' ').filter(|path| !path.is_empty()) {
        for account in ["", "ADM"] {
            assert_eq!(gateway.get(path, account).status, 400, "{path}");
        }
    }
    assert_eq!(gateway.get(&format!("/{}", "a".repeat(2048)), "ADM").status, 414);
    assert_eq!(gateway.get(&format!("/people?{}", "a".repeat(9000)), "ADM").status, 414);
    assert!(gateway.upstream.seen().is_empty());
}

#[test]
fn methods_hosts_and_framing_with_more_than_one_reading_are_refused() {
    let gateway = Gateway::start();
    let authorization = format!("Authorization: {}\r\n", basic("ADM", CANARY));
    #[rustfmt::skip]
    let cases = [
        ("GET /people HTTP/1.1\r\n",                                                            400), // no Host
        ("GET /people HTTP/1.1\r\nHost: a\r\nHost: a\r\n",                                      400),
        ("TRACE /people HTTP/1.1\r\nHost: a\r\n",                                               405),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n",                                                 405),
        ("get /people HTTP/1.1\r\nHost: a\r\n",                                                 405),
        ("FOO /people HTTP/1.1\r\nHost: a\r\n",                                                 405),
        ("POST /people/X HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n",    400),
        ("POST /people/X HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n",                      400),
        ("POST /people/X HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n",                        400),
        ("POST /people/X HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n",                       400),
        ("POST /people/X HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n",          400),
        ("GET /people HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n",                            400),
    ];
    for (head, status) in cases {
        let answer = gateway.send(format!("{head}{authorization}\r\nabc").as_bytes());
        assert_eq!(answer.status, status, "{head}");
    }
    let two = gateway.send(format!("GET /people HTTP/1.1\r\nHost: a\r\n{authorization}{authorization}\r\n").as_bytes());
    assert_eq!((two.status, two.json()["code"].as_str()), (400, Some("several_authorizations")));
    assert!(gateway.upstream.seen().is_empty());
}

#[test]
fn an_unserved_method_gets_the_methods_of_its_path() {
    let gateway = Gateway::start();
    #[rustfmt::skip]
    let cases = [
        ("FOO",     "/people",     405, Some("GET, HEAD, OPTIONS")),
        ("FOO",     "/people/ANA", 405, Some("GET, HEAD, POST, PATCH, DELETE, OPTIONS")),
        ("PUT",     "/people",     405, Some("GET, HEAD, OPTIONS")),
        ("FOO",     "/nope",       404, None),
        ("OPTIONS", "/nope",       404, None),
        ("FOO",     "*",           405, Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")),
        ("OPTIONS", "*",           200, Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")),
    ];
    for (method, target, status, allow) in cases {
        for account in ["", "ANA"] {
            let answer = gateway.request(method, target, account, "");
            assert_eq!((answer.status, answer.header("allow").as_deref()), (status, allow), "{method} {target}");
        }
    }
    assert!(gateway.upstream.seen().is_empty());
}

#[test]
fn a_body_over_the_limit_is_refused_declared_or_not() {
    let gateway = Gateway::start();
    let head = format!("POST /pols/ANA/1 HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n", basic("ANA", CANARY));
    let declared = gateway.send(format!("{head}Content-Length: 2049\r\n\r\n").as_bytes());
    assert_eq!((declared.status, declared.json()["code"].as_str()), (413, Some("body_too_large")));
    assert!(gateway.upstream.seen().is_empty(), "refused before it is read");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let undeclared =
        gateway.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}{chunk}0\r\n\r\n").as_bytes());
    assert_eq!(undeclared.status, 413);
    let fits =
        gateway.send(format!("{head}Content-Length: 2048\r\nConnection: close\r\n\r\n{}", "x".repeat(2048)).as_bytes());
    assert_eq!(fits.status, 200);
}

#[test]
fn a_client_that_waits_for_100_is_refused_at_once() {
    let gateway = Gateway::start();
    let head = "POST /pols/ANA/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let began = std::time::Instant::now();
    assert_eq!(gateway.send(head.as_bytes()).status, 401);
    assert!(began.elapsed() < crate::fixture::PATIENCE / 10, "it waited for a body that does not come");
}

#[test]
fn another_expectation_than_100_is_ignored_and_no_100_is_sent() {
    let gateway = Gateway::start();
    let authorization = basic("ANA", CANARY);
    let ask = |expect: &str| {
        let head = format!(
            "POST /pols/ANA/1 HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nContent-Length: 2\r\n\
             Expect: {expect}\r\nConnection: close\r\n\r\n{{}}"
        );
        gateway.send(head.as_bytes()).status
    };
    assert_eq!((ask("200-ok"), ask("x=y, 200-ok"), ask("a, 100-Continue")), (200, 200, 100));
}

#[test]
fn a_client_that_speaks_http_to_the_port_of_https_is_answered_in_http() {
    use std::io::{Read, Write};
    let gateway = Gateway::start();
    for begins in [&["GET / HTTP/1.1\r\nHost: a\r\n\r\n"][..], &["PO", "ST / HTTP/1.1\r\n\r\n"], &["OPTIONS *"]] {
        let mut client = std::net::TcpStream::connect(gateway.tls_address).unwrap();
        client.set_read_timeout(Some(crate::fixture::PATIENCE)).unwrap();
        begins.iter().for_each(|part| client.write_all(part.as_bytes()).unwrap());
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("in front of the address\n"), "{answer}");
    }
    // Other bytes are no business of HTTP.
    let mut client = std::net::TcpStream::connect(gateway.tls_address).unwrap();
    client.write_all(b"GEX / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = vec![];
    let _ = client.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    assert!(gateway.upstream.count() == 1);
}

#[test]
fn a_client_that_is_still_sending_gets_the_answer_all_the_same() {
    use std::io::{Read, Write};
    let gateway = Gateway::start();
    for (length, extra, status) in
        [(20_000, "", "403"), (20_000, "Connection: close\r\n", "403"), (20_000_000, "", "413")]
    {
        let account = if status == "413" { "ADM" } else { "ANA" };
        let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
        let authorization = basic(account, CANARY);
        let head = format!(
            "POST /pols/DOC/1 HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\n{extra}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // In two parts, as a TLS client sends them: the pause makes them two segments.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let sent = stream.write_all(&vec![b'x'; length]);
        assert!(sent.is_ok(), "the connection was reset under the client: {sent:?}");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer.ends_with(status.as_bytes()), "{}", String::from_utf8_lossy(&answer));
    }
}
