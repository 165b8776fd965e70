//! Stores many records at a time, for the import.

use fedgate_core::json::{self, JsonObject, JsonValue};

/// Records to store in one transaction.
#[derive(Debug, Clone)]
pub enum WriteBatch {
    /// Persons: id and document.
    People(Vec<(String, JsonObject)>),
    /// Pages: book, id and document.
    Pages(Vec<(String, String, JsonObject)>),
}

/// The result of one record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// The record was stored.
    Created,
    /// The record already existed in exactly this form.
    Unchanged,
    /// The id belongs to another record.
    Taken,
    /// A person exists whose id differs only in case.
    Twin,
    /// The page's person does not exist.
    NoPerson,
}

/// Compares a stored record with one that has the same id.
///
/// Passwords are ignored: the stored one may have been changed or rehashed since the file was written.
pub(super) fn compare(existing: &str, record: &JsonObject) -> BatchOutcome {
    match json::parse_stored(existing) {
        Ok(JsonValue::Object(existing)) if existing.same_besides(record, &["password"]) => BatchOutcome::Unchanged,
        _ => BatchOutcome::Taken,
    }
}
