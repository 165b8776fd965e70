//! Whether the database has every table, view, function and trigger that the programs use.
//!
//! The one rule: the catalog is asked, not the version. A database that an earlier build migrated, or in which
//! somebody dropped something, may have the right version and still lack an object. Everything in these lists is
//! made by the migration, so the remedy is always to run it again. Indexes are left out: without one the programs are
//! slower, and not wrong.
//!
//! The catalog is readable for every role. `check` calls it, both programs at their start, and the gateway's watch.

use std::collections::BTreeSet;
use std::fmt;

use rusqlite::Connection;

use super::super::{Database, DbError, SessionPool};

/// The tables of PostgreSQL.
const POSTGRES_TABLES: [&str; 14] = [
    "people",
    "pols",
    "personal_docs",
    "dus",
    "institutions",
    "fedgate_schema",
    "fedgate_store",
    "fedgate_instances",
    "fedgate_pieces",
    "fedgate_epoch",
    "fedgate_account_changes",
    "fedgate_page_waits",
    "fedgate_logins",
    "fedgate_account_events",
];
/// Columns that the migration adds to existing tables, each with its table.
const POSTGRES_COLUMNS: [(&str, &str); 2] = [("fedgate_epoch", "raised_by"), ("fedgate_store", "origin")];
const POSTGRES_FUNCTIONS: [&str; 13] = [
    "fedgate_record_changes(varchar[])",
    "fedgate_people_updated()",
    "fedgate_people_deleted()",
    "fedgate_people_truncated()",
    "fedgate_people_replicated()",
    "fedgate_login(jsonb)",
    "fedgate_record_event(varchar,varchar,varchar,varchar,varchar,varchar,varchar,varchar)",
    "fedgate_take_events(bigint)",
    "fedgate_events_recorded(bigint[])",
    "fedgate_login_kept()",
    "fedgate_unlock(varchar)",
    "fedgate_note_page_wait(varchar,bigint,varchar)",
    "fedgate_triggers(regclass)",
];
/// The triggers of the table `people`.
const POSTGRES_TRIGGERS: [&str; 6] = [
    "fedgate_people_updated",
    "fedgate_people_updated_by_replica",
    "fedgate_people_deleted",
    "fedgate_people_deleted_by_replica",
    "fedgate_people_truncated",
    "fedgate_login_kept",
];

/// The tables of the embedded store, in addition to those of PostgreSQL, and its views.
const SQLITE_TABLES: [&str; 4] = ["fedgate_actor", "fedgate_acting", "fedgate_logins_due", "fedgate_triggers"];
const SQLITE_TRIGGERS: [&str; 7] = [
    "fedgate_people_updated",
    "fedgate_people_replaced",
    "fedgate_people_inserted",
    "fedgate_people_deleted",
    "fedgate_login_made",
    "fedgate_login_changed",
    "fedgate_login_deleted",
];

/// The most objects that are named.
const NAMED: usize = 8;

/// Objects that the programs use and the database lacks; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingObjects(Vec<String>);

impl fmt::Display for MissingObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<&str> = self.0.iter().take(NAMED).map(String::as_str).collect();
        write!(f, "the database lacks the {}", named.join(", the "))?;
        if self.0.len() > named.len() {
            write!(f, " and {} more", self.0.len() - named.len())?;
        }
        f.write_str(" (an earlier build migrated it, or something was dropped); run `fedhis migrate` again")
    }
}

/// The objects that the programs use and the database lacks; none if it is complete.
///
/// # Errors
/// The database is away, or cannot tell.
pub async fn missing_objects(database: &Database) -> Result<Option<MissingObjects>, DbError> {
    let missing = match database {
        Database::Postgres(pool) => postgres_missing(pool).await?,
        Database::Sqlite(sqlite) => sqlite.read(sqlite_missing).await?,
    };
    Ok((!missing.is_empty()).then_some(MissingObjects(missing)))
}

async fn postgres_missing(pool: &SessionPool) -> Result<Vec<String>, DbError> {
    let (of, columns): (Vec<&str>, Vec<&str>) = POSTGRES_COLUMNS.into_iter().unzip();
    let (tables, functions) = (POSTGRES_TABLES.as_slice(), POSTGRES_FUNCTIONS.as_slice());
    let triggers = POSTGRES_TRIGGERS.as_slice();
    let rows = pool.get().await?.query(POSTGRES_MISSING, &[&tables, &of, &columns, &functions, &triggers]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn sqlite_missing(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let found = |kinds: &str| -> Result<BTreeSet<String>, rusqlite::Error> {
        let sql = format!("SELECT name FROM sqlite_schema WHERE type IN ({kinds})");
        connection.prepare_cached(&sql)?.query_map([], |row| row.get(0))?.collect()
    };
    let (tables, triggers) = (found("'table', 'view'")?, found("'trigger'")?);
    let lacks = |name: &&&str, found: &BTreeSet<String>| !found.contains(**name);
    let all_tables = POSTGRES_TABLES.iter().chain(&SQLITE_TABLES).filter(|name| lacks(name, &tables));
    let of_tables = all_tables.map(|name| format!("table `{name}`"));
    let of_triggers = SQLITE_TRIGGERS.iter().filter(|name| lacks(name, &triggers));
    Ok(of_tables.chain(of_triggers.map(|name| format!("trigger `{name}`"))).collect())
}

// The names are looked up as the programs' own statements are: through the search path.
const POSTGRES_MISSING: &str = "
    SELECT format('table `%s`', name) FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL
    UNION ALL
    SELECT format('column `%s.%s`', name, part) FROM unnest($2::text[], $3::text[]) AS needed (name, part)
    WHERE to_regclass(name) IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = to_regclass(name) AND attname = part AND NOT attisdropped
    )
    UNION ALL
    SELECT format('function `%s`', name) FROM unnest($4::text[]) AS name WHERE to_regprocedure(name) IS NULL
    UNION ALL
    SELECT format('trigger `%s`', name) FROM unnest($5::text[]) AS name
    WHERE to_regclass('people') IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = to_regclass('people') AND tgname = name
    )";
