//! Cursors on PostgreSQL.

use super::super::cursors::{self, CursorCondition, CursorKey, CursorState, MOST_CURSORS, MessageCursor};
use super::{DIALECT, PostgresStore};
use fedgate_base::db::DbError;

/// One transaction at a time makes a cursor of an account (`$1`), so that their number stays within its bound.
const TAKE_TURNS: &str = "SELECT pg_advisory_xact_lock(hashtextextended('fedgate_cursors ' || $1::text, 0))";

impl PostgresStore {
    /// The cursors of an account, or the one of a name.
    pub(in super::super) async fn cursors(
        &self,
        account: &str,
        name: Option<&str>,
    ) -> Result<Vec<MessageCursor>, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(&cursors::select(DIALECT)).await?;
        let rows = session.query(&statement, &[&account, &name]).await?;
        let cursor = |row: &tokio_postgres::Row| -> Result<MessageCursor, DbError> {
            let (position, history): (i64, Option<i64>) = (row.try_get(1)?, row.try_get(2)?);
            let position = u64::try_from(position).unwrap_or(0);
            let history = history.and_then(|history| u64::try_from(history).ok());
            Ok(MessageCursor { name: row.try_get(0)?, position, history, time: row.try_get(3)? })
        };
        rows.iter().map(cursor).collect()
    }

    /// The facts that decide about a write.
    pub(in super::super) async fn cursor_state(&self, key: &CursorKey) -> Result<CursorState, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(&cursors::select_state(DIALECT)).await?;
        let row = session.query_one(&statement, &[&key.account, &key.name]).await?;
        Ok(CursorState {
            position: row.try_get(0)?,
            is_lost: row.try_get(1)?,
            last: row.try_get(2)?,
            count: row.try_get(3)?,
        })
    }

    /// Moves a cursor, and returns whether it did.
    pub(in super::super) async fn move_cursor(
        &self,
        key: &CursorKey,
        position: i64,
        condition: &CursorCondition,
    ) -> Result<bool, DbError> {
        let session = self.writer().await?;
        let statement = session.prepare_cached(&cursors::update(DIALECT)).await?;
        let CursorCondition { wanted, unwanted } = condition;
        Ok(session.execute(&statement, &[&key.account, &key.name, &position, wanted, unwanted]).await? > 0)
    }

    /// Makes a cursor, and returns whether it did.
    pub(in super::super) async fn make_cursor(&self, key: &CursorKey, position: i64) -> Result<bool, DbError> {
        let mut session = self.writer().await?;
        let transaction = session.transaction().await?;
        // A statement of its own: the next one sees the cursors that others made meanwhile.
        let turns = transaction.prepare_cached(TAKE_TURNS).await?;
        transaction.query_one(&turns, &[&key.account]).await?;
        let statement = transaction.prepare_cached(&cursors::insert(DIALECT)).await?;
        let made = transaction.execute(&statement, &[&key.account, &key.name, &position, &MOST_CURSORS]).await?;
        transaction.commit().await?;
        Ok(made > 0)
    }

    /// Deletes a cursor, and returns whether it did.
    pub(in super::super) async fn delete_cursor(
        &self,
        key: &CursorKey,
        condition: &CursorCondition,
    ) -> Result<bool, DbError> {
        let session = self.writer().await?;
        let statement = session.prepare_cached(&cursors::delete(DIALECT)).await?;
        let CursorCondition { wanted, unwanted } = condition;
        Ok(session.execute(&statement, &[&key.account, &key.name, wanted, unwanted]).await? > 0)
    }
}
