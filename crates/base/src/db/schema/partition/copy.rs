//! Copies rows, in short transactions and in the order of persons, and copies again what was written meanwhile.
//!
//! The one rule: a row that is noted is copied again after the note was seen, from what is there then. So it does not
//! matter in which order a copy and a write of the same row come.

use std::time::{Duration, Instant};

use super::super::super::{DbError, PooledSession, SessionTransaction};
use super::super::RETRY;
use super::state::MoveState;
use super::table::MovedTable;
use super::{Mover, PartitionError};

/// How long a batch should take: a batch that takes longer is halved, and one that is quick doubled.
const BATCH_TIME: Duration = Duration::from_millis(500);
const MOST_ROWS: i64 = 20_000;
/// The noted rows that one transaction copies again.
const NOTED: i64 = 500;

impl Mover<'_> {
    /// Copies every row that was there at the begin.
    pub(super) async fn copy(&mut self, table: &MovedTable) -> Result<(), PartitionError> {
        let Some(state) = MoveState::read(self.session, table).await? else { return Ok(()) };
        let columns = table.columns(self.session).await?;
        let has_ids = table.count(self.session).await?.is_one_table();
        let total = self.estimate(table).await?;
        let (mut last, mut copied, mut rows) = (state.last, state.copied, table.batch);
        loop {
            let began = Instant::now();
            let batch = batch_sql(table, &columns, has_ids, last.is_some());
            let Some((count, reached)) = copy_batch(self.session, &batch, table, last.as_ref(), rows).await? else {
                break;
            };
            copied += count;
            last = Some(reached);
            let percent = (copied.saturating_mul(100) / total.max(copied).max(1)).min(99);
            let words = self.count.in_words();
            (self.report)(&format!("copying `{}` to {words}: {percent} %, {copied} rows", table.name));
            match began.elapsed() {
                slow if slow > BATCH_TIME => rows = (rows / 2).max(1),
                quick if quick < BATCH_TIME / 2 => rows = (rows * 2).min(MOST_ROWS),
                _ => {}
            }
        }
        Ok(())
    }

    async fn estimate(&self, table: &MovedTable) -> Result<i64, DbError> {
        Ok(self.session.query_one(ESTIMATE, &[&table.name]).await?.try_get(0)?)
    }

    /// Copies again what was noted, until little is left; and waits for the transactions that might not see the copy.
    pub(super) async fn catch_up(&mut self, table: &MovedTable) -> Result<(), PartitionError> {
        let again = Recopy::of(self.session, table).await?;
        self.recopy_all(&again, table).await?;
        (self.report)(&format!("gathering statistics of the copy of `{}`", table.name));
        self.session.batch_execute(&format!("ANALYZE {}", table.copy())).await?;
        self.compare(table, &again).await?;
        // A transaction that keeps a snapshot from before would find a table without the rows that were copied since.
        let older = self.others(OTHERS, &[]).await?;
        loop {
            self.recopy_all(&again, table).await?;
            let left = self.others(OTHERS_LEFT, &older).await?;
            let Some(first) = left.first() else { return Ok(()) };
            (self.report)(&format!(
                "the swap of `{}` waits for {} transactions that are older than the copy, first that of {first}",
                table.name,
                left.len()
            ));
            tokio::time::sleep(RETRY / 5).await;
        }
    }

    /// Transactions of other sessions; `known` ones, or all.
    async fn others(&self, sql: &str, known: &[String]) -> Result<Vec<String>, DbError> {
        let rows = self.session.query(sql, &[&known]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Copies again all that is noted now.
    pub(super) async fn recopy_all(&mut self, again: &Recopy, table: &MovedTable) -> Result<(), PartitionError> {
        loop {
            let transaction = self.session.transaction().await?;
            let count = again.some(&transaction).await?;
            transaction.commit().await?;
            if count < NOTED as usize {
                return Ok(());
            }
            (self.report)(&format!("copying rows of `{}` again that were written meanwhile", table.name));
        }
    }

    /// Compares the keys of both tables in one snapshot. A key that differs is noted, once; none should.
    async fn compare(&mut self, table: &MovedTable, again: &Recopy) -> Result<(), PartitionError> {
        (self.report)(&format!("comparing `{}` with its copy", table.name));
        let sql = compare_sql(table, again.has_ids);
        for is_first in [true, false] {
            let found = self.session.execute(&sql, &[&table.name]).await?;
            if found == 0 {
                return Ok(());
            }
            if !is_first {
                let differ =
                    format!("the copy of `{}` lacks rows, or has others ({found}); run this again", table.name);
                return Err(DbError::Unavailable(differ.into()).into());
            }
            tracing::warn!("{found} rows of `{}` are copied again: the copy did not have them", table.name);
            self.recopy_all(again, table).await?;
        }
        Ok(())
    }
}

/// The statements that copy noted rows again.
pub(super) struct Recopy {
    name: &'static str,
    has_ids: bool,
    forget: Vec<String>,
    copy: Vec<String>,
}

impl Recopy {
    pub(super) async fn of(session: &PooledSession, table: &MovedTable) -> Result<Self, PartitionError> {
        let has_ids = table.count(session).await?.is_one_table();
        let (name, person, ids, copy) = (table.name, table.person, table.ids, table.copy());
        let columns = table.columns(session).await?;
        let mut again = Self {
            name,
            has_ids,
            forget: vec![format!("DELETE FROM {copy} WHERE id = ANY ($1::text[])")],
            copy: vec![format!(
                "INSERT INTO {copy} ({columns}) SELECT {columns} FROM {name} WHERE id = ANY ($1::text[])"
            )],
        };
        if has_ids {
            again.forget.push(format!("DELETE FROM {ids} WHERE id = ANY ($1::text[])"));
            again.copy.push(format!(
                "INSERT INTO {ids} (id, {person}) SELECT id, {person} FROM {name} WHERE id = ANY ($1::text[])"
            ));
        }
        Ok(again)
    }

    /// Copies some noted rows again, and returns how many notes that were.
    pub(super) async fn some(&self, transaction: &SessionTransaction<'_>) -> Result<usize, DbError> {
        // Each statement sees at least what the one before it saw, and a later write has a note of its own.
        let rows = transaction.query(TAKE_NOTED, &[&self.name, &NOTED]).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let mut ids = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<String>, DbError>>()?;
        ids.sort_unstable();
        ids.dedup();
        for sql in self.forget.iter().chain(&self.copy) {
            transaction.execute(sql, &[&ids]).await?;
        }
        Ok(rows.len())
    }
}

/// Copies the next rows, and returns how many and the last of them; none if there are no more.
async fn copy_batch(
    session: &mut PooledSession,
    sql: &str,
    table: &MovedTable,
    last: Option<&(String, String)>,
    rows: i64,
) -> Result<Option<(i64, (String, String))>, DbError> {
    let transaction = session.transaction().await?;
    // The index must be used, whatever the statistics say: sorting the table for each batch would take days.
    let limits = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off; \
                  SET LOCAL enable_incremental_sort = off; SET LOCAL jit = off; \
                  SET LOCAL max_parallel_workers_per_gather = 0";
    transaction.batch_execute(limits).await?;
    let row = match last {
        Some((person, id)) => transaction.query_opt(sql, &[&rows, person, id]).await?,
        None => transaction.query_opt(sql, &[&rows]).await?,
    };
    let Some(row) = row else { return Ok(None) };
    let (count, person, id): (i64, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    transaction.execute(REMEMBER, &[&table.name, &person, &id, &count]).await?;
    transaction.commit().await?;
    Ok(Some((count, (person, id))))
}

/// Copies `$1` rows, after the person `$2` and the id `$3`.
fn batch_sql(table: &MovedTable, columns: &str, has_ids: bool, is_after: bool) -> String {
    let (name, person, ids, copy) = (table.name, table.person, table.ids, table.copy());
    let after = if is_after { format!("WHERE ({person}, id) > ($2::varchar, $3::varchar)") } else { String::new() };
    let known = match has_ids {
        true => format!(
            ", known AS (INSERT INTO {ids} (id, {person}) SELECT id, {person} FROM batch ON CONFLICT DO NOTHING)"
        ),
        false => String::new(),
    };
    format!(
        "WITH batch AS MATERIALIZED (
            SELECT {columns} FROM {name} {after} ORDER BY {person}, id LIMIT $1
        ), copied AS (
            INSERT INTO {copy} ({columns}) SELECT {columns} FROM batch ON CONFLICT DO NOTHING
        ){known}
        SELECT (SELECT count(*) FROM batch), {person}::varchar, id::varchar FROM batch ORDER BY {person} DESC, id DESC LIMIT 1"
    )
}

/// Notes the ids of rows that only one of both tables has, and that are not noted.
fn compare_sql(table: &MovedTable, has_ids: bool) -> String {
    let (name, person, ids, copy) = (table.name, table.person, table.ids, table.copy());
    let lacks = |one: &str, other: &str| {
        format!(
            "SELECT one.id FROM {one} AS one WHERE NOT EXISTS (
                SELECT FROM {other} AS other WHERE other.id = one.id AND other.{person} = one.{person}
            )"
        )
    };
    let mut differences = vec![lacks(name, &copy), lacks(&copy, name)];
    if has_ids {
        differences.extend([lacks(name, ids), lacks(ids, name)]);
    }
    format!(
        "INSERT INTO fedgate_moved_rows (moved, id)
        SELECT $1::text, id FROM ({}) AS differ
        WHERE NOT EXISTS (SELECT FROM fedgate_moved_rows AS noted WHERE noted.moved = $1::text AND (noted.id = differ.id OR noted.id IS NULL))",
        differences.join(" UNION ")
    )
}

const ESTIMATE: &str = "
    SELECT greatest(sum(reltuples), 0)::bigint FROM pg_class WHERE oid = to_regclass($1::text)
    OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1::text))";
const REMEMBER: &str = "
    UPDATE fedgate_partition_moves SET person = $2, id = $3, copied = copied + $4 WHERE moved = $1";
const TAKE_NOTED: &str = "
    DELETE FROM fedgate_moved_rows WHERE number IN (
        SELECT number FROM fedgate_moved_rows WHERE moved = $1 AND id IS NOT NULL ORDER BY number LIMIT $2
    ) RETURNING id::varchar";
// Those of the server itself have no user.
const OTHERS: &str = "
    SELECT virtualtransaction FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'virtualxid' AND datname = current_database() AND usesysid IS NOT NULL AND pid <> pg_backend_pid()
    AND virtualtransaction <> ALL ($1::text[])";
const OTHERS_LEFT: &str = "
    SELECT format('session %s (`%s`)', pid, application_name) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'virtualxid' AND virtualtransaction = ANY ($1::text[]) AND pid <> pg_backend_pid()
    ORDER BY pid";
