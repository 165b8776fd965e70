//! What each level of agreement is worth: the weights of Fellegi and Sunter (JASA 64, 1969), in bits.
//!
//! The one rule: a model is a file that people can read, and a checked value here. All weights are whole thousandths of a
//! bit, so that sums have one result in any order and on any machine.

mod written;

use std::collections::HashMap;

use thiserror::Error;

use crate::compare::{FieldName, Level, Pattern};
use crate::fold::{FoldedName, NameWord};
use written::WrittenModel;
pub use written::{LevelShares, NameFrequencies};

/// The version of the file.
pub const MODEL_VERSION: u32 = 1;
/// The file that the package ships.
pub const DEFAULT_MODEL: &str = include_str!("../model.toml");
/// The most that one figure adds or takes, in thousandths of a bit.
const MOST_MILLIBITS: f64 = 60_000.0;
/// Bounds of what a frequent or rare name takes or adds, in thousandths of a bit.
const LEAST_RARITY: Millibits = -6_000;
const MOST_RARITY: Millibits = 6_000;

/// What each level of each table is worth.
type Weights = [[Millibits; Level::COUNT]; LevelTable::ALL.len()];

/// Evidence in thousandths of a bit.
pub type Millibits = i32;

/// A table of levels: one for each field, and one for cities within one postal code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LevelTable {
    /// The table of a field.
    Of(FieldName),
    /// Cities of records whose postal codes are the same.
    CityOfCode,
}

impl LevelTable {
    /// All tables, in their order in the file.
    pub const ALL: [Self; 9] = [
        Self::Of(FieldName::Given),
        Self::Of(FieldName::Family),
        Self::Of(FieldName::BirthDate),
        Self::Of(FieldName::Gender),
        Self::Of(FieldName::PostalCode),
        Self::Of(FieldName::City),
        Self::CityOfCode,
        Self::Of(FieldName::Phone),
        Self::Of(FieldName::Identifiers),
    ];

    /// The table that says what the level of a field in a pattern is worth.
    #[must_use]
    pub fn of(field: FieldName, pattern: &Pattern) -> Self {
        let is_one_code = pattern.level(FieldName::PostalCode) == Level::Same;
        if field == FieldName::City && is_one_code { Self::CityOfCode } else { Self::Of(field) }
    }

    /// The name of the table in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Of(field) => field.as_str(),
            Self::CityOfCode => "city_of_code",
        }
    }

    /// The levels of the table.
    #[must_use]
    pub const fn levels(self) -> &'static [Level] {
        match self {
            Self::Of(field) => field.levels(),
            Self::CityOfCode => FieldName::City.levels(),
        }
    }

    pub(crate) const fn place(self) -> usize {
        match self {
            Self::Of(field) => field as usize,
            Self::CityOfCode => FieldName::ALL.len(),
        }
    }
}

/// A checked model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    written: WrittenModel,
    prior: Millibits,
    grades: [Millibits; 3],
    weights: Weights,
    relatives: Option<Millibits>,
    weights_of_relatives: Weights,
    rarities: [Rarities; 2],
}

/// How often the words of a name occur, as logarithms.
#[derive(Debug, Clone, PartialEq, Default)]
struct Rarities {
    words: HashMap<Box<str>, Millibits>,
    others: Millibits,
    /// That two people share a word: the sum of the squares of the shares.
    chance: Millibits,
}

/// Why a text is no model.
#[derive(Debug, Error)]
pub enum ModelError {
    /// Not TOML, or unknown or missing keys
    #[error("the model cannot be read: {0}")]
    Form(#[from] toml::de::Error),
    /// Of another version
    #[error("the model has version {0}, and this program reads version {MODEL_VERSION}")]
    Version(u32),
    /// A number out of its range
    #[error("`{key}` of the model is {value}, and must be {range}")]
    Range {
        /// The key in the file.
        key: String,
        /// Its value.
        value: f64,
        /// What it must be.
        range: &'static str,
    },
    /// A level is missing, or belongs to no field
    #[error("the model has no level `{0}`, which it must have")]
    MissingLevel(String),
    /// A level that the field does not have
    #[error("the model has a level `{0}`, which does not exist")]
    UnknownLevel(String),
}

impl Default for Model {
    fn default() -> Self {
        // A test reads the shipped file, so that the second arm is never reached.
        Self::parse(DEFAULT_MODEL).unwrap_or_else(|_| Self::of_nothing())
    }
}

impl Model {
    /// Reads the file of a model.
    ///
    /// # Errors
    ///
    /// If the text is no model: the error names the key.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let written: WrittenModel = toml::from_str(text)?;
        written.check()?;
        Ok(Self::of(written))
    }

