//! A new program takes over the sockets of the old one, repeatedly and under load. No request is lost, even of
//! clients that were silent meanwhile. A successor that fails leaves the old program serving. A stop answers all
//! requests that were sent.

#[path = "upgrade/full_disk.rs"]
mod full_disk;
#[path = "upgrade/process.rs"]
mod process;
#[path = "upgrade/proofs.rs"]
mod proofs;
#[path = "upgrade/second.rs"]
mod second;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic};
use crate::support::keepalive::{Connection, get};
use crate::support::tls::believing;
use crate::support::wanted;
use process::is_alive;
use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};

/// How often the program is replaced, and how long clients are silent at most. `FEDGATE_TEST_UPGRADES` and
/// `FEDGATE_TEST_SILENCE_MS` override them.
const UPGRADES: u32 = 5;
const SILENCE_MS: u64 = 1500;
const CLIENTS: u64 = 12;
/// The number of HTTP/2 requests that crossed a GOAWAY.
static CROSSED: AtomicU32 = AtomicU32::new(0);

/// A gateway that is started through a link, which can be changed to another program.
struct Replaceable {
    gateway: Gateway,
}

impl Replaceable {
    fn start(stop_timeout_seconds: u64) -> Self {
        Self::start_on(stop_timeout_seconds, None)
    }

    /// The same on a database.
    fn start_on(stop_timeout_seconds: u64, database: Option<&str>) -> Self {
        let dir = std::env::temp_dir().join(format!("fedgate-upgrade-{:x}", rand::random::<u128>()));
        std::fs::create_dir(&dir).unwrap();
        let link = dir.join("fedgate");
        symlink(env!("CARGO_BIN_EXE_fedgate"), &link).unwrap();
        // A file that cannot be written must not end a process.
        let script = format!("trap '' XFSZ; shift; exec {} \"$@\"", link.display());
        let gateway = Gateway::start_as(&Setup {
            // The first of the script's arguments is the program itself.
            under: &["sh", "-c", &script, "sh"],
            pid_file: Some(&dir.join("pid")),
            database,
            configuration: &format!("[authentication]\nupgrade_hashes = false\n# {stop_timeout_seconds}\n"),
            environment: &[("FEDGATE_GATEWAY_STOP_TIMEOUT_SECONDS", &stop_timeout_seconds.to_string())],
            ..Setup::default()
        });
        let replaceable = Self { gateway };
        let deadline = Instant::now() + PATIENCE;
        while replaceable.read_pid().is_none() {
            assert!(Instant::now() < deadline, "no process id was written");
        }
        replaceable
    }

    fn dir(&self) -> &Path {
        self.gateway.pid_file.as_deref().unwrap().parent().unwrap()
    }

    fn read_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.gateway.pid_file.as_deref().unwrap()).ok()?;
        text.trim().parse().ok().and_then(Pid::from_raw)
    }

    /// Points the link at another program.
    fn replace(&self, program: &Path) {
        symlink(program, self.dir().join("new")).unwrap();
        std::fs::rename(self.dir().join("new"), self.dir().join("fedgate")).unwrap();
    }

    fn upgrade(&self) -> Output {
        let config = self.gateway.dir.join("fedgate.toml");
        Command::new(env!("CARGO_BIN_EXE_fedgate")).args(["upgrade", "--config"]).arg(config).output().unwrap()
    }
}

impl Drop for Replaceable {
    fn drop(&mut self) {
        if let Some(pid) = self.read_pid() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = std::fs::remove_dir_all(self.dir());
    }
}

