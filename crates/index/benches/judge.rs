//! Measures what the index does for each record and each pair: `cargo bench -p fedgate-index`.
//!
//! It prints the median of each step. The figures of docs/INDEX.md are from here.
#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use fedgate_index::assess::assess;
use fedgate_index::fields::{Demographics, Fields};
use fedgate_index::fold::FoldedPerson;
use fedgate_index::keys::blocking_keys;
use fedgate_index::model::Model;
use fedgate_index::query::Query;

/// Timed batches per step; the median counts.
const BATCHES: usize = 31;
const BATCH: Duration = Duration::from_millis(20);

const ANA: &str = r#"{"id": "ESPGNU777ORG", "name": "Ana María", "lastname": "García de la Cruz", "dob": "1985-10-04",
    "gender": "f", "address": {"suburb": "Las Palmas", "postcode": "35001"}, "phone": "+34 928 123 456",
    "identifiers": [{"system": "dni", "value": "12345678-Z"}], "portrait": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
const OTHER: &str = r#"{"id": "ITAPYT999HON", "name": "Anna", "lastname": "Garzia Cruz", "dob": "1985-04-10",
    "gender": "f", "address": {"suburb": "Telde", "postcode": "35010"}, "phone": "928123465",
    "identifiers": [{"system": "dni", "value": "87654321-X"}]}"#;

fn main() {
    let (fields, model) = (Fields::default(), Model::default());
    let read = |document: &str| Demographics::read(&fields, document).unwrap_or_default();
    let taken = read(ANA);
    let [ana, other] = [ANA, OTHER].map(|document| FoldedPerson::of(&read(document)));
    step("read: the fields of a document", || read(black_box(ANA)));
    step("fold: a record", || FoldedPerson::of(black_box(&taken)));
    step("keys: of a record", || blocking_keys(black_box(&ana)));
    step("assess: a pair that differs in each field", || assess(&model, black_box(&ana), black_box(&other)));
    step("assess: a pair that is the same", || assess(&model, black_box(&ana), black_box(&ana)));
    if let Ok(query) = Query::parse("gracia ana 1985") {
        step("query: rank a person", || query.rank("ESPGNU777ORG", black_box(&ana)));
    }
}

fn step<T>(name: &str, mut work: impl FnMut() -> T) {
    let mut timed = |times: u32| {
        let begin = Instant::now();
        (0..times).for_each(|_| drop(black_box(work())));
        begin.elapsed()
    };
    let mut times = 1;
    while timed(times) < BATCH {
        times *= 2;
    }
    let mut figures: Vec<u128> = (0..BATCHES).map(|_| timed(times).as_nanos() / u128::from(times)).collect();
    figures.sort_unstable();
    println!("{name:<45} {:>7} ns", figures.get(BATCHES / 2).copied().unwrap_or(0));
}
