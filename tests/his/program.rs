//! `fedhis` as a program: exit codes, start, stop, and the demo federation.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fedgate_core::password;

use crate::support::{His, Scratch, own, postgres_text, professional};

/// The same with a PostgreSQL database.
pub(crate) fn configuration_on(directory: &Path, uri: &str) -> PathBuf {
    let path = configuration(directory);
    let text = fs::read_to_string(&path).unwrap().replace("\"sqlite\"\n", &format!("\"postgres\"\nuri = \"{uri}\"\n"));
    fs::write(&path, text).unwrap();
    path
}

/// A configuration with an embedded store in a directory, and otherwise the least that the programs need.
pub(crate) fn configuration(directory: &Path) -> PathBuf {
    crate::support::write_private(&directory.join("assertion.key"), "a secret of thirty-two bytes ....");
    let (store, socket) = (directory.join("his.db"), directory.join("his.sock"));
    let text = format!(
        "[store]\nkind = \"sqlite\"\npath = \"{}\"\n[assertion]\nsecret_file = \"assertion.key\"\n[his]\nlisten = \"unix:{}\"\n",
        store.display(),
        socket.display(),
    );
    let path = directory.join("fedgate.toml");
    fs::write(&path, text).unwrap();
    path
}

pub(crate) fn fedhis(arguments: &[&str], config: &Path) -> std::process::Output {
    Command::new(crate::support::programs::fedhis()).args(arguments).arg("--config").arg(config).output().unwrap()
}

#[test]
fn usage_and_configuration_faults_exit_with_two() {
    let scratch = Scratch::new();
    let none = scratch.0.join("none.toml");
    assert_eq!(fedhis(&["serve"], &none).status.code(), Some(2));
    assert_eq!(fedhis(&["dance"], &none).status.code(), Some(2));
    let help = fedhis(&["--help"], &none);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("import"));
}

#[test]
fn what_is_in_the_place_of_the_socket_is_named_and_left_there() {
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    let socket = scratch.0.join("his.sock");
    fs::write(&socket, "notes").unwrap();
    let out = fedhis(&["serve"], &config);
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && told.contains("(`his.listen`) is a regular file, not a socket"), "{told}");
    assert_eq!(fs::read_to_string(socket).unwrap(), "notes");
}

#[test]
fn two_imports_of_one_file_exclude_each_other() {
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    assert!(fedhis(&["migrate"], &config).status.success());
    let people = scratch.0.join("people.json");
    fs::write(&people, r#"[{"id": "ANA"}]"#).unwrap();
    // As the other import does for as long as it runs (flock(2)).
    let held = fs::File::open(&people).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let import = || fedhis(&["import", "people", people.to_str().unwrap()], &config);
    let out = import();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && told.contains("another import of this file runs"), "{told}");
    assert_eq!(
        fs::read_dir(&scratch.0)
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("people.json.") })
            .count(),
        0,
        "nothing is written beside it"
    );
    drop(held);
    assert!(String::from_utf8_lossy(&import().stdout).contains("1 created"));
}

#[test]
fn without_threads_both_programs_end_with_a_sentence() {
    for program in [crate::support::programs::fedhis(), env!("CARGO_BIN_EXE_fedgate")] {
        // The limit must belong to a user without a process, because it counts per user and does not bind root.
        let user = rand::random_range(100_000..1_000_000).to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "bash", "-c"]);
        let out =
            command.args(["ulimit -u 1; exec \"$0\" \"$@\"", program, "serve", "--config", "/none"]).output().unwrap();
        let told = String::from_utf8_lossy(&out.stderr);
        if told.contains("setpriv") || told.contains("Permission denied") {
            println!("not run: this machine lets nobody be another user: {told}");
            continue;
        }
        assert!(!told.contains("panicked") && told.lines().count() == 1, "{told}");
        assert!(matches!(out.status.code(), Some(1 | 2)), "{told}");
    }
}

