//! Learns a model from records, without anybody saying which of them are of one person.
//!
//! The one rule: memory is bounded, and the same counts give the same model. The method is expectation maximisation over
//! all pairs of records, as Winkler (1988) has it for the model of Fellegi and Sunter:
//!
//! - A random sample of pairs shows how often each level occurs among different people.
//! - The blocked pairs (those that share a key) hold nearly all pairs of one person. All other pairs count as pairs of
//!   different people, so the odds of one match among all pairs are learned too.
//! - Relatives are a third kind of pairs, for which the earlier model counts more.
//! - Each round judges every pattern by the model so far, and counts it to each kind by its probability.

mod words;

use std::collections::HashMap;

pub use words::NameCounts;

use crate::compare::{FieldName, Level, Pattern};
use crate::model::{LevelShares, LevelTable, Millibits, Model, NameFrequencies};

/// The most different patterns that are counted. Further ones are only counted together.
pub const MAX_PATTERNS: usize = 100_000;
/// Random pairs that show what different people look like.
pub const SAMPLE: usize = 2_000_000;
/// The most rounds, and the change of the odds below which a round is the last.
const MOST_ROUNDS: u32 = 300;
const LEAST_CHANGE: f64 = 1e-6;
/// How many pairs of one person the earlier model counts as, so that a level without examples keeps a share.
const EARLIER_PAIRS: f64 = 2.0;
/// How many pairs of relatives the earlier model counts as: so many that they remain relatives.
const EARLIER_RELATIVES: f64 = 100.0;
/// A table is learned from at least so many expected pairs of one person.
const LEAST_MATCHES: f64 = 50.0;

/// How often each pattern was seen.
#[derive(Debug, Clone, Default)]
pub struct PatternCounts {
    counts: HashMap<Pattern, u64>,
    total: u64,
}

impl PatternCounts {
    /// Counts a pattern.
    pub fn count(&mut self, pattern: Pattern) {
        self.total += 1;
        if self.counts.len() < MAX_PATTERNS || self.counts.contains_key(&pattern) {
            *self.counts.entry(pattern).or_default() += 1;
        }
    }

    /// Takes what another has counted, which is empty then.
    pub fn take(&mut self, other: &mut Self) {
        for (pattern, count) in other.counts.drain() {
            if self.counts.len() < MAX_PATTERNS || self.counts.contains_key(&pattern) {
                *self.counts.entry(pattern).or_default() += count;
            }
        }
        self.total += std::mem::take(&mut other.total);
    }

    /// How many pairs were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// In an order of their own, so that sums have one result.
    fn sorted(&self) -> Vec<(Pattern, f64)> {
        let mut counts: Vec<_> = self.counts.iter().map(|(pattern, count)| (*pattern, *count as f64)).collect();
        counts.sort_unstable_by_key(|(pattern, _)| *pattern);
        counts
    }
}

/// Random pairs of a register of so many people, the same each time. Both of a pair may be one.
///
/// Knuth's MMIX generator; its high bits are good enough for a sample.
pub fn random_pairs(people: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut state = 7_u64;
    let mut place = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % people.max(1) as u64).unwrap_or(0)
    };
    std::iter::repeat_with(move || (place(), place())).take(SAMPLE)
}

/// What a model is learned from.
#[derive(Debug, Clone, Default)]
pub struct Examples {
    /// Pairs that share a blocking key, each once.
    pub blocked: PatternCounts,
    /// A random sample of all pairs.
    pub random: PatternCounts,
    /// How many pairs there are in all.
    pub all_pairs: u64,
    /// How often words occur in given names and surnames. Without it the frequencies stay.
    pub frequencies: Option<[NameFrequencies; 2]>,
}

/// A learned model.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The model.
    pub model: Model,
    /// How many pairs of one person are expected.
    pub matches: f64,
    /// How many pairs of relatives are expected.
    pub relatives: f64,
    /// Rounds until nothing changed.
    pub rounds: u32,
    /// The levels whose weight changed by a tenth of a bit or more.
    pub changes: Vec<WeightChange>,
}

/// Another weight than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightChange {
    /// The table.
    pub table: LevelTable,
    /// The level.
    pub level: Level,
    /// The weight of the earlier model.
    pub before: Millibits,
    /// The weight of the learned model.
    pub after: Millibits,
}

/// Learns a model. What the examples do not show stays as in `earlier`.
#[must_use]
pub fn train(earlier: &Model, examples: &Examples) -> Trained {
    let (blocked, random) = (examples.blocked.sorted(), examples.random.sorted());
    let all_pairs = (examples.all_pairs as f64).max(examples.blocked.total as f64).max(2.0);
    let mut shares = Shares::of(earlier);
    let mut odds = Odds::of(earlier);
    let (mut rounds, mut matches, mut relatives) = (0, 0.0, 0.0);
    while rounds < MOST_ROUNDS {
        rounds += 1;
        let [mut of_match, mut of_other, mut of_relative] = [(); 3].map(|()| Tally::default());
        (matches, relatives) = (0.0, 0.0);
        for (pattern, count) in &blocked {
            let [of_one, of_two] = shares.probabilities(pattern, odds);
            matches += count * of_one;
            relatives += count * of_two;
            of_match.add(pattern, count * of_one);
            of_relative.add(pattern, count * of_two);
        }
        for (pattern, count) in &random {
            let [of_one, of_two] = shares.probabilities(pattern, odds);
            of_other.add(pattern, count * (1.0 - of_one - of_two).max(0.0));
        }
        shares.learn([&of_match, &of_other, &of_relative], earlier);
        let bounded = |pairs: f64| (pairs / all_pairs).clamp(1e-15, 0.5);
        let next = Odds { of_match: bounded(matches), of_relatives: bounded(relatives) };
        let change = (next.of_match / odds.of_match).ln().abs();
        odds = next;
        if change < LEAST_CHANGE {
            break;
        }
    }
    let ratio = if matches >= LEAST_MATCHES { relatives / matches } else { earlier.relatives_per_match() };
    let share = |table, level| shares.share(table, level);
    let model = earlier.with(1.0 / odds.of_match, ratio, share, examples.frequencies.clone());
    Trained { changes: changes(earlier, &model), model, matches, relatives, rounds }
}