/// Clients that keep their connections, are silent now and then, and never retry; returns the requests that each
/// made.
fn load<T>(gateway: &Gateway, silence_ms: u64, during: impl FnOnce() -> T) -> (Vec<u32>, T) {
    let over = AtomicBool::new(false);
    let tls = believing(&gateway.dir.join("cert.pem"), rustls::ALL_VERSIONS).with_no_client_auth();
    let tls = Arc::new(tls);
    let client = |number: u64| {
        let over = &over;
        let tls = &tls;
        move || {
            // Every fourth client speaks TLS, and every other one of those makes a handshake for each request.
            let mut connection = match number % 4 {
                1 => Connection::over_tls(gateway.tls_address, tls),
                _ => Connection::to(gateway.address),
            };
            let request = get("/people/ANA", &basic("ANA", CANARY));
            let mut asked = 0;
            while !over.load(Ordering::SeqCst) {
                let answer = connection.ask(&request).unwrap_or_else(|error| panic!("client {number}: {error}"));
                assert_eq!(answer.status, 200, "client {number}");
                asked += 1;
                if number % 8 == 5 {
                    connection.close();
                }
                // A third of them never pauses.
                if !number.is_multiple_of(3) {
                    thread::sleep(Duration::from_millis(rand::rng().random_range(0..=silence_ms)));
                }
            }
            asked
        }
    };
    thread::scope(|scope| {
        let mut clients: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(client(number))).collect();
        clients.extend((0..2).map(|_| scope.spawn(|| over_http2(gateway, &over, silence_ms))));
        let done = during();
        over.store(true, Ordering::SeqCst);
        (clients.into_iter().map(|client| client.join().unwrap()).collect(), done)
    })
}

/// An HTTP/2 client that opens another connection when this one accepts no more. A request that crossed GOAWAY and
/// was not processed is sent once more there (RFC 9113, 8.7). No other request is retried.
#[tokio::main(flavor = "current_thread")]
async fn over_http2(gateway: &Gateway, over: &AtomicBool, silence_ms: u64) -> u32 {
    let mut config = believing(&gateway.dir.join("cert.pem"), rustls::ALL_VERSIONS).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut asked = 0;
    while !over.load(Ordering::SeqCst) {
        let tcp = tokio::net::TcpStream::connect(gateway.tls_address).await.unwrap();
        let tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(tls).await.unwrap();
        let driven = tokio::spawn(connection);
        while !over.load(Ordering::SeqCst) {
            let Ok(ready) = sender.ready().await else { break };
            sender = ready;
            let request =
                http::Request::get("https://localhost/people/ANA").header("authorization", basic("ANA", CANARY));
            let (answer, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
            let answer = match answer.await {
                Err(error)
                    if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) =>
                {
                    CROSSED.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                answer => answer.unwrap_or_else(|error| panic!("HTTP/2, request {asked}: {error}")),
            };
            assert_eq!(answer.status().as_u16(), 200);
            let mut body = answer.into_body();
            while let Some(chunk) = body.data().await {
                chunk.unwrap();
            }
            asked += 1;
            tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..=silence_ms / 10))).await;
        }
        driven.abort();
    }
    asked
}

#[test]
fn upgrades_under_load_lose_no_request_of_busy_or_silent_clients() {
    let upgrades = wanted("FEDGATE_TEST_UPGRADES", UPGRADES);
    let silence_ms = wanted("FEDGATE_TEST_SILENCE_MS", SILENCE_MS);
    let running = Replaceable::start(silence_ms / 1000 + 10);
    let (asked, processes) = load(&running.gateway, silence_ms, || {
        let mut processes = vec![running.read_pid().unwrap()];
        for number in 0..upgrades {
            let out = running.upgrade();
            let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "upgrade {number}: {text}");
            let pid = running.read_pid().unwrap();
            assert!(!processes.contains(&pid), "upgrade {number}: {text}");
            processes.push(pid);
        }
        // The clients' own time: one that was silent all the time speaks again.
        thread::sleep(Duration::from_millis(silence_ms));
        processes
    });
    println!(
        "upgrade, {upgrades} times under load: {} requests of {} clients, over TLS and HTTP/2 too, 0 failed, {} crossed GOAWAY",
        asked.iter().sum::<u32>(),
        asked.len(),
        CROSSED.load(Ordering::SeqCst)
    );
    assert!(asked.iter().all(|asked| *asked > 0));
    // Each of the two HTTP/2 clients has at most one request in flight.
    assert!(CROSSED.load(Ordering::SeqCst) <= 2 * upgrades);
    // A request that was not answered was not forwarded either.
    assert_eq!(running.gateway.upstream.count(), asked.iter().sum::<u32>() as usize);
    let (last, before) = processes.split_last().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while before.iter().any(|pid| is_alive(*pid)) {
        assert!(Instant::now() < deadline, "the old processes end");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(is_alive(*last));
    assert_eq!(running.gateway.get("/people/ANA", "ANA").status, 200);
}