    /// The model as a file.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.written.to_text()
    }

    fn of(written: WrittenModel) -> Self {
        let weights = |ratio: fn(LevelShares) -> f64| {
            let mut weights: Weights = [[0; Level::COUNT]; LevelTable::ALL.len()];
            for table in LevelTable::ALL {
                for level in table.levels() {
                    let place = weights.get_mut(table.place()).and_then(|row| row.get_mut(*level as usize));
                    if let Some(place) = place {
                        *place = millibits(ratio(written.shares(table, *level)));
                    }
                }
            }
            weights
        };
        let relatives = written.relatives_per_match / (written.one_match_in - 1.0);
        let [given, family] = [&written.frequencies.given, &written.frequencies.family].map(Rarities::of);
        let odds = |probability: f64| millibits(probability / (1.0 - probability));
        Self {
            prior: millibits(1.0 / (written.one_match_in - 1.0)),
            grades: [written.grades.certain, written.grades.probable, written.grades.possible].map(odds),
            weights: weights(|shares| shares.of_match / shares.of_other),
            relatives: (relatives > 0.0).then(|| millibits(relatives)),
            weights_of_relatives: weights(|shares| shares.of_relative.unwrap_or(shares.of_other) / shares.of_other),
            rarities: [given, family],
            written,
        }
    }

    fn of_nothing() -> Self {
        Self::of(WrittenModel::default())
    }

    /// The evidence of a pair before it is compared.
    #[must_use]
    pub fn prior(&self) -> Millibits {
        self.prior
    }

    /// The evidence that each grade needs: certain, probable, possible.
    #[must_use]
    pub fn grades(&self) -> [Millibits; 3] {
        self.grades
    }

    /// What the level of a field is worth.
    #[must_use]
    pub fn weight(&self, table: LevelTable, level: Level) -> Millibits {
        self.weights.get(table.place()).and_then(|row| row.get(level as usize)).copied().unwrap_or(0)
    }

    /// The evidence that a pair is of relatives, before it is compared. Nothing if the model has no relatives.
    #[must_use]
    pub fn prior_of_relatives(&self) -> Option<Millibits> {
        self.relatives
    }

    /// What the level of a field is worth as evidence that a pair is of relatives, and not of strangers.
    #[must_use]
    pub fn weight_of_relatives(&self, table: LevelTable, level: Level) -> Millibits {
        self.weights_of_relatives.get(table.place()).and_then(|row| row.get(level as usize)).copied().unwrap_or(0)
    }

    /// What agreement on all words of a name adds to the weight of [`Level::Same`], because they are rare or frequent.
    ///
    /// The level's share among different people is the mean over all names. The product of the shares of these words
    /// takes its place.
    #[must_use]
    pub fn rarity_of_name(&self, field: FieldName, name: &FoldedName) -> Millibits {
        let Some(rarities) = self.rarities.get(field as usize) else { return 0 };
        let mean = millibits(self.written.shares(LevelTable::Of(field), Level::Same).of_other);
        let product: Millibits = name.words().iter().map(|word| rarities.share(word)).sum();
        mean.saturating_sub(product).clamp(LEAST_RARITY, MOST_RARITY)
    }

    /// What agreement on some words of a name adds to the weight of other levels: that of its rarest word.
    #[must_use]
    pub fn rarity_of_words(&self, field: FieldName, name: &FoldedName) -> Millibits {
        let Some(rarities) = self.rarities.get(field as usize) else { return 0 };
        let rarest = name.words().iter().map(|word| rarities.share(word)).min().unwrap_or(rarities.chance);
        rarities.chance.saturating_sub(rarest).clamp(LEAST_RARITY, MOST_RARITY)
    }

    /// The shares of a level, as in the file.
    #[must_use]
    pub fn shares(&self, table: LevelTable, level: Level) -> LevelShares {
        self.written.shares(table, level)
    }

    /// Of how many pairs one is of one person.
    #[must_use]
    pub fn one_match_in(&self) -> f64 {
        self.written.one_match_in
    }

    /// How many pairs of relatives there are for each pair of one person.
    #[must_use]
    pub fn relatives_per_match(&self) -> f64 {
        self.written.relatives_per_match
    }

    /// This model with other figures. Figures out of range are moved to the nearest end of it.
    #[must_use]
    pub(crate) fn with(
        &self,
        one_match_in: f64,
        relatives_per_match: f64,
        shares: impl Fn(LevelTable, Level) -> LevelShares,
        frequencies: Option<[NameFrequencies; 2]>,
    ) -> Self {
        let mut written = self.written.clone();
        written.one_match_in = if one_match_in.is_finite() { one_match_in.clamp(2.0, 1e15) } else { 1e15 };
        let is_number = relatives_per_match.is_finite();
        written.relatives_per_match = if is_number { relatives_per_match.clamp(0.0, 1e6) } else { 0.0 };
        for table in LevelTable::ALL {
            for level in table.levels() {
                written.set(table, *level, shares(table, *level));
            }
        }
        if let Some([given, family]) = frequencies {
            written.frequencies.given = given;
            written.frequencies.family = family;
        }
        Self::of(written)
    }
}

