//! A flood of wrong passwords beside known callers, who are served as if there were none.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::fixture::{CANARY, Gateway, PATIENCE, basic};
use crate::support::keepalive::{Connection, get};
use crate::support::{percentiles, wanted};

const CALLERS: usize = 4;
/// How many passwords are guessed each second.
const GUESSES_PER_SECOND: u64 = 200;
/// How long each part takes, in s. `FEDGATE_TEST_FLOOD_SECONDS` overrides it.
const SECONDS: u64 = 5;
/// The memory that a flood may cost: one more hash, and the bounded queues.
const MEMORY_KIB: u64 = 160 * 1024;

#[test]
fn a_flood_of_wrong_passwords_fails_no_cached_caller_and_takes_bounded_memory() {
    let seconds = Duration::from_secs(wanted("FEDGATE_TEST_FLOOD_SECONDS", SECONDS));
    let gateway = Gateway::start();
    let quiet = called(&gateway, seconds);
    let before = gateway.resident_kib();
    let over = AtomicBool::new(false);
    let (flooded, statuses) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(gateway.address, &over));
        // Also if a caller fails: the flood would have no end.
        let ends = EndOfFlood(&over);
        let flooded = called(&gateway, seconds);
        drop(ends);
        (flooded, flood.join().unwrap())
    });
    let grown = gateway.resident_kib().saturating_sub(before);
    println!("flood, cached callers without: {}", percentiles(quiet));
    println!("flood, cached callers beside {GUESSES_PER_SECOND} guesses a second: {}", percentiles(flooded));
    println!("flood, guesses answered {statuses:?}; memory grew by {grown} KiB");
    let guesses: u64 = statuses.values().sum();
    assert!(guesses > GUESSES_PER_SECOND * seconds.as_secs() / 4, "there was a flood");
    assert!(statuses.keys().all(|status| [401, 429, 503].contains(status)), "each guess is refused, and answered");
    assert!(grown < MEMORY_KIB, "{grown} KiB");
    // A new caller gets in as soon as the flood is over.
    let began = Instant::now();
    while gateway.get("/people/DOC", "DOC").status != 200 {
        assert!(began.elapsed() < PATIENCE, "not served after the flood");
    }
}

/// Ends the flood when it is dropped.
struct EndOfFlood<'a>(&'a AtomicBool);

impl Drop for EndOfFlood<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How long each request of the known callers took. None may fail.
fn called(gateway: &Gateway, time: Duration) -> Vec<Duration> {
    let call = || {
        let mut connection = Connection::to(gateway.address);
        let request = get("/people/ANA", &basic("ANA", CANARY));
        let (began, mut took) = (Instant::now(), vec![]);
        while began.elapsed() < time {
            let start = Instant::now();
            assert_eq!(connection.ask(&request).unwrap().status, 200);
            took.push(start.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
        took
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    })
}

/// Guesses until `over`, each time from another address, for existing and missing accounts; returns the answers by
/// status.
fn flood(gateway: SocketAddr, over: &AtomicBool) -> BTreeMap<u16, u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut guesses = tokio::task::JoinSet::new();
        let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / GUESSES_PER_SECOND));
        let mut number = 0u32;
        while !over.load(Ordering::SeqCst) {
            tick.tick().await;
            guesses.spawn(guess(gateway, number));
            number += 1;
        }
        let mut statuses = BTreeMap::new();
        for status in guesses.join_all().await {
            *statuses.entry(status).or_default() += 1;
        }
        statuses
    })
}

async fn guess(gateway: SocketAddr, number: u32) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    let [_, high, middle, low] = (number % 60_000 + 2).to_be_bytes();
    socket.bind((Ipv4Addr::new(127, 1 + high, middle, low), 0).into()).unwrap();
    let mut stream = socket.connect(gateway).await.unwrap();
    let account = if number.is_multiple_of(3) { "ANA".to_owned() } else { format!("NOBODY{number}") };
    let authorization = basic(&account, &format!("guess{number}"));
    let request = format!(
        "GET /people/ANA HTTP/1.1\r\nHost: hospital.example\r\nAuthorization: {authorization}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![];
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).split(' ').nth(1).map_or(0, |status| status.parse().unwrap_or(0))
}
