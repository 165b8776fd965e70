//! HTTP/1 clients that close their sending half after a whole request, as netcat does, and wait for the answer.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic};
use crate::gateway::tls::{client, connect_as};

/// How the sending half is closed.
#[derive(Debug, Clone, Copy)]
enum Way {
    Plain,
    /// Over TLS, with close_notify.
    Notified,
    /// Over TLS, without it.
    Cut,
}

/// Everything that arrives until the gateway ends the connection.
fn converse(gateway: &Gateway, way: Way, bytes: &[u8]) -> String {
    let mut received = Vec::new();
    match way {
        Way::Plain => {
            let mut stream = TcpStream::connect(gateway.address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream.read_to_end(&mut received).unwrap();
        }
        Way::Notified | Way::Cut => {
            let config = client(gateway, &[&rustls::version::TLS13], &[]);
            let mut stream = connect_as(gateway, config, "localhost").unwrap();
            stream.write_all(bytes).unwrap();
            if let Way::Notified = way {
                stream.conn.send_close_notify();
            }
            stream.flush().unwrap();
            stream.sock.shutdown(Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut received);
        }
    }
    String::from_utf8_lossy(&received).into_owned()
}

fn request(line: &str, more: &str) -> String {
    format!("{line}\r\nHost: localhost\r\nAuthorization: {}\r\n{more}", basic("ANA", CANARY))
}

#[test]
fn a_whole_request_is_answered_although_its_client_sends_nothing_more() {
    let gateway = Gateway::start();
    let page = "/pols/ANA/slow";
    let requests = [
        request(&format!("GET {page} HTTP/1.1"), "\r\n"),
        request(&format!("GET {page} HTTP/1.0"), "\r\n"),
        request(&format!("POST {page} HTTP/1.1"), "Content-Length: 2\r\n\r\n{}"),
        request(&format!("POST {page} HTTP/1.1"), "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    ];
    for way in [Way::Plain, Way::Notified, Way::Cut] {
        for request in &requests {
            let answer = converse(&gateway, way, request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\ntrue"), "{way:?}: {answer:?}");
            let record = gateway.record();
            assert_eq!((&record["decision"], &record["status"]), (&"allow".into(), &200.into()), "{record}");
        }
    }
    // A whole request before the end is answered too, and half a request is not.
    let two = request("GET /people/ANA HTTP/1.1", "\r\n").repeat(2);
    assert_eq!(converse(&gateway, Way::Plain, two.as_bytes()).matches("HTTP/1.1 200 ").count(), 2);
    let half = request("POST /pols/ANA/slow HTTP/1.1", "Content-Length: 4\r\n\r\n{}");
    let answer = converse(&gateway, Way::Plain, half.as_bytes());
    assert!(!answer.contains(" 200 "), "{answer}");
}

#[test]
fn a_half_closed_client_is_awaited_as_long_as_configured() {
    for seconds in ["0", "1"] {
        let environment = [("FEDGATE_LIMITS_HALF_CLOSED_SECONDS", seconds)];
        let gateway = Gateway::start_as(&Setup { environment: &environment, ..Setup::default() });
        // Longer than the second, and shorter than the upstream takes.
        let answer = converse(&gateway, Way::Plain, request("GET /pols/ANA/hang HTTP/1.1", "\r\n").as_bytes());
        assert_eq!(answer, "", "{seconds}");
        let record = gateway.record();
        assert_eq!((&record["reason"], &record["status"]), (&"client_gone".into(), &0.into()), "{seconds}: {record}");
        let duration = record["duration_us"].as_u64().unwrap();
        assert!(seconds == "0" || duration >= 900_000, "{record}");
    }
}
