//! An exhaustive walk through the protocol that bounds how long a revoked right lives.
//!
//! docs/CONSISTENCY.md states its promise, and `protocol_model` describes the model. Every build takes a small
//! walk. `FEDGATE_MODEL=deep` adds the long one, which needs minutes and some memory.
//!
//! One instance represents any number. A move of an instance reads the primary and changes that instance alone (see
//! the signature of `move_instance`), and each law speaks of one instance at a time. So the moves of the other
//! instances can be removed from a run that breaks a law, and the rest still breaks it. In the same way one
//! requested account, one read and one request in flight represent any number. The second account exists only to be
//! named by changes.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

#[path = "protocol_model/model.rs"]
mod model;
#[path = "protocol_model/listing.rs"]
mod listing;

use model::bounds::{Bounds, Flaw, Restore};
use model::laws::{self, LAWS};
use model::{Protocol, State, Step};

/// The bounds that each build checks.
const SMALL: Bounds = Bounds {
    instances: 1,
    asked: 1,
    requests: true,
    bound: 2,
    commits: 2,
    failovers: 1,
    switchovers: 0,
    remembered: 2,
    restore: Restore::Never,
    steps: None,
};

#[test]
fn the_laws_hold_and_everything_happens() {
    let checker = walk(SMALL, None);
    checker.assert_properties();
}

#[test]
fn the_laws_hold_with_both_accounts_asked_for() {
    hold(Bounds { asked: 2, commits: 1, ..SMALL }, None);
}

/// If the argument above is right, this proves nothing that one instance does not. So it tests the argument.
#[test]
fn the_laws_hold_for_several_instances_together() {
    let several = Bounds { requests: false, bound: 1, commits: 1, ..SMALL };
    hold(Bounds { instances: 2, failovers: 0, ..several.clone() }, None);
    hold(Bounds { instances: 3, steps: Some(12), ..several.clone() }, None);
    hold(Bounds { instances: 3, asked: 2, steps: Some(10), ..several }, None);
}

#[test]
fn the_laws_hold_deeper_on_demand() {
    if std::env::var("FEDGATE_MODEL").is_ok_and(|value| value == "deep") {
        walk(Bounds { bound: 3, commits: 3, ..SMALL }, None).assert_properties();
        walk(Bounds { failovers: 2, ..SMALL }, None).assert_properties();
        hold(Bounds { asked: 2, ..SMALL }, None);
        hold(SWITCHED, None);
        hold(Bounds { asked: 2, commits: 1, ..SWITCHED }, None);
        let several = Bounds { requests: false, bound: 1, commits: 1, ..SMALL };
        hold(Bounds { instances: 2, ..several.clone() }, None);
        // Longer than any run that a part of the protocol was found to need; about 8 GiB.
        hold(Bounds { instances: 3, asked: 2, steps: Some(16), ..several }, None);
    }
}

/// The addition of a switchover: accounts can be read on another server than the one that confirms.
const SWITCHED: Bounds = Bounds { failovers: 0, switchovers: 1, ..SMALL };

#[test]
fn the_laws_hold_while_a_server_that_was_left_behind_goes_on_answering() {
    let checker = hold(Bounds { commits: 1, ..SWITCHED }, None);
    for happens in [laws::READ_FROM_LEFT, laws::SERVED_AGAIN] {
        assert!(checker.discovery(happens).is_some(), "{happens}");
    }
}

#[test]
fn each_part_of_the_protocol_is_needed() {
    let commits = |commits| Bounds { commits, ..SMALL };
    #[rustfmt::skip]
    let cases = [
        (Flaw::LeaseFromAnswer,     commits(1)),
        (Flaw::NoLease,             commits(1)),
        (Flaw::NoGate,              commits(1)),
        (Flaw::NoGeneration,        commits(1)),
        (Flaw::KeepOnReconnect,     commits(1)),
        (Flaw::GapIsNothing,        commits(2)),
        (Flaw::EpochAfterRow,       commits(1)),
        (Flaw::JoinEarlierRead,     commits(1)),
        (Flaw::NoticesAloneLate,    commits(1)),
        (Flaw::NoticesAloneLost,    commits(1)),
        (Flaw::PollStandby,         commits(1)),
        (Flaw::ReadStandby,         commits(1)),
        (Flaw::RegressionIsNothing, Bounds { restore: Restore::Quiet, ..commits(1) }),
        (Flaw::PoolStays,           Bounds { commits: 1, ..SWITCHED }),
        (Flaw::PoolStaysByEpoch,    SWITCHED),
        (Flaw::LeftConfirms,        Bounds { commits: 1, ..SWITCHED }),
    ];
    for (flaw, bounds) in cases {
        assert!(counterexample(bounds, Some(flaw)).is_some(), "{flaw:?}: should find a counterexample");
    }
}

