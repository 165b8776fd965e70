//! Personal documents: bytes beside what is known about them.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::sql;
use super::super::{DocumentCreated, DocumentKey, Reach, StoredDocument};
use super::{DIALECT, SqliteStore, exists};
use crate::db::DbError;
use crate::his::json;

const INSERT: &str =
    "INSERT INTO personal_docs (id, fedacct, pol, data, document) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";

impl SqliteStore {
    pub(in super::super) async fn document(
        &self,
        key: &DocumentKey,
        reach: &Reach,
    ) -> Result<Option<StoredDocument>, DbError> {
        let (key, reach) = (key.clone(), reach.clone());
        self.read(move |connection| select(connection, &key, &reach)).await
    }

    pub(in super::super) async fn create_document(
        &self,
        key: &DocumentKey,
        document: StoredDocument,
        reach: &Reach,
    ) -> Result<DocumentCreated, DbError> {
        let (key, reach) = (key.clone(), reach.clone());
        let work = move |transaction: &Transaction<'_>| {
            if !exists(transaction, &sql::page_exists(DIALECT), params![key.page, key.person, reach.own()])? {
                return Ok(DocumentCreated::NoPage);
            }
            let mut insert = transaction.prepare_cached(INSERT)?;
            let StoredDocument { data, bytes } = &document;
            if insert.execute(params![key.document, key.person, key.page, data, bytes])? > 0 {
                return Ok(DocumentCreated::Done);
            }
            Ok(match select(transaction, &key, &reach)? {
                Some(known) if known.bytes == document.bytes && json::is_same(&known.data, data) => {
                    DocumentCreated::Same
                }
                _ => DocumentCreated::Taken,
            })
        };
        self.write(work).await
    }

    pub(in super::super) async fn delete_document(&self, key: &DocumentKey, reach: &Reach) -> Result<bool, DbError> {
        let (key, reach) = (key.clone(), reach.clone());
        let work = move |transaction: &Transaction<'_>| {
            let mut statement = transaction.prepare_cached(&sql::delete_document(DIALECT))?;
            Ok(statement.execute(params![key.person, key.page, key.document, reach.own()])? > 0)
        };
        self.write(work).await
    }
}

fn select(
    connection: &Connection,
    key: &DocumentKey,
    reach: &Reach,
) -> Result<Option<StoredDocument>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(&sql::select_document(DIALECT))?;
    let document = |row: &rusqlite::Row<'_>| Ok(StoredDocument { data: row.get(0)?, bytes: row.get(1)? });
    statement.query_row(params![key.person, key.page, key.document, reach.own()], document).optional()
}
