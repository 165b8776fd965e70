//! The look at a page before it is shown or changed, at an upstream that misbehaves. Sources: RFC 9110, 9.2.2 and
//! 15.2; RFC 9112, 6.3 and 7.4.

use std::net::SocketAddr;
use std::time::Duration;

use crate::fixture::{Gateway, Response};
use crate::gateway::fields::{code, send, start};
use crate::scripted::{Exchange, Server};
use crate::support::free_address;

const PAGE: &str = r#"{"book":"ANA"}"#;

/// A gateway with guarded pages in front of these servers.
fn before(servers: &[SocketAddr], keys: &str) -> Gateway {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    let upstream = format!(
        "[[upstream]]\nname = \"t\"\n# 127.0.0.1:8080\nassertion = false\nforward_authorization = true\n\
         connect_timeout_ms = 500\nservers = {servers:?}\n{keys}\n"
    );
    start(&upstream, "127.0.0.1:8080", ("FEDGATE_GATEWAY_THALAMUS_FIELD_GUARD", "true")).0
}

fn ask(gateway: &Gateway, method: &str, page: &str) -> Response {
    let body: &[u8] = if method == "GET" { b"" } else { b"{}" };
    send(gateway, method, &format!("/pols/ANA/{page}"), "ANA", "", body)
}

fn page(exchange: &mut Exchange<'_>) -> bool {
    exchange.write(format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len()).as_bytes())
}

#[test]
fn a_look_is_asked_once_and_never_longer_than_the_request_may_take() {
    let script = |exchange: &mut Exchange<'_>| {
        let (head, dripped): (&[u8], &[u8]) = match exchange.request.split([' ', '/']).nth(4) {
            Some("closes") => return false,
            Some("drips-a-head") => (b"HTTP/1.1 200 OK\r\nX: ", b"X"),
            Some("drips-a-body") => (b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
            other => panic!("{other:?}"),
        };
        exchange.write(head);
        exchange.drip(dripped);
        false
    };
    // The other server would be asked second.
    let servers = [Server::start(script), Server::start(script)];
    let keys = "read_timeout_ms = 20000\ntotal_timeout_ms = 600\n[upstream.ejection]\nfailures = 0";
    let gateway = before(&servers.each_ref().map(|server| server.address), keys);
    for method in ["GET", "PATCH"] {
        for (page, expected) in [
            ("closes", (502, "upstream_unreachable")),
            ("drips-a-head", (504, "upstream_timeout")),
            ("drips-a-body", (504, "upstream_timeout")),
        ] {
            let known = servers.each_ref().map(|server| server.seen().len());
            let answer = ask(&gateway, method, page);
            assert_eq!(code(&answer), (expected.0, expected.1.to_owned()), "{method} {page}: {answer:?}");
            let seen = servers.iter().zip(known).flat_map(|(server, known)| server.seen()[known..].to_vec());
            let seen: Vec<_> = seen.collect();
            assert!(seen.len() == 1 && seen[0].starts_with("GET "), "{method} {page}: {seen:?}");
            assert_eq!(gateway.record()["decision"], "fail", "{method} {page}");
        }
    }
}

#[test]
fn a_silent_service_is_looked_at_once() {
    let servers = [(); 2].map(|()| Server::start(|exchange| !exchange.ends()));
    let gateway = before(&servers.each_ref().map(|server| server.address), "read_timeout_ms = 300");
    for (number, method) in ["GET", "PATCH"].into_iter().enumerate() {
        assert_eq!(code(&ask(&gateway, method, "a")), (504, "upstream_timeout".into()), "{method}");
        let seen = servers.iter().map(|server| server.seen().len()).sum::<usize>();
        assert_eq!(seen, number + 1, "{method}");
    }
}

#[test]
fn a_look_and_the_change_after_it_share_the_time_of_the_request() {
    // The server's time is what is tested: each of the two alone is in time.
    let server = Server::start(|exchange| {
        std::thread::sleep(Duration::from_millis(1000));
        exchange.write(b"HTTP/1.1 200 OK\r\n") && page(exchange)
    });
    let gateway = before(&[server.address], "read_timeout_ms = 20000\ntotal_timeout_ms = 1900");
    assert_eq!(code(&ask(&gateway, "PATCH", "a")), (504, "upstream_timeout".into()));
    let seen = server.seen();
    assert!(seen.len() == 2 && seen[1].starts_with("PATCH "), "{seen:?}");
    assert_eq!(ask(&gateway, "GET", "a").status, 200);
}

#[test]
fn another_server_is_looked_at_where_the_first_takes_no_connection() {
    let closed = free_address();
    let server = Server::start(|exchange| exchange.write(b"HTTP/1.1 200 OK\r\n") && page(exchange));
    let gateway = before(&[closed, server.address], "");
    for _ in 0..2 {
        assert_eq!(ask(&gateway, "GET", "a").status, 200);
    }
    assert!(gateway.figure(&format!("fedgate_upstream_retries_total{{server=\"{closed}\",upstream=\"t\"}}")) > 0.0);
}

#[test]
fn the_answer_to_a_look_is_read_as_any_other() {
    const EARLY: &str = "HTTP/1.1 103 Early Hints\r\n\r\n";
    let server = Server::start(|exchange| {
        let name = exchange.request.split([' ', '/']).nth(4).unwrap().to_owned();
        let head = match &*name {
            _ if exchange.request.starts_with("PATCH ") => "HTTP/1.1 200 OK\r\n".to_owned(),
            "good" => "HTTP/1.1 200 OK\r\n".to_owned(),
            "eight" => format!("{}HTTP/1.1 200 OK\r\n", EARLY.repeat(8)),
            "nine" => format!("{}HTTP/1.1 200 OK\r\n", EARLY.repeat(9)),
            "switches" => "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n".to_owned(),
            "equal" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", PAGE.len()),
            "lengths" => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n".to_owned(),
            "coded" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n".to_owned(),
            "identity" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n".to_owned(),
            other => panic!("{other}"),
        };
        exchange.write(head.as_bytes());
        page(exchange);
        false
    });
    let gateway = before(&[server.address], "read_timeout_ms = 20000\n[upstream.ejection]\nfailures = 0");
    for (page, status) in [
        ("good", 200),
        ("eight", 200),
        ("equal", 200),
        ("nine", 502),
        ("switches", 502),
        ("lengths", 502),
        ("coded", 502),
        ("identity", 502),
    ] {
        let answer = ask(&gateway, "GET", page);
        assert_eq!(answer.status, status, "{page}: {answer:?}");
        let known = server.seen().len();
        assert_eq!(ask(&gateway, "PATCH", page).status, status, "{page}");
        let changes = server.seen()[known..].iter().filter(|seen| seen.starts_with("PATCH ")).count();
        assert_eq!(changes, usize::from(status == 200), "{page}");
    }
}
