//! Names, dates and numbers in the form in which they are compared.
//!
//! The one rule: folding loses spelling, never people. Accents, case, script and punctuation go; every word of a name
//! stays. Particles such as `de` or `al` stay too, and are kept apart. Input has bounds, so the cost is linear and small.
//! Called once for each record; keys, search and comparison take only the folded form.

mod date;
mod line;
mod name;
mod numbers;
mod sound;
mod variants;
mod word;

pub use date::BirthDate;
pub use line::{LINE_VERSION, MAX_LINE_BYTES};
pub use name::FoldedName;
pub(crate) use name::is_particle;
pub(crate) use numbers::code as folded_code;
pub use numbers::{FoldedGender, FoldedIdentifier};
pub use sound::Sound;
pub use word::{MAX_WORD_BYTES, NameWord, folded_words};

use crate::fields::Demographics;

/// The most words of a name that count, particles included. Words beyond are not compared.
pub const MAX_WORDS: usize = 8;

/// A person in the form in which people are compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldedPerson {
    /// Given names.
    pub given: FoldedName,
    /// Surnames.
    pub family: FoldedName,
    /// The date of birth, if it has at least a year.
    pub birth: Option<BirthDate>,
    /// The gender, if it is one of the known words.
    pub gender: Option<FoldedGender>,
    /// The city or suburb.
    pub city: FoldedName,
    /// The postal code: letters and digits.
    pub postal_code: Box<str>,
    /// Telephone numbers: their last digits.
    pub phones: Box<[Box<str>]>,
    /// Identifiers: letters and digits.
    pub identifiers: Box<[FoldedIdentifier]>,
}

impl FoldedPerson {
    /// Folds what was taken from a document.
    #[must_use]
    pub fn of(person: &Demographics) -> Self {
        let name = |text: &Option<String>| FoldedName::of(text.as_deref().unwrap_or_default());
        let mut phones: Vec<_> = person.phones.iter().filter_map(|phone| numbers::phone(phone)).collect();
        phones.sort_unstable();
        phones.dedup();
        let mut identifiers: Vec<_> = person.identifiers.iter().filter_map(FoldedIdentifier::of).collect();
        identifiers.sort_unstable();
        identifiers.dedup();
        Self {
            given: name(&person.given),
            family: name(&person.family),
            birth: person.birth_date.as_deref().and_then(BirthDate::parse),
            gender: person.gender.as_deref().and_then(FoldedGender::parse),
            city: name(&person.city),
            postal_code: numbers::code(person.postal_code.as_deref().unwrap_or_default()),
            phones: phones.into(),
            identifiers: identifiers.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Fields, MAX_VALUES};
    use serde_json::json;

    fn folded(document: &serde_json::Value) -> FoldedPerson {
        FoldedPerson::of(&Demographics::take(&Fields::default(), document))
    }

    #[test]
    fn a_person_is_the_same_in_any_spelling_of_the_values() {
        let plain = folded(&json!({
            "name": "ana maria", "lastname": "garcia lopez", "dob": "1985-10-04", "gender": "f",
            "address": {"suburb": "malaga", "postcode": "29001"}, "phone": "952123456",
            "identifiers": [{"system": "DNI", "value": "12345678z"}]
        }));
        let ornate = folded(&json!({
            "name": "  ANA-MARÍA", "lastname": ["García", "López"], "dob": "1985-10-04T00:00:00Z", "gender": "Female",
            "address": {"suburb": "Málaga", "postcode": " 29 001"}, "phone": ["+34 952 12-34-56", "(952) 123 456"],
            "identifiers": [{"system": "dni", "value": "12.345.678-Z"}]
        }));
        assert_eq!(plain, ornate);
        assert_eq!(plain.phones.len(), 1);
    }

    #[test]
    fn a_value_that_says_nothing_is_missing() {
        let nobody = folded(&json!({
            "name": "--", "lastname": "'", "dob": "unknown", "gender": "?", "phone": "12", "identifiers": ["-", "0000"]
        }));
        assert_eq!(nobody, FoldedPerson::default());
    }

    #[test]
    fn whatever_is_folded_has_a_bound() {
        let words: String = (0..500).map(|number| format!("x{number}ß ")).collect();
        let person = folded(&json!({"name": words, "lastname": "ß".repeat(5000)}));
        assert_eq!(person.given.all().count(), MAX_WORDS);
        assert!(person.family.all().all(|word| word.text().len() <= MAX_WORD_BYTES));
        let many: Vec<_> = (0..100).map(|number| format!("60000{number:05}")).collect();
        assert_eq!(folded(&json!({"phone": many})).phones.len(), MAX_VALUES);
    }
}
