//! Thousands of flips while sessions are cut, notices dropped, bytes held up and gateways stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;

use crate::fixture::Gateway;
use crate::revocation::federation::{
    BOUND, Controller, Federation, INSTANCES, all_entitled, ask_until, next_state, over, request,
};
use crate::revocation::history::{Flip, History, State};
use crate::support::keepalive::Connection;
use crate::support::wanted;

/// So many that most of them keep a state for longer than the bound between two flips. Only then can late answers
/// be seen.
pub(crate) const ACCOUNTS: usize = 200;
const CLIENTS_PER_INSTANCE: usize = 3;
/// The time from one flip to the next.
pub(crate) const FLIP_EVERY: Duration = Duration::from_millis(10);
/// The number of flips. `FEDGATE_TEST_FLIPS` overrides it.
const FLIPS: usize = 2500;

#[test]
fn no_right_outlives_its_revocation_by_more_than_the_bound_whatever_fails() {
    let flips = wanted("FEDGATE_TEST_FLIPS", FLIPS);
    let seed = wanted("FEDGATE_TEST_SEED", rand::random());
    println!("revocation, under faults: FEDGATE_TEST_SEED={seed}");
    let federation = Federation::with_accounts(ACCOUNTS);
    let gateways = federation.gateways();
    let stop = AtomicBool::new(false);
    let mut counts = Vec::new();
    let began = Instant::now();
    let history = thread::scope(|scope| {
        let client = |number: usize| {
            let (stop, gateways) = (&stop, &gateways);
            move || {
                let instance = number % INSTANCES;
                let mut connection = Connection::to(gateways[instance].address);
                let requests: Vec<_> = (0..ACCOUNTS).map(request).collect();
                let mut random = StdRng::seed_from_u64(seed ^ number as u64);
                let pick = || random.random_range(0..ACCOUNTS);
                let pause = Duration::from_micros(500);
                ask_until(stop, instance, pause, pick, |account| over(&mut connection, &requests[account]))
            }
        };
        let clients: Vec<_> = (0..INSTANCES * CLIENTS_PER_INSTANCE).map(|number| scope.spawn(client(number))).collect();
        let faults = scope.spawn(|| inject(&federation, &gateways, &stop, StdRng::seed_from_u64(seed)));
        let flips = flip(&federation.controller(), began, flips, StdRng::seed_from_u64(!seed));
        stop.store(true, Ordering::SeqCst);
        counts.extend(faults.join().unwrap());
        History { answers: clients.into_iter().flat_map(|client| client.join().unwrap()).collect(), flips }
    });
    let findings = history.check(BOUND);
    let swallowed: usize = federation.proxies.iter().map(|proxy| proxy.swallowed()).sum();
    println!(
        "revocation, under faults: {} flips, {} requests ({} allowed, {} refused, {} answered 503), latest allow began {} ms \
         after its revocation, {} violations; listeners killed {}, sessions cut {}, gateways stopped {}, notices dropped {} \
         times ({swallowed}), bytes held {}",
        history.flips.len() - ACCOUNTS,
        history.answers.len(),
        findings.allowed,
        findings.refused,
        findings.unavailable,
        findings.latest_allow.as_millis(),
        findings.violations.len(),
        counts[0],
        counts[1],
        counts[2],
        counts[3],
        counts[4],
    );
    assert_eq!(findings.violations.len(), 0, "{:?}", findings.violations.first());
    assert!(findings.allowed > flips && findings.refused > flips, "there was load");
    assert!(counts.iter().all(|count| *count > 0) && swallowed > 0, "each fault was there");
}

/// Flips random accounts, one every [`FLIP_EVERY`]. The history begins with the state since `began`, before any
/// request.
pub(crate) fn flip(controller: &Controller, began: Instant, count: usize, mut random: StdRng) -> Vec<Flip> {
    let mut flips = all_entitled(ACCOUNTS, began);
    let began = Instant::now();
    let mut states = [State::Entitled; ACCOUNTS];
    for number in 1..=u32::try_from(count).unwrap() {
        let account = random.random_range(0..ACCOUNTS);
        states[account] = next_state(states[account], &mut random);
        flips.push(controller.flip(account, states[account]));
        thread::sleep((began + FLIP_EVERY * number).saturating_duration_since(Instant::now()));
    }
    // The last of them can be late, too: for as long, no answer may be stale.
    thread::sleep(BOUND * 3 / 2);
    flips
}

/// Causes one random fault after the other, each ended before it returns; returns how many of each kind there were.
fn inject(federation: &Federation, gateways: &[Gateway], stop: &AtomicBool, mut random: StdRng) -> [usize; 5] {
    let controller = federation.controller();
    let mut counts = [0; 5];
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        // Each kind in turn first, then at random.
        let kind = if round < counts.len() { round } else { random.random_range(0..counts.len()) };
        let instance = random.random_range(0..INSTANCES);
        // How long a fault lasts is part of the fault.
        let mut last = |from: u64, to: u64| thread::sleep(Duration::from_millis(random.random_range(from..to)));
        counts[kind] += 1;
        match kind {
            0 => controller.kill_listeners(),
            1 => federation.proxies[instance].cut(),
            2 => {
                gateways[instance].signal(Signal::STOP);
                last(200, 3000);
                gateways[instance].signal(Signal::CONT);
            }
            3 => {
                federation.proxies.iter().for_each(|proxy| proxy.swallow_notices(true));
                last(300, 2000);
                federation.proxies.iter().for_each(|proxy| proxy.swallow_notices(false));
            }
            _ => {
                federation.proxies[instance].hold(true);
                last(100, 2500);
                federation.proxies[instance].hold(false);
            }
        }
        last(50, 400);
    }
    counts
}
