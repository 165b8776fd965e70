//! All persons of the store at once: duplicates among them, and a model that is learned from them.
//!
//! The one rule: what is kept of a person is what is compared, and nothing is written before it is needed, so a run can be
//! ended at any time. Finding duplicates goes on where an earlier run ended.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use fedgate_index::assess::Assessment;
use fedgate_index::blocks::{Blocks, MAX_PERSONS, SeenPersons};
use fedgate_index::compare::compare;
use fedgate_index::fold::FoldedPerson;
use fedgate_index::model::Model;
use fedgate_index::train::{Examples, NameCounts, PatternCounts, Trained, random_pairs, train};
use thiserror::Error;

use super::alike::in_ten_thousandths;
use super::pairs::LEAST;
use super::{IndexError, PersonIndex, mark_of};
use crate::store::{FoundPair, PersonRecord, RecordReach, RecordStore, RegisteredPerson};
use fedgate_base::config::IndexConfig;
use fedgate_base::db::DbError;

/// A key that more persons share counts for nothing: its pairs would be most of the work.
pub const MOST_OF_A_KEY: usize = 200;
/// Persons whose pairs are looked at before anything is written, and in one piece of a thread's work.
const STRETCH: usize = 20_000;
const PIECE: usize = 500;

/// Why persons could not be compared.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// The index is not configured so that it can be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The store.
    #[error(transparent)]
    Store(#[from] DbError),
    /// There are too many persons for one run.
    #[error("the store has more than {MAX_PERSONS} persons, and this command compares no more at once")]
    TooMany,
    /// Another run goes on.
    #[error("another run is comparing all persons, or has begun anew")]
    Overtaken,
    /// There are too few persons to learn from.
    #[error("the store has {0} persons, and nothing can be learned from fewer than two")]
    TooFew(usize),
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegisterProgress {
    /// So many persons are read.
    Read(usize),
    /// Of so many persons, so many are compared with all later ones; so many pairs were found.
    Compared {
        /// All.
        of: usize,
        /// Those.
        persons: usize,
        /// In this run.
        found: usize,
    },
}

/// What a run has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedupeOutcome {
    /// Persons.
    pub persons: usize,
    /// Persons whom an earlier run had compared.
    pub earlier: usize,
    /// Pairs that were judged.
    pub judged: usize,
    /// Pairs for the review list.
    pub found: usize,
    /// Keys that count for nothing, because too many persons share them.
    pub left_out: usize,
}

/// All persons.
struct Register {
    ids: Vec<Box<str>>,
    persons: Vec<FoldedPerson>,
}

/// Pairs of a stretch.
#[derive(Default)]
struct StretchPairs {
    judged: usize,
    found: Vec<FoundPair>,
}

impl Register {
    async fn read(
        store: &RecordStore,
        index: &PersonIndex,
        progress: &mut (dyn FnMut(RegisterProgress) + Send),
    ) -> Result<Self, RegisterError> {
        let (mut ids, mut persons) = (Vec::new(), Vec::new());
        let mut after = String::new();
        loop {
            let next = store.persons_after(&after).await?;
            let Some((last, _)) = next.last() else { break };
            after.clone_from(last);
            for (id, record) in next {
                let person = match record {
                    RegisteredPerson::Compared(line) => FoldedPerson::of_line(&line),
                    RegisteredPerson::Record(PersonRecord::Text(text)) => index.folded(&text),
                    RegisteredPerson::Record(PersonRecord::Missing) => None,
                    RegisteredPerson::Record(PersonRecord::Long) => {
                        let text = store.compared_record(&id, &RecordReach::Global).await?;
                        text.and_then(|text| index.folded(&text))
                    }
                };
                let Some(person) = person else { continue };
                ids.push(id.into_boxed_str());
                persons.push(person);
            }
            if persons.len() > MAX_PERSONS {
                return Err(RegisterError::TooMany);
            }
            progress(RegisterProgress::Read(persons.len()));
        }
        Ok(Self { ids, persons })
    }

    fn blocks(&self) -> Blocks {
        Blocks::of(&self.persons, MOST_OF_A_KEY)
    }

    /// The pairs of these persons with later ones that are alike.
    fn pairs(&self, blocks: &Blocks, index: &PersonIndex, stretch: Range<usize>) -> StretchPairs {
        let all = Mutex::new(StretchPairs::default());
        in_pieces(
            stretch,
            || blocks.nobody_seen(),
            |seen, piece| {
                let mut pairs = StretchPairs::default();
                for place in piece {
                    self.later(blocks, place, seen, |one, other| {
                        pairs.judged += 1;
                        let (Some(person), Some(known)) = (self.persons.get(one), self.persons.get(other)) else {
                            return;
                        };
                        let assessment = index.assess(person, known);
                        if assessment.grade >= LEAST {
                            pairs.found.extend(self.pair(one, other, &assessment));
                        }
                    });
                }
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.judged += pairs.judged;
                all.found.append(&mut pairs.found);
            },
        );
        let mut pairs = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        // In one order, so that two runs lock the same rows in the same order.
        pairs.found.sort_unstable_by(|one, other| one.persons.cmp(&other.persons));
        pairs
    }

