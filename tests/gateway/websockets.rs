//! WebSockets through the gateway: one judged handshake, then bytes both ways, as long as the right lasts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic, find_header};
use crate::gateway::http2::{DATA, END_HEADERS, HEADERS, RST_STREAM, literal, open, read};
use crate::gateway::websocket_server::{KEY, Socket, SocketServer, frame, handshake};

/// No account changes but by the tests.
const STILL: &str = "[authentication]\nupgrade_hashes = false\n";

fn start(server: &SocketServer, more: &str) -> Gateway {
    let configuration = format!("{}{STILL}{more}", server.routes());
    Gateway::start_as(&Setup { configuration: &configuration, ..Setup::default() })
}

fn close_frame(code: u16) -> Vec<u8> {
    [&[0x88, 2], &code.to_be_bytes()[..]].concat()
}

/// Reasons of the next records of streams, in their order.
fn reasons(gateway: &Gateway, count: usize) -> Vec<String> {
    (0..count).map(|_| gateway.record()["reason"].as_str().unwrap().to_owned()).collect()
}

fn account(gateway: &Gateway, arguments: &[&str]) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.arg("account").args(arguments).arg("--config").arg(gateway.dir.join("fedgate.toml"));
    assert!(command.output().unwrap().status.success());
}

#[test]
fn bytes_pass_both_ways_as_they_come_once_the_service_has_agreed() {
    let server = SocketServer::start();
    let gateway = start(&server, "");
    for over_tls in [false, true] {
        let more = "Sec-WebSocket-Protocol: hl7, chat\r\nOrigin: http://hospital.example\r\nX-Own: 1\r\n";
        let more = if over_tls { more.replace("http:", "https:") } else { more.to_owned() };
        let mut socket = Socket::ask(&gateway, over_tls, &handshake("/ws/chat?a=b", "ANA", &more));
        assert_eq!(socket.status(), 101, "{}", socket.head);
        let header = |name: &str| find_header(&socket.head, name);
        assert_eq!(header("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(header("sec-websocket-protocol").as_deref(), Some("chat"));
        assert!(header("x-request-id").is_some() && header("set-cookie").is_none() && header("server").is_none());
        socket.hears(&frame(b"hello"));
        for content in [&b"one"[..], &[7; 300], &[8; 200_000]] {
            let sent = frame(content);
            socket.says(&sent);
            socket.hears(&sent);
        }
        gateway.measures("fedgate_streams 1", true);
        drop(socket);
        gateway.measures("fedgate_streams 0", true);
        let records = [gateway.record(), gateway.record()];
        for (record, reason) in records.iter().zip(["stream_begins", "own"]) {
            let said = (&record["reason"], &record["status"], &record["decision"], &record["path"]);
            assert_eq!(said, (&reason.into(), &101.into(), &"allow".into(), &"/ws/chat".into()));
        }
        server.has_open(0);
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    for head in seen {
        assert!(head.starts_with("GET /ws/chat?a=b HTTP/1.1\r\n") && head.ends_with("\r\n\r\n"), "{head:?}");
        let header = |name: &str| find_header(&head, name).unwrap_or_default();
        assert_eq!((header("upgrade"), header("sec-websocket-key")), ("websocket".into(), KEY.into()));
        assert_eq!((header("connection"), header("sec-websocket-protocol")), ("Upgrade".into(), "hl7, chat".into()));
        assert!(!header("fedgate-assertion").is_empty() && header("authorization").is_empty());
    }
    // A service that ends: its last bytes come first.
    let mut socket = Socket::open(&gateway, "/ws/bye", "ANA");
    assert_eq!(socket.ends(), b"");
}

/// Neither side reads before it has written all: a pump of one direction at a time would stop for ever.
#[test]
fn a_client_and_a_service_that_both_write_first_do_not_stop_each_other() {
    let server = SocketServer::start();
    let gateway = start(&server, "");
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.write_all(handshake("/ws/echo", "ANA", "").as_bytes()).unwrap();
    let mut reading = stream.try_clone().unwrap();
    reading.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = vec![];
    while !head.ends_with(b"hello") {
        let mut byte = [0];
        assert_eq!(reading.read(&mut byte).unwrap(), 1);
        head.push(byte[0]);
    }
    let sent = frame(&[9; 4 << 20]);
    let length = sent.len();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut received = vec![0; length];
            reading.read_exact(&mut received).unwrap();
            assert!(received.ends_with(&[9; 1000]));
        });
        stream.write_all(&sent).unwrap();
    });
}

