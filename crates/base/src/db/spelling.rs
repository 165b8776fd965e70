//! Ids that differ only in case.
//!
//! New ids are stored in upper case, but an existing database may have others, and the person `usrlower1` must not
//! become two people. So the one rule: code that adds a person looks for such a twin in the same statement or
//! transaction.
//!
//! PostgreSQL compares through an index on its own case mapping, which works letter by letter; `ß` is the relevant
//! exception. SQLite maps only ASCII, so the few ids with other letters are compared here.

use rusqlite::{Connection, OptionalExtension};
use unicode_normalization::UnicodeNormalization;

/// The expression by which PostgreSQL compares ids; the schema has an index on it. `id` is an expression.
macro_rules! postgres_key {
    ($id:literal) => {
        concat!("upper(replace(CAST(", $id, " AS text) COLLATE \"default\", 'ß', 'ss'))")
    };
}

/// Whether a row of `people` has the id `$1` in any case; `$5` is the same id from [`lower_case`].
pub const POSTGRES_IS_TWIN: &str =
    concat!(postgres_key!("id"), " IN (", postgres_key!("$1"), ", ", postgres_key!("$5"), ")");
/// The indexed expression: the same, of the id of a row.
pub(super) const POSTGRES_KEY: &str = postgres_key!("id");

/// An id in lower case and normalization form C: a spelling that a letter-by-letter mapping to upper case may miss.
pub fn lower_case(id: &str) -> String {
    id.to_lowercase().nfc().collect()
}

/// An id as a new person would get it.
fn upper_case(id: &str) -> String {
    fedgate_core::path::person_id(id)
}

/// Whether the embedded store has a person whose id differs from `id`, which is in upper case, only by case.
pub fn has_twin(connection: &Connection, id: &str) -> Result<bool, rusqlite::Error> {
    let ascii = "SELECT 1 FROM people WHERE upper(id) = upper(?1) AND CAST(id AS text) <> ?1 COLLATE BINARY";
    if connection.prepare_cached(ascii)?.query_row([id], |_| Ok(())).optional()?.is_some() {
        return Ok(true);
    }
    let mut others = connection.prepare_cached("SELECT id FROM people WHERE id GLOB '*[^ -~]*'")?;
    let mut rows = others.query([])?;
    while let Some(row) = rows.next()? {
        let other = row.get_ref(0)?.as_str()?;
        if other != id && upper_case(other) == id {
            return Ok(true);
        }
    }
    Ok(false)
}
