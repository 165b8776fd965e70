//! What is taken from a document: the texts that are compared, bounded, and otherwise as they were.

use serde_json::Value;

use super::{FieldPointer, Fields};

/// The most bytes of one value that count. A longer value is cut at a character.
pub const MAX_VALUE_BYTES: usize = 256;
/// The most telephone numbers and the most identifiers that count, and the most parts of a name.
pub const MAX_VALUES: usize = 16;

/// A person as the index compares people. A missing value says nothing.
///
/// Nothing here is folded: names are as people write them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demographics {
    /// Given names, separated by spaces.
    pub given: Option<String>,
    /// Surnames, separated by spaces.
    pub family: Option<String>,
    /// The date of birth: `YYYY-MM-DD`, `YYYY-MM` or `YYYY`.
    pub birth_date: Option<String>,
    /// The gender, as a letter or a word.
    pub gender: Option<String>,
    /// The city or suburb of the address.
    pub city: Option<String>,
    /// The postal code of the address.
    pub postal_code: Option<String>,
    /// Telephone numbers.
    pub phones: Vec<String>,
    /// Identifiers of other systems.
    pub identifiers: Vec<Identifier>,
}

/// A number that some system has given a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier {
    /// The system that gives the numbers, if it is known.
    pub system: Option<String>,
    /// The number.
    pub value: String,
}

impl Demographics {
    /// Takes what the places of `fields` hold. Values of other types count as missing.
    #[must_use]
    pub fn take(fields: &Fields, document: &Value) -> Self {
        let one = |at: &FieldPointer| at.find(document).and_then(joined);
        let many = |at: &FieldPointer| at.find(document).map(listed).unwrap_or_default();
        Self {
            given: one(&fields.given),
            family: one(&fields.family),
            birth_date: one(&fields.birth_date),
            gender: one(&fields.gender),
            city: one(&fields.city),
            postal_code: one(&fields.postal_code),
            phones: many(&fields.phone).into_iter().map(|phone| phone.value).collect(),
            identifiers: many(&fields.identifiers),
        }
    }

    /// Whether nothing was taken that could tell one person from another.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { gender: self.gender.clone(), ..Self::default() }
    }
}

/// A text or a whole number, trimmed and bounded.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => bounded(text),
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

fn bounded(text: &str) -> Option<String> {
    let text = text.trim();
    let cut = text.get(..text.floor_char_boundary(MAX_VALUE_BYTES))?.trim_end();
    (!cut.is_empty()).then(|| cut.to_owned())
}

/// A text, or the texts of a list with spaces between them.
fn joined(value: &Value) -> Option<String> {
    let Value::Array(parts) = value else { return text(value) };
    let parts: Vec<String> = parts.iter().take(MAX_VALUES).filter_map(text).collect();
    bounded(&parts.join(" "))
}

/// One value or a list of values, each a text or an object with a `value`.
fn listed(value: &Value) -> Vec<Identifier> {
    match value {
        Value::Array(elements) => elements.iter().take(MAX_VALUES).filter_map(identifier).collect(),
        one => identifier(one).into_iter().collect(),
    }
}

fn identifier(value: &Value) -> Option<Identifier> {
    match value {
        Value::Object(members) => {
            let system = members.get("system").or_else(|| members.get("type")).and_then(text);
            Some(Identifier { system, value: members.get("value").and_then(text)? })
        }
        plain => Some(Identifier { system: None, value: text(plain)? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn taken(document: &Value) -> Demographics {
        Demographics::take(&Fields::default(), document)
    }

    #[test]
    fn texts_numbers_and_lists_are_taken_and_other_types_are_missing() {
        let ana = taken(&json!({
            "name": ["Ana", "María", 7, null], "lastname": " Betz ", "dob": 1985, "gender": {"code": "f"},
            "address": {"suburb": "", "postcode": 35001}, "phone": ["+34 928", {"value": "600"}, true],
            "identifiers": [{"system": "urn:x", "value": "A1"}, {"type": "dni", "value": 7}, "B2", {"system": "y"}]
        }));
        assert_eq!(ana.given.as_deref(), Some("Ana María 7"));
        assert_eq!(ana.family.as_deref(), Some("Betz"));
        assert_eq!(ana.birth_date.as_deref(), Some("1985"));
        assert_eq!((ana.gender, ana.city), (None, None));
        assert_eq!(ana.postal_code.as_deref(), Some("35001"));
        assert_eq!(ana.phones, ["+34 928", "600"]);
        let identifiers: Vec<_> =
            ana.identifiers.iter().map(|known| (known.system.as_deref(), known.value.as_str())).collect();
        assert_eq!(identifiers, [(Some("urn:x"), "A1"), (Some("dni"), "7"), (None, "B2")]);
    }

    #[test]
    fn what_a_client_controls_has_a_bound() {
        let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        let person = taken(&json!({"name": "é".repeat(1000), "lastname": many, "phone": many, "identifiers": many}));
        assert_eq!(person.given.unwrap().len(), MAX_VALUE_BYTES);
        assert_eq!(person.family.unwrap().split(' ').count(), MAX_VALUES);
        assert_eq!((person.phones.len(), person.identifiers.len()), (MAX_VALUES, MAX_VALUES));
    }

    #[test]
    fn a_document_without_any_of_the_fields_is_empty() {
        for document in [json!({}), json!([]), json!(null), json!("Ana"), json!({"gender": "f", "name": " "})] {
            assert!(taken(&document).is_empty(), "{document}");
        }
        assert!(!taken(&json!({"dob": "1985"})).is_empty());
    }
}
