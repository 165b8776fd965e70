//! Both programs as processes: what they take from the environment, how they start, and what ends them.

#[path = "programs/trust.rs"]
mod trust;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::basic;
use crate::support::keepalive::{Connection, get};
use crate::support::tls::believing;
use crate::support::{Scratch, free_address};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);
const BANNER: &str = "fedgate serves the demo federation at";

fn fedgate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fedgate"))
}

fn fedhis() -> Command {
    Command::new(crate::support::programs::fedhis())
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_log_setting_that_cannot_be_read_is_refused_by_both_programs() {
    let run = |command: &mut Command, log: &str| command.env("FEDGATE_LOG", log).output().unwrap();
    for log in ["wrn", "bogus===", "info,", "fedgate=loud"] {
        for mut command in [fedgate(), fedhis()] {
            let output = run(command.args(["serve", "--config", "/nowhere/fedgate.toml"]), log);
            assert_eq!(output.status.code(), Some(2), "{log}");
            let said = stderr(&output);
            assert!(said.contains("FEDGATE_LOG") && said.contains("error, warn, info, debug, trace or off"), "{said}");
        }
    }
    for log in ["", "Warning", "OFF", "warn,fedgate_his=debug"] {
        for mut command in [fedgate(), fedhis()] {
            let said = stderr(&run(command.args(["serve", "--config", "/nowhere/fedgate.toml"]), log));
            assert!(said.contains("/nowhere/fedgate.toml") && !said.contains("FEDGATE_LOG"), "{log}: {said}");
        }
    }
}

#[test]
fn a_password_is_hashed_at_the_cost_of_the_configuration_that_is_named() {
    let scratch = Scratch::new();
    let config = scratch.0.join("fedgate.toml");
    crate::support::write_private(&scratch.0.join("assertion.key"), "a secret of thirty-two bytes ....");
    let text = "[store]\nkind = \"sqlite\"\npath = \"x.db\"\n[assertion]\nsecret_file = \"assertion.key\"\n\
                [authentication]\nargon2_memory_kib = 19456\nargon2_passes = 3\n";
    std::fs::write(&config, text).unwrap();
    let hash = |arguments: &[&str]| {
        let mut command = fedgate();
        command
            .arg("hash-password")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that refuses its arguments reads no input.
        let _ = child.stdin.take().unwrap().write_all(b"secret-1\n");
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, usual) = hash(&[]);
    assert!(code == Some(0) && usual.starts_with("$argon2id$v=19$m=47104,t=2,p=1$"), "{usual}");
    let (code, configured) = hash(&["--config", config.to_str().unwrap()]);
    assert!(code == Some(0) && configured.starts_with("$argon2id$v=19$m=19456,t=3,p=1$"), "{configured}");
    assert_eq!(hash(&["--config", "/nowhere/fedgate.toml"]).0, Some(2));
}

/// A demo that has reported that it serves.
struct Demo {
    child: Child,
    address: SocketAddr,
}

impl Demo {
    fn start(dir: &Path) -> Self {
        Self::start_logging(dir, Stdio::inherit())
    }

    fn start_logging(dir: &Path, log: Stdio) -> Self {
        let address = free_address();
        let mut child = demo(address, dir).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(BANNER)));
        // Records continue to arrive.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.send(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

fn demo(address: SocketAddr, dir: &Path) -> Command {
    let mut command = fedgate();
    command.args(["demo", "--listen", &address.to_string(), "--dir"]).arg(dir).stdin(Stdio::null());
    command
}

/// Waits until neither program of the demo listens any more.
fn wait_until_silent(address: SocketAddr, dir: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() || UnixStream::connect(dir.join("his.sock")).is_ok() {
        assert!(Instant::now() < deadline, "a part of the demo outlives it");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_demo_says_that_it_serves_only_when_its_own_programs_listen() {
    let scratch = Scratch::new();
    let dir = scratch.0.join("demo");
    let running = Demo::start(&dir);
    let refused = |address: SocketAddr, dir: &Path, code: i32, why: &[&str]| {
        let output = demo(address, dir).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(why.iter().any(|why| said.contains(why)), "{said}");
        assert!(!String::from_utf8(output.stdout).unwrap().contains(BANNER), "{said}");
        said
    };
    let address = running.address;
    let said = refused(address, &scratch.0.join("other"), 1, &[&format!("cannot listen on {address}")]);
    assert!(!said.contains(&format!("listening on {address}")), "{said}");
    // The directory is an argument, and so its fault is one of usage.
    refused(free_address(), &dir, 2, &["a demo runs there already"]);
}

#[test]
fn an_edited_policy_of_a_demo_takes_effect_at_once_and_is_there_again_at_the_next_run() {
    let scratch = Scratch::new();
    let dir = scratch.0.join("demo");
    let running = Demo::start(&dir);
    let tls = believing(&dir.join("certs/localhost.pem"), rustls::ALL_VERSIONS).with_no_client_auth();
    let tls = std::sync::Arc::new(tls);
    let status = |address: SocketAddr| {
        let request = get("/people/ESPGNU777ORG", &basic("ESPGNU777ORG", "gnusolidario"));
        Connection::over_tls(address, &tls).ask(&request).map_or(0, |answer| answer.status)
    };
    let becomes = |address: SocketAddr, expected: u16| {
        let deadline = Instant::now() + PATIENCE;
        while status(address) != expected {
            assert!(Instant::now() < deadline, "it is never {expected}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    becomes(running.address, 200);
    let nothing = r#"[{"role": "end_user", "permissions": {}}]"#;
    std::fs::write(dir.join("roles.cfg"), nothing).unwrap();
    becomes(running.address, 403);
    drop(running);
    // The configuration is the demo's own, and is written again.
    std::fs::write(dir.join("fedgate.toml"), "[gateway]\nlisten = []\n").unwrap();
    let again = Demo::start(&dir);
    assert_eq!(status(again.address), 403, "another address, the same files");
    assert_eq!(std::fs::read_to_string(dir.join("roles.cfg")).unwrap(), nothing);
    // The store is kept, too: neither the federation nor the secret was made anew.
    std::fs::write(dir.join("roles.cfg"), std::fs::read("policies/roles.cfg").unwrap()).unwrap();
    becomes(again.address, 200);
}

#[test]
fn a_store_that_another_program_keeps_locked_is_named_and_ends_each_program_with_one() {
    let scratch = Scratch::new();
    let config = crate::his::program::configuration(&scratch.0);
    let text = std::fs::read_to_string(&config).unwrap();
    let (roles, address) = (std::env::current_dir().unwrap().join("policies/roles.cfg"), free_address());
    let more = format!(
        "[gateway]\nlisten = []\nlisten_plain = [\"{address}\"]\nadmin = []\n[policy]\nroles = \"{}\"\nhistory = \"\"\n",
        roles.display()
    );
    std::fs::write(&config, text + &more).unwrap();
    assert!(fedhis().args(["migrate", "--config"]).arg(&config).status().unwrap().success());
    let store = rusqlite::Connection::open(scratch.0.join("his.db")).unwrap();
    store.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; DELETE FROM pols;").unwrap();
    // All at once, because each waits for the lock.
    let commands = [(fedgate(), "serve"), (fedgate(), "check"), (fedhis(), "serve"), (fedhis(), "migrate")];
    let running = commands.map(|(mut command, word)| {
        command
            .args([word, "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        (word, command.spawn().unwrap())
    });
    for (at, (word, child)) in running.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{word}: {said}");
        for words in ["`store.path`", "another program holds a lock on", "end it, or wait for it, and run this again"] {
            assert!(said.contains(words), "{word}: {words}: {said}");
        }
        // The commands of fedhis tell while they wait that they do.
        assert_eq!(said.contains("still waiting for the store after 2 s"), at >= 2, "{word}: {said}");
    }
}

#[test]
fn the_gateway_of_a_demo_does_not_hand_over_and_says_why() {
    let scratch = Scratch::new();
    let (dir, log) = (scratch.0.join("demo"), scratch.0.join("log"));
    let demo = Demo::start_logging(&dir, std::fs::File::create(&log).unwrap().into());
    let mut upgrade = fedgate();
    upgrade.args(["upgrade", "--config"]).arg(dir.join("fedgate.toml"));
    let out = upgrade.output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(1) && told.contains("the successor did not take over"), "{out:?}");
    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("belongs to another program (`fedgate demo`), which ends with it"), "{logged}");
    assert!(TcpStream::connect(demo.address).is_ok(), "it goes on");
}

#[test]
fn a_demo_ends_with_its_terminal_and_its_programs_with_it() {
    let scratch = Scratch::new();
    let dir = scratch.0.join("demo");
    let mut demo = Demo::start(&dir);
    demo.send(Signal::HUP);
    assert!(demo.child.wait().unwrap().success(), "SIGHUP stops it cleanly");
    assert!(TcpStream::connect(demo.address).is_err() && UnixStream::connect(dir.join("his.sock")).is_err());
    let mut demo = Demo::start(&dir);
    demo.send(Signal::KILL);
    demo.child.wait().unwrap();
    wait_until_silent(demo.address, &dir);
}

#[test]
fn a_demo_removes_a_socket_elsewhere_at_its_end() {
    let scratch = Scratch::new();
    let dir = scratch.0.join("d".repeat(100));
    let mut demo = Demo::start(&dir);
    let configuration = std::fs::read_to_string(dir.join("fedgate.toml")).unwrap();
    let socket = configuration.split("unix:").nth(1).unwrap().split('"').next().unwrap();
    let elsewhere = Path::new(socket).parent().unwrap();
    assert!(UnixStream::connect(socket).is_ok() && !elsewhere.starts_with(&dir), "{socket}");
    demo.send(Signal::HUP);
    assert!(demo.child.wait().unwrap().success());
    assert!(!elsewhere.exists(), "{socket}");
}

#[test]
fn each_command_warns_once_of_a_variable_that_means_nothing() {
    let scratch = Scratch::new();
    let config = scratch.0.join("fedgate.toml");
    crate::support::write_private(&scratch.0.join("assertion.key"), "a secret of thirty-two bytes ....");
    let text = "[store]\nkind = \"sqlite\"\npath = \"x.db\"\n[assertion]\nsecret_file = \"assertion.key\"\n";
    std::fs::write(&config, text).unwrap();
    let commands: [(Command, &[&str]); 4] = [
        (fedhis(), &["migrate"]),
        (fedgate(), &["account", "list"]),
        (fedgate(), &["account", "history"]),
        (fedgate(), &["check"]),
    ];
    for (mut command, words) in commands {
        command.args(words).arg("--config").arg(&config).env_remove("FEDGATE_LOG").env("FEDGATE_FOO", "1");
        let said = stderr(&command.output().unwrap());
        assert_eq!(said.matches("`FEDGATE_FOO` means nothing").count(), 1, "{words:?}: {said}");
    }
}

#[test]
fn fedhis_serves_on_after_a_hangup() {
    let scratch = Scratch::new();
    let config = scratch.0.join("fedgate.toml");
    crate::support::write_private(&scratch.0.join("assertion.key"), "a secret of thirty-two bytes ....");
    let text = "[store]\nkind = \"sqlite\"\npath = \"x.db\"\n[assertion]\nsecret_file = \"assertion.key\"\n\
                [his]\nlisten = \"unix:his.sock\"\nstop_delay_seconds = 0\n";
    std::fs::write(&config, text).unwrap();
    let mut command = fedhis();
    command.args(["serve", "--config"]).arg(&config).env_remove("FEDGATE_LOG").stderr(Stdio::piped());
    let mut child = command.current_dir(&scratch.0).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut until = |words: &str| {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it said `{words}`");
        }
    };
    until("listening on");
    for _ in 0..2 {
        kill_process(pid, Signal::HUP).unwrap();
        until("SIGHUP received");
    }
    kill_process(pid, Signal::TERM).unwrap();
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
}

#[test]
fn every_command_of_the_guide_to_thalamus_is_one_of_the_programs() {
    let guide = std::fs::read_to_string("examples/thalamus/README.md").unwrap();
    let blocks = guide.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut seen = 0;
    for line in blocks.flat_map(str::lines) {
        let command = line.split(" #").next().unwrap().trim();
        let mut words = command.split_whitespace();
        let mut program = match words.next() {
            Some("fedgate") => fedgate(),
            Some("fedhis") => fedhis(),
            _ => continue,
        };
        // Arguments before `--help` are parsed first, and refused if they are invalid.
        let output = program.args(words).arg("--help").output().unwrap();
        assert!(output.status.success(), "{command}: {}", stderr(&output));
        seen += 1;
    }
    assert!(seen >= 15, "{seen} commands");
}
