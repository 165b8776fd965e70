//! Ids that differ in case alone.
//!
//! New ids are stored in upper case, but a database of before may have others, and who is `usrlower1` there must not become two
//! persons. So the one rule: whoever adds a person looks for such a twin in the same statement or transaction.
//!
//! PostgreSQL compares through an index of its own case mapping, which maps letter by letter; `ß` is the letter that matters
//! beside that. SQLite maps ASCII alone, so that the few ids with other letters are looked at here.

use rusqlite::{Connection, OptionalExtension};
use unicode_normalization::UnicodeNormalization;

/// What PostgreSQL compares ids by; the schema has an index on it. `id` is an expression.
macro_rules! postgres_key {
    ($id:literal) => {
        concat!("upper(replace(CAST(", $id, " AS text) COLLATE \"default\", 'ß', 'ss'))")
    };
}

/// That a row of `people` has the id `$1`, in whatever case; `$5` is the same id as [`lower_case`] has it.
pub const POSTGRES_IS_TWIN: &str =
    concat!(postgres_key!("id"), " IN (", postgres_key!("$1"), ", ", postgres_key!("$5"), ")");

/// An id in lower case, in normalization form C: the spelling of which a letter-by-letter mapping may know no upper case.
pub fn lower_case(id: &str) -> String {
    id.to_lowercase().nfc().collect()
}

/// An id as a new person would have it.
fn upper_case(id: &str) -> String {
    fedgate_core::path::person_id(id)
}

/// Whether the embedded store has a person whose id is `id`, which is in upper case, but for case.
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
