//! Whether two records are of one person: probability, grade and reasons.
//!
//! The one rule: the same records and the same model give the same answer, in either order and on any machine.

use crate::compare::{FieldName, Level, Pattern, compare};
use crate::fold::FoldedPerson;
use crate::model::{LevelTable, Millibits, Model};

/// What is to be done with a pair. The names are those of FHIR's `match-grade`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Different people.
    CertainlyNot,
    /// Perhaps one person: to be looked at.
    Possible,
    /// Very likely one person: to be looked at.
    Probable,
    /// One person.
    Certain,
}

impl Grade {
    /// The code of FHIR.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CertainlyNot => "certainly-not",
            Self::Possible => "possible",
            Self::Probable => "probable",
            Self::Certain => "certain",
        }
    }
}

/// What one field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// The field.
    pub field: FieldName,
    /// How far the two agree.
    pub level: Level,
    /// The evidence for one person, in thousandths of a bit; below zero it is against.
    pub weight: Millibits,
}

/// The judgement of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assessment {
    /// The probability that both records are of one person.
    pub score: f64,
    /// The sum of all evidence, in thousandths of a bit: the logarithm of the odds.
    pub evidence: Millibits,
    /// What is to be done.
    pub grade: Grade,
    /// What each field says, in the order of [`FieldName::ALL`]. Missing fields are there, without weight.
    pub reasons: [Reason; FieldName::ALL.len()],
    /// What is taken from the evidence because the two may be relatives, in thousandths of a bit; at most zero.
    pub relatives: Millibits,
}

/// Judges two records.
///
/// ```
/// use fedgate_index::{assess::{Grade, assess}, fields::Demographics, fold::FoldedPerson, model::Model};
///
/// let person = |given: &str, birth: &str| FoldedPerson::of(&Demographics {
///     given: Some(given.into()), family: Some("Zubizarreta".into()), birth_date: Some(birth.into()),
///     postal_code: Some("29001".into()), ..Default::default()
/// });
/// let model = Model::default();
/// let ana = person("Ana", "1985-10-04");
/// assert_eq!(assess(&model, &ana, &person("Ana", "1985-10-04")).grade, Grade::Certain);
/// assert!(assess(&model, &ana, &person("Pedro", "1985-10-04")).grade < Grade::Certain);
/// assert_eq!(assess(&model, &ana, &person("Pedro", "1951-03-17")).grade, Grade::CertainlyNot);
/// ```
#[must_use]
pub fn assess(model: &Model, one: &FoldedPerson, other: &FoldedPerson) -> Assessment {
    let pattern = compare(one, other);
    let mut evidence = model.prior();
    let mut of_relatives = model.prior_of_relatives().filter(|_| pattern.may_be_of_relatives());
    let reasons = FieldName::ALL.map(|field| {
        let level = pattern.level(field);
        let table = LevelTable::of(field, &pattern);
        let rarity = rarity(model, field, level, one, other);
        let weight = model.weight(table, level) + rarity;
        evidence += weight;
        of_relatives = of_relatives.map(|sum| sum + model.weight_of_relatives(table, level) + rarity);
        Reason { field, level, weight }
    });
    // A pair that is not of one person is of strangers or of relatives.
    let relatives = of_relatives.map_or(0, |sum| -more_than_strangers(sum));
    evidence += relatives;
    let odds = f64::exp2(f64::from(evidence) / 1000.0);
    Assessment { score: odds / (1.0 + odds), evidence, grade: grade(model, evidence, &pattern), reasons, relatives }
}

/// How much likelier a pair is among strangers and relatives together than among strangers alone.
fn more_than_strangers(of_relatives: Millibits) -> Millibits {
    let bits = f64::from(of_relatives) / 1000.0;
    if bits > 40.0 {
        of_relatives
    } else {
        (f64::exp2(bits).ln_1p() * std::f64::consts::LOG2_E * 1000.0).round() as Millibits
    }
}

fn grade(model: &Model, evidence: Millibits, pattern: &Pattern) -> Grade {
    let [certain, probable, possible] = model.grades();
    if evidence >= certain && may_be_certain(pattern) {
        Grade::Certain
    } else if evidence >= probable {
        Grade::Probable
    } else if evidence >= possible {
        Grade::Possible
    } else {
        Grade::CertainlyNot
    }
}

/// Relatives agree in all but one field: twins in the given name, a father and a son in the date of birth. So a certain
/// pair has no difference in any field that tells relatives apart, and at most one error among names and birth date.
fn may_be_certain(pattern: &Pattern) -> bool {
    let level = |field| pattern.level(field);
    let names = [level(FieldName::Given), level(FieldName::Family)];
    let birth = level(FieldName::BirthDate);
    let is_swapped = matches!(names[0], Level::Swapped);
    let is_whole = |level: &Level| matches!(level, Level::Same | Level::Part | Level::Sound);
    let is_near = |level: &Level| matches!(level, Level::Close | Level::Near);
    let is_same_identifier = level(FieldName::Identifiers) == Level::Same;
    let errors = names.iter().filter(|level| is_near(level)).count()
        + usize::from(matches!(birth, Level::Close | Level::Swapped | Level::Month));
    let names_agree = is_swapped || names.iter().all(|level| is_whole(level) || is_near(level));
    let birth_agrees = matches!(birth, Level::Same | Level::Close | Level::Swapped | Level::Month)
        || (is_same_identifier && matches!(birth, Level::Year | Level::Missing));
    let is_contradicted = [FieldName::Gender, FieldName::Identifiers].map(level).contains(&Level::Different);
    names_agree && birth_agrees && errors <= 1 && !is_contradicted
}

/// What the words that agree add, because they are rare or frequent.
fn rarity(model: &Model, field: FieldName, level: Level, one: &FoldedPerson, other: &FoldedPerson) -> Millibits {
    let (name, known) = match field {
        FieldName::Given => (&one.given, &other.given),
        FieldName::Family => (&one.family, &other.family),
        _ => return 0,
    };
    match level {
        Level::Same => model.rarity_of_name(field, name).max(model.rarity_of_name(field, known)),
        // The words of the shorter name are the shared ones.
        Level::Part if name.words().len() < known.words().len() => model.rarity_of_words(field, name),
        Level::Part => model.rarity_of_words(field, known),
        // The chance to be one error away from a name is that of the more frequent name.
        Level::Sound | Level::Close => model.rarity_of_words(field, name).min(model.rarity_of_words(field, known)),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
