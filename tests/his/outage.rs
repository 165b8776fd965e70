//! The database becomes unavailable and returns.

use std::io::BufRead;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fedgate_base::config::StoreConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::his::program::configuration_on;
use crate::support::postgres::Cluster;
use crate::support::{His, client, professional, root};

/// The goal for an answer without a database, and for recovery, is 2 s; a busy machine gets more.
const SOON: Duration = Duration::from_secs(10);

/// Asks until the answer is 200, and prints how long that took.
async fn served_again(what: &str, mut ask: impl AsyncFnMut() -> u16) {
    let back = Instant::now();
    while ask().await != 200 {
        assert!(back.elapsed() < SOON, "{what}: not served again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("outage of the HIS's database, {what}: served again after {} ms", back.elapsed().as_millis());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_503_and_service_is_back_soon_after_its_return() {
    let cluster = Cluster::start();
    let his = His::on(cluster.database().await).await;
    his.person("ANA", "{}").await;
    let requests = [
        ("GET", "/people/ANA", ""),
        ("GET", "/people", ""),
        ("POST", "/people/BOB", "{}"),
        ("PATCH", "/people/ANA", "{}"),
        ("DELETE", "/people/ANA", ""),
        ("GET", "/pols/ANA?limit=5", ""),
        ("GET", "/password/ANA", ""),
        ("POST", "/personal_docs/ANA/p/d", r#"{"document":"AAEC"}"#),
    ];
    cluster.kill();
    for (method, target, body) in requests {
        let started = Instant::now();
        let reply = his.request(&root(), method, target).body(body).send().await;
        let error = (503, "The database is unavailable; try again".to_owned(), "database_unavailable".to_owned());
        assert_eq!(reply.error(), error, "{method} {target}");
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert!(started.elapsed() < SOON, "{method} {target}");
    }
    assert_eq!(his.get(&root(), "/login").await.status, 200, "what needs no database is served");
    cluster.resume();
    served_again("killed", async || his.get(&root(), "/people/ANA").await.status).await;
    // Every connection of the pool was replaced, not only the first.
    for _ in 0..10 {
        assert_eq!(his.get(&root(), "/people/ANA").await.status, 200);
    }
    // A restart between two requests is not even noticed, once the dead connections have been found.
    cluster.kill();
    cluster.resume();
    served_again("restarted", async || his.post(&root(), "/people/EVE", "{}").await.status).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_breaks_in_the_middle_does_not_end_cleanly() {
    let cluster = Cluster::start();
    let his = His::on(cluster.database().await).await;
    his.sql("INSERT INTO people SELECT 'P' || n, jsonb_build_object('filler', repeat('x', 20000)) FROM generate_series(1, 2000) n").await;
    let fedgate_base::config::Address::Tcp(address) = his.address else { unreachable!() };
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = his.request(&professional(), "GET", "/people").head();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = vec![0; 100_000];
    stream.read_exact(&mut bytes).await.unwrap();
    // A slow reader holds no connection: others are served meanwhile.
    assert_eq!(his.get(&professional(), "/people/P1").await.status, 200);
    cluster.kill();
    let _ = stream.read_to_end(&mut bytes).await;
    let reply = client::parse(&bytes, false);
    assert_eq!(reply.status, 200);
    assert!(!reply.is_complete, "{} bytes", bytes.len());
    assert!(serde_json::from_slice::<serde_json::Value>(&reply.body).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_slow_readers_do_not_keep_others_out() {
    let his = His::on_postgres().await;
    his.sql("INSERT INTO people SELECT 'P' || n, jsonb_build_object('filler', repeat('x', 20000)) FROM generate_series(1, 1000) n").await;
    let fedgate_base::config::Address::Tcp(address) = his.address else { unreachable!() };
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = his.request(&professional(), "GET", "/people").head();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 1000]).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(his.get(&professional(), "/people/P1").await.status, 200);
    assert_eq!(his.post(&root(), "/people/NEW", json!({"n": 1}).to_string()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_started_while_the_database_is_away_serves_when_it_is_there() {
    let cluster = Cluster::start();
    let his = His::on(cluster.database().await).await;
    let config = super::program::configuration(&his.scratch.0);
    let fedgate_base::config::StoreConfig::Postgres(database) = &his.config else { unreachable!() };
    let text = format!("kind = \"postgres\"\nuri = \"{}\"\npath", database.uri);
    let text = std::fs::read_to_string(&config).unwrap().replace("kind = \"sqlite\"\npath", &text);
    std::fs::write(&config, text).unwrap();
    cluster.kill();
    let mut program = tokio::process::Command::new(crate::support::programs::fedhis());
    let mut program = program.args(["serve", "--config"]).arg(&config).kill_on_drop(true).spawn().unwrap();
    let path = his.scratch.0.join("his.sock");
    let deadline = Instant::now() + SOON;
    while tokio::net::UnixStream::connect(&path).await.is_err() {
        assert!(Instant::now() < deadline, "it listens");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let socket = fedgate_base::config::Address::Unix(path);
    let ask = async || client::exchange(&socket, &his.request(&root(), "GET", "/people").head(), b"").await.status;
    assert_eq!(ask().await, 503);
    cluster.resume();
    served_again("away at the start", ask).await;
    program.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_is_503_and_served_again_when_it_goes_on() {
    let cluster = Cluster::start();
    let his = His::on(cluster.database().await).await;
    his.person("ANA", "{}").await;
    cluster.freeze(true);
    let started = Instant::now();
    let reply = his.get(&root(), "/people/ANA").await;
    cluster.freeze(false);
    assert_eq!(reply.error().2, "database_unavailable");
    assert!(started.elapsed() < 2 * SOON, "{:?}", started.elapsed());
    served_again("hanging", async || his.get(&root(), "/people/ANA").await.status).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_host_of_several_is_enough_and_tls_is_verified() {
    let cluster = Cluster::start();
    let mut config = cluster.database().await;
    let database = config.uri.split("dbname=").nth(1).unwrap().to_owned();
    config.uri = config.uri.replace("host=", "host=/nowhere,") + " target_session_attrs=read-write";
    let his = His::on(config.clone()).await;
    his.person("ANA", "{}").await;

    let (port, certificate) = cluster.encrypt();
    config.uri = format!("postgres://postgres@localhost:{port}/{database}?sslmode=verify-full");
    let unverified = fedgate_base::db::postgres::connect(&config).await.map(|_| ());
    assert!(unverified.is_err(), "the certificate is signed by nobody we know");
    let empty = certificate.with_file_name("empty.pem");
    std::fs::write(&empty, "").unwrap();
    config.ca_file = Some(empty);
    let unusable = fedgate_base::db::postgres::connect(&config).await.map(|_| ()).unwrap_err().to_string();
    let remedy = "empty.pem`, which holds no certificate; put the authority's certificate there as PEM";
    assert!(unusable.contains("ca_file") && unusable.contains(remedy), "{unusable}");
    config.ca_file = Some(certificate.clone());
    let his = His::on(config.clone()).await;
    assert_eq!(his.get(&root(), "/people/ANA").await.status, 200);
    let encrypted = "SELECT CAST(ssl AS text) FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(his.sql_text(encrypted).await.as_deref(), Some("true"));
    config.uri = config.uri.replace("localhost", "127.0.0.1");
    let renamed = fedgate_base::db::postgres::connect(&config).await.map(|_| ());
    assert!(renamed.is_err(), "the certificate is for another name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cause_of_an_outage_and_its_end_are_logged_once_however_many_ask() {
    let cluster = Cluster::start();
    let his = His::on(cluster.database().await).await;
    let StoreConfig::Postgres(database) = &his.config else { unreachable!() };
    let config = configuration_on(&his.scratch.0, &database.uri);
    let mut command = std::process::Command::new(crate::support::programs::fedhis());
    let command = command.args(["serve", "--config"]).arg(&config).env("FEDGATE_LOG", "info");
    let mut program = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let (lines, told) = (std::io::BufReader::new(program.stderr.take().unwrap()), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&told);
    std::thread::spawn(move || lines.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line)));
    let find =
        |words: &str| told.lock().unwrap().iter().filter(|line| line.contains(words)).cloned().collect::<Vec<_>>();
    let until_told = async |words: &str| {
        let deadline = Instant::now() + SOON;
        while find(words).is_empty() {
            assert!(Instant::now() < deadline, "{words}: {:?}", told.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until_told("listening on").await;
    let socket = fedgate_base::config::Address::Unix(his.scratch.0.join("his.sock"));
    let ask = async || client::exchange(&socket, &his.request(&root(), "GET", "/people").head(), b"").await.status;
    assert_eq!(ask().await, 200);
    cluster.kill();
    until_told("the database is away").await;
    for _ in 0..50 {
        assert_eq!(ask().await, 503);
    }
    let away = find("the database is away");
    // A session that ended, and a socket that does not exist: each reason once.
    let reasons: std::collections::BTreeSet<_> = away.iter().map(|line| line.split("away: ").nth(1).unwrap()).collect();
    assert!(away.len() == reasons.len() && away.len() <= 3, "{away:?}");
    assert!(away.iter().any(|line| line.contains("No such file or directory")), "{away:?}");
    assert!(find("unavailable").is_empty(), "{:?}", find("unavailable"));
    assert!(find("answers again").is_empty());
    cluster.resume();
    until_told("the database answers again").await;
    served_again("told once", ask).await;
    // Once, or twice: a session from before the outage may be found dead after the first answer.
    let again = find("answers again");
    assert!(again.len() <= 2, "{again:?}");
    program.kill().unwrap();
    program.wait().unwrap();
}