#[test]
fn what_is_no_handshake_of_a_caller_with_the_right_opens_nothing() {
    let server = SocketServer::start();
    let gateway = start(&server, "");
    let good = handshake("/ws/echo", "ANA", "");
    let without = |line: &str| {
        let kept: Vec<_> = good.split("\r\n").filter(|kept| !kept.starts_with(line)).collect();
        kept.join("\r\n")
    };
    #[rustfmt::skip]
    let cases = [
        (handshake("/ws/echo", "", ""),                                  401, "no_credential"),
        (handshake("/feeds/DOC/echo", "ANA", ""),                        403, "not_own"),
        (handshake("/still/echo", "ANA", ""),                            400, "upgrade_not_served"),
        (handshake("/nowhere", "ANA", ""),                               404, "not_found"),
        (good.replace("Upgrade: websocket", "Upgrade: h2c, websocket"),  400, "upgrade_not_served"),
        (good.replace("Upgrade: websocket", "Upgrade: TLS/1.2"),         400, "upgrade_not_served"),
        (good.replace("Version: 13", "Version: 8"),                      400, "bad_websocket"),
        (good.replace("Connection: Upgrade", "Connection: close"),       400, "bad_websocket"),
        (good.replace("Connection: Upgrade", "Connection: Upgrade\r\nContent-Length: 3"), 400, "body_not_expected"),
        (without("Sec-WebSocket-Key"),                                   400, "bad_websocket"),
        (good.replace("GET", "HEAD"),                                    400, "bad_websocket"),
        (good.replace("GET", "POST"),                                    405, "method_not_allowed"),
        (handshake("/ws/echo", "ANA", "Origin: https://evil.example\r\n"), 403, "foreign_origin"),
        (handshake("/ws/echo", "ANA", "Origin: null\r\n"),               403, "foreign_origin"),
        (handshake("/ws/echo", "ANA", "Sec-Fetch-Site: same-site\r\nOrigin: http://hospital.example\r\n"), 403, "foreign_site"),
        (handshake("/open/echo", "", "Origin: https://evil.example\r\n"), 403, "foreign_origin"),
    ];
    for (request, status, reason) in cases {
        let answer = gateway.send_and_close(request.as_bytes());
        assert_eq!(answer.status, status, "{request}");
        if reason == "bad_websocket" {
            assert_eq!(answer.header("sec-websocket-version").as_deref(), Some("13"));
            assert_eq!(answer.header("connection").as_deref(), Some("close"));
        }
        let record = gateway.record();
        assert_eq!((&record["reason"], &record["status"]), (&reason.into(), &status.into()), "{request}");
    }
    assert_eq!(server.seen(), Vec::<String>::new());
    // HTTP/1.0 has no upgrade: the header says nothing.
    let old = handshake("/ws/plain", "ANA", "").replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(gateway.send(old.as_bytes()).status, 200);
    assert!(server.seen().iter().all(|seen| find_header(seen, "upgrade").is_none()), "{:?}", server.seen());
    let granted = [("/feeds/ANA/echo", "ANA"), ("/feeds/ANA/echo", "DOC"), ("/open/echo", "")];
    for (path, account) in granted {
        Socket::open(&gateway, path, account);
    }
    // A portal that the configuration names.
    let named = start(&server, "[cors]\nallowed_origins = [\"https://portal.example\"]\n");
    let portal = handshake("/ws/echo", "ANA", "Sec-Fetch-Site: cross-site\r\nOrigin: https://portal.example\r\n");
    assert_eq!(Socket::ask(&named, false, &portal).status(), 101);
}

