//! Many records at once, for the import.

use fedgate_core::json::{self, JsonObject, JsonValue};

/// Records to be stored in one transaction.
#[derive(Debug, Clone)]
pub enum WriteBatch {
    /// Persons: id and document.
    People(Vec<(String, JsonObject)>),
    /// Pages: book, id and document.
    Pages(Vec<(String, String, JsonObject)>),
}

/// How one record of a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// It is stored.
    Created,
    /// It was there already, exactly so.
    Unchanged,
    /// The id is taken by another record.
    Taken,
    /// A person's id differs from it in case alone.
    Twin,
    /// The person of the page is not there.
    NoPerson,
}

/// What a record that was there before means for one that should be stored in its place.
///
/// A password is left aside: the one that is stored may have been changed or hashed anew since.
pub(super) fn compare(existing: &str, record: &JsonObject) -> BatchOutcome {
    match json::parse_stored(existing) {
        Ok(JsonValue::Object(existing)) if existing.same_besides(record, &["password"]) => BatchOutcome::Unchanged,
        _ => BatchOutcome::Taken,
    }
}
