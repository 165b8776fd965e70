//! Pages and documents move to partitions and back while others read and write, whatever kills the move.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fedgate_base::config::{PostgresConfig, StoreConfig};
use fedgate_base::db::schema;
use serde_json::{Value, json};

use crate::his::program::configuration_on;
use crate::support::{His, Reply, postgres_text, professional};

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const WRITERS: usize = 8;
/// The persons whose records nobody writes.
const QUIET: usize = 6;

/// A service on PostgreSQL, and the file with which the program finds its database.
pub(crate) struct Stage {
    pub(crate) his: Arc<His>,
    pub(crate) config: PostgresConfig,
    pub(crate) file: PathBuf,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let his = His::on_postgres().await;
        let StoreConfig::Postgres(config) = his.config.clone() else { unreachable!() };
        let file = configuration_on(&his.scratch.0, &config.uri);
        Self { his: Arc::new(his), config, file }
    }

    /// Persons with pages and documents that nobody writes.
    pub(crate) async fn quiet_persons(&self) {
        for at in 0..QUIET {
            let person = format!("Q{at}");
            self.his.person(&person, r#"{"name":"Quiet"}"#).await;
            for page in 0..20 {
                // In another order than that of the ids.
                let id = format!("q{at}-{}", (page * 7) % 20);
                self.his.page(&person, &id, &json!({ "id": id, "n": page, "author": "A" }).to_string()).await;
            }
            let document = format!("/personal_docs/{person}/q{at}-3/doc{at}");
            let reply = self.his.request(&professional(), "POST", &document).header("Content-Type", "image/png");
            assert_eq!(reply.body("a picture ".repeat(500 + at)).send().await.status, 200);
        }
    }

    /// What readers see of them, byte for byte.
    pub(crate) async fn seen(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for at in 0..QUIET {
            for target in [
                format!("/pols/Q{at}"),
                format!("/pols/Q{at}?limit=7&after=q{at}-13"),
                format!("/pols/Q{at}/q{at}-5"),
                format!("/personal_docs/Q{at}"),
                format!("/personal_docs/Q{at}/q{at}-3"),
                format!("/personal_docs/Q{at}/q{at}-3/doc{at}"),
            ] {
                let reply = self.his.get(&professional(), &target).await;
                assert_eq!(reply.status, 200, "{target}");
                seen.push(format!("{target} {}", String::from_utf8_lossy(&reply.body)));
            }
        }
        seen
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        postgres_text(&self.config, sql).await
    }

    /// Waits until a question has this answer.
    pub(crate) async fn becomes(&self, question: &str, answer: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.text(question).await;
            if found == answer {
                return;
            }
            assert!(Instant::now() < deadline, "{question} is {found}, not {answer}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A session beside the service.
    pub(crate) async fn session(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.config.uri, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Begins `fedhis migrate --partition`.
    pub(crate) fn begin(&self, count: &str) -> Migration {
        let messages = self.his.scratch.0.join("messages");
        let mut command = Command::new(crate::support::programs::fedhis());
        command.args(["migrate", "--partition", count, "--config"]).arg(&self.file).stdin(Stdio::null());
        let told = std::fs::File::create(&messages).unwrap();
        command.stdout(Stdio::null()).stderr(told);
        Migration { child: command.spawn().unwrap(), messages }
    }

    /// Moves to so many partitions.
    pub(crate) async fn moves(&self, count: &str) {
        self.begin(count).ends().await;
        let layout =
            "SELECT count(*) || ' ' || (SELECT count(*) FROM pg_inherits WHERE inhparent = 'personal_docs'::regclass) || ' ' ||
             (SELECT count(*) FROM fedgate_partition_moves) || ' ' || (SELECT count(*) FROM fedgate_moved_rows)
             FROM pg_inherits WHERE inhparent = 'pols'::regclass";
        assert_eq!(self.text(layout).await, format!("{count} {count} 0 0"));
    }
}

/// A running `fedhis migrate`.
pub(crate) struct Migration {
    child: Child,
    messages: PathBuf,
}

impl Migration {
    fn told(&self) -> String {
        let mut told = String::new();
        std::fs::File::open(&self.messages).unwrap().read_to_string(&mut told).unwrap();
        told
    }

    /// Waits until its messages have these words.
    pub(crate) async fn tells(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.told().contains(words) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended without `{words}`: {ended:?} {}", self.told());
            assert!(Instant::now() < deadline, "`{words}` is not in: {}", self.told());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended well.
    pub(crate) async fn ends(mut self) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{}", self.told());
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(status.success(), "{}", self.told());
    }
}

/// Somebody who writes and reads a book of their own, and knows what has to be in it.
struct Writer {
    his: Arc<His>,
    person: String,
    pages: BTreeMap<String, i64>,
    posted: usize,
}

impl Writer {
    /// A request that is made until it is served: a lock that is waited for too long is 503, and nothing is written.
    async fn ask(&self, method: &str, target: &str, body: &str) -> Reply {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = self.his.request(&professional(), method, target);
            let reply = if body.is_empty() { request } else { request.body(body) }.send().await;
            if reply.status != 503 {
                return reply;
            }
            assert!(Instant::now() < deadline, "{method} {target} is 503");
        }
    }

    async fn step(&mut self) {
        let person = self.person.clone();
        let id = format!("{person}-{:05}", self.posted);
        let posted = self.ask("POST", &format!("/pols/{person}/{id}"), &json!({ "id": id, "v": 0 }).to_string()).await;
        assert_eq!(posted.status, 200, "{}", posted.text());
        self.pages.insert(id, 0);
        self.posted += 1;
        let some = self.pages.keys().nth(self.posted * 5 % self.pages.len()).unwrap().clone();
        let version = i64::try_from(self.posted).unwrap();
        let target = format!("/pols/{person}/{some}");
        let patched = self.ask("PATCH", &target, &json!({ "v": version }).to_string()).await;
        assert_eq!(patched.status, 200, "{}", patched.text());
        self.pages.insert(some.clone(), version);
        assert_eq!(self.ask("GET", &target, "").await.json()["v"], version, "{target}");
        let document = format!("/personal_docs/{person}/{some}/{person}-{}", self.posted);
        let made = self.ask("POST", &document, &json!({ "document": "JVBERi0xLjQK" }).to_string()).await;
        assert_eq!(made.status, 200, "{}", made.text());
        assert_eq!(self.ask("GET", &document, "").await.body, b"%PDF-1.4\n");
        if self.posted.is_multiple_of(2) {
            assert_eq!(self.ask("DELETE", &target, "").await.error().2, "page_in_use");
            let gone = self.ask("DELETE", &document, "").await;
            assert_eq!(gone.status, 200, "{}", gone.text());
            let gone = self.ask("DELETE", &target, "").await;
            assert_eq!(gone.status, 200, "{target} {}", gone.text());
            self.pages.remove(&some);
        } else {
            assert_eq!(self.ask("DELETE", &document, "").await.status, 200);
        }
        self.check().await;
    }

    /// The book has what was acknowledged, once and in order.
    async fn check(&self) {
        let book = self.ask("GET", &format!("/pols/{}", self.person), "").await;
        let found: Vec<Value> = book.json().as_array().unwrap().iter().map(|page| page[0].clone()).collect();
        let wanted: Vec<Value> =
            self.pages.iter().map(|(id, v)| json!({ "id": id, "v": v, "book": self.person })).collect();
        assert_eq!(found, wanted, "the book of {}", self.person);
    }
}

/// Lets writers write until the flag is set, each with its book.
async fn writers(
    stage: &Stage,
    stop: &Arc<AtomicBool>,
    steps: &Arc<AtomicUsize>,
) -> Vec<tokio::task::JoinHandle<Writer>> {
    let mut all = Vec::new();
    for at in 0..WRITERS {
        let person = format!("W{at}");
        stage.his.person(&person, r#"{"name":"Writer"}"#).await;
        let mut writer = Writer { his: Arc::clone(&stage.his), person, pages: BTreeMap::new(), posted: 0 };
        let (stop, steps) = (Arc::clone(stop), Arc::clone(steps));
        all.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                writer.step().await;
                steps.fetch_add(1, Ordering::Relaxed);
            }
            writer
        }));
    }
    all
}

