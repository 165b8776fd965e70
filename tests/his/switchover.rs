//! A switchover, seen from the HIS: the old primary is neither read nor written for long, and a standby is
//! reported.

use std::process::Stdio;
use std::time::{Duration, Instant};

use fedgate_base::config::{Address, PostgresConfig, StoreConfig};
use tokio::io::AsyncReadExt;

use crate::support::postgres::Cluster;
use crate::support::proxy::Proxy;
use crate::support::{His, client, postgres_text, root};

const PATIENCE: Duration = Duration::from_secs(20);

/// A service behind a proxy, on a primary that another server replaces. Open sessions stay on the old one.
async fn after_a_switchover(read_only: bool) -> (Cluster, Cluster, His, PostgresConfig) {
    let old = Cluster::start();
    let database = old.database().await;
    let proxy = Proxy::before(old.socket());
    let his = His::on(PostgresConfig { uri: proxy.uri(&database), ..database.clone() }).await;
    his.person("ANA", r#"{"at": "both"}"#).await;
    let reads = (0..4).map(|_| async { his.get(&root(), "/people/ANA").await.status });
    assert_eq!(futures_util::future::join_all(reads).await, [200; 4]);
    let new = old.standby();
    new.follow(&database).await;
    new.promote();
    if read_only {
        postgres_text(&database, "ALTER SYSTEM SET default_transaction_read_only = on").await;
        postgres_text(&database, "SELECT pg_reload_conf()").await;
    }
    proxy.lead_to(new.socket());
    let new_database = new.moved(&database);
    postgres_text(&new_database, r#"UPDATE people SET data = data || '{"at": "new"}'"#).await;
    (old, new, his, new_database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_from_or_written_to_a_server_that_was_left_behind() {
    for read_only in [false, true] {
        let (_old, _new, his, new) = after_a_switchover(read_only).await;
        let deadline = Instant::now() + PATIENCE;
        while !his.get(&root(), "/people/ANA").await.text().contains("new") {
            assert!(Instant::now() < deadline, "the old server is read for ever (read-only: {read_only})");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // For good, and by every session.
        for number in 0..10 {
            let changed = his.patch(&root(), "/people/ANA", format!(r#"{{"number": {number}}}"#)).await;
            assert_eq!(changed.status, 200, "{}", changed.text());
            let stored = postgres_text(&new, "SELECT data ->> 'number' FROM people WHERE id = 'ANA'").await;
            assert_eq!(stored, number.to_string(), "an acknowledged write is on the new primary");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_a_server_without_writes_is_refused_and_makes_the_service_look_for_the_primary() {
    let (_old, _new, his, _) = after_a_switchover(true).await;
    let began = Instant::now();
    loop {
        let changed = his.patch(&root(), "/people/ANA", "{}").await;
        if changed.status == 200 {
            break;
        }
        let code = changed.error().2;
        assert!(["database_read_only", "database_unavailable"].contains(&code.as_str()), "{code}");
        assert_eq!(changed.header("retry-after"), Some("1"));
        assert!(began.elapsed() < PATIENCE, "the new primary is not found");
    }
    println!("a switchover of the HIS's database: written again after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_standby_the_service_says_so_once_reads_and_serves_no_writes() {
    let primary = Cluster::start();
    let his = His::on(primary.database().await).await;
    his.person("ANA", "{}").await;
    let StoreConfig::Postgres(database) = &his.config else { unreachable!() };
    let standby = primary.standby();
    standby.follow(database).await;
    let config = super::program::configuration(&his.scratch.0);
    let store = format!("kind = \"postgres\"\nuri = \"{}\"\npath", standby.moved(database).uri);
    let text = std::fs::read_to_string(&config).unwrap().replace("kind = \"sqlite\"\npath", &store);
    std::fs::write(&config, text).unwrap();
    let mut program = tokio::process::Command::new(crate::support::programs::fedhis());
    let program = program.args(["serve", "--config"]).arg(&config).stderr(Stdio::piped()).kill_on_drop(true);
    let mut program = program.spawn().unwrap();
    let address = Address::Unix(his.scratch.0.join("his.sock"));
    let ask = async |method: &str, target: &str| {
        let request = his.request(&root(), method, target).body("{}");
        client::exchange(&address, &request.head(), b"{}").await
    };
    let deadline = Instant::now() + PATIENCE;
    while tokio::net::UnixStream::connect(his.scratch.0.join("his.sock")).await.is_err() {
        assert!(Instant::now() < deadline, "it listens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let read = his.request(&root(), "GET", "/people/ANA").head();
    assert_eq!(client::exchange(&address, &read, b"").await.status, 200);
    for _ in 0..3 {
        for (method, target) in [("POST", "/people/BOB"), ("PATCH", "/people/ANA"), ("DELETE", "/people/ANA")] {
            let refused = ask(method, target).await;
            let told = (503, "The database takes no writes now; try again".to_owned(), "database_read_only".to_owned());
            assert_eq!(refused.error(), told, "{method} {target}");
        }
    }
    standby.promote();
    while ask("PATCH", "/people/ANA").await.status != 200 {
        assert!(Instant::now() < deadline, "writes are served once it is promoted");
    }
    program.start_kill().unwrap();
    let mut log = String::new();
    program.stderr.take().unwrap().read_to_string(&mut log).await.unwrap();
    assert_eq!(log.matches("takes no writes").count(), 1, "{log}");
    assert!(log.contains("`store.uri` must reach the primary"), "{log}");
}
