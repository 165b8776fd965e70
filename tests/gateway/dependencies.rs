//! Published faults of the libraries, and the guard against each (docs/DEPENDENCIES.md).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::fixture::{CANARY, Gateway, PATIENCE, basic, find_header};
use crate::gateway::exchanges::TWO_HUNDRED;
use crate::gateway::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, block_of, frame, open, read};
use crate::scripted::{Server, before, before_one, until};

/// Sends bytes and reads until the connection ends or `until` has arrived.
fn converse(gateway: &Gateway, bytes: &str, until: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let (mut text, mut block) = (String::new(), [0; 4096]);
    while !text.contains(until) || until.is_empty() {
        match stream.read(&mut block) {
            Ok(count @ 1..) => text.push_str(&String::from_utf8_lossy(&block[..count])),
            _ => break,
        }
    }
    (stream, text)
}

#[test]
fn cookies_that_http2_has_split_are_one_line_upstream() {
    let server = Server::good();
    let gateway = before_one(&server, "");
    let mut stream = open(&gateway);
    let block = block_of("GET", "/x/1", &[("cookie", "a=b"), ("cookie", "c=d; e=f"), ("cookie", "g=h")]);
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).unwrap();
    read(&mut stream, |kind, number| kind == HEADERS && number == 1);
    let two_lines = "GET /x/1 HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\nCookie: c=d\r\nConnection: close\r\n\r\n";
    assert_eq!(gateway.send(two_lines.as_bytes()).status, 200);
    // Joined before they are counted: a browser may have many cookies, each in a line of its own.
    let many: Vec<String> = (0..90).map(|number| format!("a{number}=b")).collect();
    let lines: Vec<_> = many.iter().map(|cookie| ("cookie", cookie.as_str())).collect();
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block_of("GET", "/x/1", &lines))).unwrap();
    let frames = read(&mut stream, |kind, number| kind == HEADERS && number == 3);
    assert_eq!(frames.last().unwrap().2.first(), Some(&TWO_HUNDRED));
    let seen = server.seen();
    for (request, cookie) in seen.iter().zip(["a=b; c=d; e=f; g=h", "a=b; c=d", &many.join("; ")]) {
        assert_eq!(request.to_ascii_lowercase().matches("\r\ncookie:").count(), 1, "{request}");
        assert_eq!(find_header(request, "cookie").as_deref(), Some(cookie));
    }
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let server = Server::good();
    let gateway = before_one(&server, "");
    let head =
        "POST /x/1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n";
    let (mut stream, told) = converse(&gateway, head, "\r\n\r\n");
    assert!(told.starts_with("HTTP/1.1 100 "), "{told}");
    stream.write_all(b"{}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(find_header(&server.seen()[0], "expect"), None);
    // A refusal is sent at once, and HTTP/1.0 has no interim answers.
    let refused = head.replace("/x/1", "/nowhere");
    assert!(converse(&gateway, &refused, "").1.starts_with("HTTP/1.1 401 "));
    let old = head.replace("HTTP/1.1", "HTTP/1.0") + "{}";
    let (_, answer) = converse(&gateway, &old, "");
    assert!(answer.contains(" 200 ") && !answer.contains(" 100 "), "{answer}");
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks_and_no_interim_answers() {
    let server = Server::start(|exchange| {
        exchange.write(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              4\r\ntrue\r\n0\r\n\r\n",
        )
    });
    let gateway = before_one(&server, "");
    for keeps in ["", "Connection: keep-alive\r\n"] {
        let (_, answer) = converse(&gateway, &format!("GET /x/1 HTTP/1.0\r\nHost: a\r\n{keeps}\r\n"), "");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 ") && !head.contains(" 103 "), "{answer}");
        assert_eq!((body, find_header(head, "transfer-encoding")), ("true", None), "{answer}");
        assert_eq!(find_header(head, "connection").as_deref(), Some("close"), "its end is the connection's: {answer}");
    }
    let (_, answer) = converse(&gateway, "GET /x/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "");
    assert!(answer.starts_with("HTTP/1.1 103 ") && answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[test]
fn what_a_client_says_of_its_connection_does_not_end_ours() {
    let server = Server::good();
    let gateway = before_one(&server, "");
    for line in
        ["Connection: close", "Connection: close, keep-alive\r\nKeep-Alive: timeout=1", "Proxy-Connection: close"]
    {
        let request = format!("GET /x/1 HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        assert_eq!(gateway.send_and_close(request.as_bytes()).status, 200, "{line}");
        let seen = server.seen().pop().unwrap();
        for name in ["connection", "keep-alive", "proxy-connection"] {
            assert_eq!(find_header(&seen, name), None, "{line}");
        }
    }
}

/// The processor time of a process, in ticks (proc(5): fields 14 and 15 of `stat`).
fn ticks(gateway: &Gateway) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", gateway.child.id())).unwrap();
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn half_a_chunk_head_and_a_client_that_has_gone_keep_no_thread_busy() {
    let server = Server::good();
    let gateway = before_one(&server, "");
    let head = "POST /x/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for part in ["", "4", "4\r", "4\r\n", "4\r\nab", "4\r\nabcd", "4\r\nabcd\r\n0", "4\r\nabcd\r\n0\r\n"] {
        for way in [Shutdown::Write, Shutdown::Both] {
            let mut stream = TcpStream::connect(gateway.address).unwrap();
            stream.write_all(format!("{head}{part}").as_bytes()).unwrap();
            let _ = stream.shutdown(way);
            // The request ends with a record, and not as a success.
            let record = gateway.record();
            assert_ne!(record["status"], 200, "{part:?}: {record}");
        }
    }
    // A loop would use a whole second of processor time.
    let before = ticks(&gateway);
    std::thread::sleep(Duration::from_secs(1));
    let taken = ticks(&gateway) - before;
    assert!(taken < 50, "{taken} ticks of idling");
    assert!(server.seen().is_empty(), "{:?}", server.seen());
}

#[test]
fn an_upload_that_nobody_takes_ends_although_its_client_has_cancelled_it() {
    // The server accepts a connection, and reads no byte of a body.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().map(Some).collect::<Vec<_>>());
    let environment = [("FEDGATE_GATEWAY_MAX_BODY_BYTES", "1073741824")];
    let gateway = crate::scripted::before_in(&environment, &[address.to_string()], "write_timeout_ms = 500");
    let mut stream = open(&gateway);
    stream.sock.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &block_of("POST", "/x/1", &[]))).unwrap();
    let began = Instant::now();
    // Until the window no longer opens: then the socket to the upstream is full.
    let mut sent = 0;
    for _ in 0..4000 {
        let data = frame(DATA, 0, 1, &[b'x'; 16_000]);
        if sent >= 60_000 && read(&mut stream, |kind, number| kind == 8 && number == 1).is_empty() {
            break;
        }
        if stream.write_all(&data).and_then(|()| stream.flush()).is_err() {
            break;
        }
        sent += 16_000;
    }
    let _ = stream.write_all(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    let record = gateway.record_within(PATIENCE).expect("the request comes to its end").1;
    assert_ne!(record["status"], 200, "{record}");
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(gateway.admin_get("/livez").status, 200);
}

/// Sends a body for as long as there is room for it.
async fn send_until_stuck(body: &mut h2::SendStream<bytes::Bytes>) {
    loop {
        body.reserve_capacity(16 * 1024);
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx));
        // A window that stays closed for so long will not open.
        match tokio::time::timeout(Duration::from_millis(100), room).await {
            Ok(Some(Ok(room))) => body.send_data(vec![b'x'; room].into(), false).unwrap(),
            Ok(ended) => panic!("the stream has ended: {ended:?}"),
            Err(_) => return,
        }
    }
}

#[test]
fn a_cancelled_upload_gives_its_window_back_at_once() {
    // The server accepts connections and reads little of a body. Its socket's buffers are small, too.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().map(Some).collect::<Vec<_>>());
    let environment = [("FEDGATE_GATEWAY_MAX_BODY_BYTES", "1073741824")];
    let gateway = crate::scripted::before_in(&environment, &[address.to_string()], "write_timeout_ms = 600000");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut sender = crate::gateway::tls::connect_h2(&gateway).await;
        let post = |path: &str| {
            let request = http::Request::post(format!("https://localhost{path}"));
            request.header("authorization", basic("ANA", CANARY)).body(()).unwrap()
        };
        // The window of a connection is that of sixteen streams. Two show what becomes of it; seventeen used it up.
        for number in 0..2 {
            sender = sender.ready().await.unwrap();
            let (_, mut body) = sender.send_request(post("/x/1"), false).unwrap();
            send_until_stuck(&mut body).await;
            body.send_reset(h2::Reason::CANCEL);
            let record = gateway.record();
            assert_eq!((&record["path"], &record["reason"]), (&"/x/1".into(), &"client_gone".into()), "{number}");
        }
        sender = sender.ready().await.unwrap();
        let (answer, mut body) = sender.send_request(post("/pols/ANA/1"), false).unwrap();
        body.send_data(vec![b'x'; 60 * 1024].into(), true).unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("there is room for others").unwrap();
        assert_eq!(answer.status(), 200);
    });
}