#[test]
fn a_successor_that_fails_leaves_the_old_one_serving() {
    let running = Replaceable::start(5);
    let pid = running.read_pid().unwrap();
    // A fault that would keep the successor from starting is found before anything changes.
    let policy = running.gateway.dir.join("roles.cfg");
    let good = std::fs::read(&policy).unwrap();
    std::fs::write(&policy, "{}").unwrap();
    let out = running.upgrade();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && text.contains("roles.cfg"), "{text}");
    std::fs::write(&policy, good).unwrap();
    let store = rusqlite::Connection::open(running.gateway.dir.join("test.db")).unwrap();
    store.busy_timeout(PATIENCE).unwrap();
    store.execute_batch("UPDATE fedgate_schema SET version = version - 1").unwrap();
    let out = running.upgrade();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && text.contains("is needed; run `fedhis migrate`"), "{text}");
    store.execute_batch("UPDATE fedgate_schema SET version = version + 1").unwrap();
    // So is a program that starts and ends, or that is no program at all.
    let broken = running.dir().join("broken");
    std::fs::write(&broken, "#!/bin/sh\nexit 3\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    for program in [broken.as_path(), Path::new("/nonexistent")] {
        running.replace(program);
        let began = Instant::now();
        kill_process(pid, Signal::USR2).unwrap();
        running.gateway.logged("the successor did not take over", began, PATIENCE).expect("the operator is told");
        assert_eq!(running.read_pid(), Some(pid));
        assert_eq!(running.gateway.get("/people/ANA", "ANA").status, 200);
    }
    running.replace(Path::new(env!("CARGO_BIN_EXE_fedgate")));
    assert!(running.upgrade().status.success(), "and the next good one takes over");
    assert_ne!(running.read_pid(), Some(pid));
}

#[test]
fn a_successor_that_cannot_write_its_process_id_accepts_nobody_and_no_request_is_lost() {
    let running = Replaceable::start(5);
    let pid = running.read_pid().unwrap();
    let config = running.gateway.dir.join("fedgate.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    // A directory in which no file can be created.
    let bad = good.replace(running.gateway.pid_file.as_deref().unwrap().to_str().unwrap(), "/proc/fedgate.pid");
    assert_ne!(good, bad);
    std::fs::write(&config, bad).unwrap();
    let began = Instant::now();
    let (asked, ()) = load(&running.gateway, 100, || {
        for attempt in 1..=3 {
            kill_process(pid, Signal::USR2).unwrap();
            while running.gateway.log_lines("the successor did not take over", began) < attempt {
                assert!(began.elapsed() < PATIENCE, "attempt {attempt}");
                thread::sleep(Duration::from_millis(10));
            }
        }
    });
    assert!(asked.iter().all(|asked| *asked > 0), "each was answered");
    assert!(running.gateway.log_line("`gateway.pid_file` must name a file", began).is_some());
    std::fs::write(&config, good).unwrap();
    // A process that cannot be followed is found before anything changes.
    let dir = running.dir().display();
    let script = format!("mount --bind {dir} {dir} && mount -o remount,ro,bind {dir} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_fedgate"), "upgrade", "--config"]);
    let out = command.arg(&config).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    if !text.contains("unshare") && !text.contains("mount") {
        assert!(out.status.code() == Some(2) && text.contains("could not write its process id"), "{text}");
    }
    assert_eq!(running.read_pid(), Some(pid));
}

#[test]
fn a_stop_during_a_hand_over_ends_the_successor_too_and_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut running = Replaceable::start(5);
        let pid = running.read_pid().unwrap();
        // A successor that never listens, and that does not notice the end of its parent.
        let (hung, named) = (running.dir().join("hung"), running.dir().join("successor"));
        std::fs::write(&hung, format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", named.display())).unwrap();
        std::fs::set_permissions(&hung, std::fs::Permissions::from_mode(0o755)).unwrap();
        running.replace(&hung);
        let began = Instant::now();
        kill_process(pid, Signal::USR2).unwrap();
        let successor = loop {
            let text = std::fs::read_to_string(&named).unwrap_or_default();
            if let Some(pid) = text.strip_suffix('\n').and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) {
                break pid;
            }
            assert!(began.elapsed() < PATIENCE, "it is started");
            thread::sleep(Duration::from_millis(10));
        };
        kill_process(pid, signal).unwrap();
        assert_eq!(running.gateway.child.wait().unwrap().code(), Some(0));
        assert!(!is_alive(successor), "nobody is left who could take over");
        assert!(began.elapsed() < PATIENCE, "{signal:?}: {:?}", began.elapsed());
        assert_eq!(running.read_pid(), None);
    }
}

