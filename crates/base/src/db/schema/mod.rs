//! The schema: Thalamus's tables unchanged, and fedgate's additions beside them.
//!
//! The one rule: migrations only add, so an existing federation database works in place, and Thalamus could use it
//! again. The additions are indexes; the account epoch, a counter that grows in commit order with every change of a
//! person's password, roles or `active` mark, on which the gateway's caches depend; and the table `fedgate_logins`,
//! maintained by triggers, with what a login needs of a person, so that no login reads a document. A random id,
//! written once, identifies the store, and beside it is the origin of the database.

mod beside;
mod changes;
mod index_parts;
mod indexes;
mod kept;
mod links;
mod logins;
mod loose;
mod objects;
mod odd;
mod origin;
mod partition;
mod progress;
pub mod roles;

pub use beside::{ProgramBeside, program_beside};
pub use indexes::{UnbuiltIndexes, unbuilt_indexes};
pub use kept::{UnkeptLogins, unkept_logins};
pub use loose::{LooseColumn, loose_columns};
pub use objects::{MissingObjects, missing_objects};
pub use odd::{OddRows, odd_rows};
pub use origin::{StoreOrigin, UnreadableAccounts, origin, unreadable_accounts};
pub use partition::{PartitionCount, PartitionError, UnfinishedMoves, partition, unfinished_moves};
pub use progress::MigrationReport;

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction};

use super::{Database, DbError, PooledSession, SessionPool, SqliteFile, WaitReason, foreign, members};

/// The version that this program needs.
pub const VERSION: i64 = 7;

/// The key of the advisory lock that allows one migration at a time: "fedgate" in ASCII.
const LOCK: i64 = 0x66_65_64_67_61_74_65;
/// How long a migration waits for one lock. Other sessions queue behind it meanwhile, and no lease (one second by
/// default) may end because of that.
const LOCK_TIMEOUT_MS: u64 = 400;
/// The pause in which others go first, and the total time for attempts.
const RETRY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);

/// One transaction each, and one for each stamped table. Later scripts use the columns of those.
const POSTGRES_FIRST: [&str; 7] = [
    include_str!("postgres_tables.sql"),
    include_str!("postgres_webhooks.sql"),
    include_str!("postgres_messages.sql"),
    include_str!("postgres_persons.sql"),
    include_str!("postgres_merges.sql"),
    include_str!("postgres_pairs.sql"),
    include_str!("postgres_changes.sql"),
];
/// One transaction each. The last one sets the version.
const POSTGRES_LAST: [&str; 7] = [
    include_str!("postgres_people.sql"),
    include_str!("postgres_batches.sql"),
    include_str!("postgres_accounts.sql"),
    include_str!("postgres_links.sql"),
    include_str!("postgres_partitions.sql"),
    include_str!("postgres_replicas.sql"),
    include_str!("postgres.sql"),
];
/// One transaction for all.
const SQLITE_SCRIPTS: [&str; 6] = [
    include_str!("sqlite.sql"),
    include_str!("sqlite_messages.sql"),
    include_str!("sqlite_webhooks.sql"),
    include_str!("sqlite_persons.sql"),
    include_str!("sqlite_merges.sql"),
    include_str!("sqlite_pairs.sql"),
];
/// The last one: its triggers name those to whom a person is related.
const SQLITE_SAME: &str = include_str!("sqlite_same.sql");

/// Creates, upgrades or repairs the schema, and returns its version. The schema of a newer program is left unchanged.
///
/// # Errors
/// The database is away or not UTF-8, another session holds a lock for a minute, or the role may not create what is
/// missing.
pub async fn migrate(database: &Database) -> Result<i64, DbError> {
    migrate_and_report(database, &|_| {}).await
}

/// As [`migrate`], and reports what takes long: the indexes of large tables.
///
/// # Errors
/// See [`migrate`].
pub async fn migrate_and_report(database: &Database, report: MigrationReport<'_>) -> Result<i64, DbError> {
    match migrate_as_role(database, report).await {
        Err(error) if error.is_forbidden() => {
            let problem = format!(
                "names a role without the rights that the migration needs ({}); make it the owner of the database, \
                 of its tables and of their schema: `createdb -O ROLE` makes such a database, `ALTER DATABASE … \
                 OWNER TO ROLE` and `ALTER TABLE … OWNER TO ROLE` change one",
                error.in_short()
            );
            Err(DbError::Settings { key: "uri", problem })
        }
        migrated => migrated,
    }
}

async fn migrate_as_role(database: &Database, report: MigrationReport<'_>) -> Result<i64, DbError> {
    match database {
        Database::Postgres(pool) => {
            foreign::refuse(database).await?;
            let mut session = pool.get().await?.without_limit();
            let version = migrate_alone(&mut session, pool, report).await;
            // With it the lock ends, and the limits that were changed.
            session.close();
            version
        }
        Database::Sqlite(sqlite) => migrate_sqlite(sqlite).await,
    }
}

/// Migrates PostgreSQL while no other migration does.
async fn migrate_alone(
    session: &mut PooledSession,
    pool: &SessionPool,
    report: MigrationReport<'_>,
) -> Result<i64, DbError> {
    indexes::keep_others_out(session, report).await?;
    let deadline = Instant::now() + PATIENCE;
    // Separate transactions: a lock conflict in a later step must not undo a step that takes long.
    let [first, last] =
        [POSTGRES_FIRST.as_slice(), &POSTGRES_LAST].map(|scripts| scripts.iter().map(|sql| (*sql).to_owned()));
    for script in first.chain(changes::postgres_scripts()).chain(last) {
        let version = loop {
            if let Some(ended) = ended(run(session, &script).await, deadline).await {
                break ended?;
            }
        };
        if version > VERSION {
            return Ok(version);
        }
    }
    logins::fill(session, report).await?;
    indexes::build(session, pool, report).await?;
    roles::grant_again(session).await?;
    Ok(VERSION)
}

async fn migrate_sqlite(sqlite: &SqliteFile) -> Result<i64, DbError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let migrate = |tx: &Transaction<'_>| match sqlite_version(tx)? {
            newer if newer > VERSION => Ok(newer),
            _ => {
                links::add_event_detail(tx)?;
                SQLITE_SCRIPTS.iter().try_for_each(|script| tx.execute_batch(script))?;
                links::make_sqlite(tx)?;
                tx.execute_batch(SQLITE_SAME)?;
                tx.execute_batch(&members::sqlite_indexes())?;
                changes::stamp_sqlite(tx)?;
                Ok(VERSION)
            }
        };
        if let Some(ended) = ended(sqlite.write(migrate).await, deadline).await {
            return ended;
        }
    }
}

/// The outcome of an attempt; none if another session held a lock and there is time for another attempt.
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

/// Runs a script in one transaction, unless the schema belongs to a newer program. Returns the version that it found.
async fn run(session: &mut PooledSession, script: &str) -> Result<i64, DbError> {
    let transaction = session.transaction().await?;
    let limits = format!("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}");
    transaction.batch_execute(&limits).await?;
    // An older program has no other lock. This session has it already (`indexes::keep_others_out`).
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

/// The version of the schema; 0 without a schema of fedgate.
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
