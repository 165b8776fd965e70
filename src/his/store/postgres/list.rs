//! Lists: read by the row, in chunks that each take a connection and give it back.
//!
//! A slow reader therefore holds no connection and no snapshot, and memory is flat in the number of rows. Rows are asked for in
//! pieces of about the size that the chunk has room for, so that what a list leaves unread stays where it is.

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::element::{self, DocumentRow};
use super::super::sql::{self, Query};
use super::super::visible::seen;
use super::super::{Chunk, List, Reach, Window};
use super::{DIALECT, Postgres};
use crate::db::{DbError, RowsLeft};

impl Postgres {
    pub(in super::super) async fn chunk(
        &self,
        list: &List,
        window: &Window,
        limit: usize,
        reach: &Reach,
    ) -> Result<Chunk, DbError> {
        let query = sql::select_list(DIALECT, list, window, limit, reach);
        let mut session = self.reader().await?;
        let statement = session.prepare_cached(&query.sql).await?;
        // A portal lives as long as its transaction.
        let transaction = session.read_only().await?;
        let portal = transaction.bind(&statement, &values(&query)).await?;
        let mut chunk = Chunk::default();
        loop {
            match transaction.piece(&portal, chunk.next_piece(), |row| take(list, row, &mut chunk)).await? {
                RowsLeft::Some if chunk.has_room() => {}
                RowsLeft::Some => break,
                RowsLeft::None => {
                    chunk.end(limit);
                    break;
                }
                // The session is at work on what nobody wants: it is not waited for.
                RowsLeft::Unwanted => return Ok(chunk),
            }
        }
        transaction.commit().await?;
        Ok(chunk)
    }

    /// At most `limit` ids, each with whether it is wanted.
    pub(in super::super) async fn ids(
        &self,
        list: &List,
        window: &Window,
        limit: usize,
        reach: &Reach,
    ) -> Result<Vec<(String, bool)>, DbError> {
        let query = sql::select_ids(DIALECT, list, window, limit, reach);
        let session = self.reader().await?;
        let statement = session.prepare_cached(&query.sql).await?;
        let rows = session.query(&statement, &values(&query)).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, list.wants(row.try_get(1)?)))).collect()
    }
}

/// Takes a row; whether there is room for another.
fn take(list: &List, row: &Row, chunk: &mut Chunk) -> Result<bool, DbError> {
    let id = row.try_get(0)?;
    let element = match list {
        List::People { .. } | List::Pages { .. } | List::Units(_) => {
            if !list.wants(row.try_get(2)?) {
                chunk.pass_over(id);
                return Ok(true);
            }
            element::record(id, &seen(list.table(), row.try_get(1)?))
        }
        List::Documents { form, .. } => {
            let (data, person, page) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
            let (bytes, has_content) = (row.try_get(4)?, row.try_get(5)?);
            element::document(DocumentRow { id, data, person, page, bytes, has_content }, *form)
        }
    };
    Ok(chunk.push(element))
}

fn values(query: &Query) -> Vec<&(dyn ToSql + Sync)> {
    let texts = query.parameters.iter().map(|text| text as _);
    texts.chain([&query.limit as _]).collect()
}
