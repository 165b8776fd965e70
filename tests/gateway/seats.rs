//! Seats of requests in progress: the streams of a few HTTP/2 connections take no more than as many clients of HTTP/1.
//!
//! Each client here keeps its flow-control window closed (RFC 9113, 5.2), so that no answer with a body can end.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http::{Request, Response};
use rustix::process::Signal;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic};
use crate::gateway::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, frame, literal, open, read};
use crate::gateway::tls::client;
use crate::scripted::until;

/// As many as a connection may have at a time (`limits.h2_streams`).
const STREAMS: usize = 100;
/// The limit of open files, and how many requests it bears (`descriptors.rs`).
const FILES: usize = 1024;
const SEATS: usize = 277;

const UNDER: [&str; 4] = ["sh", "-c", "ulimit -n 1024 && exec \"$@\"", "sh"];

/// A client whose window stays closed, and the answers that it holds.
struct StalledClient {
    sender: SendRequest<Bytes>,
    answers: Vec<Response<RecvStream>>,
}

impl StalledClient {
    async fn connect(gateway: &Gateway, source: Ipv4Addr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let tcp = socket.connect(gateway.tls_address).await.unwrap();
        let config = client(gateway, &[&rustls::version::TLS13], &[b"h2"]);
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tls = tls.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let (sender, connection) = Builder::new().initial_window_size(0).handshake(tls).await.unwrap();
        tokio::spawn(connection);
        Self { sender, answers: vec![] }
    }

    /// Sends as many requests as a connection may have at a time, and waits for the head of each answer.
    async fn ask(&mut self, path: &str, more: &[(&str, &str)]) {
        let mut waiting = vec![];
        for _ in 0..STREAMS {
            let mut request = Request::get(format!("https://localhost{path}"));
            for (name, value) in more {
                request = request.header(*name, *value);
            }
            self.sender = self.sender.clone().ready().await.unwrap();
            waiting.push(self.sender.send_request(request.body(()).unwrap(), true).unwrap().0);
        }
        for answer in waiting {
            self.answers.push(tokio::time::timeout(PATIENCE, answer).await.expect("in time").unwrap());
        }
    }

    /// How many requests were served, and how many found no seat. A stream of the latter has ended.
    async fn counts(&mut self) -> (usize, usize) {
        let (mut served, mut refused) = (0, 0);
        for answer in &mut self.answers {
            match answer.status().as_u16() {
                200 => served += 1,
                503 => {
                    refused += 1;
                    assert_eq!(answer.headers()["retry-after"], "1", "{answer:?}");
                    // An empty frame ends it, which needs no window (RFC 9113, 6.9.1).
                    while let Some(data) =
                        tokio::time::timeout(PATIENCE, answer.body_mut().data()).await.expect("it has ended")
                    {
                        assert!(data.unwrap().is_empty());
                    }
                }
                other => panic!("{other}"),
            }
        }
        (served, refused)
    }
}

/// Asks on one connection for each of these addresses; returns how many requests were served and refused in all.
fn stall(
    runtime: &Runtime,
    gateway: &Gateway,
    sources: &[[u8; 4]],
    path: &str,
    more: &[(&str, &str)],
) -> (Vec<StalledClient>, (usize, usize)) {
    runtime.block_on(async {
        let (mut clients, mut counts) = (vec![], (0, 0));
        for source in sources {
            let mut client = StalledClient::connect(gateway, (*source).into()).await;
            client.ask(path, more).await;
            let (served, refused) = client.counts().await;
            counts = (counts.0 + served, counts.1 + refused);
            clients.push(client);
        }
        (clients, counts)
    })
}

fn open_files(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.child.id())).unwrap().count()
}

#[test]
fn stalled_streams_of_one_address_have_its_share_and_cost_others_nothing() {
    let began = Instant::now();
    let environment = [("FEDGATE_LIMITS_CONNECTIONS_PER_SOURCE", "40")];
    let gateway = Gateway::start_as(&Setup { environment: &environment, ..Setup::default() });
    let runtime = Runtime::new().unwrap();
    let (clients, counts) = stall(&runtime, &gateway, &[[127, 0, 0, 2]; 2], "/", &[]);
    assert_eq!(counts, (40, 160), "served and refused");
    assert_eq!(gateway.upstream.count(), 40, "no refused request reaches the upstream");
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200, "other addresses are served");
    gateway.measures("fedgate_refusals_total{reason=\"busy\"} 160", true);
    let record = std::iter::from_fn(|| Some(gateway.record())).find(|record| record["status"] == 503).unwrap();
    assert_eq!((&record["decision"], &record["reason"]), (&"refuse".into(), &"busy".into()), "{record}");
    assert_eq!(gateway.log_lines("requests are refused as busy", began), 1, "one line for all of them");
    drop(clients);
    until("the seats are given back", || {
        let (_clients, counts) = stall(&runtime, &gateway, &[[127, 0, 0, 2]], "/", &[]);
        counts.0 == 40
    });
}

