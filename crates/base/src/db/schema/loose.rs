//! Columns that equate different ids.
//!
//! Thalamus makes its ids `varchar`, which compares bytes. An altered database may have a type or collation that does
//! not, and finds `ANA` for `ana`. Accounts are compared by bytes anyway, so such a column admits no wrong person. But
//! a caller who relied on it is answered 401, and the operator learns why.

use std::fmt;

use rusqlite::Connection;

use super::super::{Database, DbError};

/// The columns that identify people.
const NAMING: [(&str, &str); 3] = [("people", "id"), ("pols", "book"), ("personal_docs", "fedacct")];

/// A column that identifies people and equates different ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LooseColumn {
    table: String,
    column: String,
    /// Its declared type and collation.
    declared: String,
    remedy: String,
}

impl fmt::Display for LooseColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, column, declared, remedy } = self;
        write!(
            f,
            "`{table}.{column}` is {declared}, which may take one id for another (by case, or by blanks at the end); \
             a caller whose id is not spelled as the row is, byte for byte, is answered 401 or 404; {remedy}"
        )
    }
}

/// The columns that identify people and do not compare bytes. A missing table has none.
///
/// # Errors
/// The database is away, or cannot tell.
pub async fn loose_columns(database: &Database) -> Result<Vec<LooseColumn>, DbError> {
    match database {
        Database::Postgres(pool) => {
            let mut found = Vec::new();
            let client = pool.get().await?;
            for (table, column) in NAMING {
                // The view of people would not let it.
                let first = if table == "people" { "DROP VIEW IF EXISTS fedgate_people; " } else { "" };
                for row in client.query(POSTGRES_DECLARED, &[&table, &column]).await? {
                    found.push(LooseColumn {
                        table: table.to_owned(),
                        column: column.to_owned(),
                        declared: row.try_get(0)?,
                        remedy: format!(
                            "stop all programs that write to it, run `{first}ALTER TABLE {table} ALTER COLUMN {column} \
                             TYPE varchar COLLATE \"default\"`, then `fedhis migrate`, and start the programs again"
                        ),
                    });
                }
            }
            Ok(found)
        }
        Database::Sqlite(sqlite) => sqlite.read(sqlite_columns).await,
    }
}

fn sqlite_columns(connection: &Connection) -> Result<Vec<LooseColumn>, rusqlite::Error> {
    let mut found = Vec::new();
    for (table, column) in NAMING {
        if !connection.column_exists(None, table, column)? {
            continue;
        }
        let (kind, collation, ..) = connection.column_metadata(None, table, column)?;
        let text = |of: Option<&std::ffi::CStr>| of.map(|of| of.to_string_lossy().to_uppercase()).unwrap_or_default();
        let (kind, collation) = (text(kind), text(collation));
        // SQLite's rules for the affinity of a column (datatype3.html, 3.1): as a number, `7` equals `007`.
        let is_text = ["CHAR", "CLOB", "TEXT"].iter().any(|name| kind.contains(name)) && !kind.contains("INT");
        if !is_text || collation != "BINARY" {
            found.push(LooseColumn {
                table: table.to_owned(),
                column: column.to_owned(),
                declared: format!("{kind} COLLATE {collation}").trim_start().to_owned(),
                remedy:
                    "make a new store with `fedhis migrate`, and copy the rows of all tables but those that begin with \
                         `fedgate_` into it"
                        .to_owned(),
            });
        }
    }
    Ok(found)
}

// A domain behaves like its base type, and may have its own collation.
const POSTGRES_DECLARED: &str = "
    WITH RECURSIVE base (declared, type, collated) AS (
        SELECT format_type(atttypid, atttypmod), atttypid, attcollation FROM pg_attribute
        WHERE attrelid = to_regclass($1) AND attname = $2::text AND NOT attisdropped
        UNION ALL
        SELECT declared, typbasetype, collated FROM base JOIN pg_type ON pg_type.oid = type WHERE typtype = 'd'
    )
    SELECT declared || coalesce(' COLLATE ' || quote_ident(collname), '')
    FROM base JOIN pg_type ON pg_type.oid = type LEFT JOIN pg_collation ON pg_collation.oid = collated
    WHERE typtype <> 'd'
      AND (type NOT IN ('varchar'::regtype, 'text'::regtype) OR NOT coalesce(collisdeterministic, true))";
