//! HTTP/2 in hand-made frames: floods that cost the sender little, and requests with more than one reading.
//! Sources: RFC 9113, 10.5; CVE-2023-44487 (rapid reset), CVE-2024-27316 (CONTINUATION), CVE-2019-9512 and 9515
//! (PING, SETTINGS), CVE-2025-8671 (MadeYouReset).

use std::io::{Read, Write};
use std::net::TcpStream;

use rustls::{ClientConnection, StreamOwned};

use crate::fixture::{CANARY, Gateway, basic};
use crate::gateway::tls::{client, connect_as};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// The memory that a flood may cost, in KiB.
const MEMORY_KIB: u64 = 48 * 1024;

pub(crate) type Connection = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal header without indexing (RFC 7541, 6.2.2).
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| {
        let mut out = vec![];
        // An integer with a prefix of seven bits.
        match text.len() {
            length @ ..127 => out.push(u8::try_from(length).unwrap()),
            length => {
                out.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    out.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                out.push(u8::try_from(rest).unwrap());
            }
        }
        out.extend(text.as_bytes());
        out
    };
    [vec![0], string(name), string(value)].concat()
}

fn request(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    block_of("GET", path, more)
}

/// The header block of a request.
pub(crate) fn block_of(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let authorization = basic("ANA", CANARY);
    let usual = [
        (":method", method),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("authorization", &authorization),
    ];
    usual.iter().chain(more).flat_map(|(name, value)| literal(name, value)).collect()
}

pub(crate) fn open(gateway: &Gateway) -> Connection {
    let mut stream = connect_as(gateway, client(gateway, &[&rustls::version::TLS13], &[b"h2"]), "localhost").unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream
}

/// The frames until the connection ends or `until` is true: kind, stream, payload.
pub(crate) fn read(stream: &mut Connection, until: impl Fn(u8, u32) -> bool) -> Vec<(u8, u32, Vec<u8>)> {
    let mut frames = vec![];
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).is_err() {
            break;
        }
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        frames.push((head[3], number, payload));
        if until(head[3], number) {
            break;
        }
    }
    frames
}

/// Sends a flood, frame by frame, until the gateway closes the connection; returns how many frames it accepted.
fn flood(stream: &mut Connection, count: usize, mut next: impl FnMut(usize) -> Vec<u8>) -> usize {
    (0..count).take_while(|number| stream.write_all(&next(*number)).and_then(|()| stream.flush()).is_ok()).count()
}

