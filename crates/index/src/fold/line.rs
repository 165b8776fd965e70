//! A folded person as one line of text, so that a store need not read documents to compare people.
//!
//! The one rule: a line gives back exactly the person that it was made of. Another form of it needs another
//! [`LINE_VERSION`], and stores make their lines anew.

use super::word::NameWord;
use super::{BirthDate, FoldedGender, FoldedIdentifier, FoldedName, FoldedPerson};

/// The version of the lines. It changes with any change of their form, and of how values are folded.
pub const LINE_VERSION: u32 = 1;
/// The longest line. A person whose line would be longer has none.
pub const MAX_LINE_BYTES: usize = 1024;

/// Between fields, between the values of a field, and between the parts of a value. None of them is part of a value.
const FIELD: char = '\t';
const VALUE: char = ' ';
const PART: char = '\n';

impl FoldedPerson {
    /// The line of this person; none if it would be too long.
    ///
    /// ```
    /// use fedgate_index::{fields::Demographics, fold::FoldedPerson};
    ///
    /// let ana = Demographics { given: Some("Ana".into()), birth_date: Some("1985-10-04".into()), ..Default::default() };
    /// let ana = FoldedPerson::of(&ana);
    /// assert_eq!(FoldedPerson::of_line(&ana.line().unwrap()), Some(ana));
    /// ```
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let Self { given, family, birth, gender, city, postal_code, phones, identifiers } = self;
        let name = |name: &FoldedName| joined(name.all().map(NameWord::text));
        let gender = match gender {
            None => "",
            Some(FoldedGender::Female) => "f",
            Some(FoldedGender::Male) => "m",
            Some(FoldedGender::Other) => "o",
        };
        // A system may have blanks in it, so identifiers stand at the end, and each begins with its sign.
        let identifiers = identifiers.iter().map(|known| format!("{PART}{}{PART}{}", known.value, known.system));
        let fields = [
            name(given),
            name(family),
            birth.map(|birth| birth.number().to_string()).unwrap_or_default(),
            gender.to_owned(),
            name(city),
            postal_code.to_string(),
            joined(phones.iter().map(AsRef::as_ref)),
            identifiers.collect(),
        ];
        let line = fields.join(&FIELD.to_string());
        (line.len() <= MAX_LINE_BYTES).then_some(line)
    }

    /// The person of a line; none if it is none.
    #[must_use]
    pub fn of_line(line: &str) -> Option<Self> {
        let mut fields = line.splitn(8, FIELD);
        let name = |field: &str| FoldedName::of_letters(field.split(VALUE).filter(|word| !word.is_empty()));
        let person = Self {
            given: name(fields.next()?),
            family: name(fields.next()?),
            birth: match fields.next()? {
                "" => None,
                number => Some(BirthDate::of_number(number.parse().ok()?)?),
            },
            gender: match fields.next()? {
                "" => None,
                "f" => Some(FoldedGender::Female),
                "m" => Some(FoldedGender::Male),
                "o" => Some(FoldedGender::Other),
                _ => return None,
            },
            city: name(fields.next()?),
            postal_code: fields.next()?.into(),
            phones: fields.next()?.split(VALUE).filter(|phone| !phone.is_empty()).map(Into::into).collect(),
            identifiers: identifiers(fields.next()?)?,
        };
        Some(person)
    }
}

fn joined<'a>(values: impl Iterator<Item = &'a str>) -> String {
    values.collect::<Vec<_>>().join(&VALUE.to_string())
}

fn identifiers(field: &str) -> Option<Box<[FoldedIdentifier]>> {
    let Some(field) = field.strip_prefix(PART) else { return field.is_empty().then(Box::default) };
    let mut parts = field.split(PART);
    let mut identifiers = Vec::new();
    while let Some(value) = parts.next() {
        identifiers.push(FoldedIdentifier { value: value.into(), system: parts.next()?.into() });
    }
    Some(identifiers.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Demographics, Fields};
    use serde_json::json;

    fn folded(document: &serde_json::Value) -> FoldedPerson {
        FoldedPerson::of(&Demographics::take(&Fields::default(), document))
    }

    #[test]
    fn a_line_gives_back_its_person() {
        for document in [
            json!({}),
            json!({"name": "Ana María", "lastname": "de la Cruz y García", "dob": "1985-10-04", "gender": "f",
                "address": {"suburb": "Las Palmas", "postcode": "35001"}, "phone": ["928123456", "600111222"],
                "identifiers": ["X1234567", {"system": "a b\tc\nd", "value": "12345678Z"}]}),
            json!({"name": "Van", "lastname": "De La", "dob": "1985", "gender": "otro"}),
            json!({"name": "Mohamed", "lastname": "محمد Al-Hassan", "dob": "1985-13-45", "gender": "m"}),
            json!({"dob": "1985-10", "address": {"suburb": "el", "postcode": "SW1A 1AA"}, "identifiers": ["ABCD1", "ABCD2"]}),
        ] {
            let person = folded(&document);
            let line = person.line().unwrap();
            assert_eq!(FoldedPerson::of_line(&line), Some(person), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_line_gives_nobody_and_a_long_one_is_not_made() {
        for text in ["", "ana", "a\tb\tx\t\t\t\t\t", "a\tb\t\tz\t\t\t\t", "a\tb\t\t\t\t\t\tx", "a\tb\t\t\t\t\t\t\nx"] {
            assert_eq!(FoldedPerson::of_line(text), None, "{text:?}");
        }
        let long: Vec<_> =
            (0..8).map(|number| json!({"system": "s".repeat(200), "value": format!("1234{number}")})).collect();
        assert_eq!(folded(&json!({"identifiers": long})).line(), None);
    }
}
