//! Reads of replicas: everybody reads what was acknowledged to anybody, and a replica that lags is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fedgate_base::config::{Address, ConnectionsConfig, HeadsConfig, PostgresConfig};
use fedgate_base::workers::RequestWorkers;
use fedgate_his::{HisListener, admin_router};
use futures_util::future::join_all;

use crate::support::postgres::Cluster;
use crate::support::{Actor, His, client, postgres_text, professional, root};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const WRITERS: usize = 3;
const READERS: usize = 6;
/// Reads that replicas, and the primary because replicas lag, have to answer before a history is long enough.
const ENOUGH: u64 = 300;
const ENOUGH_LATE: u64 = 30;

/// A service whose reads a standby may answer, and how to see who did.
pub(super) struct Replicated {
    _primary: Cluster,
    pub(super) standby: Cluster,
    pub(super) database: PostgresConfig,
    pub(super) his: His,
    pub(super) monitor: Address,
}

/// The figures of a service.
pub(super) struct Figures(String);

impl Figures {
    pub(super) async fn of(monitor: &Address) -> Self {
        let head = "GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
        Self(client::exchange(monitor, head, b"").await.text().to_owned())
    }

    pub(super) fn of_name(&self, name: &str) -> u64 {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
    }

    pub(super) fn reads(&self, outcome: &str) -> u64 {
        self.of_name(&format!("fedhis_replica_reads_total{{outcome=\"{outcome}\"}}"))
    }

    /// Reads that a replica might have answered.
    pub(super) fn all_reads(&self) -> u64 {
        ["replica", "away", "lag", "busy", "failed", "unanswered"].iter().map(|outcome| self.reads(outcome)).sum()
    }
}

impl Replicated {
    pub(super) async fn start() -> Self {
        let primary = Cluster::start();
        let database = primary.database().await;
        let standby = primary.standby();
        Self::on(primary, standby, database).await
    }

    pub(super) async fn on(primary: Cluster, standby: Cluster, database: PostgresConfig) -> Self {
        let his = His::on(Cluster::read_from(&database, &[&standby])).await;
        let monitor = monitored(&his).await;
        Self { _primary: primary, standby, database, his, monitor }
    }

    pub(super) async fn figures(&self) -> Figures {
        Figures::of(&self.monitor).await
    }

    /// Reads until a replica answers.
    pub(super) async fn is_read(&self) {
        let before = self.figures().await.reads("replica");
        self.until("a replica is read", async || {
            assert_eq!(self.his.get(&root(), "/domiciliary-units").await.status, 200);
            self.figures().await.reads("replica") > before
        })
        .await;
    }

    /// Waits until something holds.
    pub(super) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        until(what, holds).await;
    }

    /// Lets the standby replay what it gets, or keeps it from it.
    pub(super) async fn pause(&self, is_paused: bool) {
        let standby = self.standby.moved(&self.database);
        let call = if is_paused { "SELECT pg_wal_replay_pause()" } else { "SELECT pg_wal_replay_resume()" };
        postgres_text(&standby, call).await;
        let state = if is_paused { "paused" } else { "not paused" };
        // Version 13 does not tell when the pause begins.
        let paused = "SELECT CASE WHEN pg_is_wal_replay_paused() THEN 'paused' ELSE 'not paused' END";
        until(state, async || postgres_text(&standby, paused).await == state).await;
    }
}

/// Listens for monitoring of a service, and returns the address.
pub(super) async fn monitored(his: &His) -> Address {
    let admin = HisListener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into()), "his.admin").await.unwrap();
    let HisListener::Tcp(listening) = &admin else { unreachable!() };
    let address = Address::Tcp(listening.local_addr().unwrap());
    let router = admin_router(Arc::clone(&his.service));
    let heads = HeadsConfig { timeout: PATIENCE, idle: PATIENCE };
    tokio::spawn(async move {
        let limits = ConnectionsConfig { most: None, heads };
        admin.serve(&RequestWorkers::here(), router, &limits, std::future::pending()).await;
    });
    address
}

