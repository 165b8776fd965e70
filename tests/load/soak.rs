//! A long run with everything at once: clients of every kind, edits, renewals, broken files, broken clients,
//! servers that fall, and record files that are moved away. Correct requests get correct answers, and memory and
//! descriptors do not grow.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::Rng;
use rustix::process::Signal;

use crate::fixture::{CANARY, Gateway, basic, certificate};
use crate::scripted::{Server, before_in};
use crate::support::keepalive::Connection;
use crate::support::wanted;

/// How long, in s. `FEDGATE_TEST_SOAK_SECONDS` overrides it.
const SECONDS: u64 = 8;
const CLIENTS: usize = 6;
const FAULT_EVERY: Duration = Duration::from_millis(100);
/// How much memory may grow after the first third, in KiB: effects of the allocator.
const GROWTH_KIB: u64 = 24 * 1024;

/// A request, and the statuses that are correct for it.
fn kinds() -> Vec<(String, &'static [u16])> {
    let request = |method: &str, target: &str, authorization: &str, body: &str| {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{authorization}{length}\r\n{body}")
    };
    let as_ = |account: &str, password: &str| format!("Authorization: {}\r\n", basic(account, password));
    let (ana, doc) = (as_("ANA", CANARY), as_("DOC", CANARY));
    vec![
        (request("GET", "/people/ANA", &ana, ""), &[200]),
        (request("HEAD", "/people/ANA", &ana, ""), &[200]),
        (request("GET", "/people/DOC", &ana, ""), &[403]),
        (request("GET", "/people", &doc, ""), &[200]),
        (request("GET", "/nowhere", &doc, ""), &[404]),
        (request("GET", "/people", "", ""), &[401]),
        (request("POST", "/pols/ANA/1", &ana, "{\"id\":\"1\"}"), &[200]),
        (request("GET", "/pols/ANA/garbage", &ana, ""), &[502]),
        (request("GET", "/pols/ANA/distrust", &ana, ""), &[502]),
        (request("GET", "/people/../adm", &ana, ""), &[400]),
        (request("POST", "/pols/ANA/1", &ana, &"x".repeat(4000)), &[413]),
        (request("GET", "/people/ANA", &as_("ANA", "wrong"), ""), &[401, 429, 503]),
        (request("GET", "/people/ANA", &as_("NOBODY", "wrong"), ""), &[401, 429, 503]),
        (request("OPTIONS", "/people/ANA", "", ""), &[200]),
        // One of two servers may fall while it has the request. The other takes the next.
        (request("GET", "/x/1", "", ""), &[200, 502]),
        (request("POST", "/x/1", "", "{}"), &[200, 502]),
    ]
}

#[test]
fn a_long_run_with_faults_answers_rightly_and_does_not_grow() {
    let time = Duration::from_secs(wanted("FEDGATE_TEST_SOAK_SECONDS", SECONDS));
    let servers = [Server::good(), Server::good()];
    let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    let gateway = before_in(&[("FEDGATE_RECORDS_FILE", "records.jsonl")], &addresses, "");
    let (over, asked, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let (early, late, faults) = thread::scope(|scope| {
        let client = || {
            let (kinds, mut random) = (kinds(), rand::rng());
            let mut connection = Connection::to(gateway.address);
            while !over.load(Ordering::SeqCst) {
                let (request, right) = &kinds[random.random_range(0..kinds.len())];
                let answer = connection.ask(request.as_bytes());
                let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", request.lines().next().unwrap()));
                assert!(right.contains(&answer.status), "{answer:?}: {}", request.lines().next().unwrap());
                asked.fetch_add(1, Ordering::Relaxed);
                failed.fetch_add(u64::from(answer.status == 502 && right.contains(&200)), Ordering::Relaxed);
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let faults = scope.spawn(|| inject(&gateway, &servers, &over));
        // Records are read as they arrive, or the gateway would wait for its reader.
        let records = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let _ = gateway.record_within(Duration::from_millis(200));
            }
        });
        let mut early = (0, 0);
        while began.elapsed() < time && !clients.iter().any(|client| client.is_finished()) {
            thread::sleep(Duration::from_millis(50));
            if began.elapsed() < time / 3 {
                early = (gateway.resident_kib(), descriptors(&gateway));
            }
        }
        let late = (gateway.resident_kib(), descriptors(&gateway));
        over.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        records.join().unwrap();
        (early, late, faults.join().unwrap())
    });
    println!(
        "soak, {:?}: {} requests ({} failed with their server), {faults} faults; memory {} to {} KiB, descriptors {} to {}",
        began.elapsed(),
        asked.load(Ordering::Relaxed),
        failed.load(Ordering::Relaxed),
        early.0,
        late.0,
        early.1,
        late.1
    );
    assert!(late.0 < early.0 + GROWTH_KIB, "memory grows");
    assert!(late.1 < early.1 + 100, "descriptors grow");
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    assert!((0..20).any(|_| gateway.call("GET", "1") == 200), "the servers are taken back");
}

fn descriptors(gateway: &Gateway) -> usize {
    fs::read_dir(format!("/proc/{}/fd", gateway.child.id())).unwrap().count()
}

/// Causes one fault after the other, and returns their number.
fn inject(gateway: &Gateway, servers: &[Server; 2], over: &AtomicBool) -> u32 {
    let policy = fs::read_to_string("policies/roles.cfg").unwrap();
    let (mut random, mut count, mut held) = (rand::rng(), 0, vec![]);
    while !over.load(Ordering::SeqCst) {
        match random.random_range(0..11) {
            0 => fs::write(gateway.dir.join("roles.cfg"), format!("{policy}\n{}", " ".repeat(count as usize % 9)))
                .unwrap(),
            1 => fs::write(gateway.dir.join("roles.cfg"), "[{").unwrap(),
            2 => gateway.signal(Signal::HUP),
            3 => certificate(&gateway.dir),
            4 => fs::write(gateway.dir.join("cert.pem"), "half").unwrap(),
            // Clients that leave in the middle, or stay silent.
            5 => drop(TcpStream::connect(gateway.address).and_then(|mut tcp| tcp.write_all(b"GET /people/ANA HT"))),
            6 => {
                let body = format!(
                    "POST /pols/ANA/1 HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Length: 99\r\n\r\n{{",
                    basic("ANA", CANARY)
                );
                drop(TcpStream::connect(gateway.address).and_then(|mut tcp| tcp.write_all(body.as_bytes())));
            }
            8 => servers.iter().enumerate().for_each(|(at, server)| {
                server.lives.store(at != count as usize % 3, Ordering::SeqCst);
            }),
            9 => drop(fs::rename(gateway.dir.join("records.jsonl"), gateway.dir.join("records.old"))),
            7 => drop(TcpStream::connect(gateway.tls_address).and_then(|mut tcp| tcp.write_all(b"\x16\x03\x01\x02"))),
            _ => {
                held.extend(TcpStream::connect(gateway.address));
                if held.len() > 20 {
                    held.clear();
                }
            }
        }
        count += 1;
        thread::sleep(FAULT_EVERY);
    }
    servers.iter().for_each(|server| server.lives.store(true, Ordering::SeqCst));
    count
}