/// The move waits where it writes down how far it is, while a session holds one of these locks (the second for its end).
const GATE: &str = "
    CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(CASE TG_OP WHEN 'DELETE' THEN 43 ELSE 42 END);
        RETURN coalesce(NEW, OLD);
    END
    $$;
    CREATE TRIGGER gate BEFORE UPDATE OR DELETE ON fedgate_partition_moves FOR EACH ROW EXECUTE FUNCTION gate()";
const AT_THE_GATE: &str = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
    AND objid IN (42, 43) AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
const LOCKED: &str = "SELECT count(*)::text FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
    AND relation = 'pols'::regclass";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_moves_pages_to_partitions_and_back_while_others_write_whatever_kills_it() {
    let stage = Stage::new().await;
    stage.quiet_persons().await;
    stage.his.sql(GATE).await;
    let before = stage.seen().await;
    let (stop, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writing = writers(&stage, &stop, &steps).await;
    let [gate, older] = [stage.session().await, stage.session().await];

    // It has not begun yet: somebody has written a page, and not committed.
    older.batch_execute("BEGIN; INSERT INTO pols VALUES ('held', 'Q0', '{\"id\": \"held\"}')").await.unwrap();
    let mut migration = stage.begin("8");
    migration.tells("the move of `pols` begins, and waits for a lock").await;
    migration.kill();
    older.batch_execute("ROLLBACK").await.unwrap();
    // While it copies.
    gate.batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    let migration = stage.begin("8");
    stage.becomes(AT_THE_GATE, "1").await;
    migration.kill();
    gate.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    // While it waits for an older transaction.
    older.batch_execute("BEGIN; SELECT FROM dus").await.unwrap();
    let mut migration = stage.begin("8");
    migration.tells("the swap of `pols` waits for").await;
    migration.kill();
    // In the transaction that swaps the tables, while nobody else can use them.
    let mut migration = stage.begin("8");
    migration.tells("the swap of `pols` waits for").await;
    gate.batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    older.batch_execute("ROLLBACK").await.unwrap();
    stage.becomes(AT_THE_GATE, "1").await;
    assert_eq!(stage.text(LOCKED).await, "1");
    migration.kill();
    gate.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    // After the swap, before its last step.
    gate.batch_execute("SELECT pg_advisory_lock(43)").await.unwrap();
    let migration = stage.begin("8");
    stage.becomes(AT_THE_GATE, "1").await;
    migration.kill();
    gate.batch_execute("SELECT pg_advisory_unlock(43)").await.unwrap();
    let told = schema::unfinished_moves(&stage.his.database).await.unwrap().unwrap().to_string();
    assert!(told.starts_with("the move of `pols` has begun and not ended"), "{told}");
    assert_eq!(stage.text("SELECT is_swapped::text FROM fedgate_partition_moves WHERE moved = 'pols'").await, "true");
    assert_eq!(schema::missing_objects(&stage.his.database).await.unwrap(), None);
    let written = steps.load(Ordering::Relaxed);
    stage.moves("8").await;
    assert_eq!(stage.seen().await, before);
    // Another number, and back, killed once more.
    stage.moves("3").await;
    gate.batch_execute("SELECT pg_advisory_lock(42)").await.unwrap();
    let migration = stage.begin("0");
    stage.becomes(AT_THE_GATE, "1").await;
    migration.kill();
    gate.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    // Given up: it stays as it is.
    stage.moves("3").await;
    stage.moves("0").await;
    stop.store(true, Ordering::Relaxed);
    for writer in writing {
        let writer = writer.await.unwrap();
        writer.check().await;
        assert!(writer.posted > 0 && written > 0, "nobody wrote");
    }
    assert_eq!(stage.seen().await, before);
    // Each page has left one message of its creation, and no copy has left any.
    let doubled = "SELECT count(*)::text FROM (SELECT FROM fedgate_messages WHERE method = 'POST' GROUP BY resource, id HAVING count(*) > 1) AS d";
    assert_eq!(stage.text(doubled).await, "0");
    let told = "SELECT string_agg(resource || method, ' ' ORDER BY method) FROM fedgate_messages WHERE id = 'q0-3'";
    assert_eq!(stage.text(told).await, "pagePOST");
    assert_eq!(schema::unfinished_moves(&stage.his.database).await.unwrap(), None);
    // As Thalamus made it.
    let made = "SELECT string_agg(conrelid::regclass || ' ' || pg_get_constraintdef(oid), ', ' ORDER BY conrelid::regclass::text, conname)
        FROM pg_constraint WHERE conrelid IN ('pols'::regclass, 'personal_docs'::regclass) AND contype <> 'n'";
    assert_eq!(
        stage.text(made).await,
        "personal_docs FOREIGN KEY (fedacct) REFERENCES people(id), personal_docs PRIMARY KEY (id), personal_docs FOREIGN \
         KEY (pol) REFERENCES pols(id), pols FOREIGN KEY (book) REFERENCES people(id), pols PRIMARY KEY (id)"
    );
    assert_eq!(
        stage
            .text(
                "SELECT count(*)::text FROM pg_class WHERE relname ~ 'fedgate_(pols|personal_docs)_.*(_new|_old)|_ids$'"
            )
            .await,
        "0"
    );
}