fn changes(earlier: &Model, model: &Model) -> Vec<WeightChange> {
    const LEAST: u32 = 100;
    let levels = LevelTable::ALL.into_iter().flat_map(|table| table.levels().iter().map(move |level| (table, *level)));
    levels
        .map(|(table, level)| WeightChange {
            table,
            level,
            before: earlier.weight(table, level),
            after: model.weight(table, level),
        })
        .filter(|change| change.before.abs_diff(change.after) >= LEAST)
        .collect()
}

/// A sum for each level of each table.
#[derive(Debug, Clone, Default)]
struct Tally([[f64; Level::COUNT]; LevelTable::ALL.len()]);

impl Tally {
    fn add(&mut self, pattern: &Pattern, weight: f64) {
        for field in FieldName::ALL {
            if let Some(sum) = self.place(LevelTable::of(field, pattern), pattern.level(field)) {
                *sum += weight;
            }
        }
    }

    fn place(&mut self, table: LevelTable, level: Level) -> Option<&mut f64> {
        self.0.get_mut(table.place())?.get_mut(level as usize)
    }

    fn sum(&self, table: LevelTable, level: Level) -> f64 {
        self.0.get(table.place()).and_then(|row| row.get(level as usize)).copied().unwrap_or(0.0)
    }

    /// Of all pairs that have a value.
    fn total(&self, table: LevelTable) -> f64 {
        table.levels().iter().map(|level| self.sum(table, *level)).sum()
    }
}

/// The odds so far: pairs of one person, and pairs of relatives, to pairs of strangers.
#[derive(Debug, Clone, Copy)]
struct Odds {
    of_match: f64,
    of_relatives: f64,
}

impl Odds {
    fn of(model: &Model) -> Self {
        let of_match = 1.0 / (model.one_match_in() - 1.0);
        Self { of_match, of_relatives: of_match * model.relatives_per_match() }
    }
}

/// The shares so far.
struct Shares {
    of_match: Tally,
    of_other: Tally,
    /// Zero where relatives are as strangers.
    of_relative: Tally,
}

impl Shares {
    fn of(model: &Model) -> Self {
        let (of_match, of_other, of_relative) = (Tally::default(), Tally::default(), Tally::default());
        let mut shares = Self { of_match, of_other, of_relative };
        for table in LevelTable::ALL {
            for level in table.levels() {
                let known = model.shares(table, *level);
                shares.set(table, *level, known);
            }
        }
        shares
    }

    fn set(&mut self, table: LevelTable, level: Level, share: LevelShares) {
        let LevelShares { of_match, of_other, of_relative } = share;
        for (tally, value) in [
            (&mut self.of_match, of_match),
            (&mut self.of_other, of_other),
            (&mut self.of_relative, of_relative.unwrap_or(0.0)),
        ] {
            if let Some(place) = tally.place(table, level) {
                *place = value;
            }
        }
    }

    fn share(&self, table: LevelTable, level: Level) -> LevelShares {
        let of_relative = Some(self.of_relative.sum(table, level)).filter(|share| *share > 0.0);
        let [of_match, of_other] = [&self.of_match, &self.of_other].map(|tally| tally.sum(table, level));
        LevelShares { of_match, of_other, of_relative }
    }

    /// That a pair with this pattern is of one person, and that it is of relatives.
    fn probabilities(&self, pattern: &Pattern, odds: Odds) -> [f64; 2] {
        let Odds { mut of_match, of_relatives } = odds;
        let mut of_relatives = if pattern.may_be_of_relatives() { of_relatives } else { 0.0 };
        for field in FieldName::ALL {
            let level = pattern.level(field);
            if level != Level::Missing {
                let share = self.share(LevelTable::of(field, pattern), level);
                of_match *= share.of_match / share.of_other;
                of_relatives *= share.of_relative.unwrap_or(share.of_other) / share.of_other;
            }
        }
        let sum = 1.0 + of_match + of_relatives;
        if sum.is_finite() { [of_match / sum, of_relatives / sum] } else { [1.0, 0.0] }
    }

    fn learn(&mut self, [of_match, of_other, of_relative]: [&Tally; 3], earlier: &Model) {
        for table in LevelTable::ALL {
            let (matches, others) = (of_match.total(table), of_other.total(table));
            if matches < LEAST_MATCHES || others < LEAST_MATCHES {
                continue;
            }
            let relatives = of_relative.total(table);
            let levels = table.levels().len() as f64;
            for level in table.levels() {
                let before = earlier.shares(table, *level);
                let share = LevelShares {
                    of_match: (of_match.sum(table, *level) + EARLIER_PAIRS * before.of_match)
                        / (matches + EARLIER_PAIRS),
                    // Half a pair more than was seen: a level that the sample lacks is rare, and not impossible.
                    of_other: (of_other.sum(table, *level) + 0.5) / (others + 0.5 * levels),
                    of_relative: before.of_relative.map(|before| {
                        (of_relative.sum(table, *level) + EARLIER_RELATIVES * before) / (relatives + EARLIER_RELATIVES)
                    }),
                };
                self.set(table, *level, share);
            }
        }
    }
}

#[cfg(test)]
mod tests;
