//! The file of a model.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;

use super::{LevelTable, MODEL_VERSION, ModelError};
use crate::compare::Level;

/// The most words of which a model lists the frequency.
const MAX_WORDS: usize = 100_000;

/// How often a level occurs.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelShares {
    /// The share of pairs of one person that have it.
    #[serde(rename = "match")]
    pub of_match: f64,
    /// The share of pairs of different people that have it.
    #[serde(rename = "other")]
    pub of_other: f64,
    /// The share of pairs of relatives that have it. Without it, they have it as often as strangers.
    #[serde(rename = "relative", default)]
    pub of_relative: Option<f64>,
}

/// How often words occur in names.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameFrequencies {
    /// The share of people of each word that is not listed.
    pub others: f64,
    /// The share of people of each listed word.
    #[serde(default)]
    pub words: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenModel {
    version: u32,
    pub(super) one_match_in: f64,
    pub(super) relatives_per_match: f64,
    pub(super) grades: WrittenGrades,
    levels: BTreeMap<String, BTreeMap<String, LevelShares>>,
    pub(super) frequencies: WrittenFrequencies,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenGrades {
    pub(super) certain: f64,
    pub(super) probable: f64,
    pub(super) possible: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenFrequencies {
    pub(super) given: NameFrequencies,
    pub(super) family: NameFrequencies,
}

impl Default for WrittenModel {
    fn default() -> Self {
        let none = || NameFrequencies { others: 1.0, words: BTreeMap::new() };
        Self {
            version: MODEL_VERSION,
            one_match_in: 2e6,
            relatives_per_match: 0.0,
            grades: WrittenGrades { certain: 0.9999, probable: 0.9, possible: 0.01 },
            levels: BTreeMap::new(),
            frequencies: WrittenFrequencies { given: none(), family: none() },
        }
    }
}

impl WrittenModel {
    pub(super) fn check(&self) -> Result<(), ModelError> {
        if self.version != MODEL_VERSION {
            return Err(ModelError::Version(self.version));
        }
        within("one_match_in", self.one_match_in, 2.0..=1e15, "from 2 to 1e15")?;
        within("relatives_per_match", self.relatives_per_match, 0.0..=1e6, "from 0 to 1000000")?;
        let WrittenGrades { certain, probable, possible } = self.grades;
        within("grades.certain", certain, 1e-9..=1.0 - 1e-9, "between 0 and 1")?;
        within("grades.probable", probable, 1e-9..=certain, "above 0, and at most `grades.certain`")?;
        within("grades.possible", possible, 1e-9..=probable, "above 0, and at most `grades.probable`")?;
        self.check_levels()?;
        for (name, frequencies) in [("given", &self.frequencies.given), ("family", &self.frequencies.family)] {
            let at = format!("frequencies.{name}");
            within(&format!("{at}.others"), frequencies.others, 1e-12..=1.0, "above 0, and at most 1")?;
            within(
                &format!("{at}.words"),
                frequencies.words.len() as f64,
                0.0..=MAX_WORDS as f64,
                "at most 100000 words",
            )?;
            for (word, share) in &frequencies.words {
                within(&format!("{at}.words.{word}"), *share, 1e-12..=1.0, "above 0, and at most 1")?;
            }
        }
        Ok(())
    }

    fn check_levels(&self) -> Result<(), ModelError> {
        for (table, levels) in &self.levels {
            let known = LevelTable::ALL.into_iter().find(|known| known.as_str() == table);
            for level in levels.keys() {
                let is_known = known.is_some_and(|known| known.levels().iter().any(|known| known.as_str() == level));
                if !is_known {
                    return Err(ModelError::UnknownLevel(format!("{table}.{level}")));
                }
            }
        }
        for table in LevelTable::ALL {
            for level in table.levels() {
                let at = format!("{}.{}", table.as_str(), level.as_str());
                let shares = self.levels.get(table.as_str()).and_then(|levels| levels.get(level.as_str()));
                let Some(shares) = shares else { return Err(ModelError::MissingLevel(at)) };
                within(&format!("levels.{at}.match"), shares.of_match, 1e-9..=1.0, "above 0, and at most 1")?;
                within(&format!("levels.{at}.other"), shares.of_other, 1e-9..=1.0, "above 0, and at most 1")?;
                let of_relative = shares.of_relative.unwrap_or(shares.of_other);
                within(&format!("levels.{at}.relative"), of_relative, 1e-9..=1.0, "above 0, and at most 1")?;
            }
        }
        Ok(())
    }

    /// The shares of a level. A level that the file lacks says nothing; a checked file has all.
    pub(super) fn shares(&self, table: LevelTable, level: Level) -> LevelShares {
        let shares = self.levels.get(table.as_str()).and_then(|levels| levels.get(level.as_str()));
        shares.copied().unwrap_or(LevelShares { of_match: 1.0, of_other: 1.0, of_relative: None })
    }

    pub(super) fn set(&mut self, table: LevelTable, level: Level, shares: LevelShares) {
        let bounded = |share: f64| if share.is_finite() { rounded(share.clamp(1e-9, 1.0)) } else { 1.0 };
        let shares = LevelShares {
            of_match: bounded(shares.of_match),
            of_other: bounded(shares.of_other),
            of_relative: shares.of_relative.map(bounded),
        };
        self.levels.entry(table.as_str().to_owned()).or_default().insert(level.as_str().to_owned(), shares);
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::from(
            "# The model of the person index. docs/INDEX.md explains the levels.\n\
             # `match`: the share of pairs of one person that have the level; `other`: of pairs of different people.\n\
             # The weight in bits is the logarithm of base 2 of `match / other`; it stands beside each level.\n\n",
        );
        let WrittenGrades { certain, probable, possible } = self.grades;
        let _ =
            writeln!(text, "version = {}\n\n# Of all pairs of records, one in so many is of one person.", self.version);
        let _ = writeln!(text, "one_match_in = {:?}\n", self.one_match_in);
        let _ = writeln!(
            text,
            "# For each of those, so many pairs are of relatives; `relative` is how often they have a level."
        );
        let _ = writeln!(text, "relatives_per_match = {:?}\n", self.relatives_per_match);
        let _ = writeln!(text, "# The least probability of each grade.\n[grades]\ncertain = {certain:?}");
        let _ = writeln!(text, "probable = {probable:?}\npossible = {possible:?}");
        for table in LevelTable::ALL {
            let _ = writeln!(text, "\n[levels.{}]", table.as_str());
            for level in table.levels() {
                let LevelShares { of_match, of_other, of_relative } = self.shares(table, *level);
                let relative = of_relative.map(|share| format!(", relative = {share:?}")).unwrap_or_default();
                let bits = (of_match / of_other).log2();
                let name = level.as_str();
                let _ = writeln!(
                    text,
                    "{name} = {{ match = {of_match:?}, other = {of_other:?}{relative} }} # {bits:+.1} bits"
                );
            }
        }
        for (name, frequencies) in [("given", &self.frequencies.given), ("family", &self.frequencies.family)] {
            let _ = writeln!(
                text,
                "\n# The share of people who have the word in this name, and of each word that is not listed."
            );
            let _ =
                writeln!(text, "[frequencies.{name}]\nothers = {:?}\n[frequencies.{name}.words]", frequencies.others);
            for (word, share) in &frequencies.words {
                let _ = writeln!(text, "{} = {share:?}", toml::Value::from(word.as_str()));
            }
        }
        text
    }
}

fn within(key: &str, value: f64, range: std::ops::RangeInclusive<f64>, words: &'static str) -> Result<(), ModelError> {
    let fault = || ModelError::Range { key: key.to_owned(), value, range: words };
    range.contains(&value).then_some(()).ok_or_else(fault)
}

/// A share with six significant digits, so that files are short and the same everywhere.
fn rounded(share: f64) -> f64 {
    format!("{share:.5e}").parse().unwrap_or(share)
}
