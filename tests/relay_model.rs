//! A walk through all orders in which writers write and calls give positions, within small bounds.
//!
//! docs/adr/0015 gives the reasons why the order is right, and `relay_model` describes the model.
//! `FEDGATE_MODEL=deep` adds a longer walk.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

#[path = "relay_model/model.rs"]
mod model;

use model::{ALL_PLACED, FLOOR_ROSE, LAWS, RelayStep, Sequencer, SequencerFlaw};

/// The bounds that each build checks.
const SMALL: Sequencer =
    Sequencer { writers: 2, calls: 2, transactions: 3, writes: 1, crashes: 1, most: 2, flaw: None };

#[test]
fn positions_are_dense_and_in_order_and_nothing_is_lost() {
    let checker = walk(SMALL);
    for happens in [ALL_PLACED, FLOOR_ROSE] {
        assert!(checker.discovery(happens).is_some(), "{happens}");
    }
}

#[test]
fn the_same_with_full_batches_or_more_writers_or_longer() {
    walk(Sequencer { most: 1, crashes: 0, ..SMALL });
    walk(Sequencer { writers: 3, crashes: 0, ..SMALL });
    walk(Sequencer { transactions: 2, writes: 2, ..SMALL });
    if std::env::var("FEDGATE_MODEL").is_ok_and(|value| value == "deep") {
        walk(Sequencer { transactions: 4, ..SMALL });
        walk(Sequencer { writers: 3, ..SMALL });
        walk(Sequencer { writes: 2, ..SMALL });
        walk(Sequencer { crashes: 2, ..SMALL });
    }
}

#[test]
fn each_part_of_the_sequencer_is_needed_and_the_simple_readers_fail() {
    use SequencerFlaw::*;
    let flaws = [
        (BySequence, SMALL),
        (ByTransaction, SMALL),
        (OrderDropped, SMALL),
        (FloorAtOnce, SMALL),
        (FloorByNewest, SMALL),
        (NumberReadLate, SMALL),
        (FloorAfterFullBatch, Sequencer { most: 1, ..SMALL }),
        (NoRowLock, SMALL),
        (NumberBeforeLock, SMALL),
        (NumbersComeAgain, SMALL),
    ];
    for (flaw, bounds) in flaws {
        let (law, run) = counterexample(Sequencer { flaw: Some(flaw), ..bounds });
        println!("{flaw:?} breaks `{law}` in {} steps: {run:?}", run.len());
    }
}

/// Walks through all states within the bounds, and asserts the laws.
fn walk(sequencer: Sequencer) -> impl Checker<Sequencer> {
    let began = Instant::now();
    let told = format!("{sequencer:?}");
    let checker = sequencer.checker().threads(2).spawn_bfs().join();
    let (states, longest, seconds) = (checker.unique_state_count(), checker.max_depth(), began.elapsed().as_secs_f32());
    println!("{told}: {states} states, depth {longest}, {seconds:.1} s");
    assert!(checker.is_done() && states > 1000, "every state was visited, and there were some");
    for law in LAWS {
        assert!(checker.discovery(law).is_none(), "{law}: {:?}", checker.discovery(law));
    }
    checker
}

/// A run that breaks a law.
fn counterexample(sequencer: Sequencer) -> (&'static str, Vec<RelayStep>) {
    let told = format!("{sequencer:?}");
    let checker = sequencer.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = LAWS.into_iter().find_map(|law| Some((law, checker.discovery(law)?.into_actions())));
    found.unwrap_or_else(|| panic!("{told}: should find a counterexample"))
}
