//! The schema: Thalamus' tables as they are, and what fedgate adds beside them.
//!
//! The one rule: migrations only add, so that an existing federation database works in place and Thalamus could go
//! back to work on it. What is added: indexes, and the account epoch, a counter that grows with every change of a
//! person's password, roles or activity, in commit order. The gateway's caches live by it. The table `fedgate_logins`, kept by
//! triggers, holds what a login needs of a person, so that no login reads a document. And a random id, written once, tells
//! this store from others; beside it stands who made the database.

mod beside;
mod kept;
mod logins;
mod loose;
mod odd;
mod origin;

pub use beside::{ProgramBeside, program_beside};
pub use kept::{UnkeptLogins, unkept_logins};
pub use loose::{LooseColumn, loose_columns};
pub use odd::{OddRows, odd_rows};
pub use origin::{StoreOrigin, UnreadableAccounts, origin, unreadable_accounts};

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{Database, DbError, PooledSession, WaitReason, foreign};

/// The version this program needs.
pub const VERSION: i64 = 6;

/// Key of the advisory lock that lets one migration run at a time: "fedgate" in ASCII.
const LOCK: i64 = 0x66_65_64_67_61_74_65;
/// How long a migration waits for a lock at a time. Whoever comes meanwhile waits behind it, and no lease (of a second,
/// unless it is set otherwise) may end by that.
const LOCK_TIMEOUT_MS: u64 = 400;
/// How long it lets others go first before it tries again, and how long it tries.
const RETRY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

/// Creates or upgrades the schema, and puts back what is missing of it; tells the version that it has then. One of a newer
/// program is left alone.
///
/// # Errors
/// The database is away or keeps no UTF-8, somebody holds a lock for a minute, or the role may not create what is missing.
pub async fn migrate(database: &Database) -> Result<i64, DbError> {
    let deadline = Instant::now() + PATIENCE;
    match database {
        Database::Postgres(pool) => {
            foreign::refuse(database).await?;
            let mut session = pool.get().await?.without_limit();
            // Each is a transaction of its own: what takes long must not be undone by somebody who is in the way of the rest.
            for script in [include_str!("postgres_tables.sql"), include_str!("postgres.sql")] {
                let version = loop {
                    if let Some(ended) = ended(run(&mut session, script).await, deadline).await {
                        break ended?;
                    }
                };
                if version > VERSION {
                    return Ok(version);
                }
            }
            logins::fill(&mut session).await?;
            Ok(VERSION)
        }
        Database::Sqlite(sqlite) => loop {
            let migrate = |tx: &Transaction<'_>| match sqlite_version(tx)? {
                newer if newer > VERSION => Ok(newer),
                _ => tx.execute_batch(include_str!("sqlite.sql")).map(|()| VERSION),
            };
            if let Some(ended) = ended(sqlite.write(migrate).await, deadline).await {
                return ended;
            }
        },
    }
}

/// The outcome of an attempt, unless somebody held a lock that it needs and there is time for another one.
async fn ended(outcome: Result<i64, DbError>, deadline: Instant) -> Option<Result<i64, DbError>> {
    match outcome {
        Err(error) if error.waited_for() == Some(WaitReason::Lock) => {}
        outcome => return Some(outcome),
    }
    if Instant::now() > deadline {
        let held = "somebody holds a lock that the migration needs (a dump, a long transaction); run it again when \
                    that has ended";
        return Some(Err(DbError::Unavailable(held.into())));
    }
    tokio::time::sleep(RETRY).await;
    None
}

/// Runs a script in one transaction, unless the schema is of a newer program; tells the version that it has met.
async fn run(session: &mut PooledSession, script: &str) -> Result<i64, DbError> {
    let transaction = session.transaction().await?;
    let limits = format!("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}");
    transaction.batch_execute(&limits).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let is_there = transaction.query_one("SELECT to_regclass('fedgate_schema') IS NOT NULL", &[]).await?;
    let version = match is_there.try_get(0)? {
        true => transaction.query_opt(POSTGRES_VERSION, &[]).await?.map_or(Ok(0), |row| row.try_get(0))?,
        false => 0,
    };
    if version <= VERSION {
        transaction.batch_execute(script).await?;
        transaction.commit().await?;
    }
    Ok(version)
}

/// The version of the schema that is there; 0 when there is none of fedgate's.
///
/// # Errors
/// The database is away, or the version cannot be read.
pub async fn version(database: &Database) -> Result<i64, DbError> {
    match database {
        Database::Postgres(pool) => match pool.get().await?.query_opt(POSTGRES_VERSION, &[]).await {
            Ok(row) => Ok(row.map_or(Ok(0), |row| row.try_get(0))?),
            Err(error) if error.lacks_schema() => Ok(0),
            Err(error) => Err(error),
        },
        Database::Sqlite(sqlite) => sqlite.read(sqlite_version).await,
    }
}

fn sqlite_version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    let known = "SELECT 1 FROM sqlite_schema WHERE name = 'fedgate_schema'";
    if connection.query_row(known, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    Ok(connection.query_row("SELECT version FROM fedgate_schema", [], |row| row.get(0)).optional()?.unwrap_or(0))
}

const POSTGRES_VERSION: &str = "SELECT version FROM fedgate_schema";
