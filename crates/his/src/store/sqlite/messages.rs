//! Messages on SQLite.

use rusqlite::{Connection, Row, ToSql, params_from_iter};

use super::super::message_positions;
use super::super::message_row::MessageRow;
use super::super::messages::{self, MessageFilter, MessagePlaces};
use super::super::{ListChunk, MessageConcern, MessageReach, MessageShape};
use super::{DIALECT, SqliteStore};
use fedgate_base::db::DbError;

impl SqliteStore {
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
        let work = move |connection: &Connection| {
            let most = i64::try_from(limit).unwrap_or(i64::MAX);
            let [from, to] = [after, upto].map(|position| i64::try_from(position).unwrap_or(i64::MAX));
            let mut parameters: Vec<&dyn ToSql> = vec![&from, &to, &most];
            parameters.extend(texts.iter().map(|text| text as &dyn ToSql));
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement
                .query_map(params_from_iter(parameters), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(message_positions::places(&rows, limit, upto))
        };
        self.read(work).await
    }

    /// What the messages after `after` and up to `upto` concern.
    pub(in super::super) async fn message_concerns(
        &self,
        after: i64,
        upto: i64,
    ) -> Result<Vec<MessageConcern>, DbError> {
        let work = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&messages::select_concerns(DIALECT))?;
            statement.query_map([after, upto], |row| row.get(0))?.collect()
        };
        self.read(work).await
    }

    /// The least end of the histories from `history` on.
    pub(in super::super) async fn history_end(&self, history: i64) -> Result<Option<i64>, DbError> {
        self.read(move |connection| connection.query_row(messages::HISTORY_END, [history], |row| row.get(0))).await
    }

    /// Begins another history, unless this is the first one.
    pub(in super::super) async fn take_history(&self) -> Result<(), DbError> {
        let work = move |transaction: &rusqlite::Transaction<'_>| {
            transaction.execute(
                "INSERT INTO fedgate_ended_histories (history, ends) SELECT history, \
                 coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'fedgate_messages'), 0) \
                 FROM fedgate_relay WHERE server IS NOT NULL",
                [],
            )?;
            transaction
                .execute("UPDATE fedgate_relay SET history = history + (server IS NOT NULL), server = 'begun'", [])
        };
        self.sqlite.write(work).await.map(|_| ())
    }

    /// The first of the messages at these positions, as many as fill a chunk.
    pub(in super::super) async fn messages(
        &self,
        positions: &[u64],
        most: i64,
        reach: &MessageReach,
        shape: MessageShape,
    ) -> Result<ListChunk, DbError> {
        let (sql, texts) = messages::select_messages(DIALECT, reach);
        let numbers: Vec<String> = positions.iter().map(u64::to_string).collect();
        let list = format!("[{}]", numbers.join(","));
        let work = move |connection: &Connection| {
            let mut parameters: Vec<&dyn ToSql> = vec![&list, &most];
            parameters.extend(texts.iter().map(|text| text as &dyn ToSql));
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(parameters))?;
            let mut chunk = ListChunk::default();
            while let Some(row) = rows.next()? {
                if !take(row, shape, &mut chunk)? {
                    break;
                }
            }
            Ok(chunk)
        };
        self.read(work).await
    }

    /// Deletes the oldest messages: those before the first one that is younger than `seconds`, and those beyond the
    /// youngest `most`. So none is deleted before an earlier one. A bounded number at a time, so that other writers wait only for a moment. Returns whether more are left to delete.
    pub(in super::super) async fn drop_messages(
        &self,
        seconds: Option<i64>,
        most: Option<i64>,
    ) -> Result<bool, DbError> {
        const AT_A_TIME: usize = 2000;
        let work = move |transaction: &rusqlite::Transaction<'_>| {
            let mut statement = transaction.prepare_cached(
                "WITH kept AS (SELECT max(coalesce(last - ?2, 0), CASE WHEN ?1 IS NULL THEN 0 ELSE coalesce((\
                 SELECT position - 1 FROM fedgate_messages \
                 WHERE at >= strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || ?1 || ' seconds') ORDER BY position LIMIT 1), last) END) \
                 AS before FROM (SELECT coalesce(max(position), 0) AS last FROM fedgate_messages)) \
                 DELETE FROM fedgate_messages WHERE position IN (SELECT position FROM fedgate_messages \
                 WHERE position <= (SELECT before FROM kept) ORDER BY position LIMIT ?3)",
            )?;
            let deleted = statement.execute(rusqlite::params![seconds, most, AT_A_TIME as i64])?;
            if deleted > 0 {
                transaction.execute(
                    "DELETE FROM fedgate_former_accounts WHERE position < (SELECT min(position) FROM fedgate_messages)",
                    [],
                )?;
            }
            Ok(deleted)
        };
        Ok(self.sqlite.write(work).await? >= AT_A_TIME)
    }
}

/// Takes a message, and returns whether there is room for another.
fn take(row: &Row<'_>, shape: MessageShape, chunk: &mut ListChunk) -> Result<bool, rusqlite::Error> {
    let text = |column: usize| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str_or_null()?);
    let (data, bytes): (_, i64) = (text(0)?, row.get(1)?);
    if data.is_none() && bytes > 0 {
        chunk.exceed(bytes);
        return Ok(false);
    }
    let message = MessageRow {
        position: row.get(2)?,
        time: text(3)?.unwrap_or_default(),
        resource: text(4)?.unwrap_or_default(),
        person: text(5)?,
        id: text(6)?,
        method: text(7)?.unwrap_or_default(),
        node: text(8)?,
        author: text(9)?,
        kind: text(10)?,
        addressee: text(11)?,
        history: row.get(12)?,
        data,
    };
    Ok(chunk.push(message.element(shape)))
}
