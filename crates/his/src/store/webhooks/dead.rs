//! Dead letters: messages that could not be sent. They are kept until an operator sends them again or gives them up.

use super::super::rows::{SqlRow, SqlStatement, SqlValue};
use crate::store::RecordStore;
use fedgate_base::db::DbError;

/// A message that could not be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The webhook.
    pub webhook: String,
    /// The position of the message.
    pub position: u64,
    /// The person, or the record without a person.
    pub lane: String,
    /// How often it was sent.
    pub attempts: u64,
    /// When it was given up, in milliseconds since 1970.
    pub since: i64,
    /// Why it was not sent the last time.
    pub problem: String,
}

impl DeadLetter {
    fn of(row: &SqlRow) -> Self {
        Self {
            webhook: row.text(0),
            position: row.count(1),
            lane: row.text(2),
            attempts: row.count(3),
            since: row.some_number(4).unwrap_or(0),
            problem: row.text(5),
        }
    }
}

impl RecordStore {
    /// Dead letters, of one webhook or of all; at most `most`, in order.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn dead_letters(&self, webhook: Option<&str>, most: u64) -> Result<Vec<DeadLetter>, DbError> {
        const SQL: &str = "SELECT webhook, position, lane, attempts, due, coalesce(detail, problem) FROM fedgate_deliveries \
                           WHERE state = 'dead' AND (CAST($1 AS varchar) IS NULL OR webhook = CAST($1 AS varchar)) \
                           ORDER BY webhook, position LIMIT CAST($2 AS bigint)";
        let webhook = SqlValue::Text(webhook.map(str::to_owned));
        let rows = self.read_rows(SqlStatement::of(SQL, vec![webhook, most.into()])).await?;
        Ok(rows.iter().map(DeadLetter::of).collect())
    }

    /// Lets dead letters of a webhook be sent again: those at these positions, or all. Returns how many. Those whose
    /// messages are kept no longer are dropped.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn replay_dead_letters(&self, webhook: &str, positions: Option<&[u64]>) -> Result<usize, DbError> {
        const SOME: &str = "UPDATE fedgate_deliveries SET state = 'waiting', attempts = 0, due = 0 \
                            WHERE webhook = $1 AND state = 'dead' AND position IN {listed $2} RETURNING position";
        const ALL: &str = "UPDATE fedgate_deliveries SET state = 'waiting', attempts = 0, due = 0 \
                           WHERE webhook = $1 AND state = 'dead' RETURNING position";
        const DROP_SOME: &str = "DELETE FROM fedgate_deliveries WHERE webhook = $1 AND state = 'dead' \
                                 AND position < {first} AND position IN {listed $2} RETURNING position";
        const DROP_ALL: &str = "DELETE FROM fedgate_deliveries WHERE webhook = $1 AND state = 'dead' \
                                AND position < {first} RETURNING position";
        // The owner reads again what waits, because the version is another.
        let heed = "UPDATE fedgate_webhooks SET version = version + 1 WHERE id = $1 RETURNING id";
        let heed = SqlStatement::of(heed, vec![webhook.into()]);
        let [drop, replay] = match positions {
            None => [DROP_ALL, ALL].map(|sql| SqlStatement::of(sql, vec![webhook.into()])),
            Some(positions) => {
                let list = positions.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
                [DROP_SOME, SOME].map(|sql| SqlStatement::of(sql, vec![webhook.into(), list.as_str().into()]))
            }
        };
        Ok(self.write_rows(vec![heed, drop, replay]).await?.map_or(0, |rows| rows.len()))
    }
}
