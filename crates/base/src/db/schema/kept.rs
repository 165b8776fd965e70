//! Whether the table that logins read is up to date.
//!
//! A restored dump, `VACUUM FULL` and `CLUSTER` rewrite every row, and no trigger sees it. Rights stay as the
//! documents have them, but each login then reads the whole document, as if there were no table. Nothing else would
//! reveal this.

use std::fmt;

use super::super::{Database, DbError};

/// The most people that are examined, so that the check is cheap for any number of people.
const SAMPLE: i64 = 100;

/// People whose logins read their documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnkeptLogins {
    /// How many people were examined.
    pub looked_at: i64,
    /// How many of them are missing or outdated in the table.
    pub unkept: i64,
}

impl fmt::Display for UnkeptLogins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { looked_at, unkept } = self;
        write!(
            f,
            "logins read whole documents: of {looked_at} people that were looked at, {unkept} are not in the table \
             that logins read (so it is after a restored dump, VACUUM FULL or CLUSTER); run `fedhis migrate`"
        )
    }
}

/// Examines some people. Reports if more than a tenth of them are missing or outdated.
///
/// # Errors
/// The database is away, or its schema belongs to an older program.
pub async fn unkept_logins(database: &Database) -> Result<Option<UnkeptLogins>, DbError> {
    let (looked_at, unkept): (i64, i64) = match database {
        Database::Postgres(pool) => {
            let row = pool.get().await?.query_one(POSTGRES_SAMPLE, &[&SAMPLE]).await?;
            (row.try_get(0)?, row.try_get(1)?)
        }
        Database::Sqlite(sqlite) => {
            let read =
                |db: &rusqlite::Connection| db.query_row(SQLITE_SAMPLE, [SAMPLE], |row| Ok((row.get(0)?, row.get(1)?)));
            sqlite.read(read).await?
        }
    };
    // Some may be missing while a migration fills the table.
    Ok((unkept.saturating_mul(10) > looked_at).then_some(UnkeptLogins { looked_at, unkept }))
}

const POSTGRES_SAMPLE: &str = "
    SELECT count(*), count(*) FILTER (WHERE l.id IS NULL)
    FROM (SELECT id, xmin AS writer, ctid AS place FROM people LIMIT $1) p
    LEFT JOIN fedgate_logins l ON l.id = p.id::varchar COLLATE \"C\" AND l.row_writer = writer AND l.row_place = place";
const SQLITE_SAMPLE: &str = "
    SELECT count(*), count(*) FILTER (WHERE l.id IS NULL)
    FROM (SELECT id FROM people LIMIT ?1) p LEFT JOIN fedgate_logins l ON l.id = p.id COLLATE BINARY";
