//! The origin of the database, and how many of its accounts a Thalamus on the same database could not sign in.
//!
//! The one rule: the first migration writes the mark once, because only it sees what existed before. If an older
//! program migrated the database without a mark, the next migration derives the origin from the hashes in it.

use std::time::Duration;

use super::super::{Database, DbError, SessionPool, WaitReason};

/// The origin of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOrigin {
    /// fedgate made it.
    Own,
    /// A Thalamus made it, and may still use it.
    Thalamus,
    /// A Thalamus made it, but an older fedgate has already replaced hashes in it.
    Upgraded,
}

/// Accounts whose password hash Thalamus cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreadableAccounts {
    /// This many.
    Counted(u64),
    /// They were not counted in time.
    Uncounted,
}

/// The origin of the database; Thalamus if it is unknown.
///
/// # Errors
/// The database is away, or refuses.
pub async fn origin(database: &Database) -> Result<StoreOrigin, DbError> {
    // Thalamus has no embedded store.
    let Database::Postgres(pool) = database else { return Ok(StoreOrigin::Own) };
    let row = match pool.get().await?.query_opt("SELECT origin FROM fedgate_store", &[]).await {
        Ok(row) => row,
        Err(error) if error.lacks_schema() => None,
        Err(error) if error.is_forbidden() => {
            tracing::warn!(
                "the origin of the database cannot be read ({error}), so a Thalamus is assumed; run `fedhis migrate`"
            );
            None
        }
        Err(error) => return Err(error),
    };
    let mark: Option<String> = row.map_or(Ok(None), |row| row.try_get(0))?;
    Ok(match mark.as_deref() {
        Some("fedgate") => StoreOrigin::Own,
        Some("upgraded") => StoreOrigin::Upgraded,
        Some(_) | None => StoreOrigin::Thalamus,
    })
}

/// How many accounts have a password hash that Thalamus cannot read, counted within `patience`.
///
/// # Errors
/// The database is away, or refuses.
pub async fn unreadable_accounts(database: &Database, patience: Duration) -> Result<UnreadableAccounts, DbError> {
    match database {
        Database::Postgres(pool) => count(pool, patience).await,
        Database::Sqlite(sqlite) => {
            let count = |db: &rusqlite::Connection| db.query_row(UNREADABLE, [], |row| row.get::<_, i64>(0));
            Ok(UnreadableAccounts::Counted(sqlite.read(count).await?.unsigned_abs()))
        }
    }
}

async fn count(pool: &SessionPool, patience: Duration) -> Result<UnreadableAccounts, DbError> {
    let mut session = pool.get().await?.without_limit();
    let transaction = session.transaction().await?;
    transaction.batch_execute(&format!("SET LOCAL statement_timeout = {}", patience.as_millis())).await?;
    match transaction.query_one(UNREADABLE, &[]).await {
        Ok(row) => Ok(UnreadableAccounts::Counted(row.try_get::<_, i64>(0)?.unsigned_abs())),
        Err(error) if error.waited_for() == Some(WaitReason::Statement) => Ok(UnreadableAccounts::Uncounted),
        Err(error) => Err(error),
    }
}

// From the table that logins read, because reading all documents would take long.
const UNREADABLE: &str = "SELECT count(*) FROM fedgate_logins WHERE password LIKE '$argon2id$%'";
