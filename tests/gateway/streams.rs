//! Streams through the gateway: they pass as they come, and end with the right that admitted them.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_postgres::NoTls;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic, password_hash};
use crate::gateway::authority::{self, Authority};
use crate::gateway::stream_server::{BOTH, End, Reader, StreamServer, Version, connect};
use crate::gateway::tls::connect_as;
use crate::support::keepalive::{Connection, get};
use crate::support::postgres::Cluster;
use crate::support::proxy::Proxy;
use crate::support::tls::believing;

/// No account changes but by the tests.
const STILL: &str = "[authentication]\nupgrade_hashes = false\n";

fn start(server: &StreamServer, more: &str) -> Gateway {
    start_on(&format!("{}{STILL}{more}", server.routes()), None)
}

/// In a thread of its own, because the fixture has a runtime.
fn start_on(configuration: &str, database: Option<&str>) -> Gateway {
    let setup = Setup { configuration, database, ..Setup::default() };
    std::thread::scope(|scope| scope.spawn(|| Gateway::start_as(&setup)).join().unwrap())
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The reasons of the next records of a stream, in their order.
fn reasons(gateway: &Gateway, count: usize) -> Vec<String> {
    (0..count).map(|_| gateway.record()["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_passes_as_it_comes_and_many_share_a_connection_to_the_service() {
    let server = StreamServer::start(true).await;
    let gateway = start(&server, "");
    let shared = connect(&gateway).await;
    let mut readers = vec![Reader::open(&gateway, Version::Http1, "/live", "ANA").await];
    for _ in 0..20 {
        readers.push(Reader::open_http2(shared.clone(), "/live", "ANA").await);
    }
    assert_eq!(readers[0].status, 200);
    assert!(readers[0].head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{}", readers[0].head);
    until("all are there", || server.readers() == readers.len()).await;
    for event in ["one", "two"] {
        server.say(event);
        for reader in &mut readers {
            reader.hears(event).await;
        }
    }
    assert!(server.connections() <= 4, "{} connections", server.connections());
    assert!(gateway.admin_get("/metrics").body.contains("\nfedgate_streams 21\n"));
    server.end();
    for reader in &mut readers {
        assert_eq!(reader.ends().await, End::Whole);
    }
    gateway.measures("fedgate_streams 0", true);
    let found = reasons(&gateway, 42);
    assert_eq!(found.iter().filter(|reason| *reason == "stream_begins").count(), 21, "{found:?}");
    assert_eq!(found.iter().filter(|reason| *reason == "own").count(), 21, "{found:?}");
    // A client that leaves ends its stream at the service.
    let reader = Reader::open(&gateway, Version::Http2, "/live", "ANA").await;
    until("it is there", || server.readers() == 1).await;
    drop(reader);
    until("it has left", || server.readers() == 0).await;
    assert_eq!(reasons(&gateway, 2), ["stream_begins", "client_gone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_finite_answers_and_services_of_http1_are_served() {
    let server = StreamServer::start(false).await;
    let gateway = start(&server, "");
    for version in BOTH {
        let mut reader = Reader::open(&gateway, version, "/live", "ANA").await;
        until("it is there", || server.readers() == 1).await;
        server.say("one");
        reader.hears("data: one").await;
        server.end();
        assert_eq!(reader.ends().await, End::Whole);
        until("it has left", || server.readers() == 0).await;
    }
    let mut old = Reader::open_http1(&gateway, "HTTP/1.0", "/live", "ANA").await;
    until("it is there", || server.readers() == 1).await;
    server.say("one");
    server.end();
    old.ends().await;
    assert_eq!(old.text, "data: one\n\n", "no chunks; the end of the connection is the end");
    let finite = gateway.get("/finite", "");
    assert_eq!((finite.status, finite.body.as_str(), finite.complete), (200, "all of it", true));
    assert_eq!(gateway.request("HEAD", "/finite", "", "").status, 200);
}

/// Two gateways on one database, whose accounts are `P0`, `P1` and so on.
pub(crate) struct Pair {
    pub(crate) client: tokio_postgres::Client,
    proxies: [Proxy; 2],
    pub(crate) gateways: [Gateway; 2],
}

impl Pair {
    pub(crate) async fn start(server: &StreamServer) -> Self {
        Self::start_with(&server.routes()).await
    }

    pub(crate) async fn start_with(routes: &str) -> Self {
        let cluster = Cluster::shared();
        let database = cluster.database_with_accounts(8, &password_hash()).await;
        let (client, connection) = tokio_postgres::connect(&database.uri, NoTls).await.unwrap();
        tokio::spawn(connection);
        let proxies = [0, 1].map(|_| Proxy::before(cluster.socket()));
        let configuration = format!("{routes}{STILL}");
        let gateways = [0, 1].map(|at: usize| {
            let uri = proxies[at].uri(&database);
            start_on(&configuration, Some(&uri))
        });
        Self { client, proxies, gateways }
    }

    /// A reader of one account on each gateway, in each version.
    pub(crate) async fn readers(&self, account: &str) -> Vec<Reader> {
        let mut readers = vec![];
        for gateway in &self.gateways {
            for version in BOTH {
                readers.push(Reader::open(gateway, version, "/live", account).await);
                assert_eq!(readers.last().unwrap().status, 200);
            }
        }
        readers
    }

    /// Cuts an instance off from the database.
    pub(crate) fn cut_off(&self, instance: usize) {
        self.proxies[instance].hold(true);
    }

    pub(crate) async fn change(&self, account: &str, document: &str) {
        let update = format!("UPDATE people SET data = data || '{document}' WHERE id = '{account}'");
        self.client.batch_execute(&update).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_right_ends_running_streams_on_every_instance_and_no_others() {
    let server = StreamServer::start(true).await;
    let pair = Pair::start(&server).await;
    let mut others = pair.readers("P7").await;
    let changed_hash = password_hash();
    let changes = [
        ("P0", r#"{"active": false}"#.to_owned(), "account_changed", 401),
        ("P1", r#"{"roles": []}"#.to_owned(), "right_revoked", 403),
        // Narrower is less than the service was told.
        ("P2", r#"{"roles": ["end_user"]}"#.to_owned(), "right_revoked", 200),
        ("P3", format!(r#"{{"password": "{changed_hash}"}}"#), "account_changed", 200),
    ];
    for (account, change, reason, next) in changes {
        let mut readers = pair.readers(account).await;
        server.say("before");
        for reader in &mut readers {
            reader.hears("before").await;
        }
        pair.change(account, &change).await;
        for reader in &mut readers {
            assert_eq!(reader.ends().await, End::BrokenOff, "{account}");
        }
        server.say("after");
        assert!(readers.iter().all(|reader| !reader.text.contains("after")));
        for gateway in &pair.gateways {
            gateway.measures(&format!("fedgate_streams_ended_total{{reason=\"{reason}\"}} 0"), false);
            assert_eq!(gateway.get("/finite", account).status, 200, "a public route");
            let answer = Reader::open(gateway, Version::Http2, "/live", account).await;
            assert_eq!(answer.status, next, "{account}");
        }
        pair.change("P6", r#"{"roles": ["end_user"]}"#).await;
        server.say(account);
        for reader in &mut others {
            reader.hears(account).await;
        }
    }
    // A policy that says the same, and one that takes the right from all.
    let path = |gateway: &Gateway| gateway.dir.join("roles.cfg");
    let policy = std::fs::read_to_string(path(&pair.gateways[0])).unwrap();
    let began = Instant::now();
    let place = |text: &str| {
        for gateway in &pair.gateways {
            std::fs::write(path(gateway), text).unwrap();
        }
    };
    place(&format!("{policy}\n"));
    for gateway in &pair.gateways {
        gateway.logged("policy reloaded", began, PATIENCE).expect("the policy comes into force");
    }
    server.say("harmless");
    for reader in &mut others {
        reader.hears("harmless").await;
    }
    place(&policy.replace("\"messages\"", "\"letters\""));
    for reader in &mut others {
        assert_eq!(reader.ends().await, End::BrokenOff);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_loses_the_database_ends_its_streams_within_the_bound() {
    let server = StreamServer::start(true).await;
    let pair = Pair::start(&server).await;
    let mut readers = pair.readers("P7").await;
    server.say("before");
    for reader in &mut readers {
        reader.hears("before").await;
    }
    pair.proxies[1].hold(true);
    let mut cut_off = readers.split_off(2);
    for reader in &mut cut_off {
        assert_eq!(reader.ends().await, End::BrokenOff);
    }
    pair.gateways[1].measures("fedgate_streams_ended_total{reason=\"accounts_unconfirmed\"} 2", true);
    let refused = Reader::open(&pair.gateways[1], Version::Http1, "/live", "P7").await;
    assert_eq!(refused.status, 503);
    server.say("after");
    for reader in &mut readers {
        reader.hears("after").await;
    }
    pair.proxies[1].hold(false);
    // A session that breaks and comes back within the bound ends nothing.
    pair.proxies[0].cut();
    server.say("again");
    for reader in &mut readers {
        reader.hears("again").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_reaches_a_slow_client_whose_right_is_gone() {
    let server = StreamServer::start(true).await;
    let gateway = start(&server, "");
    let mut slow = Reader::open(&gateway, Version::Http2, "/live", "ANA").await;
    until("it is there", || server.readers() == 1).await;
    // More than the client's window, which it opens only by reading.
    for number in 0..40 {
        server.say(&format!("{number} {}", "x".repeat(4096)));
    }
    let account = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"))
        .args(["account", "disable", "ANA", "--wait", "--config"])
        .arg(gateway.dir.join("fedgate.toml"))
        .output()
        .unwrap();
    assert!(account.status.success());
    until("it has ended at the service", || server.readers() == 0).await;
    assert_eq!(slow.ends().await, End::BrokenOff);
    assert!(slow.text.len() <= 64 * 1024, "{} bytes", slow.text.len());
    assert!(!slow.text.contains("data: 39"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_whose_right_is_gone_is_answered_as_its_next_request_would_be() {
    let server = StreamServer::start(true).await;
    let gateway = start(&server, "");
    for (version, account, order, status) in
        [(Version::Http1, "ANA", "disable", 401), (Version::Http2, "DOC", "disable", 401)]
    {
        let changed = async {
            until("it waits", || server.readers() == 1).await;
            let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
            command.args(["account", order, account, "--config"]).arg(gateway.dir.join("fedgate.toml"));
            assert!(command.output().await.unwrap().status.success());
        };
        let (reader, ()) = tokio::join!(Reader::open(&gateway, version, "/poll", account), changed);
        assert_eq!(reader.status, status);
        let record = gateway.record();
        assert_eq!((&record["reason"], &record["decision"]), (&"account_changed".into(), &"deny".into()));
        until("it is over at the service", || server.readers() == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_seats_of_their_own_and_times_of_their_own() {
    let server = StreamServer::start(true).await;
    let limits = "[limits]\nconnections_per_source = 6\nstreams_per_source = 3\nstreams_per_account = 2\n\
                  stream_silence_seconds = 2\nstream_seconds = 4\n";
    let gateway = start(&server, limits);
    let mut held = vec![];
    for account in ["ANA", "ANA", "DOC"] {
        held.push(Reader::open(&gateway, Version::Http2, "/live", account).await);
    }
    for (account, version) in [("ANA", Version::Http1), ("DOC", Version::Http2)] {
        let refused = Reader::open(&gateway, version, "/live", account).await;
        assert_eq!(refused.status, 503, "{account}");
    }
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200, "requests have their own");
    for reader in &mut held {
        assert_eq!(reader.ends().await, End::BrokenOff, "the service says nothing");
    }
    gateway.measures("fedgate_streams_ended_total{reason=\"upstream_silent\"} 3", true);
    let mut long = Reader::open(&gateway, Version::Http1, "/live", "ANA").await;
    let end = tokio::select! {
        end = long.ends() => end,
        () = async { loop { server.say("on"); tokio::time::sleep(Duration::from_millis(100)).await } } => unreachable!(),
    };
    assert_eq!(end, End::Whole, "its client goes on with another");
    gateway.measures("fedgate_streams_ended_total{reason=\"stream_too_long\"} 1", true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_streams_at_once_and_in_order() {
    let server = StreamServer::start(true).await;
    let mut gateway = start(&server, "");
    let mut readers = vec![];
    for version in BOTH {
        readers.push(Reader::open(&gateway, version, "/live", "ANA").await);
    }
    server.say("one");
    for reader in &mut readers {
        reader.hears("one").await;
    }
    gateway.signal(Signal::TERM);
    for reader in &mut readers {
        assert_eq!(reader.ends().await, End::Whole);
    }
    drop(readers);
    until("it has stopped", || gateway.child.try_wait().unwrap().is_some()).await;
    let found = reasons(&gateway, 4);
    assert_eq!(found.iter().filter(|reason| *reason == "gateway_stops").count(), 2, "{found:?}");
}

/// A browser never asks again after any status but 200, and asks again after the end of an event stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_stopping_gateway_cannot_begin_is_an_ended_one_for_a_reader_of_events() {
    const EVENTS: &str = "text/event-stream";
    let server = StreamServer::start(true).await;
    let mut gateway = start(&server, "");
    // Kept beyond the stop, and then served once more.
    let mut kept = Connection::to(gateway.address);
    assert_eq!(kept.ask(&get("/finite", &basic("ANA", CANARY))).unwrap().status, 200);
    gateway.record();
    // These wait for a service that has sent no head.
    let waiting = async |accept: &'static str| {
        let [one, two] = BOTH.map(|version| Reader::open_as(&gateway, version, "/poll", "ANA", accept));
        tokio::join!(one, two)
    };
    let stopped = async {
        until("they wait", || server.readers() == 4).await;
        gateway.signal(Signal::TERM);
    };
    let (events, others, ()) = tokio::join!(waiting(EVENTS), waiting("*/*"), stopped);
    for mut reader in [events.0, events.1] {
        let head = reader.head.to_ascii_lowercase();
        assert!(reader.status == 200 && head.contains(EVENTS) && head.contains("no-store"), "{}", reader.head);
        reader.ends().await;
        assert_eq!(reader.text, ": this gateway stops; ask again\n\n");
    }
    for reader in [others.0, others.1] {
        assert!(reader.status == 503 && reader.head.to_ascii_lowercase().contains("retry-after"), "{}", reader.head);
    }
    let events = get(&format!("/live HTTP/1.1\r\nAccept: {EVENTS}\r\nX-Rest:"), &basic("ANA", CANARY));
    assert_eq!(kept.ask(&events).unwrap().status, 200);
    until("it has stopped", || gateway.child.try_wait().unwrap().is_some()).await;
    for record in (0..5).map(|_| gateway.record()) {
        let decision = if record["status"] == 200 { "allow" } else { "refuse" };
        assert_eq!((&record["reason"], &record["decision"]), (&"gateway_stops".into(), &decision.into()), "{record}");
    }
}

#[test]
fn a_certificate_that_is_revoked_ends_the_stream_of_its_client() {
    a_revoked_certificate_ends_a_stream(None);
}

/// Pieces that come one after the other leave no time without any.
#[test]
fn a_certificate_that_is_revoked_ends_a_stream_that_is_never_silent() {
    a_revoked_certificate_ends_a_stream(Some(Duration::from_millis(50)));
}

fn a_revoked_certificate_ends_a_stream(pause: Option<Duration>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(StreamServer::start(true));
    let authority = Authority::new("Laboratories");
    let gateway = authority::start(&authority, "optional", &format!("{}{STILL}", server.routes()), |_| {});
    let doc = authority.client("DOC", 7);
    let trusting = believing(&gateway.dir.join("cert.pem"), &[&rustls::version::TLS13]);
    let trusting = trusting.with_client_auth_cert(doc.chain, doc.key).unwrap();
    let mut stream = connect_as(&gateway, trusting, "localhost").unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let (mut text, mut block) = (String::new(), [0; 4096]);
    while !text.contains("data: one") {
        server.say("one");
        let count = stream.read(&mut block).unwrap();
        assert!(count > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&block[..count]));
    }
    std::fs::write(gateway.dir.join("revoked.pem"), authority.revocation_list(2, &[7, 66]).pem().unwrap()).unwrap();
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(pause) = pause.filter(|_| !has_ended.load(Ordering::SeqCst)) {
                server.say("more");
                std::thread::sleep(pause);
            }
        });
        let began = Instant::now();
        while let Ok(count @ 1..) = stream.read(&mut block)
            && began.elapsed() < PATIENCE
        {
            text.push_str(&String::from_utf8_lossy(&block[..count]));
        }
        has_ended.store(true, Ordering::SeqCst);
        assert!(began.elapsed() < PATIENCE, "the stream goes on");
    });
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    gateway.measures("fedgate_streams_ended_total{reason=\"certificate_lapsed\"} 1", true);
    // Streams for hours would hide how long other requests take.
    gateway.measures("fedgate_request_duration_seconds_count 0", true);
}
