//! The section `[index]`: where persons' records hold what the index compares.
//!
//! The one rule: the texts are passed on as they are written. The HIS reads them, since it alone knows the index.

use std::path::PathBuf;

use serde::Deserialize;

use super::check::ValueCheck;
use super::section::section;

/// The index of persons.
#[derive(Debug, Clone)]
pub struct IndexConfig {
    /// The file of the model; none: the one that is built in.
    pub model: Option<PathBuf>,
    /// The places of the compared fields.
    pub fields: IndexFields,
}

/// The places of the compared fields in a person's document, as JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFields {
    /// Given names.
    pub given: String,
    /// Surnames.
    pub family: String,
    /// The date of birth.
    pub birth_date: String,
    /// The gender.
    pub gender: String,
    /// The city or suburb.
    pub city: String,
    /// The postal code.
    pub postal_code: String,
    /// Telephone numbers.
    pub phone: String,
    /// Identifiers of other systems.
    pub identifiers: String,
}

section!(IndexSection { model: String = String::new(), fields: IndexFieldsSection = IndexFieldsSection::default() });

section!(IndexFieldsSection {
    given: String = "/name".into(),
    family: String = "/lastname".into(),
    birth_date: String = "/dob".into(),
    gender: String = "/gender".into(),
    city: String = "/address/suburb".into(),
    postal_code: String = "/address/postcode".into(),
    phone: String = "/phone".into(),
    identifiers: String = "/identifiers".into(),
});

#[cfg(test)]
impl IndexSection {
    pub(super) const FIELDS: &[&str] = IndexFieldsSection::KEYS;
}

impl IndexSection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> IndexConfig {
        let model = Some(self.model).filter(|file| !file.is_empty()).map(|file| check.path(file.into()));
        IndexConfig { model, fields: self.fields.into() }
    }
}

impl From<IndexFieldsSection> for IndexFields {
    fn from(written: IndexFieldsSection) -> Self {
        let IndexFieldsSection { given, family, birth_date, gender, city, postal_code, phone, identifiers } = written;
        Self { given, family, birth_date, gender, city, postal_code, phone, identifiers }
    }
}

impl Default for IndexConfig {
    /// The defaults of the section.
    fn default() -> Self {
        Self { model: None, fields: IndexFieldsSection::default().into() }
    }
}
