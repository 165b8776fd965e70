//! The requests of the federation's real clients, replayed by python-requests against both programs on both stores.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::postgres::Cluster;
use crate::support::{Scratch, free_address};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is stopped with the test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Stops the process as an operator would, and returns whether it ended well.
    fn stop(&mut self, signal: Signal) -> bool {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.0.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.0.wait();
    }
}

fn fedgate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fedgate"))
}

fn fedhis(verb: &str, config: &Path) -> Command {
    let mut command = Command::new(crate::support::programs::fedhis());
    command.arg(verb).arg("--config").arg(config);
    command
}

fn wait_until_listening(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first Python that has python-requests.
fn python() -> &'static str {
    let has_requests = |python: &&str| {
        Command::new(python)
            .args(["-c", "import requests"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(has_requests)
        .expect("python3 with python-requests; tests/run installs it")
}

fn replay(url: &str, certificate: &Path) {
    let out = Command::new(python()).arg("tests/clients/replay.py").arg(url).arg(certificate).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    let cases = text.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(cases > 80, "the script ran: {text}");
}

fn ready(url: &str, certificate: &Path) {
    let deadline = Instant::now() + PATIENCE;
    let script = format!(
        "import requests,sys; sys.exit(requests.get({url:?}, verify={:?}).status_code != 200)",
        certificate.display().to_string()
    );
    while !Command::new(python()).args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success() {
        assert!(Instant::now() < deadline, "{url} never answered 200");
    }
}

#[test]
fn the_clients_are_served_by_the_demo_on_the_embedded_store() {
    let scratch = Scratch::new();
    let address = free_address();
    let dir = scratch.0.join("demo");
    let url = format!("https://localhost:{}", address.port());
    let start = || {
        Process::start(
            fedgate().args(["demo", "--listen", &address.to_string(), "--dir"]).arg(&dir).stdout(Stdio::null()),
        )
    };
    let mut demo = start();
    wait_until_listening(address);
    let certificate = dir.join("certs/localhost.pem");
    ready(&format!("{url}/"), &certificate);
    replay(&url, &certificate);
    assert!(demo.stop(Signal::TERM), "SIGTERM stops it cleanly");
    assert!(TcpStream::connect(address).is_err(), "and both processes with it");

    // Data that was written is there at the next run, and so is an edited policy.
    let policy = std::fs::read_to_string(dir.join("roles.cfg")).unwrap();
    std::fs::write(dir.join("roles.cfg"), policy.replace("\"people\", ", "")).unwrap();
    let mut demo = start();
    wait_until_listening(address);
    ready(&format!("{url}/"), &certificate);
    let check = format!(
        "import requests,sys\nget=lambda path,who: requests.get({url:?}+path, auth=(who,'gnusolidario'), verify={:?})\n\
         sys.exit(not (get('/people','ITAPYT999HON').status_code==403 and len(get('/pols/ESPGNU777ORG','ESPGNU777ORG').json())==3))",
        certificate.display().to_string()
    );
    assert!(Command::new(python()).args(["-c", &check]).status().unwrap().success());
    assert!(demo.stop(Signal::INT), "SIGINT stops it cleanly");
}

#[test]
fn the_clients_are_served_on_postgresql() {
    let scratch = Scratch::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(Cluster::shared().database());
    let address = free_address();
    // The demo's files, except for the store.
    let dir = scratch.0.join("demo");
    let mut demo = Process::start(
        fedgate().args(["demo", "--listen", &address.to_string(), "--dir"]).arg(&dir).stdout(Stdio::null()),
    );
    wait_until_listening(address);
    assert!(demo.stop(Signal::TERM));
    let config = dir.join("postgres.toml");
    let text = std::fs::read_to_string(dir.join("fedgate.toml")).unwrap();
    let store = format!("kind = \"postgres\"\nuri = \"{}\"", database.uri);
    std::fs::write(&config, text.replace("kind = \"sqlite\"\npath = \"fedgate.db\"", &store)).unwrap();

    assert_eq!(
        fedhis("serve", &config).output().unwrap().status.code(),
        Some(2),
        "without a schema it says to migrate"
    );
    assert!(fedhis("migrate", &config).status().unwrap().success());
    assert!(fedhis("seed", &config).status().unwrap().success());
    let _his = Process::start(&mut fedhis("serve", &config));
    let listen = format!("127.0.0.1:{}", address.port());
    let _gateway = Process::start(
        fedgate().args(["serve", "--config"]).arg(&config).env("FEDGATE_GATEWAY_LISTEN", listen).stdout(Stdio::null()),
    );
    wait_until_listening(address);
    let url = format!("https://localhost:{}", address.port());
    let certificate = dir.join("certs/localhost.pem");
    ready(&format!("{url}/"), &certificate);
    replay(&url, &certificate);
}
