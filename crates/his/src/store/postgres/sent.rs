//! Messages that nodes send, on PostgreSQL.

use super::super::sent::{NodeMessage, SendResult, StoredMessage};
use super::PostgresStore;
use fedgate_base::db::DbError;

/// Stores a message, or returns the one that has its id.
const SEND: &str = "SELECT is_new, known_addressee, known_kind, known_data \
                    FROM fedgate_send($1::text, $2::text, $3::text, $4::text, $5::text::jsonb)";
const SENT: &str = "SELECT message.addressee, message.kind, message.data::text FROM fedgate_sent AS sent \
                    JOIN fedgate_messages AS message USING (entry) WHERE sent.sender = $1 AND sent.id = $2";
const COUNT: &str =
    "SELECT count(*) FROM (SELECT 1 FROM fedgate_sent WHERE sender = $1 LIMIT CAST($2 AS bigint)) AS counted";
/// How often a message is sent again whose namesake was deleted at that moment.
const ATTEMPTS: usize = 3;

impl PostgresStore {
    pub(in super::super) async fn send(&self, sender: &str, message: &NodeMessage) -> Result<SendResult, DbError> {
        let session = self.writer().await?;
        let statement = session.prepare_cached(SEND).await?;
        let NodeMessage { id, to, kind, data } = message;
        for _ in 0..ATTEMPTS {
            let row = session.query_one(&statement, &[&sender, id, &to.key(), kind, data]).await?;
            let (is_new, addressee): (bool, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
            if is_new {
                return Ok(SendResult::Done);
            }
            if let Some(addressee) = addressee {
                let known = StoredMessage { addressee, kind: row.try_get(2)?, data: row.try_get(3)? };
                return Ok(if message.is_same(&known) { SendResult::Done } else { SendResult::Taken });
            }
        }
        Ok(SendResult::Taken)
    }

    pub(in super::super) async fn sent(&self, sender: &str, id: &str) -> Result<Option<StoredMessage>, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(SENT).await?;
        let Some(row) = session.query_opt(&statement, &[&sender, &id]).await? else { return Ok(None) };
        Ok(Some(StoredMessage { addressee: row.try_get(0)?, kind: row.try_get(1)?, data: row.try_get(2)? }))
    }

    pub(in super::super) async fn count_sent(&self, sender: &str, most: i64) -> Result<i64, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(COUNT).await?;
        Ok(session.query_one(&statement, &[&sender, &most]).await?.try_get(0)?)
    }
}
