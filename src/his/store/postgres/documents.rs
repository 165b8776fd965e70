//! Personal documents: bytes beside what is known about them.

use tokio_postgres::types::ToSql;

use super::super::sql;
use super::super::{DocumentCreated, DocumentKey, Reach, StoredDocument};
use super::{DIALECT, Postgres};
use crate::db::DbError;
use crate::his::json;

/// `$1` person, `$2` page, `$3` document, `$4` the only person within reach (or null), `$5` data, `$6` bytes.
const INSERT: &str = "INSERT INTO personal_docs (id, fedacct, pol, data, document) \
     SELECT $3::varchar, $1::varchar, $2::varchar, $5::text::jsonb, $6::bytea \
     WHERE ($4::text IS NULL OR $1 = $4) ON CONFLICT DO NOTHING";

impl Postgres {
    pub(in super::super) async fn document(
        &self,
        key: &DocumentKey,
        reach: &Reach,
    ) -> Result<Option<StoredDocument>, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(&sql::select_document(DIALECT)).await?;
        let row = session.query_opt(&statement, &[&key.person, &key.page, &key.document, &reach.own()]).await?;
        row.map(|row| Ok(StoredDocument { data: row.try_get(0)?, bytes: row.try_get(1)? })).transpose()
    }

    pub(in super::super) async fn create_document(
        &self,
        key: &DocumentKey,
        document: StoredDocument,
        reach: &Reach,
    ) -> Result<DocumentCreated, DbError> {
        let session = self.writer().await?;
        let own = reach.own();
        let page = session.prepare_cached(&sql::page_exists(DIALECT)).await?;
        if !session.query_one(&page, &[&key.page, &key.person, &own]).await?.try_get::<_, bool>(0)? {
            return Ok(DocumentCreated::NoPage);
        }
        let insert = session.prepare_cached(INSERT).await?;
        let StoredDocument { data, bytes } = &document;
        let parameters: [&(dyn ToSql + Sync); 6] = [&key.person, &key.page, &key.document, &own, data, bytes];
        let inserted = match session.execute(&insert, &parameters).await {
            // The page was deleted between our look and our write.
            Err(error) if error.is_foreign_key_violation() => return Ok(DocumentCreated::NoPage),
            inserted => inserted?,
        };
        if inserted > 0 {
            return Ok(DocumentCreated::Done);
        }
        drop(session);
        Ok(match self.document(key, reach).await? {
            Some(known) if known.bytes == document.bytes && json::is_same(&known.data, &document.data) => {
                DocumentCreated::Same
            }
            _ => DocumentCreated::Taken,
        })
    }

    pub(in super::super) async fn delete_document(&self, key: &DocumentKey, reach: &Reach) -> Result<bool, DbError> {
        let session = self.writer().await?;
        let statement = session.prepare_cached(&sql::delete_document(DIALECT)).await?;
        let parameters: [&(dyn ToSql + Sync); 4] = [&key.person, &key.page, &key.document, &reach.own()];
        Ok(session.execute(&statement, &parameters).await? > 0)
    }
}
