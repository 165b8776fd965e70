//! One request, one answer: the end of a body is written once or not at all, and a connection whose order of
//! answers may be lost is not used again. Sources: RFC 9112, 7.1 and 9.3; RFC 9110, 9.3.2, 15.3.5 and 15.4.5
//! (answers without a body).

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::fixture::{CANARY, Gateway, Place, Setup, basic, find_header};
use crate::gateway::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, block_of, frame, literal, open, read};
use crate::scripted::{OK, Server, before_one, until};
use crate::support::free_address;
use crate::support::keepalive::{Connection, get};

/// Routes of an upstream: `/x/{id}` streams the body, and `/g/{id}` holds and judges it first.
const GUARDED: &str = "[[route]]\npath = \"/g/{id}\"\nmethods = [\"POST\", \"PUT\"]\npublic = true\nupstream = \"x\"\n\
                       [[route.guard]]\nmembers = [\"roles\"]\n";

/// A typical server: where a request belongs, the end of a body is answered 400, a moment later.
fn pedantic() -> Server {
    Server::start(|exchange| {
        if exchange.request.starts_with("0\r\n") {
            // The delay is the point: an answer that comes at once would be found with the first.
            std::thread::sleep(std::time::Duration::from_millis(400));
            return exchange.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nstray");
        }
        exchange.write(OK)
    })
}

fn before_guarded(server: &Server) -> Gateway {
    // The upstream's keys end with a table of its own, so that routes may follow.
    before_one(server, &format!("read_timeout_ms = 20000\n[upstream.ejection]\nfailures = 0\n{GUARDED}"))
}

/// A JSON body in frames, each with its flags. The head has no `END_STREAM`.
fn send(gateway: &Gateway, method: &str, path: &str, more: &[(&str, &str)], frames: &[(u8, u8, &[u8])]) -> u8 {
    let mut stream = open(gateway);
    let head = [&[("content-type", "application/json")], more].concat();
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &block_of(method, path, &head))).unwrap();
    for (kind, flags, payload) in frames {
        stream.write_all(&frame(*kind, *flags, 1, payload)).unwrap();
    }
    let frames = read(&mut stream, |kind, number| number == 1 && (kind == HEADERS || kind == RST_STREAM));
    let (_, _, block) = frames.last().unwrap();
    // An indexed `:status 200` (RFC 7541, appendix A).
    block.first().copied().unwrap_or_default()
}

pub(crate) const TWO_HUNDRED: u8 = 0x88;

#[test]
fn the_end_of_a_body_is_written_once_however_it_came() {
    let server = pedantic();
    let gateway = before_guarded(&server);
    const PADDED: u8 = 8;
    let trailer = literal("x-trailer", "a");
    let (end, trailers) = (END_STREAM, (HEADERS, END_HEADERS | END_STREAM, trailer.as_slice()));
    type More<'a> = &'a [(&'a str, &'a str)];
    type Frames<'a> = Vec<(u8, u8, &'a [u8])>;
    type Case<'a> = (&'a str, More<'a>, Frames<'a>, &'a str);
    let two: More<'_> = &[("content-length", "2")];
    let cases: [Case<'_>; 9] = [
        ("an empty frame at the end", &[], vec![(DATA, 0, b"{}"), (DATA, end, b"")], "{}"),
        ("an end with the last bytes", &[], vec![(DATA, end, b"{}")], "{}"),
        (
            "empty frames all over",
            &[],
            vec![(DATA, 0, b""), (DATA, 0, b"{"), (DATA, 0, b""), (DATA, 0, b"}"), (DATA, 0, b""), (DATA, end, b"")],
            "{}",
        ),
        ("a frame of padding alone", &[], vec![(DATA, 0, b"{}"), (DATA, end | PADDED, b"\x03\0\0\0")], "{}"),
        ("trailers", &[], vec![(DATA, 0, b"{}"), trailers], "{}"),
        ("an empty frame and trailers", &[], vec![(DATA, 0, b"{}"), (DATA, 0, b""), trailers], "{}"),
        ("nothing but an empty frame", &[], vec![(DATA, end, b"")], ""),
        ("nothing but trailers", &[], vec![trailers], ""),
        ("a length and an empty frame", two, vec![(DATA, 0, b"{}"), (DATA, end, b"")], "{}"),
    ];
    for (name, more, frames, body) in &cases {
        for path in ["/x/1", "/g/1"] {
            let known = server.seen().len();
            assert_eq!(send(&gateway, "POST", path, more, frames), TWO_HUNDRED, "{name}, {path}");
            // The next caller is another one, on the same connection.
            assert_eq!(gateway.call("POST", "2"), 200, "{name}, {path}: the next request");
            let seen = server.seen();
            assert_eq!(seen.len(), known + 2, "{name}, {path}: {seen:?}");
            let (_, sent) = seen[known].split_once("\r\n\r\n").unwrap();
            let is_chunked = find_header(&seen[known], "transfer-encoding").is_some();
            let ends = sent.matches("0\r\n\r\n").count();
            assert_eq!(ends, usize::from(is_chunked), "{name}, {path}: {sent:?}");
            let content: String = match is_chunked {
                true => sent.split("\r\n").skip(1).step_by(2).collect(),
                false => sent.to_owned(),
            };
            assert_eq!(&content, body, "{name}, {path}: {sent:?}");
        }
    }
    assert!(server.probes().is_empty(), "stray ends: {:?}", server.probes());
    assert!(server.connections() < cases.len(), "connections are kept: {}", server.connections());
}

