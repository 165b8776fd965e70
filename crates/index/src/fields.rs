//! Where a person's document holds what the index compares, and what is taken from it.
//!
//! The one rule: a value is taken as it is or not at all. Nothing is guessed, and every value has a bound, so that the
//! cost of all later steps has one too. Called by the stores of the HIS and by the mapping to FHIR. Knows nothing of
//! names or matching.

mod pointer;
mod read;
mod take;

use serde::{Deserialize, Serialize};

pub use pointer::{FieldPointer, PointerError};
pub use take::{Demographics, Identifier, MAX_VALUE_BYTES, MAX_VALUES};

/// The places of the compared fields in a person's document. It is the table `[index.fields]` of the configuration.
///
/// ```
/// use fedgate_index::fields::{Demographics, Fields};
///
/// let fields = Fields::default();
/// let document = serde_json::json!({"name": "Ana", "lastname": "Betz", "address": {"suburb": "Las Palmas"}});
/// let ana = Demographics::take(&fields, &document);
/// assert_eq!(ana.family.as_deref(), Some("Betz"));
/// assert_eq!(ana.city.as_deref(), Some("Las Palmas"));
/// assert_eq!(ana.birth_date, None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// Given names: a text, or a list of texts.
    pub given: FieldPointer,
    /// Surnames: a text, or a list of texts.
    pub family: FieldPointer,
    /// The date of birth: `YYYY-MM-DD`, `YYYY-MM` or `YYYY`.
    pub birth_date: FieldPointer,
    /// The gender, as a letter or a word.
    pub gender: FieldPointer,
    /// The city or suburb of the address.
    pub city: FieldPointer,
    /// The postal code of the address.
    pub postal_code: FieldPointer,
    /// Telephone numbers: a text, a list of texts, or a list of objects with a `value`.
    pub phone: FieldPointer,
    /// Identifiers of other systems: texts, or objects with a `value` and perhaps a `system`.
    pub identifiers: FieldPointer,
}

impl Default for Fields {
    fn default() -> Self {
        let at = FieldPointer::of_members;
        Self {
            given: at(&["name"]),
            family: at(&["lastname"]),
            birth_date: at(&["dob"]),
            gender: at(&["gender"]),
            city: at(&["address", "suburb"]),
            postal_code: at(&["address", "postcode"]),
            phone: at(&["phone"]),
            identifiers: at(&["identifiers"]),
        }
    }
}

impl Fields {
    /// Whether a place is in this member of a document.
    #[must_use]
    pub fn have_member(&self, name: &str) -> bool {
        self.pointers().iter().any(|place| place.names().next() == Some(name))
    }

    /// All places, in the order of the table.
    pub(crate) fn pointers(&self) -> [&FieldPointer; 8] {
        let Self { given, family, birth_date, gender, city, postal_code, phone, identifiers } = self;
        [given, family, birth_date, gender, city, postal_code, phone, identifiers]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(fields: &Fields) -> [String; 8] {
        fields.pointers().map(ToString::to_string)
    }

    #[test]
    fn an_empty_table_has_the_documented_places() {
        let fields: Fields = toml::from_str("").unwrap();
        assert_eq!(
            places(&fields),
            ["/name", "/lastname", "/dob", "/gender", "/address/suburb", "/address/postcode", "/phone", "/identifiers"]
        );
        assert_eq!(fields, Fields::default());
    }

    #[test]
    fn a_table_changes_the_places_that_it_names_and_no_others() {
        let fields: Fields = toml::from_str("family = '/names/0/family'\ncity = '/a~1b/~0c'").unwrap();
        assert_eq!(fields.family.to_string(), "/names/0/family");
        assert_eq!(fields.city.to_string(), "/a~1b/~0c");
        assert_eq!(fields.given, Fields::default().given);
        let written = toml::to_string(&fields).unwrap();
        assert_eq!(toml::from_str::<Fields>(&written).unwrap(), fields);
    }

    #[test]
    fn a_table_with_a_fault_is_refused() {
        for (table, part) in [
            ("surname = '/x'", "unknown field `surname`"),
            ("family = 'lastname'", "begins with `/`"),
            ("family = ''", "begins with `/`"),
            ("family = '/a~2'", "`~0` or `~1`"),
            ("family = '/a/b/c/d/e/f/g/h/i'", "deep"),
        ] {
            let error = toml::from_str::<Fields>(table).unwrap_err().to_string();
            assert!(error.contains(part), "{table}: {error}");
        }
    }
}