#[test]
fn a_stop_right_after_the_order_to_hand_over_stops_both() {
    let mut running = Replaceable::start(5);
    let pid = running.read_pid().unwrap();
    kill_process(pid, Signal::USR2).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(running.gateway.child.wait().unwrap().code(), Some(0));
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(running.gateway.address).is_ok() {
        assert!(Instant::now() < deadline, "somebody listens still");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(running.read_pid(), None);
}

#[test]
fn an_upgrade_whose_successor_fails_says_so_when_it_does_and_a_deleted_process_id_comes_again() {
    let running = Replaceable::start(5);
    let pid = running.read_pid();
    let broken = running.dir().join("broken");
    std::fs::write(&broken, "#!/bin/sh\nexit 3\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    running.replace(&broken);
    let began = Instant::now();
    let out = running.upgrade();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && text.contains("the successor did not take over"), "{text}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    std::fs::remove_file(running.gateway.pid_file.as_deref().unwrap()).unwrap();
    while running.read_pid() != pid {
        assert!(began.elapsed() < PATIENCE * 2, "it is written again");
        thread::sleep(Duration::from_millis(10));
    }
    running.replace(Path::new(env!("CARGO_BIN_EXE_fedgate")));
    assert!(running.upgrade().status.success(), "and the next good one takes over");
}

#[test]
fn a_process_id_that_was_left_behind_is_nobodys() {
    let mut running = Replaceable::start(5);
    let file = running.gateway.pid_file.clone().unwrap();
    let left = std::fs::read(&file).unwrap();
    running.gateway.kill();
    assert_eq!(std::fs::read(&file).unwrap(), left, "a kill leaves the file");
    let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
    for text in [left, format!("{}\n", stranger.id()).into_bytes()] {
        std::fs::write(&file, text).unwrap();
        let began = Instant::now();
        let out = running.upgrade();
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && text.contains("no gateway holds this file"), "{text}");
        assert!(began.elapsed() < PATIENCE, "nobody is waited for");
    }
    let untouched = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(untouched, "who has the number is left alone");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn an_upgrade_of_a_process_that_ends_meanwhile_says_so() {
    let running = Replaceable::start(5);
    let pid = running.read_pid().unwrap();
    // A successor that never listens, and that ends with its parent.
    let broken = running.dir().join("broken");
    std::fs::write(&broken, "#!/bin/sh\nexec cat > /dev/null\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    running.replace(&broken);
    let began = Instant::now();
    let out = thread::scope(|scope| {
        let upgrade = scope.spawn(|| running.upgrade());
        running.gateway.logged("starting a successor", began, PATIENCE).expect("it is told");
        kill_process(pid, Signal::KILL).unwrap();
        upgrade.join().unwrap()
    });
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && text.contains("ended before a successor listened"), "{text}");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn a_stop_answers_what_is_in_flight_and_serves_silent_clients_once_more() {
    let running = Replaceable::start(10);
    let pid = running.read_pid().unwrap();
    let request = get("/people/ANA", &basic("ANA", CANARY));
    let mut silent = Connection::to(running.gateway.address);
    assert_eq!(silent.ask(&request).unwrap().status, 200);
    let slow = get("/people/ANA/slow", &basic("ADM", CANARY));
    let answer = thread::scope(|scope| {
        let slow = scope.spawn(|| Connection::to(running.gateway.address).ask(&slow));
        while running.gateway.upstream.seen().len() < 2 && !slow.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        kill_process(pid, Signal::TERM).unwrap();
        slow.join().unwrap()
    });
    assert!(answer.is_ok(), "{answer:?}");
    let deadline = Instant::now() + PATIENCE;
    while !is_draining(&running.gateway) {
        assert!(Instant::now() < deadline, "readiness tells the balancer");
    }
    assert!(is_alive(pid), "somebody is silent still");
    assert_eq!(silent.ask(&request).unwrap().status, 200);
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "it ends when nobody is left");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(running.read_pid(), None, "the file is gone with the process");
}

fn is_draining(gateway: &Gateway) -> bool {
    let ready = "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    crate::support::keepalive::whole(gateway.admin, ready.as_bytes())
        .is_ok_and(|text| text.contains("\"draining\":true"))
}