#[test]
fn a_body_where_none_belongs_does_not_reach_the_server_over_http2_either() {
    const BAD_REQUEST: u8 = 0x8c;
    let server = pedantic();
    let gateway = before_guarded(&server);
    let trailer = literal("x-trailer", "a");
    let trailers = (HEADERS, END_HEADERS | END_STREAM, trailer.as_slice());
    type Frames<'a> = Vec<(u8, u8, &'a [u8])>;
    let cases: [(&str, Frames<'_>, u8); 6] = [
        ("an end of its own", vec![(DATA, END_STREAM, b"")], TWO_HUNDRED),
        ("empty frames", vec![(DATA, 0, b""), (DATA, 0, b""), (DATA, END_STREAM, b"")], TWO_HUNDRED),
        ("a body", vec![(DATA, END_STREAM, b"{}")], BAD_REQUEST),
        ("a body after an empty frame", vec![(DATA, 0, b""), (DATA, 0, b"{}")], BAD_REQUEST),
        ("trailers", vec![trailers], BAD_REQUEST),
        ("an empty frame and trailers", vec![(DATA, 0, b""), trailers], BAD_REQUEST),
    ];
    for (name, frames, status) in &cases {
        for method in ["GET", "HEAD", "DELETE"] {
            let known = server.seen().len();
            assert_eq!(send(&gateway, method, "/x/1", &[], frames), *status, "{method}, {name}");
            assert_eq!(gateway.call("POST", "2"), 200, "{method}, {name}: the next request");
            let seen = server.seen();
            // A server that expects no body there reads it as the next request.
            let sent = &seen[known..seen.len() - 1];
            assert_eq!(sent.len(), usize::from(*status == TWO_HUNDRED), "{method}, {name}: {sent:?}");
            assert!(sent.iter().all(|seen| find_header(seen, "transfer-encoding").is_none()), "{name}: {sent:?}");
        }
    }
}

