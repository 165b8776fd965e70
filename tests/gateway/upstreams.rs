//! One server that misbehaves: the client's answer, and the state that the next request finds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use crate::fixture::{Gateway, PATIENCE, Response};
use crate::gateway::tls::connect_h2;
use crate::scripted::{Exchange, OK, Server, before, before_one, until};
use crate::support::free_address;

#[test]
fn nobody_there_is_502_and_no_answer_is_504() {
    let refused = before(&[free_address().to_string()], "");
    let answer = refused.call_with("GET", "1", "");
    assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), (502, "upstream_unreachable"));

    // The queue of connections is full: the next one gets no answer.
    let listener =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &free_address()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let hole: std::net::SocketAddr = rustix::net::getsockname(&listener).unwrap().try_into().unwrap();
    let waiting: Vec<_> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&hole, std::time::Duration::from_millis(200)).ok())
            .take(8)
            .collect();
    assert!((1..8).contains(&waiting.len()), "the queue is full");
    let silent = Server::start(|exchange| !exchange.ends());
    for address in [hole, silent.address] {
        let answer = before(&[address.to_string()], "").call_with("POST", "1", "{}");
        assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), (504, "upstream_timeout"), "{address}");
    }
}

#[test]
fn half_an_answer_is_never_a_whole_one() {
    type Half = (&'static str, &'static [u8], bool);
    #[rustfmt::skip]
    const HALVES: [Half; 7] = [
        ("ended",        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nhalf",                       false),
        ("reset",        b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nhalf",                       true),
        ("chunk",        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",            false),
        ("chunks",       b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",        false),
        ("reset-chunk",  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",        true),
        ("bad-chunk",    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nhalf\r\n0\r\n\r\n", false),
        ("reset-open",   b"HTTP/1.1 200 OK\r\n\r\nhalf",                                              true),
    ];
    let server = Server::start(|exchange| {
        let id = exchange.request.split(['/', ' ']).nth(3).unwrap();
        let (_, answer, reset) = HALVES.iter().find(|(name, ..)| *name == id).unwrap();
        exchange.write(answer);
        if *reset {
            // The reset may overtake bytes that were written before it.
            std::thread::sleep(std::time::Duration::from_millis(50));
            exchange.reset();
        }
        false
    });
    let gateway = before_one(&server, "");
    for (name, ..) in HALVES {
        let answer = gateway.call_with("GET", name, "");
        assert!(answer.status == 502 || !answer.complete, "{name}: {answer:?}");
        assert_eq!(gateway.record()["decision"], "fail", "{name}");
        let (status, is_whole) = over_h2(&gateway, name);
        assert!(status == 502 || !is_whole, "{name}: HTTP/2 {status}");
    }
}

/// The status of an answer over HTTP/2, and whether its body ended properly.
fn over_h2(gateway: &Gateway, id: &str) -> (u16, bool) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut sender = connect_h2(gateway).await.ready().await.unwrap();
        let request = http::Request::get(format!("https://localhost/x/{id}")).body(()).unwrap();
        let answer = sender.send_request(request, true).unwrap().0.await.unwrap();
        let (status, mut body) = (answer.status().as_u16(), answer.into_body());
        while let Some(read) = body.data().await {
            let Ok(piece) = read else { return (status, false) };
            body.flow_control().release_capacity(piece.len()).unwrap();
        }
        (status, true)
    })
}

#[test]
fn an_answer_with_two_readings_is_502_or_read_one_way() {
    #[rustfmt::skip]
    const ANSWERS: [(&str, u16, &[u8]); 5] = [
        ("lengths",   502, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\ntrue"),
        ("no-number", 502, b"HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\ntrue"),
        ("garbage",   502, b"\x00\x01garbage\r\n\r\n"),
        ("switching", 502, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        // The chunks count (RFC 9112, 6.3), and the client receives one length.
        ("both",      200, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntrue\r\n0\r\n\r\n"),
    ];
    let server = Server::start(|exchange| {
        let id = exchange.request.split(['/', ' ']).nth(3).unwrap();
        let known = ANSWERS.iter().find(|(name, ..)| *name == id);
        exchange.write(known.map_or(OK, |(_, _, answer)| answer));
        true
    });
    let gateway = before_one(&server, "");
    for (name, status, _) in ANSWERS {
        let answer = gateway.call_with("GET", name, "");
        assert_eq!((answer.status, answer.complete), (status, true), "{name}: {answer:?}");
        assert!(answer.header("content-length").is_none() || answer.header("transfer-encoding").is_none(), "{name}");
        let next = gateway.call_with("GET", "next", "");
        assert_eq!((next.status, next.body.as_str()), (200, "true"), "after {name}");
    }
}

const POISON: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

#[test]
fn extra_bytes_end_the_connection_and_answer_nobody() {
    let at_once = Server::start(|exchange| exchange.write(&[OK, POISON].concat()));
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let later = Server::start(move |exchange| {
        exchange.write(OK);
        exchange.write(POISON);
        count.fetch_add(usize::from(exchange.ends()), Ordering::SeqCst);
        false
    });
    let no_body = Server::start(|exchange| exchange.write(&[b"HTTP/1.1 204 No Content\r\n\r\n", POISON].concat()));
    for (server, expected, is_later) in
        [(at_once, (200, "true"), false), (later, (200, "true"), true), (no_body, (204, ""), false)]
    {
        let gateway = before_one(&server, "");
        for number in 1..=4 {
            let answer = gateway.call_with("GET", "1", "");
            assert_eq!((answer.status, answer.body.as_str()), expected);
            assert!(server.seen().len() <= number, "nothing is asked twice");
            // Bytes after the next request was sent would be taken for its answer, here as in every HTTP/1.1.
            until("the connection was not ended", || !is_later || ended.load(Ordering::SeqCst) == number);
        }
        assert_eq!(server.connections(), 4, "none was used again");
    }
}

#[test]
fn kept_connections_are_used_again() {
    let server = Server::good();
    let gateway = before_one(&server, "");
    // In rare cases pingora takes no kept connection, because its watcher still has it.
    let is_one_enough = (1..=10).any(|turn| {
        let known = server.connections();
        for method in ["GET", "POST", "PUT", "GET"] {
            assert_eq!(gateway.call(method, "1"), 200);
        }
        assert_eq!(server.seen().len(), 4 * turn);
        server.connections() == known.max(1)
    });
    assert!(is_one_enough, "{} connections", server.connections());
}

#[test]
fn a_kept_connection_that_ends_costs_one_repetition_and_never_of_post_or_patch() {
    // The first request of a connection is answered; the second is taken and the connection ended.
    for (method, statuses, deliveries) in [
        ("GET", [200, 200], 3),
        ("DELETE", [200, 200], 3),
        ("PUT", [200, 200], 3),
        ("POST", [200, 502], 2),
        ("PATCH", [200, 502], 2),
    ] {
        let body = "x".repeat(1500);
        let (server, gateway, told) = (0..10)
            .find_map(|_| {
                let server = Server::start(|exchange| exchange.number == 0 && exchange.write(OK));
                let gateway = before_one(&server, "read_timeout_ms = 20000");
                let told = [(); 2].map(|()| gateway.call_with(method, "1", &body).status);
                // In rare cases pingora takes no kept connection, because its watcher still has it.
                let is_used = (server.connections(), server.seen().len()) != (2, 2);
                is_used.then_some((server, gateway, told))
            })
            .expect("a kept connection is used");
        assert_eq!(told, statuses, "{method}");
        let seen = server.seen();
        assert_eq!(seen.len(), deliveries, "{method}");
        assert!(
            seen.iter().all(|request| matches!(method, "GET" | "DELETE") || request.ends_with(&body)),
            "{method}: the whole body"
        );
        assert_eq!(gateway.figure("fedgate_upstream_retries_total"), 0.0, "the label is the server's");
        let retries = format!("fedgate_upstream_retries_total{{server=\"{}\",upstream=\"x\"}}", server.address);
        assert_eq!(gateway.figure(&retries), (deliveries - 2) as f64, "{method}");
    }
}

#[test]
fn a_second_attempt_uses_no_connection_that_was_kept() {
    // Two requests at the same time leave two connections; both end when they are used again.
    let both = Arc::new(Barrier::new(2));
    let server = Server::start(move |exchange| {
        if exchange.request.contains("/x/both ") {
            both.wait();
        }
        exchange.number == 0 && exchange.write(OK)
    });
    let gateway = before_one(&server, "read_timeout_ms = 20000");
    std::thread::scope(|scope| {
        (0..2).for_each(|_| drop(scope.spawn(|| assert_eq!(gateway.call("GET", "both"), 200))));
    });
    assert_eq!((server.connections(), gateway.call("GET", "1"), server.connections()), (2, 200, 3));
    let failures = format!("fedgate_upstream_failures_total{{server=\"{}\",upstream=\"x\"}}", server.address);
    assert_eq!(gateway.figure(&failures), 0.0, "an idle connection that ends is no failure");
}

#[test]
fn a_server_that_cuts_kept_connections_at_their_second_request_loses_no_read() {
    let server = Server::start(|exchange| exchange.number == 0 && exchange.write(OK));
    let gateway = before_one(&server, "read_timeout_ms = 20000");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..30).for_each(|number| assert_eq!(gateway.call("GET", "1"), 200, "{number}")));
        }
    });
    assert!(server.seen().len() > 90, "some were sent twice");
}

#[test]
fn a_body_over_64_kib_is_not_sent_again() {
    for (bytes, statuses) in [(64 * 1024, [200, 200]), (64 * 1024 + 1, [200, 502])] {
        let body = "x".repeat(bytes);
        let environment = [("FEDGATE_GATEWAY_MAX_BODY_BYTES", "1048576")];
        let told = (0..10).find_map(|_| {
            let server = Server::start(|exchange| exchange.number == 0 && exchange.write(OK));
            let gateway = crate::scripted::before_in(&environment, &[server.address.to_string()], "");
            let told = [(); 2].map(|()| gateway.call_with("PUT", "1", &body).status);
            // In rare cases pingora takes no kept connection.
            let is_used = (server.connections(), server.seen().len()) != (2, 2);
            is_used.then_some(told)
        });
        assert_eq!(told.expect("a kept connection is used"), statuses, "{bytes}");
    }
}

#[test]
fn a_kept_connection_on_which_nothing_comes_is_not_repeated() {
    let server = Server::start(|exchange| match exchange.number {
        0 => exchange.write(OK),
        _ => !exchange.ends(),
    });
    let gateway = before_one(&server, "");
    assert_eq!([gateway.call("GET", "1"), gateway.call("GET", "2")], [200, 504]);
    assert_eq!(server.seen().len(), 2, "it may still be at work on it");
}

#[test]
fn a_request_sent_over_a_new_connection_is_never_sent_again() {
    for method in ["GET", "PUT", "DELETE", "POST", "PATCH"] {
        let taken_and_ended = Server::start(|_| false);
        let taken_and_reset = Server::start(|exchange| {
            exchange.reset();
            false
        });
        for server in [taken_and_ended, taken_and_reset] {
            let gateway = before_one(&server, "");
            assert_eq!((gateway.call(method, "1"), server.seen().len()), (502, 1), "{method}");
        }
    }
}

/// Calls a server whose answer never ends, with 500 ms in total; returns what the client received.
fn dripped(drip: impl Fn(&mut Exchange<'_>) -> bool + Send + Sync + 'static) -> Response {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let server = Server::start(move |exchange| {
        count.fetch_add(usize::from(drip(exchange)), Ordering::SeqCst);
        false
    });
    let gateway = before_one(&server, "total_timeout_ms = 500");
    let answer = gateway.call_with("GET", "1", "");
    let record = gateway.record();
    let (status, is_whole) = over_h2(&gateway, "1");
    assert!((status, is_whole) == (answer.status, status == 504), "HTTP/2 {status}, {is_whole}");
    assert_eq!((record["decision"].as_str(), record["reason"].as_str()), (Some("fail"), Some("upstream_timeout")));
    assert_eq!(server.seen().len(), 2, "each was asked once");
    until("the gateway went on listening", || ended.load(Ordering::SeqCst) == 2);
    answer
}

#[test]
fn an_answer_that_drips_ends_with_the_total_time() {
    let head = dripped(|exchange| {
        exchange.write(b"HTTP/1.1 200 OK\r\nX-Long: ");
        exchange.drip(b"x")
    });
    assert_eq!((head.status, head.json()["code"].as_str().unwrap()), (504, "upstream_timeout"));
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked", "Connection: close"] {
        let body = dripped(move |exchange| {
            exchange.write(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n").as_bytes());
            exchange.drip(if framing.starts_with("Transfer") { b"1\r\nx\r\n" } else { b"x" })
        });
        assert!(body.status == 200 && !body.complete, "{framing}: {body:?}");
    }
}

#[test]
fn an_answer_that_moves_is_not_ended_by_the_total_time() {
    const TOTAL_MS: u64 = 3000;
    let piece = [b"1000\r\n", &[b'x'; 4096][..], b"\r\n"].concat();
    let server = Server::start(move |exchange| {
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // The time is what is tested.
        let start = std::time::Instant::now();
        while start.elapsed() < std::time::Duration::from_millis(2 * TOTAL_MS) {
            if !exchange.write(&piece) {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        exchange.write(b"0\r\n\r\n")
    });
    let gateway = before_one(&server, &format!("total_timeout_ms = {TOTAL_MS}"));
    std::thread::scope(|scope| {
        for (method, body) in [("GET", ""), ("POST", "{}")] {
            let gateway = &gateway;
            scope.spawn(move || {
                let answer = gateway.call_with(method, "1", body);
                assert!(answer.status == 200 && answer.complete, "{method}: {}", answer.status);
            });
        }
        assert_eq!(over_h2(&gateway, "1"), (200, true));
    });
}

#[test]
fn the_total_time_is_of_one_request_and_not_of_the_connection() {
    let server = Server::good();
    let gateway = before_one(&server, "total_timeout_ms = 400");
    let start = std::time::Instant::now();
    // The time is what is tested: three and two times the total time, busy and silent.
    while start.elapsed() < std::time::Duration::from_millis(1200) {
        assert_eq!(gateway.call("GET", "1"), 200);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Nor of an upstream without requests.
    std::thread::sleep(std::time::Duration::from_millis(800));
    assert_eq!((gateway.call("GET", "1"), server.connections()), (200, 1));
}

#[test]
fn no_total_time_lets_a_stream_go_on() {
    let server = Server::start(|exchange| {
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        exchange.drip(b"1\r\nx\r\n");
        false
    });
    let gateway = before_one(&server, "total_timeout_ms = 0");
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /x/1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut received = [0; 4096];
    let mut count = 0;
    until("the stream ended", || {
        let read = stream.read(&mut received).unwrap();
        assert!(read > 0, "the stream ended");
        count += received[..read].iter().filter(|byte| **byte == b'x').count();
        count > 60
    });
}

#[test]
fn interim_answers_are_bounded() {
    let server = Server::start(|exchange| {
        if exchange.request.contains("/x/few ") {
            return exchange.write(&[&b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(3), OK].concat());
        }
        exchange.drip(b"HTTP/1.1 103 Early Hints\r\n\r\n");
        false
    });
    let gateway = before_one(&server, "");
    let statuses = |id: &str| -> Vec<u16> {
        let answer = gateway.call_with("GET", id, "");
        let all = format!("{}\r\n\r\n{}", answer.head, answer.body);
        all.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()).collect()
    };
    assert_eq!(statuses("few"), [103, 103, 103, 200]);
    let flood = statuses("flood");
    assert!(flood.len() < 12 && flood.last() == Some(&502), "{flood:?}");
}

#[test]
fn what_arrived_before_an_answer_broke_reaches_the_client_however_it_was_split() {
    const BEGIN: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    const REST: &[u8] = b"4\r\nlast\r\n4\r\nmore\r\n";
    let server = Server::start(|exchange| {
        if exchange.request.contains("/x/once ") {
            exchange.write(&[BEGIN, REST].concat());
            return false;
        }
        exchange.write(BEGIN);
        std::thread::sleep(std::time::Duration::from_millis(50));
        exchange.write(REST);
        false
    });
    let gateway = before_one(&server, "");
    for id in ["once", "apart"] {
        let answer = gateway.call_with("GET", id, "");
        assert_eq!((answer.status, answer.complete), (200, false), "{id}: {answer:?}");
        assert!(["first", "last", "more"].iter().all(|part| answer.body.contains(part)), "{id}: {answer:?}");
    }
}

#[test]
fn half_a_body_leaves_no_connection_behind_that_another_request_would_be_taken_for_its_rest() {
    let server = Server::good();
    let gateway = before_one(&server, "");
    for framing in ["Content-Length: 100\r\n\r\n{\"half\":", "Transfer-Encoding: chunked\r\n\r\n64\r\n{\"half\":"] {
        // Of the same kind: reads have connections of their own.
        assert_eq!(gateway.call_with("POST", "before", "{}").status, 200, "a connection is kept");
        let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
        stream.write_all(format!("POST /x/1 HTTP/1.1\r\nHost: a\r\n{framing}").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let records = [gateway.record(), gateway.record()];
        assert_eq!(records[1]["decision"], "fail", "{records:?}");
        let kept = server.connections();
        // The other caller's request belongs to no body.
        assert_eq!(gateway.call_with("POST", "after", "{}").status, 200);
        gateway.record();
        assert!(server.connections() > kept, "the connection with half a body is used no more");
        assert!(server.seen().last().unwrap().starts_with("POST /x/after "));
        assert!(server.seen().iter().all(|request| !request.contains("half")));
    }
}

#[test]
fn a_server_that_does_not_take_a_body_over_http2_is_at_fault_and_not_the_client() {
    // The server accepts, and reads nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let upstream = "write_timeout_ms = 20000";
    let environment = [("FEDGATE_LIMITS_BODY_TIMEOUT_SECONDS", "1"), ("FEDGATE_GATEWAY_MAX_BODY_BYTES", "67108864")];
    let gateway = crate::scripted::before_in(&environment, &[address], upstream);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut sender = connect_h2(&gateway).await.ready().await.unwrap();
        let request = http::Request::post("https://localhost/x/1").body(()).unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        let sending = tokio::spawn(async move {
            for _ in 0..512 {
                body.reserve_capacity(64 * 1024);
                let Some(Ok(_)) = std::future::poll_fn(|cx| body.poll_capacity(cx)).await else { return };
                if body.send_data(bytes::Bytes::from(vec![b'x'; body.capacity().min(64 * 1024)]), false).is_err() {
                    return;
                }
            }
        });
        let status = answer.await.map(|answer| answer.status().as_u16());
        assert!(matches!(status, Ok(502 | 504)), "{status:?}");
        sending.abort();
    });
    let record = gateway.record();
    assert_eq!(record["decision"], "fail", "{record}");
    assert_ne!(record["status"], 408, "{record}");
    drop(listener);
}
