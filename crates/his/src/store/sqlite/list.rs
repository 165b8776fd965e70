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

#[cfg(test)]
mod tests {
    use super::super::super::RecordReach;
    use super::*;
    use fedgate_base::db::{Database, SqliteFile, schema};
    use std::time::Duration;

    #[tokio::test]
    async fn the_people_of_a_list_are_found_by_an_index_of_the_member_that_fewest_share() {
        let directory = std::env::temp_dir().join(format!("fedhis-lists-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let sqlite = SqliteFile::open(&directory.join("his.db"), Duration::from_secs(2)).await.unwrap();
        schema::migrate(&Database::Sqlite(sqlite.clone())).await.unwrap();
        for (members, index) in [
            (vec!["lastname"], "people_lastname"),
            (vec!["gender"], "people_gender"),
            (vec!["name", "lastname", "dob", "gender"], "people_dob"),
            (vec!["name", "gender"], "people_name"),
        ] {
            for after in [None, Some("B".to_owned())] {
                let members = members.iter().map(|member| (*member, "x".to_owned())).collect();
                let (list, window) = (ListQuery::People { members }, ListWindow { after, ..ListWindow::default() });
                let rows = sql::select_list(DIALECT, &list, &window, 9, 999, &RecordReach::Global);
                let ids = sql::select_ids(DIALECT, &list, &window, 9, &RecordReach::Global);
                for query in [rows, ids] {
                    let explain = move |connection: &rusqlite::Connection| {
                        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", query.sql))?;
                        let steps = statement.query_map(params_from_iter(values(&query)), |row| row.get(3))?;
                        steps.collect::<Result<Vec<String>, _>>()
                    };
                    let plan = sqlite.read(explain).await.unwrap().join("; ");
                    let found = format!("SEARCH people USING INDEX fedgate_{index} (<expr>=?");
                    assert!(plan.contains(&found) && !plan.contains("TEMP B-TREE"), "{plan}");
                }
            }
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
