//! Random files, accounts and requests: some millions of decisions, the same ones every time.

use std::collections::BTreeMap;
use std::fmt::Display;

use fedgate_core::policy::{EndpointTable, RoleRights};

use super::dice::Dice;
use super::drafts;
use super::oracle::{Answer, Ask};
use super::pair::Pair;
use super::spoils;

const CASES: u64 = 10_000_000;
const THREADS: u64 = 2;
/// Role lists that are asked about under one file.
const ROLE_LISTS: usize = 6;
/// Questions asked for one role list.
const QUESTIONS: usize = 80;

#[derive(Default)]
struct Tally {
    answers: BTreeMap<Answer, u64>,
    accepted: u64,
    refused: u64,
}

impl Tally {
    fn decisions(&self) -> u64 {
        self.answers.values().sum()
    }

    fn add(&mut self, other: &Self) {
        for (answer, count) in &other.answers {
            *self.answers.entry(*answer).or_default() += count;
        }
        self.accepted += other.accepted;
        self.refused += other.refused;
    }
}

#[test]
fn decide_and_compiled_rights_answer_as_the_file_is_described() {
    let cases = number("FEDGATE_ORACLE_CASES", CASES);
    let seed = number("FEDGATE_ORACLE_SEED", 1);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|first| scope.spawn(move || run(seed, first, cases.div_ceil(THREADS)))).collect();
        for thread in threads {
            tally.add(&thread.join().unwrap());
        }
    });
    println!(
        "{} decisions, {} policies accepted, {} refused, 0 mismatches",
        tally.decisions(),
        tally.accepted,
        tally.refused
    );
    for (answer, count) in &tally.answers {
        println!("{:>12} {count:>12}", format!("{answer:?}"));
    }
    assert!(tally.decisions() >= cases);
    let enough = cases / 5_000;
    for answer in Answer::ALL {
        assert!(tally.answers.get(&answer).is_some_and(|count| *count >= enough), "{answer:?} hardly occurs");
    }
    assert!(
        tally.refused >= cases / 10_000 && tally.accepted > tally.refused,
        "files are hardly refused, or hardly accepted"
    );
}

/// A number from the environment.
pub(crate) fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(digits) => digits.replace('_', "").parse().expect("a number"),
        Err(_) => otherwise,
    }
}

/// Asks about every second file until `quota` decisions have been compared.
fn run(seed: u64, first: u64, quota: u64) -> Tally {
    let tables = tables();
    let mut tally = Tally::default();
    let mut decisions = 0;
    for file in (first..).step_by(THREADS as usize) {
        if decisions >= quota {
            break;
        }
        let mut dice = Dice::new(seed, file);
        let bytes = file_of(&mut dice);
        let origin = format!("seed {seed}, file {file}");
        let Some(pair) = Pair::read(&bytes, &origin) else {
            tally.refused += 1;
            continue;
        };
        tally.accepted += 1;
        let table = &tables[dice.below(tables.len())];
        decisions += ask(&pair, table, &mut dice, &mut tally, &origin);
    }
    tally
}

/// The bytes of a file: one in seven is spoiled in its meaning or its spelling.
fn file_of(dice: &mut Dice) -> Vec<u8> {
    let mut policy = drafts::policy(dice);
    if dice.chance(8) {
        spoils::tree(&mut policy, dice);
    }
    let odd = dice.pick(&[0, 0, 5, 30]);
    let mut bytes = drafts::spell(&policy, dice, odd).into_bytes();
    if dice.chance(7) {
        spoils::bytes(&mut bytes, dice);
    }
    bytes
}

/// All endpoints, half of them in another order, and none: a table knows the routes, not the file.
fn tables() -> [EndpointTable; 3] {
    let table = |names: &[&str]| {
        let mut table = EndpointTable::default();
        for name in names {
            table.intern(name).unwrap();
        }
        table
    };
    let half: Vec<&str> = drafts::ENDPOINTS.into_iter().rev().step_by(2).collect();
    [table(&drafts::ENDPOINTS), table(&half), table(&["index", "person"])]
}

fn ask(pair: &Pair<'_>, table: &EndpointTable, dice: &mut Dice, tally: &mut Tally, origin: &dyn Display) -> u64 {
    let defined = pair.oracle.role_names();
    let mut listed = pair.oracle.endpoint_names();
    listed.push("person".to_owned());
    for _ in 0..ROLE_LISTS {
        let roles = drafts::roles(&defined, dice);
        let rights = RoleRights::compile(&pair.engine, &roles, table);
        let (principal, subjects) = drafts::principal(dice);
        // Some of the others, and ids that look like them.
        let related: Vec<String> = subjects.iter().flatten().filter(|_| dice.chance(20)).cloned().collect();
        for _ in 0..QUESTIONS {
            let endpoint =
                if dice.chance(80) { &listed[dice.below(listed.len())] } else { dice.pick(&drafts::ENDPOINTS) };
            let subject = subjects[dice.below(subjects.len())].as_deref();
            let method = drafts::method(dice);
            let ask = Ask { principal: &principal, roles: &roles, method, endpoint, subject, related: &related };
            *tally.answers.entry(pair.ask(&rights, table, &ask, origin)).or_default() += 1;
        }
    }
    (ROLE_LISTS * QUESTIONS) as u64
}