#[test]
fn without_descriptors_both_programs_end_with_a_sentence() {
    for program in [crate::support::programs::fedhis(), env!("CARGO_BIN_EXE_fedgate")] {
        for limit in [4, 7, 17, 40] {
            let script = format!("ulimit -n {limit} && exec \"$0\" serve --config /none");
            let out = Command::new("sh").args(["-c", &script, program]).output().unwrap();
            let told = String::from_utf8_lossy(&out.stderr);
            assert!(!told.contains("panicked") && told.lines().count() == 1, "{limit}: {told}");
            assert!(told.contains(&format!("the limit of this process is {limit}")), "{limit}: {told}");
            assert_eq!(out.status.code(), Some(1), "{limit}: {told}");
        }
    }
}

#[test]
fn a_migration_reports_a_column_that_equates_ids_and_the_remedy() {
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    let loose = "CREATE TABLE people (id TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, data TEXT)";
    rusqlite::Connection::open(scratch.0.join("his.db")).unwrap().execute_batch(loose).unwrap();
    let migrated = fedhis(&["migrate"], &config);
    let told = String::from_utf8_lossy(&migrated.stderr).into_owned();
    assert!(migrated.status.success(), "{told}");
    assert!(told.contains("warning: `people.id` is TEXT COLLATE NOCASE, which may take one id for another"), "{told}");
    assert!(told.contains("make a new store with `fedhis migrate`"), "{told}");
    std::fs::remove_file(scratch.0.join("his.db")).unwrap();
    let migrated = fedhis(&["migrate"], &config);
    assert!(!String::from_utf8_lossy(&migrated.stderr).contains("warning: `"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_federation_is_seeded_once() {
    let his = His::on_sqlite().await;
    let config = configuration(&his.scratch.0);
    for said in ["the demo federation is loaded\n", "there are people in the store; nothing was changed\n"] {
        let seeded = fedhis(&["seed"], &config);
        assert_eq!(
            (seeded.status.code(), String::from_utf8_lossy(&seeded.stdout).as_ref()),
            (Some(0), said),
            "{seeded:?}"
        );
    }
    for (id, clear) in [("ITAPYT999HON", "gnusolidario"), ("ESPGNU777ORG", "gnusolidario"), ("ARGBUE111FAV", "freedom")]
    {
        let all =
            his.sql_text("SELECT group_concat(id || ' ' || (data ->> 'password'), ',') FROM people").await.unwrap();
        let hash = all.split(',').find_map(|one| one.strip_prefix(id)).unwrap().trim();
        assert!(password::is_bcrypt(hash) && password::verify(hash, clear.as_bytes()), "{id}");
    }
    assert_eq!(his.get(&own("ESPGNU777ORG"), "/pols/ESPGNU777ORG").await.json().as_array().unwrap().len(), 2);
    let picture =
        "/personal_docs/ESPGNU777ORG/119b352e-8e4f-4847-9f05-53462cf94f10/8789981f-4e31-48d5-8eb8-1774dac8b8f6";
    let picture = his.get(&professional(), picture).await;
    assert_eq!((picture.status, picture.header("content-type")), (200, Some("image/jpeg")));
    assert!(picture.body.len() < 20_000 && picture.body.starts_with(b"\xff\xd8\xff"));
}

#[test]
fn a_database_that_cannot_be_had_is_said_in_one_line_with_its_setting() {
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    let text = fs::read_to_string(&config).unwrap();
    let said = |text: &str, command: &str| {
        fs::write(&config, text).unwrap();
        let output = fedhis(&[command], &config);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap().replace(config.to_str().unwrap(), "FILE")
    };
    let nowhere = "kind = \"postgres\"\nuri = \"host=/nowhere user=postgres\"\npath";
    let away = "fedhis: FILE: `store.uri`: the database is unavailable: `/nowhere/.s.PGSQL.5432`: No such file or \
                directory (os error 2); is the server up?\n";
    for command in ["migrate", "seed"] {
        assert_eq!(said(&text.replace("kind = \"sqlite\"\npath", nowhere), command), away);
    }
}

#[test]
fn it_serves_until_it_is_stopped() {
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    let mut command = Command::new(crate::support::programs::fedhis());
    command.args(["serve", "--config"]).arg(&config).env("FEDGATE_LOG", "info").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("listening on")));
    let second = fedhis(&["serve"], &config);
    assert_eq!(second.status.code(), Some(1), "the socket is in use: {second:?}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_database_without_schema_is_migrated_on_request_only() {
    let database = crate::support::postgres::Cluster::shared().database().await;
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    let text = fs::read_to_string(&config).unwrap();
    let sqlite = format!("kind = \"sqlite\"\npath = \"{}\"", scratch.0.join("his.db").display());
    fs::write(&config, text.replace(&sqlite, &format!("kind = \"postgres\"\nuri = \"{}\"", database.uri))).unwrap();
    for command in ["serve", "seed"] {
        let output = fedhis(&[command], &config);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("run `fedhis migrate`"), "{output:?}");
    }
    for _ in 0..2 {
        assert_eq!(fedhis(&["migrate"], &config).status.code(), Some(0));
    }
    assert_eq!(fedhis(&["seed"], &config).status.code(), Some(0));
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, good.replace("user=postgres", "user=stranger")).unwrap();
    let refused = String::from_utf8(fedhis(&["seed"], &config).stderr).unwrap();
    assert!(refused.contains("\"stranger\" does not exist") && !refused.contains("is the server up"), "{refused}");
    let his = His::on(database).await;
    assert_eq!(his.get(&professional(), "/people").await.json().as_array().unwrap().len(), 3);
}

