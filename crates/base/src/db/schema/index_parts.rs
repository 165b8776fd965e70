//! The indexes of a partitioned table: built on each partition, and then attached to the index of the whole.
//!
//! The one rule: an index of the whole is valid when every partition has its part. A part that is there is left alone, so
//! an interrupted build goes on with the next partition.
//!
//! The indexes of large tables and the move to partitions call it.

use std::time::Instant;

use super::super::{DbError, PooledSession, SessionPool};
use super::progress::{MigrationReport, reported};
use super::{LOCK_TIMEOUT_MS, PATIENCE, RETRY};

/// An index that a partitioned table has, or should have.
pub(super) struct WholeIndex<'a> {
    pub(super) table: &'a str,
    pub(super) name: &'a str,
    pub(super) columns: &'a str,
    /// The end of the names of the parts.
    pub(super) short: &'a str,
    /// Whether others use the table.
    pub(super) is_live: bool,
}

/// Builds an index of a partitioned table while others read and write it.
pub(super) async fn build_live(
    session: &PooledSession,
    pool: &SessionPool,
    (name, table, columns): (&str, &str, &str),
    report: MigrationReport<'_>,
) -> Result<(), DbError> {
    let whole = WholeIndex { table, name, columns, short: short_of(name, table), is_live: true };
    build_whole(session, pool, &whole, report).await
}

/// The part of the name of an index that tells what it is of.
pub(super) fn short_of<'a>(index: &'a str, table: &str) -> &'a str {
    index.strip_prefix(&format!("fedgate_{table}_")).unwrap_or(index)
}

/// Builds what an index of a partitioned table lacks.
pub(super) async fn build_whole(
    session: &PooledSession,
    pool: &SessionPool,
    whole: &WholeIndex<'_>,
    report: MigrationReport<'_>,
) -> Result<(), DbError> {
    let WholeIndex { table, name, columns, short, is_live } = *whole;
    // Without its parts it is made at once, and only the lock may be waited for.
    briefly(session, &format!("CREATE INDEX IF NOT EXISTS {name} ON ONLY {table} ({columns})")).await?;
    for row in session.query(PARTS, &[&table, &name]).await? {
        let (part, is_attached): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
        if is_attached {
            continue;
        }
        let of_part = format!("{part}_{short}");
        let is_valid: Option<bool> = match session.query_opt(IS_VALID, &[&of_part]).await? {
            Some(row) => row.try_get(0)?,
            None => None,
        };
        let concurrently = if is_live { "CONCURRENTLY " } else { "" };
        if is_valid == Some(false) {
            report(&format!("dropping index `{of_part}`, whose build was interrupted"));
            session.batch_execute(&format!("DROP INDEX {concurrently}IF EXISTS {of_part}")).await?;
        }
        if is_valid != Some(true) {
            let sql = format!("CREATE INDEX {concurrently}{of_part} ON {part} ({columns})");
            reported(session.batch_execute(&sql), session, pool, (&of_part, &part), report).await?;
        }
        briefly(session, &format!("ALTER INDEX {name} ATTACH PARTITION {of_part}")).await?;
    }
    Ok(())
}

/// Runs a statement that waits only briefly for a lock, several times.
async fn briefly(session: &PooledSession, sql: &str) -> Result<(), DbError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        session.batch_execute(&format!("SET lock_timeout = {LOCK_TIMEOUT_MS}")).await?;
        let done = session.batch_execute(sql).await;
        session.batch_execute("SET lock_timeout = 0").await?;
        match done {
            Err(error) if error.waited_for().is_some() && Instant::now() < deadline => {
                tokio::time::sleep(RETRY).await;
            }
            done => return done,
        }
    }
}

/// The partitions of a table (`$1`), each with whether it has its part of an index (`$2`).
const PARTS: &str = "
    SELECT relname::text, EXISTS (
        SELECT FROM pg_index JOIN pg_inherits AS attached ON attached.inhrelid = indexrelid
        WHERE indrelid = pg_class.oid AND attached.inhparent = to_regclass($2::text)
    )
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = to_regclass($1::text) ORDER BY pg_class.oid";
const IS_VALID: &str = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1::text)";
