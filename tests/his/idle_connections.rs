//! More connections than there is room for.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fedgate_base::config::{Address, StoreConfig};
use fedgate_base::db::Database;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::his::program::configuration;
use crate::support::{His, Scratch, professional, root};

const PATIENCE: Duration = Duration::from_secs(20);
const MOST: usize = 6;

async fn connection(his: &His) -> TcpStream {
    let Address::Tcp(address) = his.address else { unreachable!() };
    TcpStream::connect(address).await.unwrap()
}

/// Sends a request on a kept connection, and reads its answer.
async fn ask(his: &His, stream: &mut TcpStream) -> std::io::Result<bool> {
    let head = his.request(&root(), "GET", "/login").head().replace("connection: close\r\n", "");
    stream.write_all(head.as_bytes()).await?;
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"true") {
        let mut more = [0; 4096];
        match stream.read(&mut more).await? {
            0 => return Ok(false),
            count => bytes.extend_from_slice(&more[..count]),
        }
    }
    Ok(bytes.starts_with(b"HTTP/1.1 200"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_room_the_longest_silent_goes_and_whoever_is_served_goes_on() {
    let usual = His::on_sqlite().await;
    let his = usual.with(|his| his.connections.most = Some(MOST)).await;
    // One request in progress: its body has not arrived yet.
    let body = "{\"id\":\"ANA\"}";
    let head = his.request(&root(), "POST", "/people/ANA").header("content-length", &body.len().to_string()).head();
    let mut at_work = connection(&his).await;
    at_work.write_all(format!("{head}{}", &body[..4]).as_bytes()).await.unwrap();
    let mut kept = connection(&his).await;
    assert!(ask(&his, &mut kept).await.unwrap());
    let crowd = async {
        let mut crowd = vec![];
        for _ in 0..5 * MOST {
            crowd.push(connection(&his).await);
        }
        // Each connection with a request is served, however full the service is.
        let mut served = connection(&his).await;
        let answered = ask(&his, &mut served).await.unwrap();
        let mut open = 0;
        for silent in &mut crowd {
            let read = tokio::time::timeout(Duration::from_millis(1), silent.read(&mut [0; 1])).await;
            open += usize::from(read.is_err());
        }
        (answered, open)
    };
    let (answered, open) = tokio::time::timeout(PATIENCE, crowd).await.expect("nobody is kept out");
    assert!(answered && open < MOST, "{open} are open");
    // The kept connection was silent for longer than the crowd, and was closed.
    assert!(!ask(&his, &mut kept).await.unwrap_or(false));
    at_work.write_all(&body.as_bytes()[4..]).await.unwrap();
    let mut answer = String::new();
    at_work.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_shortage_of_descriptors_is_logged_once_and_ends() {
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 1024 && exec \"$@\"",
        "sh",
        crate::support::programs::fedhis(),
        "serve",
        "--config",
    ]);
    let mut child = command.arg(&config).stderr(Stdio::piped()).env_remove("FEDGATE_LOG").spawn().unwrap();
    let (sender, lines) = channel();
    let log = BufReader::new(child.stderr.take().unwrap());
    std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let until = |words: &str| {
        let mut before = vec![];
        loop {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("`{words}` is not said: {before:?}"));
            if line.contains(words) {
                return before;
            }
            before.push(line);
        }
    };
    until("`his.connections` is 4096, and the limit of 1024 open files allows 896 connections");
    until("listening on");
    let socket = scratch.0.join("his.sock");
    let connect = || std::os::unix::net::UnixStream::connect(&socket).unwrap();
    drop(connect());
    // As if another process had taken all descriptors (prlimit(2)).
    let none = Rlimit { current: Some(1), maximum: Some(1024) };
    let before = prlimit(Some(Pid::from_child(&child)), Resource::Nofile, none).unwrap();
    let _waits = connect();
    until("no connection can be accepted");
    // The time is what is tested: twenty more attempts, one every 50 ms. Nothing but the log would show one.
    std::thread::sleep(Duration::from_secs(1));
    // Other parts of the program may lack a descriptor, too.
    let again = lines.try_iter().find(|line| line.contains("no connection can be accepted"));
    assert_eq!(again, None, "told once");
    prlimit(Some(Pid::from_child(&child)), Resource::Nofile, before).unwrap();
    let began = Instant::now();
    loop {
        drop(connect());
        match lines.try_recv() {
            Ok(line) if line.contains("connections are accepted again") => break,
            Ok(line) => assert!(!line.contains("no connection can be accepted"), "{line}"),
            Err(_) => assert!(began.elapsed() < PATIENCE, "that it is over is told, too"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_with_postgresql_that_nobody_uses_are_given_back() {
    let his = His::on_postgres().await;
    let Database::Postgres(pool) = &his.served else { unreachable!() };
    let mut held = vec![];
    for _ in 0..pool.most() {
        held.push(pool.get().await.unwrap());
    }
    let open =
        "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let StoreConfig::Postgres(config) = &his.config else { unreachable!() };
    let count = async || crate::support::postgres_text(config, open).await.parse::<usize>().unwrap();
    let most = count().await;
    assert!(most >= pool.most());
    drop(held);
    pool.give_back(Duration::from_secs(3600));
    assert!(count().await >= pool.most(), "they were used a moment ago");
    pool.give_back(Duration::ZERO);
    let deadline = Instant::now() + Duration::from_secs(60);
    // The watch of the service has a session of its own, and the service may open another one at any time.
    while count().await > most - pool.most() + 2 {
        assert!(Instant::now() < deadline, "they are kept");
        tokio::time::sleep(Duration::from_millis(10)).await;
        pool.give_back(Duration::ZERO);
    }
    assert_eq!(his.get(&professional(), "/people").await.status, 200);
}