/// The answer of the admin listener to a GET: status and body.
fn admin(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

/// A figure of the metrics.
fn figure(port: u16, name: &str) -> Option<u64> {
    let (_, text) = admin(port, "/metrics")?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "not in a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_messages_that_get_no_position_and_a_database_that_is_away() {
    let cluster = crate::support::postgres::Cluster::start();
    let database = cluster.database().await;
    let scratch = Scratch::new();
    let config = configuration_on(&scratch.0, &database.uri);
    assert!(fedhis(&["migrate"], &config).status.success());
    let port = crate::support::free_address().port();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}admin = [\"127.0.0.1:{port}\"]\nmessages_stall_seconds = 1\n")).unwrap();
    let log = scratch.0.join("log");
    let mut command = Command::new(crate::support::programs::fedhis());
    command.args(["serve", "--config"]).arg(&config).stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let logged = |words: &str| fs::read_to_string(&log).unwrap().contains(words);

    until("it is ready", || admin(port, "/readyz").is_some_and(|(status, _)| status == 200)).await;
    assert_eq!(admin(port, "/livez"), Some((200, "ok\n".into())));
    assert_eq!(admin(port, "/people").unwrap().0, 404, "records are not for this listener");
    let version: serde_json::Value = serde_json::from_str(&admin(port, "/version").unwrap().1).unwrap();
    assert_eq!((&version["name"], &version["process"]), (&"fedhis".into(), &child.id().into()));

    // Another session holds the row that every call for positions needs.
    let hold = "BEGIN; SELECT 1 FROM fedgate_relay FOR UPDATE; SELECT pg_sleep(3600)";
    let held_by = database.clone();
    let holder = tokio::spawn(async move { postgres_text(&held_by, hold).await });
    let holds = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while postgres_text(&database, holds).await != "1" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    postgres_text(&database, r#"INSERT INTO people (id, data) VALUES ('ANA', '{"id": "ANA"}') RETURNING id"#).await;
    until("the message is seen to wait", || figure(port, "fedhis_messages_waiting ") == Some(1)).await;
    until("its wait is reported", || logged("1 committed messages have waited for their positions")).await;
    assert!(figure(port, "fedhis_messages_waiting_seconds ").unwrap() >= 1);
    let end = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    assert_eq!(postgres_text(&database, end).await, "true");
    assert!(holder.await.is_err(), "its session was ended");
    until("it has its position", || figure(port, "fedhis_messages_waiting ") == Some(0)).await;
    until("that is reported", || logged("committed messages get their positions again")).await;
    assert_eq!(figure(port, "fedhis_last_position "), Some(1));

    cluster.kill();
    until("it is not ready without its database", || admin(port, "/readyz").is_some_and(|(status, _)| status == 503))
        .await;
    assert!(admin(port, "/readyz").unwrap().1.contains(r#""available":false"#));
    child.kill().unwrap();
    child.wait().unwrap();
}