impl Rarities {
    fn of(frequencies: &NameFrequencies) -> Self {
        let listed: f64 = frequencies.words.values().sum();
        let of_listed: f64 = frequencies.words.values().map(|share| share * share).sum();
        let chance = of_listed + (1.0 - listed).max(0.0) * frequencies.others;
        let words = frequencies.words.iter().map(|(word, share)| (word.as_str().into(), millibits(*share))).collect();
        Self { words, others: millibits(frequencies.others), chance: millibits(chance) }
    }

    fn share(&self, word: &NameWord) -> Millibits {
        self.words.get(word.standard()).copied().unwrap_or(self.others)
    }
}

/// The logarithm of a ratio, within bounds. No ratio of a checked model is zero, infinite or no number.
fn millibits(ratio: f64) -> Millibits {
    let bits = ratio.log2() * 1000.0;
    if bits.is_nan() { 0 } else { bits.clamp(-MOST_MILLIBITS, MOST_MILLIBITS).round() as Millibits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_model_is_read_and_written_without_a_change() {
        let model = Model::parse(DEFAULT_MODEL).unwrap();
        assert_eq!(Model::parse(&model.to_text()).unwrap(), model);
        assert_eq!(Model::default(), model);
        assert!(model.prior() < -20_000, "one in two million");
    }

    #[test]
    fn agreement_speaks_for_one_person_and_difference_against_it() {
        let model = Model::default();
        for table in LevelTable::ALL {
            assert!(model.weight(table, Level::Same) > 0, "{table:?}");
            assert!(model.weight(table, Level::Different) < 0, "{table:?}");
            assert_eq!(model.weight(table, Level::Missing), 0, "{table:?}");
        }
        let birth = LevelTable::Of(FieldName::BirthDate);
        assert!(model.weight(birth, Level::Year) < model.weight(birth, Level::Same) / 5, "an estimate weighs less");
    }

    #[test]
    fn a_frequent_name_says_less_than_a_rare_one() {
        let model = Model::default();
        let rarity = |field, name: &str| {
            let name = FoldedName::of(name);
            (model.rarity_of_name(field, &name), model.rarity_of_words(field, &name))
        };
        let (garcia, rare) = (rarity(FieldName::Family, "García"), rarity(FieldName::Family, "Zubizarreta"));
        assert!(garcia.0 < 0 && garcia.1 < 0 && rare.0 > 0 && rare.1 > 0, "{garcia:?} {rare:?}");
        assert!(rarity(FieldName::Family, "García López").0 > garcia.0, "two frequent words are rarer than one");
        assert_eq!(rarity(FieldName::City, "García"), (0, 0));
    }

    #[test]
    fn a_file_with_a_fault_is_refused_and_the_key_is_named() {
        for (from, to, part) in [
            ("version = 1", "version = 2", "version 2"),
            ("one_match_in = 2_000_000", "one_match_in = 1", "`one_match_in`"),
            ("relatives_per_match = 3.0", "relatives_per_match = -1.0", "`relatives_per_match`"),
            ("certain = 0.9999", "certain = 1.5", "`grades.certain`"),
            ("probable = 0.9", "probable = 0.001", "`grades.possible`"),
            ("match = 0.990, other = 0.5", "match = 0.990, other = 0.0", "`levels.gender.same.other`"),
            ("match = 0.990, other = 0.5", "match = nan, other = 0.5", "`levels.gender.same.match`"),
            ("close     = { match = 0.050, other = 0.010, relative = 0.01 }", "", "`postal_code.close`"),
            ("[levels.gender]", "[levels.gender]\nnear = { match = 0.1, other = 0.1 }", "`gender.near`"),
            ("[levels.gender]", "[levels.sex]", "sex"),
            ("garcia = 0.031", "garcia = inf", "`frequencies.family.words.garcia`"),
        ] {
            assert!(DEFAULT_MODEL.contains(from), "{from}");
            let error = Model::parse(&DEFAULT_MODEL.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(part), "{to}: {error}");
        }
    }
}