#[test]
fn floods_of_frames_end_the_connection_or_cost_nothing_and_others_are_served() {
    let gateway = Gateway::start();
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    let id = |number: usize| u32::try_from(number * 2 + 1).unwrap();
    let headers = |number: usize, flags: u8| frame(HEADERS, flags, id(number), &request("/people/ANA", &[]));
    let rapid = |number: usize| {
        [headers(number, END_HEADERS | END_STREAM), frame(RST_STREAM, 0, id(number), &8u32.to_be_bytes())].concat()
    };
    // The server is made to reset the stream: by a window update of zero.
    let made = |number: usize| {
        [headers(number, END_HEADERS), frame(WINDOW_UPDATE, 0, id(number), &0u32.to_be_bytes())].concat()
    };
    let continuation = |number: usize| match number {
        0 => headers(0, 0),
        _ => frame(CONTINUATION, 0, 1, &literal("x", &"a".repeat(8000))),
    };
    // One large header in the table, then references to it, one byte each (RFC 7541, 6.1; index 62 is the newest).
    let bomb = |number: usize| {
        let mut block = request("/people/ANA", &[]);
        block.extend([[0x40].as_slice(), &literal("x", &"a".repeat(3000))[1..]].concat());
        block.extend(std::iter::repeat_n(0x80 | 62, 4000));
        frame(HEADERS, END_HEADERS | END_STREAM, id(number), &block)
    };
    type Frames<'a> = &'a dyn Fn(usize) -> Vec<u8>;
    let floods: [(&str, usize, bool, Frames<'_>); 8] = [
        ("rapid reset", 20_000, true, &rapid),
        ("made you reset", 20_000, true, &made),
        ("CONTINUATION", 5_000, true, &continuation),
        ("HPACK bomb", 200, false, &bomb),
        ("PING", 50_000, false, &|number| frame(PING, 0, 0, &(number as u64).to_be_bytes())),
        ("SETTINGS", 50_000, false, &|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("PRIORITY", 50_000, false, &|number| frame(PRIORITY, 0, id(number), &[0, 0, 0, 0, 1])),
        ("empty DATA", 50_000, false, &|number| match number {
            0 => headers(0, END_HEADERS),
            _ => frame(DATA, 0, 1, &[]),
        }),
    ];
    for (name, count, must_end, next) in floods {
        let (before, seen) = (gateway.resident_kib(), gateway.upstream.seen().len());
        let mut stream = open(&gateway);
        let taken = flood(&mut stream, count, next);
        assert_eq!(gateway.get("/people/ANA", "ANA").status, 200, "{name}: others are served");
        let grown = gateway.resident_kib().saturating_sub(before);
        let seen = gateway.upstream.seen().len() - seen - 1;
        println!("HTTP/2, {name}: {taken} of {count} frames taken, {seen} requests reached the upstream, {grown} KiB");
        assert!(taken < count || !must_end, "{name}: the connection goes on");
        assert!(grown < MEMORY_KIB, "{name}: {grown} KiB");
        assert!(seen < 500, "{name}: {seen} requests reached the upstream");
    }
}

#[test]
fn requests_with_more_than_one_reading_are_refused_over_http2() {
    // Even at the level `trace` no password is logged (the log is searched at the end).
    let environment = [("FEDGATE_LOG", "trace")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let forged = basic("ADM", CANARY);
    let body = |length: &str, data: &[u8]| {
        let mut block = literal(":method", "POST");
        block.extend(&request("/pols/ANA/1", &[("content-length", length)])[literal(":method", "GET").len()..]);
        [frame(HEADERS, END_HEADERS, 1, &block), frame(DATA, END_STREAM, 1, data)].concat()
    };
    let head = |path: &str, more: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &request(path, more));
    let names: Vec<String> = (0..64).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "a")).collect();
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("more than 64 header lines",   head("/people/ANA", &many)),
        ("two authorizations",          head("/people/ANA", &[("authorization", &forged)])),
        ("a path without slash",        head("people/ANA", &[])),
        ("an empty path",               head("", &[])),
        ("a path in absolute form",     head("https://evil/people/ANA", &[])),
        ("a dot segment",               head("/people/../adm", &[])),
        ("a second path",               head("/people/ANA", &[(":path", "/adm")])),
        ("a name in capitals",          head("/people/ANA", &[("X-Upper", "a")])),
        ("a connection header",         head("/people/ANA", &[("connection", "keep-alive")])),
        ("transfer-encoding",           head("/people/ANA", &[("transfer-encoding", "chunked")])),
        ("a line feed in a value",      head("/people/ANA", &[("x", "a\r\nx-user: admin")])),
        ("a blank behind a value",      head("/people/ANA", &[("referer", "x ")])),
        ("a tab before a value",        head("/people/ANA", &[("referer", "\tx")])),
        ("a name with an underscore",   head("/people/ANA", &[("fedgate_assertion", "x")])),
        ("a body shorter than it says", body("5", b"abc")),
        ("a body longer than it says",  body("2", b"abc")),
    ];
    for (name, bytes) in cases {
        let seen = gateway.upstream.seen().len();
        let mut stream = open(&gateway);
        stream.write_all(&bytes).unwrap();
        let frames = read(&mut stream, |kind, number| kind == GOAWAY || (number == 1 && kind != WINDOW_UPDATE));
        let answered = frames.iter().find(|(kind, number, _)| *kind == HEADERS && *number == 1);
        // Of the block's first byte: an indexed `:status 200` (RFC 7541, appendix A) is 0x88.
        assert!(answered.is_none_or(|(_, _, block)| block.first() != Some(&0x88)), "{name}: {frames:?}");
        assert_eq!(gateway.upstream.seen().len(), seen, "{name}: forwarded");
    }
    let mut stream = open(&gateway);
    stream.write_all(&head("/people/ANA", &[])).unwrap();
    let frames = read(&mut stream, |kind, number| kind == HEADERS && number == 1);
    assert_eq!(frames.last().and_then(|(_, _, block)| block.first()), Some(&0x88), "a plain one is served");
}

#[test]
fn a_fragment_reaches_no_upstream_over_http2() {
    let gateway = Gateway::start();
    for (path, status) in [("/people/ANA#/people/DOC", 200), ("/people/DOC#/../ANA", 403), ("/people/ANA?x#y", 200)] {
        let mut stream = open(&gateway);
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request(path, &[]))).unwrap();
        read(&mut stream, |kind, number| kind == HEADERS && number == 1);
        let record = gateway.record();
        let judged = path.split(['#', '?']).next().unwrap();
        assert_eq!((&record["path"], &record["status"]), (&judged.into(), &status.into()), "{record}");
    }
    assert!(gateway.upstream.seen().iter().all(|seen| !seen.contains('#')), "{:?}", gateway.upstream.seen());
}

