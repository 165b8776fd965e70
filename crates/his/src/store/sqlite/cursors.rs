//! Cursors on SQLite.

use rusqlite::{Connection, Row, Transaction, params};

use super::super::cursors::{self, CursorCondition, CursorKey, CursorState, MOST_CURSORS, MessageCursor};
use super::{DIALECT, SqliteStore};
use fedgate_base::db::DbError;

impl SqliteStore {
    /// The cursors of an account, or the one of a name.
    pub(in super::super) async fn cursors(
        &self,
        account: &str,
        name: Option<&str>,
    ) -> Result<Vec<MessageCursor>, DbError> {
        let (account, name) = (account.to_owned(), name.map(str::to_owned));
        let work = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&cursors::select(DIALECT))?;
            let cursor = |row: &Row<'_>| {
                let position = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
                let history = row.get::<_, Option<i64>>(2)?.and_then(|history| u64::try_from(history).ok());
                Ok(MessageCursor { name: row.get(0)?, position, history, time: row.get(3)? })
            };
            statement.query_map(params![account, name], cursor)?.collect()
        };
        self.read(work).await
    }

    /// The facts that decide about a write.
    pub(in super::super) async fn cursor_state(&self, key: &CursorKey) -> Result<CursorState, DbError> {
        let key = key.clone();
        let work = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&cursors::select_state(DIALECT))?;
            let state = |row: &Row<'_>| {
                let (position, is_lost) = (row.get(0)?, row.get(1)?);
                Ok(CursorState { position, is_lost, last: row.get(2)?, count: row.get(3)? })
            };
            statement.query_row(params![key.account, key.name], state)
        };
        self.read(work).await
    }

    /// Moves a cursor, and returns whether it did.
    pub(in super::super) async fn move_cursor(
        &self,
        key: &CursorKey,
        position: i64,
        condition: &CursorCondition,
    ) -> Result<bool, DbError> {
        let (key, [wanted, unwanted]) = (key.clone(), lists(condition));
        let work = move |transaction: &Transaction<'_>| {
            let mut statement = transaction.prepare_cached(&cursors::update(DIALECT))?;
            statement.execute(params![key.account, key.name, position, wanted, unwanted])
        };
        Ok(self.write(0, work).await? > 0)
    }

    /// Makes a cursor, and returns whether it did.
    pub(in super::super) async fn make_cursor(&self, key: &CursorKey, position: i64) -> Result<bool, DbError> {
        let key = key.clone();
        let work = move |transaction: &Transaction<'_>| {
            let mut statement = transaction.prepare_cached(&cursors::insert(DIALECT))?;
            statement.execute(params![key.account, key.name, position, MOST_CURSORS])
        };
        Ok(self.write(0, work).await? > 0)
    }

    /// Deletes a cursor, and returns whether it did.
    pub(in super::super) async fn delete_cursor(
        &self,
        key: &CursorKey,
        condition: &CursorCondition,
    ) -> Result<bool, DbError> {
        let (key, [wanted, unwanted]) = (key.clone(), lists(condition));
        let work = move |transaction: &Transaction<'_>| {
            let mut statement = transaction.prepare_cached(&cursors::delete(DIALECT))?;
            statement.execute(params![key.account, key.name, wanted, unwanted])
        };
        Ok(self.write(0, work).await? > 0)
    }
}

/// The lists of a condition as JSON, which SQLite takes in place of arrays.
fn lists(condition: &CursorCondition) -> [Option<String>; 2] {
    let list = |positions: &Option<Vec<i64>>| {
        let numbers = positions.as_ref()?.iter().map(i64::to_string).collect::<Vec<_>>();
        Some(format!("[{}]", numbers.join(",")))
    };
    [list(&condition.wanted), list(&condition.unwanted)]
}
