//! How soon a revocation is seen on every instance, without faults and with every notice dropped.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::federation::{BOUND, Federation, INSTANCES, all_entitled, ask_until, next_state, over, request};
use crate::fixture::PATIENCE;
use crate::history::{History, Outcome, State};
use crate::support::keepalive::Connection;
use crate::support::percentiles;

/// How many accounts take turns.
const ACCOUNTS: usize = 8;

#[test]
fn a_revocation_is_seen_everywhere_at_once_and_without_notices_within_the_bound() {
    let federation = Federation::alone_with_accounts(ACCOUNTS);
    let gateways = federation.gateways();
    let addresses: Vec<_> = gateways.iter().map(|gateway| gateway.address).collect();
    for (name, flips, with_notices) in [("without faults", 400, true), ("with every notice dropped", 40, false)] {
        federation.proxies.iter().for_each(|proxy| proxy.swallow_notices(!with_notices));
        let history = probe(&federation, &addresses, flips);
        let findings = history.check(BOUND);
        assert_eq!(findings.violations.len(), 0, "{:?}", findings.violations.first());
        let seen = history.visibility();
        assert!(seen.len() >= flips / 2 - ACCOUNTS && seen.iter().all(|instances| instances.len() == INSTANCES));
        let everywhere = seen.iter().filter_map(|instances| instances.iter().max().copied()).collect();
        println!("revocation, {name}: visible on one instance {}", percentiles(seen.concat()));
        println!("revocation, {name}: visible on all three {}", percentiles(everywhere));
    }
    let swallowed: usize = federation.proxies.iter().map(|proxy| proxy.swallowed()).sum();
    assert!(swallowed >= 40, "the notices were dropped: {swallowed}");
}

/// Flips one account after another while one prober for each instance asks as fast as it can, and waits each time until
/// all of them tell the new state.
fn probe(federation: &Federation, addresses: &[std::net::SocketAddr], flips: usize) -> History {
    let (stop, account) = (AtomicBool::new(false), AtomicUsize::new(0));
    let told: Vec<Mutex<(usize, State)>> = addresses.iter().map(|_| Mutex::new((0, State::Disabled))).collect();
    let controller = federation.controller();
    let mut random = StdRng::seed_from_u64(1);
    let mut history = History { answers: vec![], flips: all_entitled(ACCOUNTS, Instant::now()) };
    let mut states = [State::Entitled; ACCOUNTS];
    thread::scope(|scope| {
        let prober = |instance: usize| {
            let (stop, account, told) = (&stop, &account, &told);
            move || {
                let mut connection = Connection::to(addresses[instance]);
                let pick = || account.load(Ordering::SeqCst);
                ask_until(stop, instance, Duration::from_micros(300), pick, |account| {
                    let outcome = over(&mut connection, &request(account));
                    if let Outcome::Tells(state) = outcome {
                        *told[instance].lock().unwrap() = (account, state);
                    }
                    outcome
                })
            }
        };
        let probers: Vec<_> = (0..addresses.len()).map(|instance| scope.spawn(prober(instance))).collect();
        let wait = |expected| {
            let deadline = Instant::now() + PATIENCE;
            while told.iter().any(|told| *told.lock().unwrap() != expected) {
                if Instant::now() > deadline {
                    stop.store(true, Ordering::SeqCst);
                    panic!("{expected:?} was not told everywhere");
                }
                thread::sleep(Duration::from_micros(200));
            }
        };
        for flip in 0..flips {
            // Each account is revoked and given back, then comes the next one.
            let number = flip / 2 % ACCOUNTS;
            account.store(number, Ordering::SeqCst);
            wait((number, states[number]));
            states[number] = next_state(states[number], &mut random);
            history.flips.push(controller.flip(number, states[number]));
            wait((number, states[number]));
        }
        stop.store(true, Ordering::SeqCst);
        history.answers = probers.into_iter().flat_map(|prober| prober.join().unwrap()).collect();
    });
    // Back to how it was, for whoever probes next.
    for (account, _) in states.iter().enumerate().filter(|(_, state)| **state != State::Entitled) {
        controller.flip(account, State::Entitled);
    }
    history
}