#[test]
fn an_answer_to_a_body_that_is_not_taken_is_passed_on() {
    // The server answers in the middle of a body, and reads no further.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&server, 4096).unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        let answered = server.incoming().flatten().map(|mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
            stream
        });
        answered.collect::<Vec<_>>()
    });
    let environment = [("FEDGATE_GATEWAY_MAX_BODY_BYTES", "1073741824")];
    let gateway = crate::scripted::before_in(&environment, &[address.to_string()], "write_timeout_ms = 5000");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let sender = crate::gateway::tls::connect_h2(&gateway).await;
        let request = http::Request::post("https://localhost/x/1").body(()).unwrap();
        let (answer, mut body) = sender.ready().await.unwrap().send_request(request, false).unwrap();
        let sending = tokio::spawn(async move {
            send_until_stuck(&mut body).await;
            body
        });
        let answer = tokio::time::timeout(PATIENCE, answer).await.expect("an answer").unwrap();
        assert_eq!(answer.status(), 413);
        drop(sending);
    });
}

#[test]
fn an_answer_in_pieces_has_no_empty_frame_but_its_last() {
    // Clients count empty frames and close the connection (CVE-2019-9518).
    let server = Server::start(|exchange| {
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntrue\r\n")
            && exchange.write(b"2\r\n\r\n\r\n0\r\n\r\n")
    });
    let gateway = before(&[server.address.to_string()], "");
    let mut stream = open(&gateway);
    for number in [1, 3, 5] {
        let block = block_of("GET", "/x/1", &[]);
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &block)).unwrap();
    }
    let mut bytes = [const { Vec::new() }; 6];
    let mut head = [0; 9];
    let mut ended = 0;
    while ended < 3 && stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == DATA {
            assert!(!payload.is_empty() || head[4] & END_STREAM != 0, "an empty frame that ends nothing");
            ended += usize::from(head[4] & END_STREAM);
            bytes[usize::from(head[8])].extend(payload);
        }
    }
    assert!([1, 3, 5].iter().all(|&number: &usize| bytes[number] == b"true\r\n"), "{bytes:?}");
    assert_eq!(gateway.call("GET", "2"), 200);
    until("all of it was asked for", || server.seen().len() == 4);
}
