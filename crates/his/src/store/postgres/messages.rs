//! Messages on PostgreSQL.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::message_positions;
use super::super::message_row::MessageRow;
use super::super::messages::{self, MessageFilter, MessagePlaces};
use super::super::{ListChunk, MessageConcern, MessageReach, MessageShape};
use super::{DIALECT, PostgresStore};
use fedgate_base::db::{DbError, RowsLeft};

impl PostgresStore {
    /// The positions of at most `limit` messages after `after`.
    pub(in super::super) async fn message_places(
        &self,
        after: u64,
        limit: usize,
        filter: &MessageFilter,
        reach: &MessageReach,
    ) -> Result<MessagePlaces, DbError> {
        let (sql, texts) = message_positions::select_positions(DIALECT, filter, reach);
        let upto = message_positions::examined_upto(after, filter, reach);
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let [from, to] = [after, upto].map(|position| i64::try_from(position).unwrap_or(i64::MAX));
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&from, &to, &most];
        parameters.extend(texts.iter().map(|text| text as &(dyn ToSql + Sync)));
        let session = self.reader().await?;
        let statement = session.prepare_cached(&sql).await?;
        let rows = session.query(&statement, &parameters).await?;
        let rows: Result<Vec<_>, DbError> =
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))).collect();
        Ok(message_positions::places(&rows?, limit, upto))
    }

    /// What the messages after `after` and up to `upto` concern.
    pub(in super::super) async fn message_concerns(
        &self,
        after: i64,
        upto: i64,
    ) -> Result<Vec<MessageConcern>, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(&messages::select_concerns(DIALECT)).await?;
        let rows = session.query(&statement, &[&after, &upto]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The least end of the histories from `history` on.
    pub(in super::super) async fn history_end(&self, history: i64) -> Result<Option<i64>, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(messages::HISTORY_END).await?;
        Ok(session.query_one(&statement, &[&history]).await?.try_get(0)?)
    }

    /// Drops the oldest partition, if all of it is old enough, once what earlier ones left elsewhere is deleted. Returns
    /// whether it did either.
    pub(in super::super) async fn drop_messages(
        &self,
        seconds: Option<i64>,
        most: Option<i64>,
    ) -> Result<bool, DbError> {
        const CLEANED_AT_A_TIME: i64 = 2000;
        let cleaned =
            self.pool.get().await?.query_one("SELECT fedgate_clean_messages($1)", &[&CLEANED_AT_A_TIME]).await?;
        if cleaned.try_get::<_, i64>(0)? > 0 {
            return Ok(true);
        }
        // Dropping waits for readers of the partition, and others queue behind that wait, so it is short.
        let limit = "SET LOCAL lock_timeout = '400ms'";
        let drop = "SELECT r.first, fedgate_drop_messages($1, $2) FROM fedgate_relay r";
        let mut session = self.pool.get().await?;
        let transaction = session.transaction().await?;
        transaction.batch_execute(limit).await?;
        let row = transaction.query_one(drop, &[&seconds, &most]).await?;
        let (before, after): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        transaction.commit().await?;
        Ok(after > before)
    }

    /// The first of the messages at these positions, as many as fill a chunk.
    pub(in super::super) async fn messages(
        &self,
        positions: &[u64],
        most: i64,
        reach: &MessageReach,
        shape: MessageShape,
    ) -> Result<ListChunk, DbError> {
        let limit = positions.len();
        let positions: Vec<i64> = positions.iter().filter_map(|position| i64::try_from(*position).ok()).collect();
        let (sql, texts) = messages::select_messages(DIALECT, reach);
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&positions, &most];
        parameters.extend(texts.iter().map(|text| text as &(dyn ToSql + Sync)));
        let mut session = self.reader().await?;
        let statement = session.prepare_cached(&sql).await?;
        let mut chunk = ListChunk::default();
        if let [_] = positions.as_slice() {
            // One message needs no transaction: it is the usual answer to readers who wait, and this saves three round
            // trips of five.
            if let Some(row) = session.query_opt(&statement, &parameters).await? {
                take(&row, shape, &mut chunk)?;
            }
            return Ok(chunk);
        }
        let transaction = session.read_only().await?;
        let portal = transaction.bind(&statement, &parameters).await?;
        while chunk.takes_more() {
            match transaction.piece(&portal, chunk.next_piece(limit), |row| take(row, shape, &mut chunk)).await? {
                RowsLeft::Some => {}
                RowsLeft::None => break,
                // The session is still at work on rows that are not wanted. It is left to end by itself.
                RowsLeft::Unwanted => return Ok(chunk),
            }
        }
        transaction.commit().await?;
        Ok(chunk)
    }
}

/// Takes a message, and returns whether there is room for another.
fn take(row: &Row, shape: MessageShape, chunk: &mut ListChunk) -> Result<bool, DbError> {
    let (data, bytes): (Option<&str>, i64) = (row.try_get(0)?, row.try_get(1)?);
    if data.is_none() && bytes > 0 {
        chunk.exceed(bytes);
        return Ok(false);
    }
    let message = MessageRow {
        position: row.try_get(2)?,
        time: row.try_get(3)?,
        resource: row.try_get(4)?,
        person: row.try_get(5)?,
        id: row.try_get(6)?,
        method: row.try_get(7)?,
        node: row.try_get(8)?,
        author: row.try_get(9)?,
        kind: row.try_get(10)?,
        addressee: row.try_get(11)?,
        history: row.try_get(12)?,
        data,
    };
    Ok(chunk.push(message.element(shape)))
}