#[test]
fn the_share_is_of_the_client_that_a_trusted_proxy_names() {
    let environment =
        [("FEDGATE_LIMITS_CONNECTIONS_PER_SOURCE", "40"), ("FEDGATE_GATEWAY_TRUSTED_PROXIES", "127.0.0.2/32")];
    let gateway = Gateway::start_as(&Setup { environment: &environment, ..Setup::default() });
    let runtime = Runtime::new().unwrap();
    let from = |client| stall(&runtime, &gateway, &[[127, 0, 0, 2]], "/", &[("x-forwarded-for", client)]);
    let (_first, first) = from("192.0.2.1");
    let (_second, second) = from("192.0.2.2");
    let (_again, again) = from("192.0.2.1");
    assert_eq!((first, second, again), ((40, 60), (40, 60), (0, 100)));
}

#[test]
fn streams_of_many_addresses_leave_known_callers_seats_and_the_gateway_its_files() {
    let began = Instant::now();
    let gateway = Gateway::start_as(&Setup { under: &UNDER, ..Setup::default() });
    let runtime = Runtime::new().unwrap();
    let nobody: Vec<_> = (2..6).map(|host| [127, 0, 0, host]).collect();
    let (anonymous, counts) = stall(&runtime, &gateway, &nobody, "/", &[]);
    assert_eq!(counts, (SEATS.div_ceil(2), 400 - SEATS.div_ceil(2)), "anonymous callers have half");
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200, "known callers are served");
    // Known callers take the rest.
    let authorization = basic("DOC", CANARY);
    let known: Vec<_> = (6..8).map(|host| [127, 0, 0, host]).collect();
    let (known, counts) = stall(&runtime, &gateway, &known, "/people/ANA", &[("authorization", &authorization)]);
    assert_eq!(counts, (SEATS / 2, 200 - SEATS / 2), "as many are in progress as the files bear");
    assert!(open_files(&gateway) < FILES - 64, "{} of {FILES}", open_files(&gateway));
    let refused = gateway.get("/people/ANA", "ANA");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &"busy".into()), "{refused:?}");
    assert_eq!(refused.header("retry-after").as_deref(), Some("1"));
    assert_eq!((gateway.admin_get("/livez").status, gateway.admin_get("/readyz").status), (200, 200));
    // A revocation by policy comes into force meanwhile.
    let roles = gateway.dir.join("roles.cfg");
    let fewer = std::fs::read_to_string(&roles).unwrap().replacen("\"people\", ", "", 1);
    let edited = Instant::now();
    std::fs::write(&roles, fewer).unwrap();
    gateway.signal(Signal::HUP);
    gateway.logged("policy", edited, PATIENCE).expect("the policy is read");
    for fault in ["Too many open files", "no connection can be accepted", "cannot be read"] {
        assert_eq!(gateway.log_lines(fault, began), 0, "{fault}");
    }
    drop((anonymous, known));
    until("all is well again", || gateway.get("/people/ANA", "ANA").status == 200);
}

#[test]
fn an_answer_of_the_gateway_waits_for_no_window() {
    let environment = [("FEDGATE_LIMITS_CONNECTIONS_PER_SOURCE", "100")];
    let gateway = Gateway::start_as(&Setup { environment: &environment, ..Setup::default() });
    let mut stream = open(&gateway);
    // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113, 6.5.2).
    let window = |size: u32| [&[0, 4][..], &size.to_be_bytes()].concat();
    stream.write_all(&frame(4, 0, 0, &window(0))).unwrap();
    let head = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/people/ANA")];
    let block: Vec<u8> = head.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let numbers = || (1..).step_by(2).take(STREAMS);
    for number in numbers() {
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, number, &block)).unwrap();
    }
    stream.flush().unwrap();
    let heads = std::cell::Cell::new(0);
    read(&mut stream, |kind, _| {
        heads.set(heads.get() + usize::from(kind == HEADERS));
        heads.get() == STREAMS
    });
    // All seats of this address are free again, although no body was taken.
    gateway.measures("fedgate_requests_in_flight 0", true);
    until("the requests are over", || gateway.get("/people/ANA", "ANA").status == 200);
    stream.write_all(&frame(4, 0, 0, &window(65_535))).unwrap();
    let bodies = std::cell::Cell::new(0);
    let frames = read(&mut stream, |kind, _| {
        bodies.set(bodies.get() + usize::from(kind == DATA));
        bodies.get() == STREAMS
    });
    let all = frames.iter().filter(|(kind, ..)| *kind == DATA).all(|(_, _, body)| !body.is_empty());
    assert!(all && bodies.get() == STREAMS, "each body arrives once the window is open");
}
