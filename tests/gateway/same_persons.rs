//! The ids of one person: an account reaches the records of all of them from the moment at which the store names them,
//! and no longer than it does.

use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic, password_hash};
use crate::gateway::exchanges::{Tethered, before_fedhis_as};
use crate::gateway::stream_server::{End, StreamServer};
use crate::gateway::streams::Pair;
use crate::support::postgres::Cluster;

/// The bound, and time for a busy machine.
const BOUND: Duration = Duration::from_millis(1000 + 500);

/// A gateway before fedhis, with the accounts `P0` to `P3`, who reach their own records, and SQL past both.
pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    _his: Tethered,
    database: Option<tokio_postgres::Client>,
}

impl Stage {
    pub(crate) async fn on_postgres() -> Self {
        let database = Cluster::shared().database_with_accounts(4, &password_hash()).await;
        let (client, connection) = tokio_postgres::connect(&database.uri, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(r#"UPDATE people SET data = data || '{"roles": ["end_user"]}'"#).await.unwrap();
        Self::start(Some(&database.uri), Some(client))
    }

    pub(crate) async fn on_sqlite() -> Self {
        let stage = Self::start(None, None);
        for n in 0..4 {
            let person = format!(r#"{{"roles":["end_user"],"active":true,"password":"{}"}}"#, password_hash());
            stage.sql(&format!("INSERT INTO people (id, data) VALUES ('P{n}', '{person}')")).await;
        }
        stage
    }

    fn start(database: Option<&str>, client: Option<tokio_postgres::Client>) -> Self {
        let setup = Setup { configuration: "", database, ..Setup::default() };
        let (gateway, his) = std::thread::scope(|scope| scope.spawn(|| before_fedhis_as(&setup)).join().unwrap());
        Self { gateway, _his: his, database: client }
    }

    pub(crate) async fn sql(&self, sql: &str) {
        match &self.database {
            Some(client) => client.batch_execute(sql).await.unwrap(),
            None => {
                let store = rusqlite::Connection::open(self.gateway.dir.join("test.db")).unwrap();
                store.busy_timeout(PATIENCE).unwrap();
                store.execute_batch(sql).unwrap();
            }
        }
    }

    pub(crate) fn status(&self, method: &str, path: &str, account: &str, body: &str) -> u16 {
        let kind = match path.starts_with("/password/") {
            true => "application/x-www-form-urlencoded",
            false => "application/json",
        };
        let authorization = basic(account, CANARY);
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: hospital.example\r\nAuthorization: {authorization}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        match self.gateway.send(request.as_bytes()).status {
            // Admitted: a reader of an old id is sent on to the one that stays.
            307 => 200,
            status => status,
        }
    }

    /// Waits until a request has this status. Panics if that takes longer than the bound.
    pub(crate) fn becomes(&self, path: &str, account: &str, status: u16) {
        let began = Instant::now();
        while self.status("GET", path, account, "") != status {
            assert!(began.elapsed() < BOUND, "{path} as {account} never becomes {status}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn an_account_reaches_all_ids_of_its_person_while_they_are_named(stage: Stage) {
    for n in 0..4 {
        let page = format!("/pols/P{n}/p{n}");
        assert_eq!(stage.status("POST", &page, &format!("P{n}"), &format!(r#"{{"id":"p{n}"}}"#)), 200);
    }
    // Cached without it.
    for (path, status) in [("/pols/P0", 200), ("/pols/P1", 403), ("/pols/P2", 403)] {
        assert_eq!(stage.status("GET", path, "P0", ""), status, "{path}");
    }
    stage.sql("INSERT INTO fedgate_same_persons (id, person) VALUES ('P0', 'P1'), ('P1', 'P1')").await;
    stage.becomes("/pols/P1", "P0", 200);
    stage.becomes("/pols/P0", "P1", 200);
    for (method, path, account, body, status) in [
        ("POST", "/pols/P1/q1", "P0", r#"{"id":"q1"}"#, 200),
        ("POST", "/pols/P0/q0", "P1", r#"{"id":"q0"}"#, 200),
        ("PATCH", "/people/P1", "P0", r#"{"phone":"1"}"#, 200),
        // Nobody else's, neither way.
        ("GET", "/pols/P2", "P0", "", 403),
        ("GET", "/people/P2", "P1", "", 403),
        ("GET", "/pols/P0", "P2", "", 403),
        ("GET", "/people/P1", "P2", "", 403),
        ("GET", "/people/p1", "P0", "", 403),
        // What is of an account stays with it.
        ("GET", "/password/P1", "P0", "", 403),
        ("POST", "/password/P1", "P0", "password=x", 403),
        ("GET", "/password/P0", "P0", "", 200),
        ("PATCH", "/people/P1", "P0", r#"{"roles":["root"]}"#, 403),
        ("PATCH", "/people/P1", "P0", r#"{"password":"x"}"#, 403),
    ] {
        assert_eq!(stage.status(method, path, account, body), status, "{method} {path} {account} {body}");
    }
    let messages = stage.gateway.get("/messages?after=0&limit=1000", "P0").body;
    assert!(messages.contains("\"q0\"") && messages.contains("\"q1\""), "{messages}");
    assert!(!messages.contains("\"P2\"") && !messages.contains("\"P3\""), "{messages}");
    // A third id: the cached rights of those who are not named by any changed row grow, too.
    stage.sql("INSERT INTO fedgate_same_persons (id, person) VALUES ('P2', 'P1')").await;
    for (path, account) in [("/pols/P2", "P0"), ("/pols/P2", "P1"), ("/pols/P0", "P2"), ("/pols/P1", "P2")] {
        stage.becomes(path, account, 200);
    }
    // One leaves: each loses the other, at once.
    stage.sql("DELETE FROM fedgate_same_persons WHERE id = 'P2'").await;
    for (path, account) in [("/pols/P2", "P0"), ("/pols/P2", "P1"), ("/pols/P0", "P2"), ("/pols/P1", "P2")] {
        stage.becomes(path, account, 403);
    }
    assert_eq!(stage.status("GET", "/pols/P1", "P0", ""), 200, "those stay");
    // Another person from now on.
    stage.sql("UPDATE fedgate_same_persons SET person = 'P3' WHERE id = 'P0'").await;
    stage.becomes("/pols/P1", "P0", 403);
    stage.becomes("/pols/P0", "P1", 403);
    stage.sql("INSERT INTO fedgate_same_persons (id, person) VALUES ('P3', 'P3')").await;
    stage.becomes("/pols/P3", "P0", 200);
    stage.becomes("/pols/P0", "P3", 200);
    stage.sql("DELETE FROM fedgate_same_persons").await;
    stage.becomes("/pols/P3", "P0", 403);
    stage.becomes("/pols/P0", "P3", 403);
    let first = |method: &str, path: &str, account: &str, decision: &str| loop {
        let record = stage.gateway.record();
        if record["path"] == path
            && record["account"] == account
            && record["decision"] == decision
            && record["method"] == method
        {
            break (record["reason"].clone(), record["subject.same_person"].clone());
        }
    };
    assert_eq!(first("GET", "/pols/P1", "P0", "allow"), ("own".into(), true.into()));
    assert_eq!(first("GET", "/pols/P2", "P0", "deny"), ("not_own".into(), serde_json::Value::Null));
    // What was written meanwhile stays with the id under which it was written.
    assert_eq!(stage.status("GET", "/pols/P1/q1", "P1", ""), 200);
    assert_eq!(stage.status("GET", "/pols/P1/q1", "P0", ""), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_reaches_all_ids_of_its_person_while_they_are_named_on_postgres() {
    an_account_reaches_all_ids_of_its_person_while_they_are_named(Stage::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_reaches_all_ids_of_its_person_while_they_are_named_on_sqlite() {
    an_account_reaches_all_ids_of_its_person_while_they_are_named(Stage::on_sqlite().await).await;
}

/// A reader who waits for messages about its own records is no stranger when its person gets another id.
async fn a_long_poll_of_own_records_is_told_to_ask_again_when_the_ids_of_its_person_change(stage: Stage) {
    let changes = [
        "INSERT INTO fedgate_same_persons (id, person) VALUES ('P0', 'P1'), ('P1', 'P1')",
        "DELETE FROM fedgate_same_persons WHERE id IN ('P0', 'P1')",
    ];
    for change in changes {
        let path = "/messages?after=last&wait=60";
        let waits = || stage.status("GET", path, "P0", "");
        let written = || {
            stage.gateway.measures("fedgate_streams 1", true);
            tokio::runtime::Handle::current().block_on(stage.sql(change));
        };
        let status = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let waits = scope.spawn(waits);
                written();
                waits.join().unwrap()
            })
        });
        assert_eq!(status, 503, "{change}");
        assert_eq!(stage.status("GET", "/messages?after=last", "P0", ""), 200, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_of_own_records_is_told_to_ask_again_when_the_ids_of_its_person_change_on_postgresql() {
    let stage = Stage::on_postgres().await;
    a_long_poll_of_own_records_is_told_to_ask_again_when_the_ids_of_its_person_change(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_of_own_records_is_told_to_ask_again_when_the_ids_of_its_person_change_on_sqlite() {
    let stage = Stage::on_sqlite().await;
    a_long_poll_of_own_records_is_told_to_ask_again_when_the_ids_of_its_person_change(stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_own_records_ends_on_every_instance_when_the_ids_of_its_person_change() {
    let server = StreamServer::start(true).await;
    let pair = Pair::start(&server).await;
    for account in ["P0", "P1"] {
        pair.change(account, r#"{"roles": ["end_user"]}"#).await;
    }
    let (mut global, mut other) = (pair.readers("P2").await, pair.readers("P3").await);
    pair.change("P3", r#"{"roles": ["end_user"]}"#).await;
    for reader in &mut other {
        assert_eq!(reader.ends().await, End::BrokenOff, "narrower");
    }
    other = pair.readers("P3").await;
    let changes = [
        "INSERT INTO fedgate_same_persons (id, person) VALUES ('P0', 'P1'), ('P1', 'P1'), ('P2', 'P1')",
        "DELETE FROM fedgate_same_persons WHERE id = 'P2'",
        "TRUNCATE fedgate_same_persons",
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut readers = pair.readers("P0").await;
        readers.extend(pair.readers("P1").await);
        server.say(&format!("before {number}"));
        for reader in &mut readers {
            reader.hears(&format!("before {number}")).await;
        }
        pair.client.batch_execute(change).await.unwrap();
        for reader in &mut readers {
            assert_eq!(reader.ends().await, End::BrokenOff, "{change}");
        }
        server.say(&format!("after {number}"));
        assert!(readers.iter().all(|reader| !reader.text.contains("after")), "{change}");
        // Whoever reaches every record, or is another person, reads on. One statement that empties the table names nobody.
        for reader in global.iter_mut().chain(&mut other) {
            reader.hears(&format!("after {number}")).await;
        }
    }
    for gateway in &pair.gateways {
        gateway.measures("fedgate_streams_ended_total{reason=\"own_ids_changed\"} 12", true);
    }
}