    fn later(&self, blocks: &Blocks, place: usize, seen: &mut SeenPersons, mut found: impl FnMut(usize, usize)) {
        let Ok(one) = u32::try_from(place) else { return };
        blocks.later(one, seen, |other| found(place, other as usize));
    }

    fn pair(&self, one: usize, other: usize, is: &Assessment) -> Option<FoundPair> {
        let of = |at: usize| Some((self.ids.get(at)?.to_string(), mark_of(self.persons.get(at)?)));
        let evidence = i64::from(is.evidence);
        Some(FoundPair::of(of(one)?, of(other)?, is.grade.as_str(), in_ten_thousandths(is.score), evidence))
    }
}

/// Lets all processors work on the pieces of a range.
fn in_pieces<S>(range: Range<usize>, begin: impl Fn() -> S + Sync, work: impl Fn(&mut S, Range<usize>) + Sync) {
    let next = AtomicUsize::new(range.start);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut state = begin();
                loop {
                    let from = next.fetch_add(PIECE, Ordering::Relaxed);
                    if from >= range.end {
                        break;
                    }
                    work(&mut state, from..range.end.min(from + PIECE));
                }
            });
        }
    });
}

/// Compares all persons with each other, and puts pairs that are alike on the review list. Goes on where an earlier run with
/// the same configuration ended.
///
/// # Errors
/// See [`RegisterError`]. What was found so far is on the list.
pub async fn dedupe(
    store: &RecordStore,
    config: &IndexConfig,
    mut progress: impl FnMut(RegisterProgress) + Send,
) -> Result<DedupeOutcome, RegisterError> {
    let index = PersonIndex::new(config)?;
    // Before the records are read: whoever changes from now on is compared again.
    let mut turn = store.begin_dedupe(&index.judged_by()).await?;
    let register = Register::read(store, &index, &mut progress).await?;
    let blocks = register.blocks();
    let of = register.persons.len();
    // The order is that of the database. If that person is gone, all are compared again.
    let earlier = register.ids.iter().position(|id| **id == *turn.upto).map_or(0, |place| place + 1);
    let mut outcome = DedupeOutcome { persons: of, earlier, judged: 0, found: 0, left_out: blocks.left_out };
    let mut from = earlier;
    while from < of {
        let to = of.min(from + STRETCH);
        let StretchPairs { judged, found } = tokio::task::block_in_place(|| register.pairs(&blocks, &index, from..to));
        let last = register.ids.get(to - 1).map(ToString::to_string).unwrap_or_default();
        if !store.put_pairs(&mut turn, &found, &last).await? {
            return Err(RegisterError::Overtaken);
        }
        outcome.judged += judged;
        outcome.found += found.len();
        from = to;
        progress(RegisterProgress::Compared { of, persons: to, found: outcome.found });
    }
    store.end_dedupe(&turn).await?;
    Ok(outcome)
}

/// Learns a model from all persons. Returns it with what has changed, and the number of persons.
///
/// # Errors
/// See [`RegisterError`].
pub async fn learn(
    store: &RecordStore,
    config: &IndexConfig,
    mut progress: impl FnMut(RegisterProgress) + Send,
) -> Result<(Trained, usize), RegisterError> {
    let index = PersonIndex::new(config)?;
    let register = Register::read(store, &index, &mut progress).await?;
    let of = register.persons.len();
    if of < 2 {
        return Err(RegisterError::TooFew(of));
    }
    let trained = tokio::task::block_in_place(|| learned(&register, &index.model));
    Ok((trained, of))
}

fn learned(register: &Register, earlier: &Model) -> Trained {
    let blocks = register.blocks();
    let blocked = Mutex::new(PatternCounts::default());
    let persons = &register.persons;
    let of = persons.len();
    in_pieces(
        0..of,
        || (blocks.nobody_seen(), PatternCounts::default()),
        |(seen, counts), piece| {
            for place in piece {
                register.later(&blocks, place, seen, |one, other| {
                    if let (Some(one), Some(other)) = (persons.get(one), persons.get(other)) {
                        counts.count(compare(one, other));
                    }
                });
            }
            // With each piece, so that nothing is lost when the thread ends.
            blocked.lock().unwrap_or_else(PoisonError::into_inner).take(counts);
        },
    );
    let mut names = NameCounts::default();
    persons.iter().for_each(|person| names.count(person));
    let mut random = PatternCounts::default();
    for (one, other) in random_pairs(of) {
        if let (true, Some(one), Some(other)) = (one != other, persons.get(one), persons.get(other)) {
            random.count(compare(one, other));
        }
    }
    let all_pairs = of as u64 * (of as u64 - 1) / 2;
    let blocked = blocked.into_inner().unwrap_or_else(PoisonError::into_inner);
    train(earlier, &Examples { blocked, random, all_pairs, frequencies: names.frequencies() })
}
