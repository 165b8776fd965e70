//! Replicas that fail, hang, are promoted, or are of another server: no request fails, and no stale answer is given.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fedgate_base::config::{PostgresConfig, ReplicaConfig};
use futures_util::future::join_all;

use super::replicas::{Figures, Replicated, monitored, new_person, number, until};
use crate::support::postgres::Cluster;
use crate::support::{His, postgres_text, root};

const READERS: usize = 4;

/// Reads without a pause while something happens. No read may fail.
async fn while_reading(stage: &Replicated, happens: impl Future<Output = ()>) {
    let (is_over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let read = async |_: usize| {
        while !is_over.load(Ordering::SeqCst) {
            for target in ["/people/ANA", "/pols/ANA", "/people"] {
                let answer = stage.his.get(&root(), target).await;
                assert_eq!(answer.status, 200, "{target}: {}", answer.text());
                assert!(answer.text().contains("ANA"), "{target}: {}", answer.text());
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    };
    let happening = async {
        happens.await;
        is_over.store(true, Ordering::SeqCst);
    };
    tokio::join!(join_all((0..READERS).map(read)), happening);
    println!("{} reads", count.load(Ordering::SeqCst));
}

async fn stage() -> Replicated {
    let stage = Replicated::start().await;
    stage.his.person("ANA", "{}").await;
    stage.his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
    stage.is_read().await;
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn no_request_fails_when_a_replica_is_killed_or_stops_answering() {
    let stage = stage().await;
    let up = async || stage.figures().await.of_name("fedhis_replica_up{replica=\"1\"}") == 1;
    while_reading(&stage, async {
        for _ in 0..2 {
            stage.standby.crash();
            until("it is left out", async || !up().await).await;
            let away = stage.figures().await.reads("away");
            until("the primary is read", async || stage.figures().await.reads("away") > away).await;
            stage.standby.resume();
            stage.is_read().await;
        }
        stage.standby.freeze(true);
        until("it is left out", async || !up().await).await;
        stage.standby.freeze(false);
        stage.is_read().await;
        // The server ends all sessions, and stays the same process.
        stage.standby.crash_session();
        let replica = stage.figures().await.reads("replica");
        until("it is read", async || stage.figures().await.reads("replica") > replica + 10).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_follows_a_primary_which_was_replaced_is_not_read_however_far_it_is() {
    let old = Cluster::start();
    let database = old.database().await;
    let (new, left) = (old.standby(), old.standby());
    let on_both = Cluster::on_all([&old, &new], &database);
    let his = His::on(Cluster::read_from(&on_both, &[])).await;
    his.person("ANA", r#"{"n": 0}"#).await;
    new.follow(&database).await;
    // The replica has more of the log than the server that is promoted.
    new.kill();
    let replicas = vec![ReplicaConfig { uri: left.moved(&database).uri, ca_file: None }];
    drop(his);
    let his = His::on(PostgresConfig { replicas, ..on_both.clone() }).await;
    let monitor = monitored(&his).await;
    let figures = async || Figures::of(&monitor).await;
    until("the replica is read", async || {
        his.get(&root(), "/people/ANA").await;
        figures().await.reads("replica") > 0
    })
    .await;
    postgres_text(&database, "CREATE TABLE much AS SELECT repeat('x', 500) FROM generate_series(1, 20000)").await;
    left.follow(&database).await;
    old.crash();
    new.resume();
    new.promote();
    let promoted = new.moved(&database);
    let position = "SELECT (pg_current_wal_flush_lsn() - '0/0')::text";
    let replayed = "SELECT (pg_last_wal_replay_lsn() - '0/0')::text";
    let far: u64 = postgres_text(&left.moved(&database), replayed).await.parse().unwrap();
    until("writes are taken", async || his.patch(&root(), "/people/ANA", r#"{"n": 1}"#).await.status == 200).await;
    let before = figures().await;
    for n in 2..200 {
        let changed = his.patch(&root(), "/people/ANA", format!(r#"{{"n": {n}}}"#)).await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        let read = his.get(&root(), "/people/ANA").await;
        assert_eq!(number(read.text(), "n"), n, "{}", read.text());
    }
    assert_eq!(figures().await.reads("replica"), before.reads("replica"), "the replica is of another history");
    let reached: u64 = postgres_text(&promoted, position).await.parse().unwrap();
    assert!(reached < far, "the test shows nothing: {reached} is not before {far}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_promoted_is_left_out() {
    let stage = stage().await;
    while_reading(&stage, async {
        stage.standby.promote();
        let up = async || stage.figures().await.of_name("fedhis_replica_up{replica=\"1\"}") == 1;
        until("it is left out", async || !up().await).await;
    })
    .await;
    // It counts on by itself.
    let promoted = stage.standby.moved(&stage.database);
    postgres_text(&promoted, "CREATE TABLE much AS SELECT repeat('x', 500) FROM generate_series(1, 20000)").await;
    let before = stage.figures().await;
    for n in 0..50 {
        new_person(&stage.his, n).await;
        assert_eq!(stage.his.get(&root(), &format!("/pols/P{n}/page{n}")).await.status, 200);
    }
    let after = stage.figures().await;
    assert_eq!(after.reads("replica"), before.reads("replica"));
    assert!(after.reads("away") >= before.reads("away") + 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_cluster_or_database_and_the_primary_itself_are_never_read() {
    let primary = Cluster::start();
    let (database, other) = (primary.database().await, primary.database().await);
    let other_his = His::on(other.clone()).await;
    other_his.person("ANA", r#"{"n": "of another database"}"#).await;
    let standby = primary.standby();
    let elsewhere = Cluster::start();
    let twin = elsewhere.database().await;
    assert_eq!(database.uri.split("dbname=").nth(1), twin.uri.split("dbname=").nth(1), "databases of one name");
    let twin_his = His::on(twin.clone()).await;
    twin_his.person("ANA", r#"{"n": "of another cluster"}"#).await;
    let stranger = elsewhere.standby();
    // Positions in its log are beyond those of the primary.
    postgres_text(&twin, "CREATE TABLE much AS SELECT repeat('x', 500) FROM generate_series(1, 20000)").await;
    let uris = [stranger.moved(&twin).uri, standby.moved(&other).uri, database.uri.clone()];
    let replicas = uris.into_iter().map(|uri| ReplicaConfig { uri, ca_file: None }).collect();
    let his = His::on(PostgresConfig { replicas, ..database.clone() }).await;
    his.person("ANA", r#"{"n": "right"}"#).await;
    let monitor = monitored(&his).await;
    // The third is asked for in vain several times meanwhile.
    until("the primary has answered", async || {
        let read = his.get(&root(), "/people/ANA").await;
        assert!(read.text().contains("right"), "{}", read.text());
        Figures::of(&monitor).await.reads("away") > 300
    })
    .await;
    assert_eq!(Figures::of(&monitor).await.reads("replica"), 0);
    standby.follow(&database).await;
}
