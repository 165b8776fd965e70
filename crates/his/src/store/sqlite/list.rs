//! Lists on SQLite, in chunks. Each chunk takes a reader and returns it, as on PostgreSQL.

use rusqlite::{ToSql, params_from_iter};

use super::super::element::{self, DocumentRow};
use super::super::sql::{self, SqlQuery};
use super::super::visible::seen;
use super::super::{ListChunk, ListQuery, ListWindow, RecordReach};
use super::{DIALECT, SqliteStore};
use fedgate_base::db::DbError;

impl SqliteStore {
    pub(in super::super) async fn chunk(
        &self,
        list: &ListQuery,
        window: &ListWindow,
        limit: usize,
        most: i64,
        reach: &RecordReach,
    ) -> Result<ListChunk, DbError> {
        let query = sql::select_list(DIALECT, list, window, limit, most, reach);
        let list = list.clone();
        let work = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(&query.sql)?;
            let mut rows = statement.query(params_from_iter(values(&query)))?;
            let mut chunk = ListChunk::default();
            while let Some(row) = rows.next()? {
                let id = row.get(2)?;
                let is_record = !matches!(list, ListQuery::Documents { .. });
                if is_record && !list.wants(row.get_ref(3)?.as_str_or_null()?) {
                    // SQL leaves out only pages that are more than a day too early. The exact moment decides
                    // here.
                    chunk.pass_over(id);
                    continue;
                }
                let Some(data) = row.get_ref(0)?.as_str_or_null()? else {
                    // Too long for the room: the caller asks again with room for just this row.
                    chunk.exceed(row.get(1)?);
                    return Ok(chunk);
                };
                let element = match &list {
                    ListQuery::People { .. } | ListQuery::Pages { .. } | ListQuery::Units(_) => {
                        element::record(id, &seen(list.table(), data))
                    }
                    ListQuery::Documents { form, .. } => {
                        let person = row.get_ref(3)?.as_str_or_null()?;
                        let page = row.get_ref(4)?.as_str_or_null()?;
                        let bytes = row.get_ref(5)?.as_bytes_or_null()?;
                        let has_content = row.get(6)?;
                        element::document(DocumentRow { id, data, person, page, bytes, has_content }, *form)
                    }
                };
                if !chunk.push(element) {
                    return Ok(chunk);
                }
            }
            chunk.end(limit);
            Ok(chunk)
        };
        self.read(work).await
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
        let list = list.clone();
        let work = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(&query.sql)?;
            let mut ids = vec![];
            let mut rows = statement.query(params_from_iter(values(&query)))?;
            while let Some(row) = rows.next()? {
                ids.push((row.get(0)?, list.wants(row.get_ref(1)?.as_str_or_null()?)));
            }
            Ok(ids)
        };
        self.read(work).await
    }
}

fn values(query: &SqlQuery) -> Vec<&dyn ToSql> {
    let texts = query.parameters.iter().map(|text| text as _);
    texts.chain([&query.limit as _]).chain(query.most.as_ref().map(|most| most as _)).collect()
}