#[test]
fn half_a_body_never_looks_whole_and_its_connection_is_not_used_again() {
    let server = pedantic();
    let gateway = before_guarded(&server);
    let reset = |reason: u32| frame(RST_STREAM, 0, 1, &reason.to_be_bytes());
    // NO_ERROR, PROTOCOL_ERROR, CANCEL; then a connection that ends, and a body over the limit of the route.
    let ways: [(&str, Option<Vec<u8>>); 5] = [
        ("NO_ERROR", Some(reset(0))),
        ("PROTOCOL_ERROR", Some(reset(1))),
        ("CANCEL", Some(reset(8))),
        ("the connection ends", None),
        ("too large", Some(frame(DATA, END_STREAM, 1, &[b'x'; 4096]))),
    ];
    for (name, way) in ways {
        let (known, halves) = (server.seen().len(), server.received("half"));
        let mut stream = open(&gateway);
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, &block_of("POST", "/x/1", &[]))).unwrap();
        stream.write_all(&frame(DATA, 0, 1, b"half")).unwrap();
        until("half of the body reaches the server", || server.received("half") == halves + 1);
        match way {
            Some(bytes) => stream.write_all(&bytes).unwrap(),
            None => stream.sock.shutdown(std::net::Shutdown::Both).unwrap(),
        }
        // Records of earlier requests may come late.
        let record = std::iter::repeat_with(|| gateway.record()).find(|record| record["path"] == "/x/1").unwrap();
        assert_ne!(record["status"], 200, "{name}: {record}");
        for next in 1..=2 {
            // On the connection with half a body it would be the other half, and never be answered.
            assert_eq!(gateway.call("POST", "2"), 200, "{name}: the next request");
            assert_eq!(server.seen().len(), known + next, "{name}: {:?}", server.seen());
        }
        assert_eq!(server.received("\r\n0\r\n"), 0, "{name}: no end was written");
    }
    assert!(server.probes().is_empty(), "stray ends: {:?}", server.probes());
}

#[test]
fn an_answer_that_comes_before_the_body_has_ended_does_not_end_the_body() {
    // The server answers as soon as it has half of a body, and reads on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let received = Arc::new(Mutex::new(Vec::<String>::new()));
    let noted = Arc::clone(&received);
    std::thread::spawn(move || {
        for (number, mut stream) in listener.incoming().flatten().enumerate() {
            noted.lock().unwrap().push(String::new());
            let noted = Arc::clone(&noted);
            std::thread::spawn(move || {
                let mut block = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut block) {
                    let text = String::from_utf8_lossy(&block[..count]).into_owned();
                    let is_answered = text.contains("half") || text.contains("/x/2 ");
                    noted.lock().unwrap()[number].push_str(&text);
                    if is_answered {
                        stream.write_all(OK).unwrap();
                    }
                }
                noted.lock().unwrap()[number].push_str("<closed>");
            });
        }
    });
    let gateway = crate::scripted::before(&[address.to_string()], "");
    let has = |text: &str| received.lock().unwrap().iter().any(|received| received.contains(text));
    let answered_early = || {
        let mut stream = open(&gateway);
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, &block_of("POST", "/x/1", &[]))).unwrap();
        stream.write_all(&frame(DATA, 0, 1, b"half")).unwrap();
        let frames = read(&mut stream, |kind, number| number == 1 && kind == HEADERS);
        assert_eq!(frames.last().unwrap().2.first(), Some(&TWO_HUNDRED), "the answer does not wait");
        stream
    };
    let mut stream = answered_early();
    stream.write_all(&[frame(DATA, 0, 1, b"more"), frame(DATA, END_STREAM, 1, b"")].concat()).unwrap();
    until("what was sent whole is kept for others", || {
        assert_eq!(gateway.call("POST", "2"), 200);
        has("half\r\n4\r\nmore\r\n0\r\n\r\nPOST /x/2")
    });
    let mut stream = answered_early();
    stream.write_all(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())).unwrap();
    until("what was sent by half is closed without an end", || has("half\r\n<closed>"));
}