/// Posts the person `P` and this number, with a page.
pub(super) async fn new_person(his: &His, n: usize) {
    his.person(&format!("P{n}"), "{}").await;
    his.page(&format!("P{n}"), &format!("page{n}"), &format!(r#"{{"id":"page{n}"}}"#)).await;
}

pub(super) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The number that a member has in an answer.
pub(super) fn number(text: &str, member: &str) -> u64 {
    let begin = format!("\"{member}\":");
    let rest = text.replace(' ', "").split(&begin).nth(1).unwrap_or_else(|| panic!("{member} in {text}")).to_owned();
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_reads_what_was_acknowledged_to_anybody() {
    let stage = Replicated::start().await;
    let writer = stage.his.with(|_| {}).await;
    writer.person("ANA", r#"{"lastname": "Ek", "n9": 0}"#).await;
    for page in 0..WRITERS {
        writer.page("ANA", &format!("p{page}"), &format!(r#"{{"id":"p{page}","n{page}":0}}"#)).await;
    }
    let acknowledged: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let (is_over, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let write = async |page: usize| {
        for n in 1.. {
            if is_over.load(Ordering::SeqCst) {
                break;
            }
            let changed = writer.patch(&root(), &format!("/pols/ANA/p{page}"), format!(r#"{{"n{page}":{n}}}"#)).await;
            assert_eq!(changed.status, 200, "{}", changed.text());
            acknowledged[page].store(n, Ordering::SeqCst);
        }
    };
    let read = async |reader: usize| {
        let actors: [Actor; 2] = [root(), professional()];
        while !is_over.load(Ordering::SeqCst) {
            let page = reader % WRITERS;
            let least = acknowledged[page].load(Ordering::SeqCst);
            let target = match reader % 2 {
                0 => format!("/pols/ANA/p{page}"),
                _ => "/pols/ANA".to_owned(),
            };
            let answer = stage.his.get(&actors[reader % 2], &target).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let found = number(answer.text(), &format!("n{page}"));
            assert!(found >= least, "{target} shows {found}, and {least} was acknowledged before");
            reads.fetch_add(1, Ordering::SeqCst);
        }
    };
    // Until replicas have answered often enough, and were late often enough.
    let disturb = async {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let figures = stage.figures().await;
            let (of_replica, late) = (figures.reads("replica"), figures.reads("lag"));
            if of_replica >= ENOUGH && late >= ENOUGH_LATE {
                println!("{} reads, {of_replica} of a replica, {late} late", reads.load(Ordering::SeqCst));
                break;
            }
            assert!(Instant::now() < deadline, "{of_replica} reads of a replica, {late} late");
            stage.pause(true).await;
            until("it lags", async || stage.figures().await.reads("lag") > late).await;
            stage.pause(false).await;
            until("it is read", async || stage.figures().await.reads("replica") > of_replica).await;
        }
        is_over.store(true, Ordering::SeqCst);
    };
    tokio::join!(join_all((0..WRITERS).map(write)), join_all((0..READERS).map(read)), disturb);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_is_not_waited_for_and_is_read_again_once_it_is_not() {
    let stage = Replicated::start().await;
    stage.is_read().await;
    stage.pause(true).await;
    for n in 0..20 {
        new_person(&stage.his, n).await;
        let person = stage.his.get(&root(), &format!("/people/P{n}")).await;
        assert_eq!(person.status, 200, "{}", person.text());
        let book = stage.his.get(&root(), &format!("/pols/P{n}")).await;
        assert!(book.text().contains(&format!("page{n}")), "{}", book.text());
        let list = stage.his.get(&root(), "/people").await;
        assert!(list.text().contains(&format!("\"P{n}\"")), "{}", list.text());
    }
    let late = stage.figures().await;
    assert!(late.reads("lag") >= 40, "{}", late.0);
    stage.pause(false).await;
    stage.is_read().await;
    let last = stage.his.get(&root(), "/people/P19").await;
    assert_eq!(last.status, 200);
    assert_eq!(stage.figures().await.of_name("fedhis_replica_up{replica=\"1\"}"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_reads_share_a_question_to_the_primary() {
    let stage = Replicated::start().await;
    stage.his.person("ANA", "{}").await;
    stage.is_read().await;
    let before = stage.figures().await;
    let reads =
        |of: &Figures| (of.of_name("fedhis_position_answers_total"), of.of_name("fedhis_position_questions_total"));
    let reading = (0..400).map(|_| async { stage.his.get(&root(), "/people/ANA").await.status });
    assert!(join_all(reading).await.into_iter().all(|status| status == 200));
    let (answers, questions) = reads(&stage.figures().await);
    let (answers, questions) = (answers - reads(&before).0, questions - reads(&before).1);
    assert_eq!(answers, 400, "each read waited for an answer");
    assert!(questions < 400 / 2, "{questions} questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_decides_asks_the_primary() {
    let stage = Replicated::start().await;
    stage.his.person("ANA", r#"{"active": true}"#).await;
    stage.his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
    stage.is_read().await;
    let before = stage.figures().await.all_reads();
    let his = &stage.his;
    let tag = "\"none\"";
    for (method, target, header, body) in [
        ("POST", "/pols/ANA/p1", ("if-none-match", "*"), r#"{"id":"p1"}"#),
        ("POST", "/people/BOB", ("if-none-match", "*"), "{}"),
        ("PATCH", "/pols/ANA/p1", ("if-match", tag), r#"{"info":"x"}"#),
        ("PATCH", "/people/ANA", ("if-match", tag), r#"{"active":false}"#),
        ("DELETE", "/pols/ANA/p1", ("if-match", tag), ""),
        ("POST", "/pols/ANA/p1", ("x-none", "1"), r#"{"id":"p1"}"#),
        ("GET", "/messages", ("x-none", "1"), ""),
        ("GET", "/people?changed_since=2020-01-01T00:00:00Z", ("x-none", "1"), ""),
        ("GET", "/index/duplicates", ("x-none", "1"), ""),
        ("GET", "/index/merges", ("x-none", "1"), ""),
        ("DELETE", "/people/BOB", ("x-none", "1"), ""),
    ] {
        let answer = his.request(&root(), method, target).header(header.0, header.1).body(body).send().await;
        assert!(answer.status < 500, "{method} {target}: {}", answer.text());
        assert_eq!(stage.figures().await.all_reads(), before, "{method} {target}");
    }
    let reads = ["/people/ANA", "/people", "/pols/ANA/p1", "/pols/ANA", "/domiciliary-units", "/people?limit=1"];
    for (count, target) in reads.into_iter().enumerate() {
        his.get(&root(), target).await;
        assert!(stage.figures().await.all_reads() > before + count as u64, "{target} may be a replica's");
    }
}