#[test]
fn notices_alone_would_do_if_none_were_ever_lost() {
    hold(Bounds { commits: 1, ..SMALL }, Some(Flaw::NoticesAlone));
}

#[test]
fn a_failover_that_breaks_its_sessions_needs_no_look_at_the_order_of_epochs() {
    hold(SMALL, Some(Flaw::RegressionIsNothing));
}

#[test]
fn a_restore_in_place_is_survived_if_it_is_quiet_or_raises_the_epoch() {
    hold(Bounds { failovers: 0, restore: Restore::Quiet, ..SMALL }, None);
    hold(Bounds { failovers: 0, restore: Restore::Raised, ..SMALL }, None);
}

#[test]
fn a_careless_restore_in_place_is_not_survived() {
    let careless = Bounds { failovers: 0, commits: 1, restore: Restore::Careless, ..SMALL };
    assert!(counterexample(careless, None).is_some(), "should find a counterexample");
}

#[test]
fn waiting_for_a_revocation_misses_no_instance_and_each_part_of_it_is_needed() {
    use listing::{Flaw, Listing, NOBODY_IS_MISSED};
    let checker = Listing(None).checker().spawn_bfs().join();
    println!("the list: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    assert!(checker.is_done() && checker.unique_state_count() > 1000);
    checker.assert_properties();
    let flaws =
        [Flaw::UnlistedMayAdmit, Flaw::EarlierConfirmationsCount, Flaw::CountedFromAnswer, Flaw::SilentAreLeftOut];
    for flaw in flaws {
        let checker = Listing(Some(flaw)).checker().spawn_bfs().join();
        let run =
            checker.discovery(NOBODY_IS_MISSED).unwrap_or_else(|| panic!("{flaw:?}: should find a counterexample"));
        println!("{flaw:?} breaks it in {} steps", run.into_actions().len());
    }
}

/// Walks through all states within the bounds.
fn walk(bounds: Bounds, flaw: Option<Flaw>) -> impl Checker<Protocol> {
    let began = Instant::now();
    let protocol = Protocol { bounds, flaw };
    let checker = protocol.clone().checker();
    let checker = match protocol.bounds.steps {
        // One thread goes strictly from near to far, so that every run of that length is walked.
        Some(steps) => checker.threads(1).target_max_depth(depth(steps)),
        None => checker.threads(2),
    };
    let checker = checker.spawn_bfs().join();
    let (states, longest, seconds) = (checker.unique_state_count(), checker.max_depth(), began.elapsed().as_secs_f32());
    let properties = protocol.properties().len();
    println!("{protocol:?}: {states} states, depth {longest}, {properties} properties, {seconds:.1} s");
    assert!(checker.is_done() && states > 1000, "every state was visited, and there were some");
    checker
}

/// Checks only the laws. The bounds may be too small for every event that must be reachable.
fn hold(bounds: Bounds, flaw: Option<Flaw>) -> impl Checker<Protocol> {
    let checker = walk(bounds, flaw);
    for law in LAWS {
        assert!(checker.discovery(law).is_none(), "{law}: {:?}", checker.discovery(law).map(steps));
    }
    checker
}

/// A shortest run that breaks a law; `None` if all hold.
fn counterexample(bounds: Bounds, flaw: Option<Flaw>) -> Option<Vec<Step>> {
    let mut shortest = None;
    let mut longest = usize::MAX;
    // The checker returns the first run that it finds; the next one must be shorter.
    while let Some((law, run)) = breach(&Protocol { bounds: bounds.clone(), flaw }, longest) {
        longest = run.len() - 1;
        shortest = Some((law, run));
    }
    let (law, run) = shortest?;
    println!("{flaw:?} breaks {law} in {} steps: {run:?}", run.len());
    Some(run)
}

/// A run of at most this many steps that breaks a law, with the law.
fn breach(protocol: &Protocol, steps_at_most: usize) -> Option<(&'static str, Vec<Step>)> {
    let checker = protocol
        .clone()
        .checker()
        .target_max_depth(depth(steps_at_most))
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = LAWS.into_iter().filter_map(|law| Some((law, steps(checker.discovery(law)?))));
    found.min_by_key(|(_, run)| run.len())
}

/// The checker's measure: states on a path, without the last.
fn depth(steps: usize) -> usize {
    steps.saturating_add(2)
}

fn steps(path: Path<State, Step>) -> Vec<Step> {
    path.into_actions()
}
