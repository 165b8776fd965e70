//! Databases that fedgate must not write to: another program's file, or one with another text encoding.
//!
//! The one rule: a foreign file is recognized before a byte of it changes. Our files carry a mark (`application_id`).
//! A file from before the mark has our schema, or no tables except those of Thalamus.
//!
//! All code that opens an embedded store calls it, and so do the migration and the check of a PostgreSQL database.

use std::path::Path;

use rusqlite::Connection;

use super::place::unopened;
use super::{Database, DbError, SessionPool};
use fedgate_core::escape;

/// The mark of an embedded store in the file's header: "fedg" in ASCII.
const APPLICATION_ID: i64 = 0x66_65_64_67;
/// The table that every store of ours has.
const SCHEMA: &str = "fedgate_schema";
/// The tables of Thalamus, with which a store of ours may begin.
const THALAMUS: [&str; 5] = ["people", "pols", "personal_docs", "dus", "institutions"];
/// The most tables of another program that are named.
const NAMED: usize = 3;

/// Refuses a database that fedgate must not write to, as a migration does.
///
/// # Errors
/// [`DbError::Settings`] with the reason; or the database is away.
pub async fn refuse(database: &Database) -> Result<(), DbError> {
    match database {
        Database::Postgres(pool) => refuse_encoding(pool).await,
        // It was checked when it was opened.
        Database::Sqlite(_) => Ok(()),
    }
}

/// Refuses a file of another program.
///
/// # Errors
/// [`DbError::Settings`] if it is one; or it cannot be read.
pub(super) fn refuse_file(connection: &Connection, path: &Path) -> Result<(), DbError> {
    let (id, foreign) = looked_at(connection).map_err(|error| unopened(path, error))?;
    let problem = match (id, foreign.as_slice()) {
        (0 | APPLICATION_ID, []) => return Ok(()),
        (0, names) => format!("has tables of another program ({})", names.join(", ")),
        _ => format!("belongs to another program (application id {id})"),
    };
    let path = path.display();
    Err(DbError::Settings { key: "path", problem: format!("names `{path}`, which {problem}; name a file of its own") })
}

/// Refuses a file that is not a store. A file without our schema, such as an empty one, holds nothing to keep.
///
/// # Errors
/// [`DbError::Settings`] if it is not; or it cannot be read.
pub(super) fn require_store(connection: &Connection, path: &Path) -> Result<(), DbError> {
    refuse_file(connection, path)?;
    if connection.table_exists(None, SCHEMA).map_err(|error| unopened(path, error))? {
        return Ok(());
    }
    let problem = "is no store of fedgate (it has no schema); name the file that `fedhis serve` uses";
    Err(DbError::Settings { key: "path", problem: format!("names `{}`, which {problem}", path.display()) })
}

/// The mark of a file, and tables that show that it belongs to another program.
fn looked_at(connection: &Connection) -> Result<(i64, Vec<String>), rusqlite::Error> {
    let id: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let is_ours = id == APPLICATION_ID || (id == 0 && connection.table_exists(None, SCHEMA)?);
    Ok((id, if is_ours { Vec::new() } else { foreign_tables(connection)? }))
}

/// Tables that are neither ours nor Thalamus's, judged by their names, and by the columns that Thalamus's tables have.
fn foreign_tables(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let is_thalamus = THALAMUS.contains(&name.as_str())
            && connection.column_exists(None, name.as_str(), "id")?
            && connection.column_exists(None, name.as_str(), "data")?;
        let is_own = is_thalamus || name.starts_with("fedgate_") || name.starts_with("sqlite_");
        if !is_own && found.len() < NAMED {
            found.push(format!("`{}`", escape::name(&name)));
        }
    }
    Ok(found)
}

/// Refuses a database with a text encoding other than UTF-8, because it could not store every name.
///
/// # Errors
/// [`DbError::Settings`] if it has one; or the database is away.
async fn refuse_encoding(pool: &SessionPool) -> Result<(), DbError> {
    let row =
        pool.get().await?.query_one("SELECT current_setting('server_encoding'), current_database()::text", &[]).await?;
    let (encoding, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    if encoding == "UTF8" {
        return Ok(());
    }
    let (encoding, name) = (escape::name(&encoding), escape::name(&name));
    Err(DbError::Settings {
        key: "uri",
        problem: format!(
            "leads to the database `{name}`, which keeps text as {encoding}, and names have letters that it cannot \
             keep; make one with `createdb -E UTF8 -T template0`, and load a `pg_dump` of this one into it"
        ),
    })
}
