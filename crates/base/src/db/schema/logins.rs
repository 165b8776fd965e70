//! Fills the table that logins read (`fedgate_logins`) for persons who were there before it, or whose rows were written while
//! its trigger was away.
//!
//! The one rule: nobody waits for it. It goes through the people in small transactions of their own, after the schema is
//! there, and steps back from whoever holds a row. Until it has come to a person, a login reads that person's document.

use std::time::Instant;

use super::super::{DbError, PooledSession, WaitReason};
use super::{PATIENCE, RETRY};

/// How long it waits for a row that somebody writes: less than `deadlock_timeout`, so that it is never the writer who is
/// sent away.
const LOCK_TIMEOUT_MS: u64 = 100;
/// How often it goes through all people at most: who was written while it looked may need another look.
const PASSES: usize = 3;

/// Fills what is missing, and takes away what is left of persons who are gone.
///
/// # Errors
/// The database is away, or somebody holds the same rows for a minute.
pub(super) async fn fill(session: &mut PooledSession) -> Result<(), DbError> {
    for _ in 0..PASSES {
        if fill_once(session).await? == 0 {
            break;
        }
    }
    let transaction = session.transaction().await?;
    transaction.batch_execute("SET LOCAL statement_timeout = 0").await?;
    transaction.execute(REMOVE_ORPHANS, &[]).await?;
    transaction.commit().await
}

/// Goes through all people once; how many were missing.
async fn fill_once(session: &mut PooledSession) -> Result<u64, DbError> {
    let (mut last, mut filled) = (None, 0);
    loop {
        let (more, reached) = fill_batch_in_turn(session, last.as_deref()).await?;
        filled += more;
        if reached.is_none() {
            return Ok(filled);
        }
        last = reached;
    }
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
            let held = "a session holds rows of people whom the migration comes to (a long transaction); run it again when \
                        that has ended";
            return Err(DbError::Unavailable(held.into()));
        }
        tokio::time::sleep(RETRY / 5).await;
    }
}

/// The next people after an id: how many were missing, and the last of them.
async fn fill_batch(session: &mut PooledSession, after: Option<&str>) -> Result<(u64, Option<String>), DbError> {
    let transaction = session.transaction().await?;
    // By the indexes, whatever is known of the tables: one that was just made was never analyzed, and to sort or to hash all
    // of it for each batch takes hours.
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
            SELECT id, data, xmin AS writer, ctid AS place FROM people {after} ORDER BY id LIMIT 200
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
        SELECT (SELECT count(*) FROM filled), (SELECT id::varchar FROM batch OFFSET 199)"
    )
}

const REMOVE_ORPHANS: &str = "
    DELETE FROM fedgate_logins WHERE NOT EXISTS (
        SELECT FROM people WHERE people.id::varchar COLLATE \"C\" = fedgate_logins.id
    )";
