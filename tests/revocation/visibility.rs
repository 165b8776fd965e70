//! How soon a revocation is visible on every instance, without faults and with every notice dropped.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::process::Signal;

use crate::fixture::PATIENCE;
use crate::revocation::federation::{BOUND, Federation, INSTANCES, all_entitled, ask_until, next_state, over, request};
use crate::revocation::history::{History, Outcome, State};
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
        // A revocation whose first refusal ended only as the right was given back proves nothing. A few may do so.
        let told = seen.iter().filter(|instances| instances.len() == INSTANCES).count();
        assert!(told >= (flips / 2 - ACCOUNTS) * 9 / 10, "{told} of {} were seen on every instance", seen.len());
        let everywhere = seen
            .iter()
            .filter(|instances| instances.len() == INSTANCES)
            .filter_map(|instances| instances.iter().max().copied())
            .collect();
        println!("revocation, {name}: visible on one instance {}", percentiles(seen.concat()));
        println!("revocation, {name}: visible on all three {}", percentiles(everywhere));
    }
    let swallowed: usize = federation.proxies.iter().map(|proxy| proxy.swallowed()).sum();
    assert!(swallowed >= 40, "the notices were dropped: {swallowed}");
}

/// The obstacle that keeps one instance from learning of a revocation.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// Nothing reaches it from the database.
    CutOff,
    /// Its process is suspended for this long after the commit.
    Paused(Duration),
}

#[test]
fn an_instance_that_was_cut_off_or_paused_admits_no_request_that_starts_after_the_bound() {
    let federation = Federation::alone_with_accounts(ACCOUNTS);
    let gateways = federation.gateways();
    let (gateway, proxy) = (&gateways[0], &federation.proxies[0]);
    let controller = federation.controller();
    let mut connection = Connection::to(gateway.address);
    let cut_off = vec![Trouble::CutOff; ACCOUNTS / 2];
    let paused = (0..ACCOUNTS as u64).map(|number| Trouble::Paused(Duration::from_millis(number * 170))).collect();
    for (name, troubles) in [("cut off", cut_off), ("paused for 0 to 1.2 s", paused)] {
        let (mut refused, mut latest_allow) = (vec![], Duration::ZERO);
        for (account, trouble) in troubles.into_iter().enumerate() {
            let request = request(account);
            let deadline = Instant::now() + PATIENCE;
            while over(&mut connection, &request) != Outcome::Tells(State::Entitled) {
                assert!(Instant::now() < deadline, "{trouble:?}: not served before");
            }
            let revoke = || controller.flip(account, State::Disabled).end;
            let committed = match trouble {
                Trouble::CutOff => {
                    proxy.hold(true);
                    revoke()
                }
                Trouble::Paused(time) => {
                    gateway.signal(Signal::STOP);
                    let committed = revoke();
                    thread::sleep(time);
                    gateway.signal(Signal::CONT);
                    committed
                }
            };
            loop {
                let start = Instant::now();
                match over(&mut connection, &request) {
                    Outcome::Tells(State::Entitled) => latest_allow = latest_allow.max(start - committed),
                    Outcome::Tells(State::Disabled) | Outcome::Unavailable => break refused.push(start - committed),
                    other => panic!("{trouble:?}: {other:?}"),
                }
                assert!(start - committed < PATIENCE, "{trouble:?}: never refused");
            }
            proxy.hold(false);
            controller.flip(account, State::Entitled);
        }
        println!(
            "revocation, an instance {name}: refused from {}; latest allow began after {} ms",
            percentiles(refused),
            latest_allow.as_millis()
        );
        assert!(latest_allow <= BOUND, "{name}: {latest_allow:?}");
    }
}

/// Flips one account after another while one prober for each instance asks as fast as it can, and waits each time
/// until all of them see the new state.
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
            // Each account is revoked and granted again, then comes the next one.
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
    // Back to the first state, for the next probe.
    for (account, _) in states.iter().enumerate().filter(|(_, state)| **state != State::Entitled) {
        controller.flip(account, State::Entitled);
    }
    history
}
