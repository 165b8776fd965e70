//! Writes of people that are decided by what was read in the same transaction.
//!
//! The one rule: what the decision reads is locked before it is read, so that it still holds when the writes follow.
//! The triggers of people know by the [`WriteMode`] that these writes keep the merges themselves.

use super::RecordStore;
use super::live_merges::put_persons;
use super::postgres::PostgresStore;
use super::rows::{SqlRow, SqlStatement, of_sqlite, rows};
use super::sql::SqlDialect;
use super::sqlite::{SqliteStore, add_keys};
use fedgate_base::db::DbError;

/// What a transaction is to the triggers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteMode {
    /// A merge or its end, which leaves one message of its own.
    Merge,
    /// A write to several records of one person.
    Through,
}

impl WriteMode {
    fn word(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Through => "through",
        }
    }
}

/// What a transaction does once it has read.
pub(super) enum SqlDecision<T> {
    /// These statements are executed.
    Write(Vec<SqlStatement>, T),
    /// Nothing is written.
    Leave(T),
}

impl RecordStore {
    /// Reads, decides, and writes, in one transaction. Returns the result and the rows of the last write.
    pub(super) async fn decide<T, D>(
        &self,
        mode: WriteMode,
        reads: Vec<SqlStatement>,
        decide: D,
    ) -> Result<(T, Vec<SqlRow>), DbError>
    where
        T: Send + 'static,
        D: FnOnce(Vec<Vec<SqlRow>>) -> SqlDecision<T> + Send + 'static,
    {
        written!(self, store => store.decide(mode, reads, decide))
    }
}

impl PostgresStore {
    async fn decide<T, D>(
        &self,
        mode: WriteMode,
        reads: Vec<SqlStatement>,
        decide: D,
    ) -> Result<(T, Vec<SqlRow>), DbError>
    where
        D: FnOnce(Vec<Vec<SqlRow>>) -> SqlDecision<T>,
    {
        const TELLS: &str = "SELECT set_config('fedgate.actor', coalesce($1::text, ''), true), \
                             set_config('fedgate.merging', $2::text, true)";
        let (acts, word) = (self.acts(), mode.word());
        let mut session = self.writer().await?;
        let transaction = session.transaction().await?;
        let tells = transaction.prepare_cached(TELLS).await?;
        transaction.query(&tells, &[&acts, &word]).await?;
        let mut found = Vec::new();
        for statement in &reads {
            let prepared = transaction.prepare_cached(&statement.text(SqlDialect::Postgres)).await?;
            found.push(rows(&transaction.query(&prepared, &statement.parameters()).await?)?);
        }
        let (writes, result) = match decide(found) {
            SqlDecision::Leave(result) => return Ok((result, vec![])),
            SqlDecision::Write(writes, result) => (writes, result),
        };
        let mut last = vec![];
        for statement in &writes {
            let prepared = transaction.prepare_cached(&statement.text(SqlDialect::Postgres)).await?;
            last = transaction.query(&prepared, &statement.parameters()).await?;
        }
        let last = rows(&last)?;
        self.add_keys(&transaction, &put_persons(&writes)).await?;
        transaction.commit().await?;
        Ok((result, last))
    }
}

impl SqliteStore {
    async fn decide<T, D>(
        &self,
        mode: WriteMode,
        reads: Vec<SqlStatement>,
        decide: D,
    ) -> Result<(T, Vec<SqlRow>), DbError>
    where
        T: Send + 'static,
        D: FnOnce(Vec<Vec<SqlRow>>) -> SqlDecision<T> + Send + 'static,
    {
        let keys = self.keys();
        let work = move |transaction: &rusqlite::Transaction<'_>| {
            let found = reads.iter().map(|read| of_sqlite(transaction, read)).collect::<Result<_, _>>()?;
            let (writes, result) = match decide(found) {
                SqlDecision::Leave(result) => return Ok((result, vec![])),
                SqlDecision::Write(writes, result) => (writes, result),
            };
            // The row is gone again before any other session can read it.
            transaction
                .prepare_cached("INSERT OR REPLACE INTO fedgate_merging (\"only\", mode) VALUES (1, ?1)")?
                .execute([mode.word()])?;
            let mut last = vec![];
            for statement in &writes {
                last = of_sqlite(transaction, statement)?;
            }
            transaction.prepare_cached("DELETE FROM fedgate_merging")?.execute([])?;
            add_keys(transaction, keys.as_ref(), &put_persons(&writes))?;
            Ok((result, last))
        };
        self.write_alone_as_actor(work).await
    }
}
