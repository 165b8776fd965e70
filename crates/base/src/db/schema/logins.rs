//! Fills the table that logins read (`fedgate_logins`), for people from before the table, or whose rows were written
//! while its trigger was missing.
//!
//! The one rule: no other session waits for it. It goes through the people in small separate transactions once the
//! schema is complete, and steps back from sessions that hold a row. Until it has reached a person, a login reads
//! that person's document.

use std::time::Instant;

use super::super::{DbError, PooledSession, WaitReason};
use super::{MigrationReport, PATIENCE, RETRY};

/// How long it waits for a row that another session writes: less than `deadlock_timeout`, so that the other writer is
/// never the one that is cancelled.
const LOCK_TIMEOUT_MS: u64 = 100;
/// How many people a transaction compares, and after how many transactions that is told.
const PEOPLE_IN_BATCH: u64 = 200;
const TOLD_EVERY: u64 = 50;
/// The most passes through all people: rows that are written during one pass may need another.
const PASSES: usize = 3;

/// Fills missing entries, and removes those of people who were deleted.
///
/// # Errors
/// The database is away, or other sessions hold the same rows for a minute.
pub(super) async fn fill(session: &mut PooledSession, report: MigrationReport<'_>) -> Result<(), DbError> {
    for _ in 0..PASSES {
        if fill_once(session, report).await? == 0 {
            break;
        }
    }
    let transaction = session.transaction().await?;
    transaction.batch_execute("SET LOCAL statement_timeout = 0").await?;
    transaction.execute(REMOVE_ORPHANS, &[]).await?;
    transaction.commit().await
}

/// Goes through all people once, and returns how many entries were missing.
async fn fill_once(session: &mut PooledSession, report: MigrationReport<'_>) -> Result<u64, DbError> {
    let (mut last, mut filled) = (None, 0);
    for batches in 1_u64.. {
        if batches.is_multiple_of(TOLD_EVERY) {
            report(&format!("comparing what logins read with people: {} so far", batches * PEOPLE_IN_BATCH));
        }
        let (more, reached) = fill_batch_in_turn(session, last.as_deref()).await?;
        filled += more;
        if reached.is_none() {
            return Ok(filled);
        }
        last = reached;
    }
    Ok(filled)
}

async fn fill_batch_in_turn(
    session: &mut PooledSession,
    after: Option<&str>,
) -> Result<(u64, Option<String>), DbError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fill_batch(session, after).await {
            Err(error) if error.waited_for() == Some(WaitReason::Lock) => {}
            done => return done,
        }
        if Instant::now() > deadline {
            let held = "a session holds rows of people that the migration has reached (a long transaction); run it \
                        again when that has ended";
            return Err(DbError::Unavailable(held.into()));
        }
        tokio::time::sleep(RETRY / 5).await;
    }
}

/// Handles the next people after an id: returns how many entries were missing, and the last id.
async fn fill_batch(session: &mut PooledSession, after: Option<&str>) -> Result<(u64, Option<String>), DbError> {
    let transaction = session.transaction().await?;
    // The indexes must be used, whatever the statistics say: a new table has none, and sorting or hashing all of it
    // for each batch would take hours.
    let limits = format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SET LOCAL enable_seqscan = off; \
         SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_hashjoin = off; \
         SET LOCAL enable_mergejoin = off; SET LOCAL jit = off"
    );
    transaction.batch_execute(&limits).await?;
    let row = match after {
        Some(after) => transaction.query_one(&batch("WHERE id > $1"), &[&after]).await?,
        None => transaction.query_one(&batch(""), &[]).await?,
    };
    let (filled, reached): (i64, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    transaction.commit().await?;
    Ok((filled.unsigned_abs(), reached))
}

fn batch(after: &str) -> String {
    format!(
        "WITH batch AS MATERIALIZED (
            SELECT id, data, xmin AS writer, ctid AS place FROM people {after} ORDER BY id LIMIT {PEOPLE_IN_BATCH}
        ), filled AS (
            INSERT INTO fedgate_logins (id, password, roles, active, row_writer, row_place)
            SELECT batch.id, login.password, login.roles, login.active, writer, place
            FROM batch CROSS JOIN LATERAL fedgate_login(data) AS login
            WHERE NOT EXISTS (
                SELECT FROM fedgate_logins AS kept
                WHERE kept.id = batch.id::varchar COLLATE \"C\" AND row_writer = writer AND row_place = place
            )
            ORDER BY batch.id
            ON CONFLICT (id) DO UPDATE SET
                password = excluded.password, roles = excluded.roles, active = excluded.active,
                row_writer = excluded.row_writer, row_place = excluded.row_place
            RETURNING 1
        )
        SELECT (SELECT count(*) FROM filled), (SELECT id::varchar FROM batch OFFSET {})",
        PEOPLE_IN_BATCH - 1
    )
}

const REMOVE_ORPHANS: &str = "
    DELETE FROM fedgate_logins WHERE NOT EXISTS (
        SELECT FROM people WHERE people.id::varchar COLLATE \"C\" = fedgate_logins.id
    )";
