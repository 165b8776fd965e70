//! How far two records agree, field by field.
//!
//! The one rule: the order of the two makes no difference, and a missing value says nothing. A comparison is a pattern of
//! levels; what a level is worth is in the [model](crate::model). Compared are folded records only.

mod birth;
mod level;
mod name;

pub use level::{FieldName, Level, Pattern};

use rapidfuzz::distance::osa;

use crate::fold::{FoldedIdentifier, FoldedPerson};

/// Compares two records.
#[must_use]
pub fn compare(one: &FoldedPerson, other: &FoldedPerson) -> Pattern {
    let mut pattern = Pattern::default();
    let (given, family) = names(one, other);
    pattern.set(FieldName::Given, given);
    pattern.set(FieldName::Family, family);
    if let (Some(birth), Some(others)) = (one.birth, other.birth) {
        pattern.set(FieldName::BirthDate, birth::level(birth, others));
    }
    if let (Some(gender), Some(others)) = (one.gender, other.gender) {
        pattern.set(FieldName::Gender, if gender == others { Level::Same } else { Level::Different });
    }
    pattern.set(FieldName::City, name::level(&one.city, &other.city));
    pattern.set(FieldName::PostalCode, postal_code(&one.postal_code, &other.postal_code));
    pattern.set(FieldName::Phone, phones(&one.phones, &other.phones));
    pattern.set(FieldName::Identifiers, identifiers(&one.identifiers, &other.identifiers));
    pattern
}

/// The levels of given names and surnames. Where they agree crosswise only, the given names carry the whole agreement.
fn names(one: &FoldedPerson, other: &FoldedPerson) -> (Level, Level) {
    let straight = (name::level(&one.given, &other.given), name::level(&one.family, &other.family));
    let is_poor = |level| matches!(level, Level::Missing | Level::Far | Level::Initial | Level::Different);
    if !is_poor(straight.0) || !is_poor(straight.1) {
        return straight;
    }
    let crosswise = [name::level(&one.given, &other.family), name::level(&one.family, &other.given)];
    let is_same = |level: &Level| matches!(level, Level::Same | Level::Part);
    let is_good = |level: &Level| is_same(level) || matches!(level, Level::Sound | Level::Close);
    if crosswise.iter().all(is_same) {
        (Level::Swapped, Level::Missing)
    } else if crosswise.iter().all(is_good) {
        (Level::SwappedClose, Level::Missing)
    } else if crosswise.iter().any(is_good) {
        (Level::Crossed, Level::Missing)
    } else {
        straight
    }
}

fn postal_code(one: &str, other: &str) -> Level {
    const AREA: usize = 2;
    if one.is_empty() || other.is_empty() {
        Level::Missing
    } else if one == other {
        Level::Same
    } else if distance(one, other, 1).is_some() {
        Level::Close
    } else if one.get(..AREA).is_some_and(|area| other.get(..AREA) == Some(area)) {
        Level::Near
    } else {
        Level::Different
    }
}

fn phones(one: &[Box<str>], other: &[Box<str>]) -> Level {
    if one.is_empty() || other.is_empty() {
        Level::Missing
    } else if one.iter().any(|phone| other.iter().any(|known| same_end(phone, known))) {
        Level::Same
    } else if one.iter().any(|phone| other.iter().any(|known| distance(phone, known, 1).is_some())) {
        Level::Close
    } else {
        Level::Different
    }
}

/// A number may lack its area.
fn same_end(one: &str, other: &str) -> bool {
    one.ends_with(other) || other.ends_with(one)
}

/// Identifiers differ only if one system has given both records different numbers.
fn identifiers(one: &[FoldedIdentifier], other: &[FoldedIdentifier]) -> Level {
    let pairs = || one.iter().flat_map(|id| other.iter().map(move |known| (id, known)));
    let is_one_system = |id: &FoldedIdentifier, known: &FoldedIdentifier| id.system == known.system;
    let may_be_one = |id: &FoldedIdentifier, known: &FoldedIdentifier| {
        is_one_system(id, known) || id.system.is_empty() || known.system.is_empty()
    };
    if pairs().any(|(id, known)| id.value == known.value && may_be_one(id, known)) {
        Level::Same
    } else if pairs().any(|(id, known)| is_one_system(id, known) && distance(&id.value, &known.value, 1).is_some()) {
        Level::Close
    } else if pairs().any(|(id, known)| !id.system.is_empty() && is_one_system(id, known)) {
        Level::Different
    } else {
        Level::Missing
    }
}

/// How many signs are typed otherwise (inserted, left out, replaced, two exchanged), if they are at most `most`.
pub(crate) fn distance(one: &str, other: &str, most: usize) -> Option<usize> {
    if one.len().abs_diff(other.len()) > most {
        return None;
    }
    osa::distance_with_args(one.bytes(), other.bytes(), &osa::Args::default().score_cutoff(most))
}

#[cfg(test)]
mod tests;