#[test]
fn a_refused_body_is_let_in_behind_the_answer_for_a_while() {
    let gateway = Gateway::start();
    let length = 5 * 60_000;
    let post = |path: &str| {
        let mut block = literal(":method", "POST");
        block.extend(&request(path, &[("content-length", &length.to_string())])[literal(":method", "GET").len()..]);
        frame(HEADERS, END_HEADERS, 1, &block)
    };
    let is_end = |kind: u8, number: u32| number == 1 && (kind == DATA || kind == RST_STREAM);
    // Forbidden, and too large.
    for path in ["/pols/DOC/1", "/pols/ANA/1"] {
        let mut stream = open(&gateway);
        stream.write_all(&post(path)).unwrap();
        let frames = read(&mut stream, is_end);
        assert!(frames.last().is_some_and(|(kind, ..)| *kind == DATA), "an answer with a body: {frames:?}");
        for part in 1..=5u8 {
            let pieces = (0..60).flat_map(|piece| {
                let flags = if (part, piece) == (5, 59) { END_STREAM } else { 0 };
                frame(DATA, flags, 1, &[b'x'; 1000])
            });
            stream.write_all(&pieces.collect::<Vec<_>>()).unwrap();
            let frames = match part {
                // The window is opened for more.
                1..5 => read(&mut stream, |kind, number| number == 1 && kind != DATA),
                _ => {
                    stream.write_all(&frame(PING, 0, 0, &[0; 8])).unwrap();
                    read(&mut stream, |kind, _| kind == PING)
                }
            };
            assert!(
                !frames.iter().any(|(kind, ..)| matches!(*kind, RST_STREAM | GOAWAY)),
                "{path}, {part}: {frames:?}"
            );
        }
    }
    // A client that never sends it is not waited for longer.
    let mut stream = open(&gateway);
    stream.write_all(&post("/pols/DOC/1")).unwrap();
    let frames = read(&mut stream, |kind, _| kind == RST_STREAM);
    assert_eq!(frames.last().map(|(kind, _, reason)| (*kind, reason.as_slice())), Some((RST_STREAM, &[0; 4][..])));
}

#[test]
fn a_preface_has_the_time_of_a_head() {
    let environment = [("FEDGATE_LIMITS_HEAD_TIMEOUT_SECONDS", "1")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let silent = || connect_as(&gateway, client(&gateway, &[&rustls::version::TLS13], &[b"h2"]), "localhost").unwrap();
    let (mut nothing, mut half) = (silent(), silent());
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM").unwrap();
    for stream in [&mut nothing, &mut half] {
        let began = std::time::Instant::now();
        let frames = read(stream, |_, _| false);
        assert!(began.elapsed() < crate::fixture::PATIENCE, "it is let go: {frames:?}");
    }
    let mut open = open(&gateway);
    // The time of a head has passed once one that began later was let go for it.
    read(&mut silent(), |_, _| false);
    open.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("/people/ANA", &[]))).unwrap();
    let frames = read(&mut open, |kind, number| kind == HEADERS && number == 1);
    assert_eq!(frames.last().and_then(|(_, _, block)| block.first()), Some(&0x88), "who has sent it may be silent");
}

#[test]
fn a_head_that_comes_in_crumbs_has_its_time_and_a_window_that_stays_shut_too() {
    let environment = [
        ("FEDGATE_LIMITS_HEAD_TIMEOUT_SECONDS", "1"),
        ("FEDGATE_LIMITS_SEND_TIMEOUT_SECONDS", "1"),
        ("FEDGATE_LIMITS_BYTES_PER_SECOND", "65536"),
    ];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let block = request("/people/ANA", &[("x", &"a".repeat(2000))]);
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    // A byte of one frame at a time, and a frame of one byte at a time.
    let bytes = whole.chunks(1).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut frames = vec![frame(HEADERS, END_STREAM, 1, &block[..1])];
    frames.extend(block[1..].chunks(1).map(|byte| frame(CONTINUATION, 0, 1, byte)));
    for crumbs in [bytes, frames] {
        let mut stream = open(&gateway);
        let taken = flood(&mut stream, crumbs.len(), |number| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            crumbs[number].clone()
        });
        assert!(taken < crumbs.len(), "it is let go");
        while gateway.record_within(std::time::Duration::from_millis(100)).is_some() {}
        assert!(!gateway.upstream.seen().iter().any(|seen| seen.contains("aaa")), "nothing of it was served");
    }
    let mut stream = open(&gateway);
    stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &request("/people/ANA", &[]))).unwrap();
    let record = gateway.record_within(crate::fixture::PATIENCE).expect("the request comes to its end").1;
    assert_eq!(
        (record["decision"].as_str(), record["reason"].as_str()),
        (Some("fail"), Some("client_gone")),
        "{record}"
    );
    let frames = read(&mut stream, |kind, _| kind == RST_STREAM || kind == GOAWAY);
    assert!(!frames.iter().any(|(kind, _, payload)| *kind == DATA && !payload.is_empty()), "{frames:?}");
    assert!(frames.iter().any(|(kind, stream, _)| *kind == RST_STREAM && *stream == 1), "{frames:?}");
}