/// Answers with the name of the exchange, as fedhis does.
fn named(request: &str, body: &str) -> Vec<u8> {
    let name = find_header(request, "fedgate-exchange").unwrap();
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nFedgate-Exchange: {name}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

#[test]
fn nobody_gets_an_answer_that_was_not_to_their_request() {
    // Between the second request and its answer, late bytes of the first arrive: without a name, or with another.
    let stray = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray".to_vec();
    for stray in [stray, named("fedgate-exchange: 0123456789abcdef", "stray")] {
        let server = Server::start(move |exchange| {
            let answer = named(exchange.request, "own");
            match exchange.number {
                1 => exchange.write(&stray) && exchange.write(&answer),
                _ => exchange.write(&answer),
            }
        });
        let gateway = before_one(&server, "");
        for (method, status, body) in [("GET", 200, "own"), ("POST", 502, "")] {
            // Reads and other requests have connections of their own.
            let first = gateway.call_with(method, "1", "{}");
            assert_eq!((first.status, first.body.as_str()), (200, "own"));
            assert_eq!(first.header("fedgate-exchange"), None, "it is between the gateway and the server");
            let second = gateway.call_with(method, "2", "{}");
            assert_eq!(second.status, status, "{second:?}");
            assert!(!second.body.contains("stray") && second.body.contains(body), "{second:?}");
            // The connection that lost its order is not used again.
            let third = gateway.call_with(method, "3", "{}");
            assert_eq!((third.status, third.body.as_str()), (200, "own"));
        }
    }
}

#[test]
fn an_answer_that_announces_a_body_it_may_not_have_is_the_last_of_its_connection() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ended);
    let server = Server::start(move |exchange| {
        let head: &[u8] = match exchange.request.split(' ').nth(1) {
            Some("/x/204") => b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            Some("/x/304") => b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            _ if exchange.request.starts_with("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
            _ => return exchange.write(OK),
        };
        // The server would send the announced body later, to the next request.
        counted.fetch_add(usize::from(exchange.write(head) && exchange.ends()), Ordering::SeqCst);
        false
    });
    let gateway = before_one(&server, "");
    for (number, (method, id, status)) in
        [("HEAD", "1", 200), ("GET", "204", 204), ("GET", "304", 304)].iter().enumerate()
    {
        assert_eq!(gateway.call("POST", "1"), 200);
        let bytes = format!("{method} /x/{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = gateway.send(bytes.as_bytes());
        assert_eq!((answer.status, answer.body.as_str()), (*status, ""), "{method} {id}");
        until("its connection ends", || ended.load(Ordering::SeqCst) == number + 1);
        assert_eq!(gateway.call("POST", "1"), 200, "{method} {id}: the next request");
    }
}

#[test]
fn a_body_that_is_sent_again_has_one_end() {
    // Every second request on a connection is read, and the connection closed: a kept connection that has ended.
    let server = Server::start(|exchange| exchange.number == 0 && exchange.write(OK));
    let gateway = before_guarded(&server);
    let chunked = |path: &str, body: &str| {
        let head = "Host: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n";
        gateway.send(format!("PUT {path} HTTP/1.1\r\n{head}\r\n{body}0\r\n\r\n").as_bytes()).status
    };
    // A request is recorded once its connection is kept. The answer arrives a moment earlier.
    let is_over = |path: &str| assert_eq!(gateway.record()["path"], path);
    for path in ["/x/1", "/g/1"] {
        for (frames, body) in [
            (vec![(DATA, 0, b"{}".as_slice()), (DATA, END_STREAM, b"")], "2\r\n{}\r\n"),
            (vec![(DATA, END_STREAM, b"".as_slice())], ""),
        ] {
            for over_http2 in [true, false] {
                assert_eq!(gateway.call("POST", "0"), 200);
                is_over("/x/0");
                // In rare cases pingora takes no kept connection, because its watcher still has it. The new one is
                // then kept.
                let twice = (0..10).find_map(|_| {
                    let known = server.seen().len();
                    match over_http2 {
                        true => assert_eq!(send(&gateway, "PUT", path, &[], &frames), TWO_HUNDRED, "{path}, {body}"),
                        false => assert_eq!(chunked(path, body), 200, "{path}, {body}"),
                    }
                    is_over(path);
                    let seen = server.seen().split_off(known);
                    (seen.len() > 1).then_some(seen)
                });
                let Some([_, again]) = twice.as_deref() else { panic!("{path}, {body}: twice, {twice:?}") };
                let is_chunked = find_header(again, "transfer-encoding").is_some();
                let sent = again.split_once("\r\n\r\n").unwrap().1;
                assert_eq!(sent.matches("0\r\n\r\n").count(), usize::from(is_chunked), "{again:?}");
                assert!(is_chunked || body.is_empty(), "{again:?}");
                // The connections of both attempts are never used again.
                assert!(server.probes().is_empty(), "{:?}", server.probes());
            }
        }
    }
}

#[test]
fn a_service_that_sends_too_much_can_have_a_connection_for_each_request() {
    let server = Server::good();
    let gateway = before_one(&server, "idle_timeout_ms = 0");
    for number in 1..=3 {
        assert_eq!(gateway.call("POST", "1"), 200);
        assert_eq!(server.connections(), number);
    }
    assert!(server.seen().iter().all(|seen| find_header(seen, "connection").as_deref() == Some("close")));
}

/// A process that ends with its test.
pub(crate) struct Tethered(pub(crate) Child);

impl Drop for Tethered {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A gateway in front of fedhis itself.
pub(crate) fn before_fedhis() -> (Gateway, Tethered) {
    before_fedhis_as(&Setup::default())
}

/// The same with more of a set-up. Text after the upstreams in its configuration is left out.
pub(crate) fn before_fedhis_as(setup: &Setup<'_>) -> (Gateway, Tethered) {
    let place = Place::prepare(setup);
    let (file, address) = (place.dir.join("fedgate.toml"), free_address());
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, _) = text.split_once("[[upstream]]").unwrap();
    std::fs::write(&file, format!("{before}[his]\nlisten = \"{address}\"\n")).unwrap();
    let mut command = Command::new(crate::support::programs::fedhis());
    command.arg("serve").arg("--config").arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
    let his = Tethered(command.spawn().unwrap());
    until("fedhis listens", || std::net::TcpStream::connect(address).is_ok());
    (Gateway::start_at(place, &[]), his)
}

/// Sends a page on each of several streams of one connection, in pieces of which the last is empty; returns how
/// many were served.
fn upload(gateway: &Gateway, pages: &[(String, String)]) -> usize {
    let mut stream = open(gateway);
    let streams = || (1_u32..).step_by(2).zip(pages);
    for (number, (path, _)) in streams() {
        stream.write_all(&frame(HEADERS, END_HEADERS, number, &block_of("POST", path, &[]))).unwrap();
    }
    for (number, (_, page)) in streams() {
        let (one, two) = page.as_bytes().split_at(9);
        stream.write_all(&[frame(DATA, 0, number, one), frame(DATA, 0, number, two)].concat()).unwrap();
        stream.flush().unwrap();
        stream.write_all(&frame(DATA, END_STREAM, number, b"")).unwrap();
    }
    let mut served = 0;
    for _ in pages {
        let frames = read(&mut stream, |kind, number| number != 0 && (kind == HEADERS || kind == RST_STREAM));
        served += usize::from(frames.last().is_some_and(|(_, _, block)| block.first() == Some(&TWO_HUNDRED)));
    }
    served
}

#[test]
fn streamed_uploads_beside_readers_leave_every_answer_to_its_own_request() {
    const WRITERS: usize = 3;
    const STREAMS: usize = 10;
    // With 150 of them, some upload meets a single end too many in every run.
    let turns = std::env::var("FEDGATE_TEST_UPLOADS").map_or(30, |count| count.parse().unwrap());
    let (gateway, _his) = before_fedhis();
    let page = |id: &str| {
        let page = format!("{{\"id\": \"{id}\", \"book\": \"ANA\", \"summary\": \"of {id}\"}}");
        (format!("/pols/ANA/{id}"), page)
    };
    assert_eq!(upload(&gateway, &[page("known")]), 1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (gateway, page) = (&gateway, &page);
                scope.spawn(move || {
                    let turn = |turn| (0..STREAMS).map(move |stream| page(&format!("{writer}-{turn}-{stream}")));
                    (0..turns).map(|number| upload(gateway, &turn(number).collect::<Vec<_>>())).sum::<usize>()
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                let mut connection = Connection::to(gateway.address);
                let ask = |target: &str| get(target, &basic("ANA", CANARY));
                let asked = [("/pols/ANA/known", 200), ("/pols/ANA/none", 404), ("/login", 200), ("/pols/DOC/1", 403)];
                while !is_over.load(Ordering::SeqCst) {
                    for (target, status) in asked {
                        assert_eq!(connection.ask(&ask(target)).unwrap().status, status, "{target}");
                    }
                }
            });
        }
        let served: Vec<usize> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        is_over.store(true, Ordering::SeqCst);
        assert_eq!(served, [turns * STREAMS; WRITERS], "every upload is answered as it deserves");
    });
    for id in ["known".to_owned(), format!("{}-{}-{}", WRITERS - 1, turns - 1, STREAMS - 1)] {
        assert_eq!(gateway.get(&page(&id).0, "ANA").json()["summary"], format!("of {id}"));
    }
}
