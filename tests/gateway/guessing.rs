//! Guesses at a password beside its owner, who is signed in from the same address, over both versions of HTTP.

use std::io::Write;

use crate::fixture::{Gateway, Setup, basic};
use crate::gateway::http2::{Connection, END_HEADERS, END_STREAM, HEADERS, block_of, frame, literal, open, read};
use crate::scripted::until;

/// The first byte of an answer's head: `:status 200` in the static table of HPACK.
const OK: u8 = 0x88;
/// Guesses on one connection, of which twenty are held back. All connections together make more than a thousand.
const GUESSES: u32 = 90;
const GUESSERS: u32 = 12;

fn ask(stream: &mut Connection, number: u32, password: &str) {
    let authorization = basic("ANA", password);
    let head = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/people/ANA"),
        ("authorization", &authorization),
    ];
    let block: Vec<u8> = head.iter().flat_map(|(name, value)| literal(name, value)).collect();
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &block)).unwrap();
    stream.flush().unwrap();
}

/// Whether the right password is let in on this stream.
fn is_let_in(stream: &mut Connection, number: u32) -> bool {
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &block_of("GET", "/people/ANA", &[]))).unwrap();
    stream.flush().unwrap();
    let frames = read(stream, |kind, of| kind == HEADERS && of == number);
    frames.last().and_then(|(.., block)| block.first()) == Some(&OK)
}

#[test]
fn many_open_guesses_keep_no_proved_password_from_the_same_address_waiting() {
    let gateway = Gateway::start();
    let mut kept = open(&gateway);
    assert!(is_let_in(&mut kept, 1));
    // Until guesses from there have to wait; their answers are held back beside a proved password.
    for n in 0..8 {
        let authorization = basic("ANA", &format!("wrong{n}"));
        let head = "GET /people/ANA HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
        gateway.send(format!("{head}Authorization: {authorization}\r\n\r\n").as_bytes());
    }
    let mut guessers: Vec<_> = (0..GUESSERS).map(|_| open(&gateway)).collect();
    for (n, guesser) in guessers.iter_mut().enumerate() {
        (0..GUESSES).for_each(|of| ask(guesser, of * 2 + 1, &format!("guess {n} {of}")));
        // An answer that arrives at once belongs to a guess that was not compared.
        let first = read(guesser, |kind, _| kind == HEADERS);
        assert_ne!(first.last().and_then(|(.., block)| block.first()), Some(&OK));
        assert!(!is_let_in(guesser, GUESSES * 2 + 1), "nor is the right one");
    }
    for round in 0..3 {
        assert!(is_let_in(&mut kept, round * 2 + 3), "on the kept connection");
        assert!(is_let_in(&mut open(&gateway), 1), "on a new one");
        assert_eq!(gateway.get("/people/ANA", "ANA").status, 200, "and over HTTP/1");
    }
}

#[test]
fn a_closed_connection_has_its_place_until_its_answers_are_over() {
    let environment =
        [("FEDGATE_LIMITS_CONNECTIONS_PER_SOURCE", "2"), ("FEDGATE_AUTHENTICATION_REJECTION_STEP_MS", "3000")];
    let gateway = Gateway::start_as(&Setup { environment: &environment, ..Default::default() });
    let metrics = || gateway.admin_get("/metrics").body;
    let has = |line: &str| metrics().lines().any(|other| other == line);
    let mut guesser = open(&gateway);
    ask(&mut guesser, 1, "wrong");
    until("it is being looked at", || has("fedgate_requests_in_flight 1"));
    drop(guesser);
    let _other = open(&gateway);
    // One of the two is the request for the metrics.
    until("the connection is closed", || has("fedgate_connections 2"));
    assert!(has("fedgate_requests_in_flight 1"), "its answer is held back");
    let attempt = || gateway.get("/people/ANA", "ANA").status;
    assert_eq!(attempt(), 0, "and has its place");
    until("the place is free once the answer is over", || attempt() == 200);
}
