//! The schema: Thalamus' tables as they are, and what fedgate adds beside them.
//!
//! The one rule: migrations only add, so that an existing federation database works in place and Thalamus could go
//! back to work on it. What is added: indexes, and the account epoch, a counter that grows with every change of a
//! person's password, roles or activity, in commit order. The gateway's caches live by it. And a random id, written
//! once, that tells this store from others.

use rusqlite::OptionalExtension;
use tokio_postgres::error::SqlState;

use super::{Database, DbError};

/// The version this program needs.
pub const VERSION: i64 = 5;

/// Key of the advisory lock that lets one migration run at a time: "fedgate" in ASCII.
const LOCK: i64 = 0x66_65_64_67_61_74_65;

/// Creates or upgrades the schema, in one transaction; does nothing where it is up to date.
///
/// # Errors
/// The database is away, or the role may not create what is missing.
pub async fn migrate(database: &Database) -> Result<(), DbError> {
    match database {
        Database::Postgres(pool) => {
            let mut client = pool.get().await?;
            let transaction = client.transaction().await?;
            transaction.batch_execute("SET LOCAL statement_timeout = 0").await?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
            transaction.batch_execute(include_str!("postgres.sql")).await?;
            Ok(transaction.commit().await?)
        }
        Database::Sqlite(sqlite) => sqlite.write(|tx| tx.execute_batch(include_str!("sqlite.sql"))).await,
    }
}

/// The version of the schema that is there; 0 when there is none of fedgate's.
///
/// # Errors
/// The database is away, or the version cannot be read.
pub async fn version(database: &Database) -> Result<i64, DbError> {
    match database {
        Database::Postgres(pool) => {
            let client = pool.get().await?;
            match client.query_opt("SELECT version FROM fedgate_schema", &[]).await {
                Ok(row) => Ok(row.map_or(Ok(0), |row| row.try_get(0))?),
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(0),
                Err(error) => Err(error.into()),
            }
        }
        Database::Sqlite(sqlite) => {
            sqlite
                .read(|connection| {
                    let known = "SELECT 1 FROM sqlite_schema WHERE name = 'fedgate_schema'";
                    if connection.query_row(known, [], |_| Ok(())).optional()?.is_none() {
                        return Ok(0);
                    }
                    let version = "SELECT version FROM fedgate_schema";
                    Ok(connection.query_row(version, [], |row| row.get(0)).optional()?.unwrap_or(0))
                })
                .await
        }
    }
}