/// A request behind the handshake would reach the service as if it had been judged, or be data that the service reads
/// as a request once it has refused.
#[test]
fn bytes_behind_a_handshake_reach_no_service() {
    let server = SocketServer::start();
    let gateway = start(&server, "[limits]\nstream_silence_seconds = 2\n");
    for more in ["x", "GET /people/DOC HTTP/1.1\r\nHost: a\r\n\r\n", "\u{81}\u{1}a"] {
        let answer = gateway.send(format!("{}{more}", handshake("/ws/echo", "ANA", "")).as_bytes());
        assert_eq!((answer.status, &answer.json()["code"]), (400, &"bad_websocket".into()), "{more:?}");
        assert_eq!(gateway.record()["reason"], "bad_websocket");
    }
    assert_eq!(server.seen(), Vec::<String>::new());
    // While the service has not answered yet, whichever way it answers in the end.
    let smuggled = "GET /people/DOC HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut early = TcpStream::connect(gateway.address).unwrap();
    early.write_all(handshake("/ws/never", "ANA", "").as_bytes()).unwrap();
    server.has_open(1);
    early.write_all(smuggled.as_bytes()).unwrap();
    let mut answer = String::new();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = early.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 504") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    server.has_open(0);
    let refused = gateway.send(handshake("/ws/denied", "ANA", "").as_bytes());
    assert_eq!((refused.status, refused.body.as_str()), (403, "no"));
    assert_eq!(refused.header("connection").as_deref(), Some("close"), "its client may go on with data");
    assert!(server.seen().iter().all(|seen| seen.ends_with("\r\n\r\n")), "{:?}", server.seen());
    assert_eq!(reasons(&gateway, 2), ["upstream_silent", "own"]);
    assert!(gateway.no_record_waits());
}

#[test]
fn an_answer_that_does_not_fit_the_handshake_is_an_error_of_the_service() {
    let server = SocketServer::start();
    let gateway = start(&server, "");
    for (kind, status) in [("wrong", 502), ("other", 502), ("unoffered", 502), ("plain", 200), ("denied", 403)] {
        let answer = gateway.send(handshake(&format!("/ws/{kind}"), "ANA", "").as_bytes());
        assert_eq!(answer.status, status, "{kind}");
        assert_eq!(answer.header("connection").as_deref(), Some("close"), "{kind}");
        assert_eq!(gateway.record()["status"], status, "{kind}");
        server.has_open(0);
    }
    // A change of protocol that nobody has asked for.
    for path in ["/ws/echo", "/still/echo"] {
        assert_eq!(gateway.get(path, "ANA").status, 502);
        server.has_open(0);
    }
}

#[test]
fn a_websocket_ends_with_the_right_that_opened_it_and_no_other_does() {
    let server = SocketServer::start();
    let gateway = start(&server, "");
    let mut others = Socket::open(&gateway, "/ws/echo", "DOC");
    let mut idle = Socket::open(&gateway, "/ws/echo", "ANA");
    let mut within = Socket::open(&gateway, "/ws/half", "ANA");
    within.hears(&[0x82, 100, b'a']);
    // Its client reads nothing, and so takes no close frame either.
    let greedy = Socket::open(&gateway, "/ws/flood", "ANA");
    server.has_open(4);
    account(&gateway, &["disable", "ANA", "--wait"]);
    assert_eq!(idle.ends(), close_frame(1008), "between two frames, it is closed for the reason");
    assert_eq!(within.ends(), b"", "a frame that is not whole is broken off");
    server.has_open(1);
    gateway.measures("fedgate_streams_ended_total{reason=\"account_changed\"} 3", true);
    drop(greedy);
    assert_eq!(gateway.send(handshake("/ws/echo", "ANA", "").as_bytes()).status, 401);
    let sent = frame(b"on");
    others.says(&sent);
    others.hears(&sent);
    // A policy that no longer grants it.
    let path = gateway.dir.join("roles.cfg");
    let policy = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, policy.replace("\"messages\"", "\"letters\"")).unwrap();
    assert_eq!(others.ends(), close_frame(1008));
    gateway.measures("fedgate_streams_ended_total{reason=\"right_revoked\"} 1", true);
}

