//! Whether the table that logins read holds the people as they are.
//!
//! A restored dump, `VACUUM FULL` and `CLUSTER` write every row anew, and no trigger sees it. Rights stay what the documents
//! say, but each login reads the whole document, as if there were no table. Nothing else would tell.

use std::fmt;

use super::super::{Database, DbError};

/// Of how many people at most this is found out: a look must cost little, however many there are.
const SAMPLE: i64 = 100;

/// People whose logins read their documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnkeptLogins {
    /// How many were looked at.
    pub looked_at: i64,
    /// How many of them the table does not hold as they are.
    pub unkept: i64,
}

impl fmt::Display for UnkeptLogins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { looked_at, unkept } = self;
        write!(
            f,
            "logins read whole documents: of {looked_at} people that were looked at, {unkept} are not in the table that \
             logins read (so it is after a restored dump, VACUUM FULL or CLUSTER); run `fedhis migrate`"
        )
    }
}

/// Looks at some people; tells if more than a tenth of them are not kept.
///
/// # Errors
/// The database is away, or its schema is of an older program.
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
    // A few may be missing while a migration fills the table.
    Ok((unkept.saturating_mul(10) > looked_at).then_some(UnkeptLogins { looked_at, unkept }))
}

const POSTGRES_SAMPLE: &str = "
    SELECT count(*), count(*) FILTER (WHERE l.id IS NULL)
    FROM (SELECT id, xmin AS writer, ctid AS place FROM people LIMIT $1) p
    LEFT JOIN fedgate_logins l ON l.id = p.id::varchar COLLATE \"C\" AND l.row_writer = writer AND l.row_place = place";
const SQLITE_SAMPLE: &str = "
    SELECT count(*), count(*) FILTER (WHERE l.id IS NULL)
    FROM (SELECT id FROM people LIMIT ?1) p LEFT JOIN fedgate_logins l ON l.id = p.id COLLATE BINARY";
