//! Statements about one record: a person, a page or a unit.
//!
//! The one rule: a row is found by [`RecordKey::condition`] alone, which holds the key and the caller's reach.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::super::{OwnedKey, RecordKey, UnitKind};
use super::dialect::{RecordTable, RowOrder, SqlDialect};

/// The function that finds the book of a page of a person with several ids.
const BOOK_OF_PAGE: &str = "fedgate_page_book";

impl RecordKey {
    pub(in crate::store) fn table(&self) -> RecordTable {
        match self {
            Self::Person(_) => RecordTable::People,
            Self::Page { .. } => RecordTable::Pols,
            Self::Unit(units, _) => units.table(),
        }
    }

    /// The primary key.
    pub(in crate::store) fn id(&self) -> &str {
        match self {
            Self::Person(id) | Self::Page { page: id, .. } | Self::Unit(_, id) => id,
        }
    }

    /// The book that a page must be in.
    pub(in crate::store) fn book(&self) -> Option<&str> {
        match self {
            Self::Page { person, .. } => Some(person),
            Self::Person(_) | Self::Unit(..) => None,
        }
    }

    /// The row: `$1` is the id, `$2` the book (or null), `$3` the list of persons within reach (or null).
    pub(in crate::store) fn condition(&self, dialect: SqlDialect) -> String {
        match self {
            Self::Person(_) => format!(
                "{} AND CAST($2 AS text) IS NULL AND {}",
                dialect.names("id", "$1"),
                dialect.reaches("id", "$3")
            ),
            // The key of the table finds the page, and the condition on its book is checked on that row alone.
            Self::Page { .. } => {
                // PostgreSQL finds the books of other ids of the person by itself (`postgres/holder.rs`).
                let book = match dialect {
                    SqlDialect::Postgres => dialect.names("book", "$2"),
                    SqlDialect::Sqlite => dialect.names_same("book", "$2"),
                };
                format!("id = $1 AND {book} AND {}", dialect.reaches("book", "$3"))
            }
            // A unit belongs to no person, so only the decision limits who may touch it.
            Self::Unit(..) => {
                let reached = dialect.reaches("id", "$3");
                format!("id = $1 AND CAST($2 AS text) IS NULL AND ({reached} OR true)")
            }
        }
    }
}

impl UnitKind {
    pub(in crate::store) fn table(self) -> RecordTable {
        match self {
            Self::Domiciliary => RecordTable::Dus,
            Self::Institutions => RecordTable::Institutions,
        }
    }
}

/// The visible text of the row. Parameters are as in [`RecordKey::condition`].
pub(in crate::store) fn select_visible(dialect: SqlDialect, key: &RecordKey) -> String {
    let (table, condition) = (key.table(), dialect.placeholders(&key.condition(dialect)));
    format!("SELECT {} FROM {} WHERE {condition}", dialect.visible(table), dialect.shown(table))
}

/// The visible text of the row, or null if it has more than `$4` bytes, its greatest possible length, its id, and the
/// survivor of the person whose id has become old. Other parameters are as in [`RecordKey::condition`].
pub(in crate::store) fn select_fitting(dialect: SqlDialect, key: &RecordKey) -> &'static str {
    static WRITTEN: LazyLock<HashMap<(SqlDialect, RecordTable), String>> = LazyLock::new(|| {
        let none = String::new;
        let keys = [
            RecordKey::Person(none()),
            RecordKey::Page { person: none(), page: none() },
            RecordKey::Unit(UnitKind::Domiciliary, none()),
            RecordKey::Unit(UnitKind::Institutions, none()),
        ];
        let both = keys.iter().flat_map(|key| [SqlDialect::Postgres, SqlDialect::Sqlite].map(|dialect| (dialect, key)));
        both.map(|(dialect, key)| ((dialect, key.table()), written_fitting(dialect, key))).collect()
    });
    // INVARIANT: each kind of key is in the list above; an empty statement would find nothing.
    WRITTEN.get(&(dialect, key.table())).map_or("", String::as_str)
}

fn written_fitting(dialect: SqlDialect, key: &RecordKey) -> String {
    let rows = format!("FROM {} WHERE {} ORDER BY id LIMIT 1", dialect.shown(key.table()), key.condition(dialect));
    let survivor = match key {
        RecordKey::Person(_) => dialect.survivor("$1"),
        RecordKey::Page { .. } => dialect.survivor("$2"),
        RecordKey::Unit(..) => "CAST(NULL AS text)".to_owned(),
    };
    dialect.fitting(dialect.visible(key.table()), "$4", &[(&survivor, "survivor")], &rows, RowOrder::Id)
}

/// The whole text of the row. Parameters are as in [`RecordKey::condition`].
pub(in crate::store) fn select_whole(dialect: SqlDialect, key: &RecordKey) -> String {
    let (from, condition) = (dialect.with_hash(key.table()), key.condition(dialect));
    dialect.placeholders(&format!("SELECT {} FROM {from} WHERE {condition}", dialect.whole()))
}

/// Sets the row's data to `value`, an expression with `$4`. Other parameters are as in [`RecordKey::condition`].
pub(in crate::store) fn update(dialect: SqlDialect, key: &RecordKey, value: &str) -> String {
    let sql = format!("UPDATE {} SET data = {value} WHERE {}", key.table().name(), key.condition(dialect));
    dialect.placeholders(&sql)
}

/// Counts the records of a person (`$1`) up to a bound (`$2`), from the index alone. `$3` is the list of persons within reach.
pub(in crate::store) fn count(dialect: SqlDialect, owned: OwnedKey) -> String {
    let (table, person) = match owned {
        OwnedKey::Pages => (RecordTable::Pols, "book"),
        OwnedKey::Documents => (RecordTable::PersonalDocs, "fedacct"),
    };
    // The limit stops the scan, so a count never costs more than the bound.
    let (of_person, reach) = (dialect.names(person, "$1"), dialect.reaches(person, "$3"));
    dialect.placeholders(&format!(
        "SELECT count(*) FROM (SELECT 1 FROM {} WHERE {of_person} AND {reach} \
         LIMIT CAST($2 AS bigint)) AS counted",
        table.name()
    ))
}

/// Deletes the row. Parameters are as in [`RecordKey::condition`].
pub(in crate::store) fn delete(dialect: SqlDialect, key: &RecordKey) -> String {
    dialect.placeholders(&format!("DELETE FROM {} WHERE {}", key.table().name(), key.condition(dialect)))
}

/// Whether a person (`$1`) has pages or documents.
pub(in crate::store) const PERSON_IN_USE: &str =
    "SELECT EXISTS (SELECT 1 FROM pols WHERE book = $1) OR EXISTS (SELECT 1 FROM personal_docs WHERE fedacct = $1)";

/// Whether a person (`$1`) is part of a merge.
pub(in crate::store) const PERSON_IS_MERGED: &str = "SELECT EXISTS (SELECT 1 FROM fedgate_same_persons WHERE id = $1)";

/// Whether a page (`$1`) exists in the book of a person (`$2`) within reach (`$3`, or null).
pub(in crate::store) fn page_exists(dialect: SqlDialect) -> String {
    let book = dialect.names_holder("book", "$2", (BOOK_OF_PAGE, "$1"));
    let reach = dialect.reaches("book", "$3");
    let sql = format!("SELECT EXISTS (SELECT 1 FROM pols WHERE id = $1 AND {book} AND {reach})");
    dialect.placeholders(&sql)
}