#[test]
fn a_revoked_right_ends_websockets_on_every_instance() {
    use crate::gateway::streams::Pair;
    let server = SocketServer::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pair = runtime.block_on(Pair::start_with(&server.routes()));
    let mut sockets: Vec<_> = pair.gateways.iter().map(|gateway| Socket::open(gateway, "/ws/echo", "P0")).collect();
    let mut others: Vec<_> = pair.gateways.iter().map(|gateway| Socket::open(gateway, "/ws/echo", "P7")).collect();
    runtime.block_on(pair.change("P0", r#"{"active": false}"#));
    for socket in &mut sockets {
        assert_eq!(socket.ends(), close_frame(1008));
    }
    let sent = frame(b"on");
    for socket in &mut others {
        socket.says(&sent);
        socket.hears(&sent);
    }
    // One that cannot confirm its accounts any more.
    pair.cut_off(1);
    assert_eq!(others[1].ends(), close_frame(1013));
    others[0].says(&sent);
    others[0].hears(&sent);
}

#[test]
fn websockets_have_the_seats_and_times_of_streams() {
    let server = SocketServer::start();
    let gateway = start(&server, "[limits]\nstreams_per_account = 2\nstream_silence_seconds = 2\n");
    let mut idle = Socket::open(&gateway, "/ws/echo", "ANA");
    let deaf = Socket::open(&gateway, "/ws/deaf", "ANA");
    let refused = gateway.send(handshake("/ws/echo", "ANA", "").as_bytes());
    assert_eq!((refused.status, refused.header("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200, "requests have their own");
    assert_eq!(idle.ends(), close_frame(1001), "neither side has sent anything");
    drop(deaf);
    gateway.measures("fedgate_streams_ended_total{reason=\"stream_idle\"} 2", true);
    server.forget();
    // A service that takes nothing, however much its client sends.
    // At once: a stream that waits for a moment without anything to pass would be an idle one.
    Socket::open(&gateway, "/ws/deaf", "ANA").floods();
    gateway.measures("fedgate_streams_ended_total{reason=\"upstream_silent\"} 1", true);
    server.forget();
    let gateway = start(&server, "[limits]\nstream_seconds = 3\n");
    let mut long = Socket::open(&gateway, "/ws/echo", "ANA");
    let (began, sent) = (Instant::now(), frame(b"on"));
    // One side that speaks keeps it alive, until its time is over.
    while !long.ends_or_echoes(&sent) {
        std::thread::sleep(Duration::from_millis(100));
        assert!(began.elapsed() < PATIENCE);
    }
    gateway.measures("fedgate_streams_ended_total{reason=\"stream_too_long\"} 1", true);
}

#[test]
fn a_stop_closes_websockets_in_order_and_waits_for_none() {
    let server = SocketServer::start();
    let mut gateway = start(&server, "");
    let mut socket = Socket::open(&gateway, "/ws/echo", "ANA");
    let greedy = Socket::open(&gateway, "/ws/flood", "ANA");
    gateway.signal(Signal::TERM);
    assert_eq!(socket.ends(), close_frame(1001));
    server.has_open(0);
    drop((socket, greedy));
    let deadline = Instant::now() + PATIENCE;
    while gateway.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it stops");
        std::thread::sleep(Duration::from_millis(10));
    }
    let found = reasons(&gateway, 4);
    assert_eq!(found.iter().filter(|reason| *reason == "gateway_stops").count(), 2, "{found:?}");
}

/// RFC 8441. The gateway does not announce it, so browsers open WebSockets over HTTP/1.1.
#[test]
fn over_http2_no_websocket_is_opened() {
    let server = SocketServer::start();
    let gateway = start(&server, "");
    let authorization = basic("ANA", CANARY);
    let mut stream = open(&gateway);
    let block = [
        literal(":method", "CONNECT"),
        literal(":protocol", "websocket"),
        literal(":scheme", "https"),
        literal(":path", "/ws/echo"),
        literal(":authority", "localhost"),
        literal("authorization", &authorization),
        literal("sec-websocket-version", "13"),
    ];
    stream.write_all(&crate::gateway::http2::frame(HEADERS, END_HEADERS, 1, &block.concat())).unwrap();
    let frames = read(&mut stream, |kind, number| number == 1 && matches!(kind, RST_STREAM | HEADERS | DATA));
    assert!(frames.iter().any(|(kind, number, _)| (*kind, *number) == (RST_STREAM, 1)), "{frames:?}");
    // SETTINGS_ENABLE_CONNECT_PROTOCOL is 8.
    let settings = frames.iter().filter(|(kind, ..)| *kind == 4).flat_map(|(.., block)| block.chunks(6));
    assert!(settings.clone().count() > 0 && settings.clone().all(|setting| setting[..2] != [0, 8]));
    assert_eq!(server.seen(), Vec::<String>::new());
}

#[test]
fn explain_says_what_becomes_of_an_upgrade() {
    let server = SocketServer::start();
    let gateway = start(&server, "");
    let explained = |path: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
        command.args(["policy", "explain", "--as", "ANA", "--roles", "end_user", "--config"]);
        let output = command.arg(gateway.dir.join("fedgate.toml")).args(["GET", path]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(explained("/ws/echo").contains("a WebSocket (HTTP/1.1, of no page of another origin) is opened"));
    assert!(explained("/messages").contains("an Upgrade is refused (400)"));
    assert!(!explained("/feeds/DOC/echo").contains("WebSocket") && !explained("/people/ANA").contains("Upgrade"));
}
