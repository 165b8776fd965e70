//! What writes to merged persons read and lock, and how they write a record.
//!
//! The one rule: records are locked in the order of their ids, so that two writers never wait for each other.

use super::merged_record::LiveMerge;
use super::rows::{SqlRow, SqlStatement, SqlValue};
use fedgate_core::json::JsonObject;

/// Persons' records, locked in the order of their ids until the transaction ends.
pub(super) const LOCKED: &str = "SELECT people.id, {document}, {visible} FROM {people} WHERE people.id IN {texts $1} ORDER BY people.id{for update of people}";
/// The live merges among the ids of the person `$1`.
pub(super) const LIVE: &str = "SELECT id, old, survivor FROM fedgate_merges WHERE undone_at IS NULL AND old IN \
     (SELECT other.id FROM fedgate_same_persons AS same JOIN fedgate_same_persons AS other \
     ON other.person = same.person WHERE same.id = $1)";
/// A row of number, old id and survivor.
pub(super) fn live_merge(row: &SqlRow) -> LiveMerge {
    LiveMerge { number: row.some_number(0).unwrap_or(0), old: row.text(1), survivor: row.text(2) }
}

/// Replaces a person's record.
const PUT: &str = "{put person $1 $2}";

/// Replaces a person's record.
pub(super) fn put(id: &str, record: &JsonObject) -> SqlStatement {
    SqlStatement::of(PUT, vec![id.into(), record.to_text().as_str().into()])
}

/// The persons whose records these statements replace, with the records.
pub(super) fn put_persons(statements: &[SqlStatement]) -> Vec<(String, String)> {
    statements.iter().filter_map(|statement| statement.texts_of(PUT)).collect()
}

/// A list of ids as a parameter.
pub(super) fn texts<'a>(ids: impl IntoIterator<Item = &'a str>) -> SqlValue {
    let ids: Vec<&str> = ids.into_iter().collect();
    serde_json::Value::from(ids).to_string().as_str().into()
}
