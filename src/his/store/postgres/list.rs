//! Lists: read by the row, in chunks that each take a connection and give it back.
//!
//! A slow reader therefore holds no connection and no snapshot, and memory is flat in the number of rows.

use futures_util::{StreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use super::super::element::{self, DocumentRow};
use super::super::sql::{self, Query};
use super::super::{Chunk, List, Reach, Window};
use super::{DIALECT, Postgres};
use crate::db::DbError;

impl Postgres {
    pub(in super::super) async fn chunk(
        &self,
        list: &List,
        window: &Window,
        limit: usize,
        reach: &Reach,
    ) -> Result<Chunk, DbError> {
        let query = sql::select_list(DIALECT, list, window, limit, reach);
        let client = self.client().await?;
        let statement = client.prepare_cached(&query.sql).await?;
        let rows = client.query_raw(&statement, values(&query)).await?;
        pin_mut!(rows);
        let mut chunk = Chunk::default();
        while let Some(row) = rows.next().await {
            let row = row?;
            let id = row.try_get(0)?;
            let element = match list {
                List::People { .. } | List::Pages { .. } | List::Units(_) => {
                    if !list.wants(row.try_get(2)?) {
                        chunk.pass_over(id);
                        continue;
                    }
                    element::record(id, row.try_get(1)?)
                }
                List::Documents { form, .. } => {
                    let (data, person, page, bytes) =
                        (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
                    element::document(DocumentRow { id, data, person, page, bytes }, *form)
                }
            };
            if !chunk.push(element) {
                return Ok(chunk);
            }
        }
        chunk.end(limit);
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
        let client = self.client().await?;
        let statement = client.prepare_cached(&query.sql).await?;
        let rows = client.query(&statement, &values(&query)).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, list.wants(row.try_get(1)?)))).collect()
    }
}

fn values(query: &Query) -> Vec<&(dyn ToSql + Sync)> {
    let texts = query.parameters.iter().map(|text| text as _);
    texts.chain([&query.limit as _]).collect()
}