#[test]
fn streams_at_a_time_are_a_setting() {
    let environment = [("FEDGATE_LIMITS_H2_STREAMS", "7"), ("FEDGATE_LIMITS_HEAD_BYTES", "2048")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let frames = read(&mut open(&gateway), |kind, _| kind == SETTINGS);
    let (_, _, settings) = frames.last().unwrap();
    // Identifier and value (RFC 9113, 6.5.1 and 6.5.2).
    let told = |id: u8| {
        let setting = settings.chunks(6).find(|setting| setting[..2] == [0, id]).unwrap();
        u32::from_be_bytes(setting[2..].try_into().unwrap())
    };
    assert_eq!((told(3), told(6)), (7, 2048), "MAX_CONCURRENT_STREAMS, MAX_HEADER_LIST_SIZE");
}

#[test]
fn a_body_that_comes_too_slowly_over_http2_is_408_and_one_that_comes_is_served() {
    let environment = [("FEDGATE_LIMITS_BODY_TIMEOUT_SECONDS", "1"), ("FEDGATE_LIMITS_BYTES_PER_SECOND", "10")];
    let gateway = Gateway::start_as(&crate::fixture::Setup { environment: &environment, ..Default::default() });
    let block = |path: &str| {
        let mut block = literal(":method", "POST");
        block.extend(&request(path, &[("content-length", "40")])[literal(":method", "GET").len()..]);
        frame(HEADERS, END_HEADERS, 1, &block)
    };
    let data = |bytes: &[u8], flags| frame(DATA, flags, 1, bytes);
    // Ten bytes a second are enough; one is not, and neither is silence. An upstream may take its time once it has
    // the whole request.
    for (page, pieces, pause, status) in
        [("1", 8, 300, 200), ("1", 40, 700, 408), ("1", 0, 0, 408), ("late", 1, 0, 200), ("late", 4, 100, 200)]
    {
        let mut stream = open(&gateway);
        stream.write_all(&block(&format!("/pols/ANA/{page}"))).unwrap();
        for piece in 1..=pieces {
            std::thread::sleep(std::time::Duration::from_millis(pause));
            let flags = if piece == pieces { END_STREAM } else { 0 };
            if stream.write_all(&data(&vec![b'x'; 40 / pieces], flags)).and_then(|()| stream.flush()).is_err()
                || piece == 5 && status == 408
            {
                break;
            }
        }
        let frames = read(&mut stream, |kind, number| kind == HEADERS && number == 1);
        let (_, _, head) = frames.last().unwrap();
        assert_eq!(head.first() == Some(&0x88), status == 200, "{pieces} pieces: {frames:?}");
        let record = gateway.record();
        assert_eq!(record["status"], status, "{record}");
    }
    assert!(gateway.admin_get("/metrics").body.contains("fedgate_connections_ended_total{limit=\"body\"} 2"));
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
}

/// The library answers a head that is too long itself, and has only a status for it (docs/API.md).
#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_too_many_lines_is_431_with_its_code_and_one_that_is_too_long_is_431_alone() {
    let gateway = std::thread::scope(|scope| scope.spawn(Gateway::start).join().unwrap());
    for (lines, length, has_body) in [(70, 1, true), (62, 240, false)] {
        let mut connection = crate::gateway::stream_server::connect(&gateway).await.ready().await.unwrap();
        let mut request = http::Request::get("https://localhost/people/ANA");
        for line in 0..lines {
            request = request.header(format!("x-{line}"), "a".repeat(length));
        }
        let answer = connection.send_request(request.body(()).unwrap(), true).unwrap().0.await.unwrap();
        assert_eq!(answer.status(), 431, "{lines} lines");
        let (mut body, mut text) = (answer.into_body(), String::new());
        while let Some(Ok(bytes)) = body.data().await {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
        assert_eq!((text.contains("head_too_large"), text.is_empty()), (has_body, !has_body), "{lines} lines: {text}");
    }
}
