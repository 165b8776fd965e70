//! Bytes that two parsers could read in two ways, and clients that are slow.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::fixture::{CANARY, Gateway, LARGE, PATIENCE, basic};
use crate::scripted::until;

fn authorization() -> String {
    format!("Authorization: {}\r\n", basic("ADM", CANARY))
}

#[test]
fn what_has_more_than_one_reading_is_refused_once_recorded_and_reaches_nobody() {
    let gateway = Gateway::start();
    let auth = authorization();
    #[rustfmt::skip]
    let cases: Vec<(String, u16)> = vec![
        (format!("POST /people/X HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST /people/X HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST /people/X HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST /people/X HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST /people/X HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST /people/X HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST /people/X HTTP/1.0\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST /people/X HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: \r\n\r\n"), 400),
        (format!("POST /people/X HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 0x3\r\n\r\nabc"), 400),
        (format!("GET /people HTTP/1.1\r\nHost: a\r\n{auth}X: a\nX-Id: admin\r\n\r\n"), 400),
        (format!("GET /people HTTP/1.1\nHost: a\n{}\n", auth.replace("\r\n", "\n")), 400),
        (format!("GET /people HTTP/1.1\r\nHost: a\r\n{auth}X: a\r\n folded\r\n\r\n"), 400),
        (format!("GET /people HTTP/1.1\r\nHost: a\r\n{auth}: empty\r\n\r\n"), 400),
        (format!("GET /people HTTP/1.1\r\nHost: a\r\n{auth}Fedgate_Assertion: x\r\n\r\n"), 400),
        (format!("GET /people HTTP/1.1\r\nHost: a\r\n{auth}Fedgate.Assertion: x\r\n\r\n"), 400),
        (format!("GET /people HTTP/1.1\r\nHost: a\r\n{auth}X: \0\r\n\r\n"), 400),
        (format!("GET /people HTTP/1.1\r\nHost: a\r\n{auth}Connection: Host\r\n\r\n"), 400),
        (format!("GET /a b HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), 400),
        (format!("GET /a\tb HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), 400),
        (format!("GET /people HTTP/1.1\r\n{auth}\r\n"), 400),
        (format!("GET /people HTTP/1.1\r\nHost: a\r\n{auth}{}\r\n", "X: a\r\n".repeat(101)), 431),
        (format!("GET /people HTTP/1.1\r\nHost: a\r\n{auth}X: {}\r\n\r\n", "a".repeat(17_000)), 431),
        (format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n{auth}\r\n"), 405),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\n".to_owned(), 400),
    ];
    for (bytes, status) in cases {
        let answer = gateway.send(bytes.as_bytes());
        assert_eq!(answer.status, status, "{bytes:?}");
        assert_eq!(answer.header("connection").as_deref(), Some("close"));
        let record = gateway.record();
        assert_eq!(
            (record["status"].as_u64(), record["decision"].as_str()),
            (Some(status.into()), Some("refuse")),
            "{bytes:?}"
        );
        assert_eq!(record["request.id"], answer.json()["request_id"]);
        assert_eq!(record["reason"], answer.json()["code"]);
        assert_eq!(record["client.ip"], "127.0.0.1");
    }
    assert!(gateway.upstream.seen().is_empty());
    assert!(gateway.no_record(), "one record each");
}

#[test]
fn a_chunk_with_more_than_one_reading_fails_the_request() {
    let gateway = Gateway::start();
    let head = format!("POST /pols/ANA/1 HTTP/1.1\r\nHost: a\r\n{}Transfer-Encoding: chunked\r\n\r\n", authorization());
    for body in [
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n",
        "10000000000000003\r\n",
        "3\r\nabcX\r\n",
        "3;x\n\r\nabc\r\n",
        "3\nabc\r\n",
        "3;x=1\r\nabc\r\n0\r\n\r\n",
    ] {
        let answer = gateway.send(format!("{head}{body}").as_bytes());
        assert_eq!(answer.status, 400, "{body:?}: {answer:?}");
        // In parts too: the head is forwarded long before the chunk arrives.
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer}");
    }
    for request in gateway.upstream.seen() {
        assert!(!request.ends_with("0\r\n\r\n"), "no broken body looks whole upstream: {request}");
    }
    // A trailer is accepted and not forwarded.
    let trailer = gateway.send(
        format!(
            "{}3\r\nabc\r\n0\r\nFedgate-Assertion: x\r\n\r\n",
            head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
        )
        .as_bytes(),
    );
    assert_eq!(trailer.status, 200);
    assert!(!gateway.upstream.seen().last().unwrap().contains("Fedgate-Assertion: x"));
}

#[test]
fn a_second_request_in_the_body_of_the_first_is_never_served() {
    let gateway = Gateway::start();
    let smuggled = format!("GET /people HTTP/1.1\r\nHost: a\r\n{}\r\n", authorization());
    let first = format!(
        "GET /pols/ANA/1 HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Length: {}\r\n\r\n{smuggled}",
        basic("ANA", CANARY),
        smuggled.len()
    );
    assert_eq!(gateway.send(first.as_bytes()).status, 400);
    let body = format!(
        "POST /pols/ANA/1 HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{smuggled}",
        basic("ANA", CANARY),
        smuggled.len()
    );
    assert_eq!(gateway.send(body.as_bytes()).status, 200);
    let seen = gateway.upstream.seen();
    assert_eq!(seen.len(), 1);
    assert!(seen[0].ends_with(&smuggled), "it is a body, and stays one");
}

#[test]
fn what_follows_a_request_on_its_connection_is_read_as_strictly() {
    let gateway = Gateway::start();
    let good = format!("GET /people/ANA HTTP/1.1\r\nHost: a\r\n{}\r\n", authorization());
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..3 {
        stream.write_all(good.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 "), "kept alive");
    }
    stream.write_all(good.replace("Host: a\r\n", "Host: a\nX: b\r\n").as_bytes()).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the connection ends");
    assert!(rest.starts_with("HTTP/1.1 400 ") && rest.contains("\"code\":\"bad_header\""), "{rest}");
    assert_eq!(gateway.upstream.seen().len(), 3);
}

#[test]
fn requests_that_come_in_one_piece_are_each_judged_and_answered() {
    let gateway = Gateway::start();
    let good = format!("GET /people/ANA HTTP/1.1\r\nHost: a\r\n{}\r\n", authorization());
    let last = good.replace("Host: a", "Host: a\r\nConnection: close");
    let count = |bytes: String| {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).expect("the connection ends");
        answers.matches("HTTP/1.1 200 ").count()
    };
    assert_eq!(count(format!("{good}{good}{last}")), 3);
    assert_eq!(gateway.upstream.seen().len(), 3);
    let broken = good.replace("Host: a\r\n", "Host: a\nX: b\r\n");
    assert_eq!(count(format!("{good}{broken}{last}")), 1, "what is behind it is served no more");
    for (status, decision) in [(200, "allow"), (200, "allow"), (200, "allow"), (200, "allow"), (400, "refuse")] {
        let record = gateway.record();
        assert_eq!((record["status"].as_u64(), record["decision"].as_str()), (Some(status), Some(decision)));
    }
    assert_eq!(gateway.upstream.seen().len(), 4);
}

#[test]
fn what_comes_before_its_turn_waits_for_it_and_hurries_nobody() {
    let environment = [("FEDGATE_LIMITS_HEAD_TIMEOUT_SECONDS", "1")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let head = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n{}{more}\r\n", authorization());
    let next = head("GET /people/ANA", "Connection: close\r\n");
    let (beginning, rest) = next.split_at(9);
    for first in [
        head("GET /pols/ANA/late", ""),
        head("POST /pols/ANA/late", "Content-Length: 4\r\n") + "true",
        head("POST /pols/ANA/late", "Transfer-Encoding: chunked\r\n") + "4\r\ntrue\r\n0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // In one piece, and during an answer that takes longer than a head may.
        let (at_once, later) = beginning.split_at(4);
        let before = gateway.upstream.count();
        stream.write_all(format!("{first}{at_once}").as_bytes()).unwrap();
        until("the upstream works on it", || gateway.upstream.count() > before);
        stream.write_all(later.as_bytes()).unwrap();
        let mut answer = [0; 4096];
        let count = stream.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer[..count]));
        stream.write_all(rest.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
    // A client that pipelines more waits for its turn and is served. A client that leaves is not waited for.
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{}{}", head("GET /pols/ANA/late", ""), "x".repeat(100_000)).as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn requests_on_a_connection_are_bounded() {
    let environment = [("FEDGATE_LIMITS_REQUESTS_PER_CONNECTION", "3")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let request = format!("GET /people/ANA HTTP/1.1\r\nHost: a\r\n{}\r\n", authorization());
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.repeat(9).as_bytes()).unwrap();
    let mut answers = String::new();
    let _ = stream.read_to_string(&mut answers);
    let served = answers.matches("HTTP/1.1 200 ").count();
    assert_eq!(served, 3);
    let last = answers.rsplit("HTTP/1.1 200 ").next().unwrap().to_ascii_lowercase();
    assert!(last.contains("\r\nconnection: close\r\n"), "the last one says so: {last}");
    assert_eq!(gateway.upstream.seen().len(), served);
}

#[test]
fn the_size_of_a_head_is_a_setting() {
    let environment = [("FEDGATE_LIMITS_HEAD_BYTES", "2048")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let with = |filler: usize| gateway.request("GET", "/people/ANA", "ANA", &format!("X: {}\r\n", "a".repeat(filler)));
    assert_eq!(with(1500).status, 200);
    let refused = with(2048);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (431, Some("head_too_large")));
}

#[test]
fn a_client_that_sends_a_byte_at_a_time_is_disconnected() {
    let policy = std::fs::read_to_string("policies/roles.cfg").unwrap();
    let environment = [
        ("FEDGATE_LIMITS_HEAD_TIMEOUT_SECONDS", "1"),
        ("FEDGATE_LIMITS_BODY_TIMEOUT_SECONDS", "1"),
        ("FEDGATE_LIMITS_IDLE_TIMEOUT_SECONDS", "1"),
    ];
    let gateway = Gateway::start_in(&environment, "", &policy);
    let slow = |bytes: String, at_once: usize| {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        stream.write_all(&bytes.as_bytes()[..at_once]).unwrap();
        let (mut rest, mut answer) = (bytes.as_bytes()[at_once..].iter(), Vec::new());
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "never let go");
            if let Some(byte) = rest.next() {
                let _ = stream.write_all(&[*byte]);
            }
            let mut block = [0; 512];
            match stream.read(&mut block) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&block[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(30))
                }
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    let head = format!("POST /pols/ANA/hang HTTP/1.1\r\nHost: a\r\n{}Content-Length: 1000\r\n\r\n", authorization());
    assert!(slow(format!("{head}{}", "x".repeat(1000)), 10).starts_with("HTTP/1.1 408 "));
    // The upstream waits for the body as long as the gateway does. The gateway's limit ends first, or at the same
    // time.
    let answer = slow(format!("{head}{}", "x".repeat(1000)), head.len());
    assert!(answer.starts_with("HTTP/1.1 408 ") || answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(slow(String::new(), 0), "", "who says nothing is let go without a word");
    let metrics = gateway.admin_get("/metrics").body;
    for limit in ["head", "idle"] {
        assert!(metrics.contains(&format!("fedgate_connections_ended_total{{limit=\"{limit}\"}} ")), "{metrics}");
    }
}

#[test]
fn connections_of_one_source_are_bounded() {
    let policy = std::fs::read_to_string("policies/roles.cfg").unwrap();
    let gateway = Gateway::start_in(&[("FEDGATE_LIMITS_CONNECTIONS_PER_SOURCE", "3")], "", &policy);
    let deadline = Instant::now() + PATIENCE;
    while gateway.get("/people/ANA", "ANA").status != 200 {
        assert!(Instant::now() < deadline, "the fixture's own connections were never given back");
    }
    let held = loop {
        let held: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(gateway.address).unwrap()).collect();
        // One of the three is refused if the connection before them still has its place.
        if gateway.get("/people/ANA", "ANA").status == 0 {
            break held;
        }
        assert!(Instant::now() < deadline, "the fourth is closed without a word");
    };
    drop(held);
    while gateway.get("/people/ANA", "ANA").status != 200 {
        assert!(Instant::now() < deadline, "places were never given back");
    }
}

#[test]
fn a_client_that_asks_for_a_problem_gets_one() {
    let gateway = Gateway::start();
    let asking = "Accept: application/problem+json\r\n";
    for (account, target, status, code) in [
        ("ANA", "/people/DOC", 403, "not_permitted"),
        ("", "/people", 401, "unauthenticated"),
        ("ANA", "/none", 404, "not_found"),
    ] {
        let answer = gateway.request("GET", target, account, asking);
        assert_eq!(answer.header("content-type").as_deref(), Some("application/problem+json"), "{answer:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
        let problem = answer.json();
        assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status), Some(code)));
        assert_eq!((problem["type"].as_str(), problem["title"].is_string()), (Some("about:blank"), true));
        assert_eq!(problem["request_id"], gateway.record()["request.id"]);
    }
    assert_eq!(gateway.request("GET", "/people", "", "").body, "Unauthorized Access", "Thalamus's clients know it so");
}

#[test]
fn a_handshake_has_the_time_of_a_head_and_counts_among_the_connections() {
    let environment = [("FEDGATE_LIMITS_HEAD_TIMEOUT_SECONDS", "1"), ("FEDGATE_LIMITS_CONNECTIONS", "3")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let silent = || {
        let stream = TcpStream::connect(gateway.tls_address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let deadline = Instant::now() + PATIENCE;
    let waiting = loop {
        let mut waiting: Vec<_> = (0..3).map(|_| silent()).collect();
        // Half of a ClientHello does not count as a handshake.
        let _ = waiting[0].write_all(b"\x16\x03\x01\x02\x00\x01");
        // At first, connections of the fixture may still have the seats.
        if gateway.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").status == 0 {
            break waiting;
        }
        assert!(Instant::now() < deadline, "three are there, and a fourth finds a place");
    };
    for mut stream in waiting {
        let mut rest = vec![];
        let _ = stream.read_to_end(&mut rest);
    }
    while gateway.get("/people/ANA", "ANA").status != 200 {
        assert!(Instant::now() < deadline, "their places are free again");
    }
    // Plain HTTP on the TLS port is answered in plain HTTP, and the connection ends.
    let mut stream = silent();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = vec![];
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
}

#[test]
fn a_client_that_takes_an_answer_too_slowly_is_disconnected() {
    let environment = [("FEDGATE_LIMITS_SEND_TIMEOUT_SECONDS", "1")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    // Without a bound the kernel's buffers grow with the answer, and may take all of it.
    let connect = || {
        let stream = TcpStream::connect(gateway.address).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 64 * 1024).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut stream = connect();
    let request = format!("GET /pols/ANA/large HTTP/1.1\r\nHost: a\r\n{}\r\n", authorization());
    stream.write_all(request.as_bytes()).unwrap();
    // The client reads nothing: the buffers of both sides fill, and no further byte is taken.
    let record = gateway.record_within(PATIENCE).expect("the request comes to its end").1;
    assert_eq!(
        (record["decision"].as_str(), record["reason"].as_str()),
        (Some("fail"), Some("client_gone")),
        "{record}"
    );
    let mut taken = vec![];
    let ended = stream.read_to_end(&mut taken);
    assert!(ended.is_err() || taken.len() < LARGE, "cut off: {} bytes", taken.len());
    // Bytes taken earlier earn no time: a client that stops in the middle is closed as soon.
    let mut stream = connect();
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_exact(&mut vec![0; LARGE / 4]).unwrap();
    let record = gateway.record_within(PATIENCE).expect("it is let go").1;
    assert_eq!(record["reason"], "client_gone", "{record}");
    // A client that reads receives the whole answer.
    let answer = gateway.get("/pols/ANA/large", "ANA");
    assert_eq!((answer.complete, answer.body.len()), (true, LARGE));
}

#[test]
fn an_empty_line_before_a_request_is_skipped_once() {
    let gateway = Gateway::start();
    let request = |before: &str| {
        let authorization = basic("ANA", CANARY);
        format!("{before}GET /people/ANA HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n")
    };
    // After a body, as old clients send it, and in pieces. The second request is answered on the same connection.
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let first = request("").replace("GET", "PATCH") + "Content-Length: 2\r\n\r\n{}\r";
    stream.write_all(first.as_bytes()).unwrap();
    let mut answer = [0; 8192];
    let count = stream.read(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..count]).starts_with("HTTP/1.1 200 "));
    stream.write_all(format!("\n{}Connection: close\r\n\r\n", request("")).as_bytes()).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 200 "), "{rest}");
    assert_eq!(gateway.send(format!("{}Connection: close\r\n\r\n", request("\r\n")).as_bytes()).status, 200);
    assert_eq!(gateway.upstream.seen().len(), 3);
    (0..3).for_each(|_| _ = gateway.record());
    for two in ["\r\n\r\n", "\n"] {
        let refused = gateway.send(format!("{}\r\n", request(two)).as_bytes());
        assert_eq!(refused.status, 400, "{two:?}");
        assert_eq!(gateway.record()["status"], 400);
    }
    // A request that is refused after an empty line is recorded with its own line.
    assert_eq!(gateway.send(b"\r\nGET /people HTTP/1.1\r\n\r\n").status, 400);
    let record = gateway.record();
    assert_eq!((&record["method"], &record["path"]), (&"GET".into(), &"/people".into()));
    assert_eq!(gateway.upstream.seen().len(), 3);
}

#[test]
fn an_empty_line_alone_is_silence() {
    let environment = [("FEDGATE_LIMITS_HEAD_TIMEOUT_SECONDS", "1"), ("FEDGATE_LIMITS_IDLE_TIMEOUT_SECONDS", "2")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let mut answer = String::new();
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\r\n").unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "", "nobody is told that a request took too long which has not begun");
    assert!(gateway.no_record());
}
