//! Runs the balanced example unchanged but for its addresses: every part is replaced under load, and no request
//! fails.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::{CANARY, PATIENCE, basic, certificate, password_hash};
use crate::support::keepalive::{Connection, whole};
use crate::support::postgres::Cluster;
use crate::support::tls::believing;
use crate::support::{Scratch, free_address, wanted};
use rustix::process::{Pid, Signal, kill_process};

/// How often every part is replaced. `FEDGATE_TEST_ROLLS` overrides it.
const ROLLS: u32 = 1;

/// One of the processes, by its letter in the example.
struct Part {
    program: &'static str,
    environment: Vec<(&'static str, String)>,
    /// The address to probe, and the answer of a part that serves.
    probe: (SocketAddr, &'static str),
    child: Option<Child>,
}

impl Part {
    fn start(&mut self, config: &std::path::Path) {
        let mut command = Command::new(self.program);
        command
            .args(["serve", "--config"])
            .arg(config)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        let ready = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        while !whole(self.probe.0, ready).is_ok_and(|answer| answer.starts_with(self.probe.1)) {
            assert!(Instant::now() < deadline, "{} {:?} does not serve", self.program, self.environment);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
        child.wait().unwrap();
    }
}

/// Waits until the gateways have found a replaced HIS again, or the balancer a replaced gateway, and lead requests to
/// it.
fn found_again(part: &Part, gateways: [SocketAddr; 2]) {
    let deadline = Instant::now() + PATIENCE;
    let ask = |admin, path: &str| {
        whole(admin, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap_or_default()
    };
    let is_found = || match gateways.contains(&part.probe.0) {
        true => ask(part.probe.0, "/metrics").contains("fedgate_requests_total{decision=\"allow\""),
        false => gateways.into_iter().all(|admin| ask(admin, "/readyz").contains("\"upstreams\":{\"his\":2}")),
    };
    while !is_found() {
        assert!(Instant::now() < deadline, "{} {:?} is not found again", part.program, part.environment);
        thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The example's files with this test's addresses, database and directory.
fn prepare(scratch: &Scratch, uri: &str) -> (PathBuf, PathBuf, impl Fn(u16) -> SocketAddr) {
    let known = [8443, 8451, 8452, 8461, 8462, 8481, 8482].map(|port| (port, free_address()));
    let own = |mut text: String| {
        for (port, address) in known {
            // For its checks HAProxy names only the port.
            text = text.replace(&format!("127.0.0.1:{port}"), &address.to_string());
            text = text.replace(&format!("check port {port}"), &format!("check port {}", address.port()));
        }
        text.replace("postgres://fedgate@127.0.0.1:5432/federation", uri)
            .replace("../../policies", &std::env::current_dir().unwrap().join("policies").display().to_string())
    };
    let read = |name: &str| std::fs::read_to_string(format!("examples/balanced/{name}")).unwrap();
    let (config, balancer) = (scratch.0.join("fedgate.toml"), scratch.0.join("haproxy.cfg"));
    std::fs::write(&config, own(read("fedgate.toml"))).unwrap();
    std::fs::write(&balancer, own(read("haproxy.cfg"))).unwrap();
    certificate(&scratch.0);
    std::fs::rename(scratch.0.join("cert.pem"), scratch.0.join("certificate.pem")).unwrap();
    std::fs::rename(scratch.0.join("cert.key"), scratch.0.join("certificate.key")).unwrap();
    crate::support::write_private(&scratch.0.join("assertion.secret"), [b'k'; 48]);
    (config, balancer, move |port| known.iter().find(|(known, _)| *known == port).unwrap().1)
}

#[test]
fn every_part_is_replaced_under_load_and_no_request_fails() {
    let rolls = wanted("FEDGATE_TEST_ROLLS", ROLLS);
    let database =
        tokio::runtime::Runtime::new().unwrap().block_on(Cluster::shared().database_with_accounts(4, &password_hash()));
    let scratch = Scratch::new();
    let (config, balancer, address) = prepare(&scratch, &database.uri);
    let (fedgate, fedhis) = (env!("CARGO_BIN_EXE_fedgate"), crate::support::programs::fedhis());
    let his = |port| Part {
        program: fedhis,
        environment: vec![("FEDGATE_HIS_LISTEN", address(port).to_string())],
        // Without an assertion the HIS answers 401, which shows that it is running.
        probe: (address(port), "HTTP/1.1 401"),
        child: None,
    };
    let gateway = |port, admin| Part {
        program: fedgate,
        environment: vec![
            ("FEDGATE_GATEWAY_LISTEN", address(port).to_string()),
            ("FEDGATE_GATEWAY_ADMIN", address(admin).to_string()),
        ],
        probe: (address(admin), "HTTP/1.1 200"),
        child: None,
    };
    let mut parts = [his(8481), his(8482), gateway(8451, 8461), gateway(8452, 8462)];
    parts.iter_mut().for_each(|part| part.start(&config));
    let mut balanced = Part { program: "haproxy", environment: vec![], probe: (address(8443), ""), child: None };
    balanced.child = Some(Command::new("haproxy").arg("-db").arg("-f").arg(&balancer).spawn().unwrap());

    let tls = believing(&scratch.0.join("certificate.pem"), rustls::ALL_VERSIONS).with_no_client_auth();
    let tls = Arc::new(tls);
    let client = || Connection::over_tls(address(8443), &tls);
    let request = |account: usize| {
        let authorization = basic(&format!("P{account}"), CANARY);
        format!("GET /people/P{account} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\r\n")
    };
    // A POST is never repeated: it arrives at the first attempt, or fails.
    let write = |account: usize, page: u32| {
        let authorization = basic(&format!("P{account}"), CANARY);
        let page = format!("{account}-{page}");
        let body = format!("{{\"id\":\"{page}\",\"book\":\"P{account}\"}}");
        let (head, length) = (format!("POST /pols/P{account}/{page} HTTP/1.1\r\nHost: localhost"), body.len());
        format!("{head}\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let deadline = Instant::now() + PATIENCE;
    while !client().ask(request(0).as_bytes()).is_ok_and(|answer| answer.status == 200) {
        assert!(Instant::now() < deadline, "the balancer leads nowhere");
        thread::sleep(Duration::from_millis(50));
    }
    let over = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let load = |number: usize| {
            let (mut client, request, write, over) = (client(), request(number), &write, &over);
            move || {
                let mut asked = 0u32;
                while !over.load(Ordering::SeqCst) {
                    let request = if asked.is_multiple_of(2) { &request } else { &write(number, asked) };
                    let answer =
                        client.ask(request.as_bytes()).unwrap_or_else(|error| panic!("client {number}: {error}"));
                    if !number.is_multiple_of(2) {
                        client.close();
                    }
                    assert_eq!(answer.status, 200, "client {number}: {}", request.lines().next().unwrap());
                    asked += 1;
                    thread::sleep(Duration::from_millis(2));
                }
                asked
            }
        };
        let clients: Vec<_> = (0..4).map(|number| scope.spawn(load(number))).collect();
        for _ in 0..rolls {
            for part in &mut parts {
                part.stop();
                part.start(&config);
                found_again(part, [address(8461), address(8462)]);
            }
        }
        over.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    println!(
        "balanced, every part replaced {rolls} times under load: {} requests, every other one a write, 0 failed",
        asked.iter().sum::<u32>()
    );
    assert!(asked.iter().all(|asked| *asked > 20));
}
