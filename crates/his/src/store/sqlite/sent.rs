//! Messages that nodes send, on SQLite.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::sent::{NodeMessage, SendResult, StoredMessage};
use super::SqliteStore;
use fedgate_base::db::DbError;

const INSERT: &str = "INSERT INTO fedgate_messages (resource, id, method, node, kind, addressee, data) \
                      VALUES ('message', ?1, 'POST', ?2, ?3, ?4, ?5)";
// What a former account of the same id sent is not this one's.
const SENT: &str = "SELECT addressee, kind, data FROM fedgate_messages WHERE node = ?1 AND id = ?2 AND addressee IS NOT NULL \
     AND position > coalesce((SELECT position FROM fedgate_former_accounts WHERE account = ?1), 0)";
const COUNT: &str = "SELECT count(*) FROM (SELECT 1 FROM fedgate_messages WHERE node = ?1 AND addressee IS NOT NULL \
                     AND position > coalesce((SELECT position FROM fedgate_former_accounts WHERE account = ?1), 0) LIMIT ?2)";

impl SqliteStore {
    pub(in super::super) async fn send(&self, sender: &str, message: &NodeMessage) -> Result<SendResult, DbError> {
        let (sender, message, bytes) = (sender.to_owned(), message.clone(), message.data.len());
        let work = move |transaction: &Transaction<'_>| {
            // Looked up first: a row that is refused for its id would cost a position, and positions are dense.
            if let Some(known) = known(transaction, &sender, &message.id)? {
                return Ok(if message.is_same(&known) { SendResult::Done } else { SendResult::Taken });
            }
            let NodeMessage { id, to, kind, data } = &message;
            transaction.prepare_cached(INSERT)?.execute(params![id, sender, kind, to.key(), data])?;
            Ok(SendResult::Done)
        };
        self.write(bytes, work).await
    }

    pub(in super::super) async fn sent(&self, sender: &str, id: &str) -> Result<Option<StoredMessage>, DbError> {
        let (sender, id) = (sender.to_owned(), id.to_owned());
        self.read(move |connection| known(connection, &sender, &id)).await
    }

    pub(in super::super) async fn count_sent(&self, sender: &str, most: i64) -> Result<i64, DbError> {
        let sender = sender.to_owned();
        let work = move |connection: &Connection| {
            connection.prepare_cached(COUNT)?.query_row(params![sender, most], |row| row.get(0))
        };
        self.read(work).await
    }
}

fn known(connection: &Connection, sender: &str, id: &str) -> Result<Option<StoredMessage>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(SENT)?;
    let stored =
        |row: &rusqlite::Row<'_>| Ok(StoredMessage { addressee: row.get(0)?, kind: row.get(1)?, data: row.get(2)? });
    statement.query_row(params![sender, id], stored).optional()
}
