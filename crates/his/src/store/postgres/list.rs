//! Lists on PostgreSQL, in chunks. Each chunk takes a connection and returns it.
//!
//! So a slow client holds neither a connection nor a snapshot, and memory does not grow with the number of rows. Rows
//! are fetched in pieces of about the size of the remaining room, so that the server sends few rows that are not used.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::element::{self, DocumentRow};
use super::super::shares::StoreTurn;
use super::super::sql::{self, SqlQuery};
use super::super::visible::seen;
use super::super::{CHUNK_BYTES, ListChunk, ListQuery, ListWindow, RecordReach};
use super::{DIALECT, PostgresStore};
use fedgate_base::db::{DbError, RowsLeft, SessionPool, ShortRead};

/// So few pages are read in one round trip, without a portal: no more than a portal brings first.
const MOST_AT_ONCE: i32 = 16;

impl PostgresStore {
    pub(in super::super) async fn chunk(
        &self,
        list: &ListQuery,
        window: &ListWindow,
        limit: usize,
        most: i64,
        reach: &RecordReach,
    ) -> Result<ListChunk, DbError> {
        let query = sql::select_list(DIALECT, list, window, limit, most, reach);
        let part = ChunkQuestion { list, query: &query, limit, few: at_once(list, window, limit, most) };
        if let Some((replica, turn)) = self.fresh_replica().await {
            let read = part.read(replica.pool(), turn).await;
            if let Some(chunk) = replica.heeded(read) {
                return Ok(chunk);
            }
        }
        part.read(&self.pool, self.turns.read().await?).await
    }

    /// At most `limit` ids, each with whether the date keeps it.
    pub(in super::super) async fn ids(
        &self,
        list: &ListQuery,
        window: &ListWindow,
        limit: usize,
        reach: &RecordReach,
    ) -> Result<Vec<(String, bool)>, DbError> {
        let query = sql::select_ids(DIALECT, list, window, limit, reach);
        if let Some((replica, turn)) = self.fresh_replica().await {
            let read = ids(replica.pool(), turn, list, &query).await;
            if let Some(found) = replica.heeded(read) {
                return Ok(found);
            }
        }
        ids(&self.pool, self.turns.read().await?, list, &query).await
    }
}

/// A part of a list, on whichever server.
struct ChunkQuestion<'a> {
    list: &'a ListQuery,
    query: &'a SqlQuery,
    limit: usize,
    /// How many rows are read in one round trip; none for a portal.
    few: Option<i32>,
}

impl ChunkQuestion<'_> {
    async fn read(&self, pool: &SessionPool, turn: StoreTurn) -> Result<ListChunk, DbError> {
        let Self { list, query, limit, few } = *self;
        let mut chunk = ListChunk::default();
        if let Some(few) = few {
            let read = ShortRead { table: list.table().name(), sql: &query.sql, of: &values(query) };
            match pool.read_few(read, few, |row| take(list, row, &mut chunk), turn).await? {
                RowsLeft::None => chunk.end(limit),
                // Also if the last of the rows had no room.
                RowsLeft::Some | RowsLeft::Unwanted => {}
            }
            return Ok(chunk);
        }
        let mut session = pool.get_with(turn).await?;
        let statement = session.prepare_cached(&query.sql).await?;
        // A portal lives as long as its transaction.
        let transaction = session.read_only().await?;
        let portal = transaction.bind(&statement, &values(query)).await?;
        loop {
            match transaction.piece(&portal, chunk.next_piece(limit), |row| take(list, row, &mut chunk)).await? {
                RowsLeft::Some if chunk.takes_more() => {}
                RowsLeft::Some => break,
                RowsLeft::None => {
                    chunk.end(limit);
                    break;
                }
                // The session is still at work on rows that are not wanted. It is left to end by itself.
                RowsLeft::Unwanted => return Ok(chunk),
            }
        }
        transaction.commit().await?;
        Ok(chunk)
    }
}

async fn ids(
    pool: &SessionPool,
    turn: StoreTurn,
    list: &ListQuery,
    query: &SqlQuery,
) -> Result<Vec<(String, bool)>, DbError> {
    let session = pool.get_with(turn).await?;
    let statement = session.prepare_cached(&query.sql).await?;
    let rows = session.query(&statement, &values(query)).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, list.wants(row.try_get(1)?)))).collect()
}

/// The rows of a part that is read on a session which is shared with other reads: the first pages of a book. Other lists
/// may search long before they find a row, and a single page may be long.
fn at_once(list: &ListQuery, window: &ListWindow, limit: usize, most: i64) -> Option<i32> {
    match list {
        ListQuery::Pages { persons, since: None, page_type: None, .. }
            if persons.len() == 1 && window.changed.is_none() && most <= CHUNK_BYTES as i64 =>
        {
            i32::try_from(limit).ok().filter(|limit| *limit <= MOST_AT_ONCE)
        }
        ListQuery::Pages { .. } | ListQuery::People { .. } | ListQuery::Units(_) | ListQuery::Documents { .. } => None,
    }
}

/// Takes a row, and returns whether there is room for another.
fn take(list: &ListQuery, row: &Row, chunk: &mut ListChunk) -> Result<bool, DbError> {
    let id = row.try_get(2)?;
    let is_record = !matches!(list, ListQuery::Documents { .. });
    if is_record && !list.wants(row.try_get(3)?) {
        // SQL leaves out only pages that are more than a day too early. The exact moment decides here.
        chunk.pass_over(id);
        return Ok(true);
    }
    let Some(data) = row.try_get::<_, Option<&str>>(0)? else {
        // Too long for the room: the caller asks again with room for just this row.
        chunk.exceed(row.try_get(1)?);
        return Ok(false);
    };
    let element = match list {
        ListQuery::People { .. } | ListQuery::Pages { .. } | ListQuery::Units(_) => {
            element::record(id, &seen(list.table(), data))
        }
        ListQuery::Documents { form, .. } => {
            let (person, page, bytes, has_content) =
                (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
            element::document(DocumentRow { id, data, person, page, bytes, has_content }, *form)
        }
    };
    Ok(chunk.push(element))
}

fn values(query: &SqlQuery) -> Vec<&(dyn ToSql + Sync)> {
    let texts = query.parameters.iter().map(|text| text as _);
    texts.chain([&query.limit as _]).chain(query.most.as_ref().map(|most| most as _)).collect()
}
