//! Personal documents on PostgreSQL, one piece at a time.
//!
//! Each piece is a short statement of its own, so that a slow client holds no connection. Pieces are read from one
//! version of the row: each statement checks its `xmin`. Written pieces wait in `fedgate_pieces` until the server
//! joins them, because a parameter would have to be whole in this process.
use tokio_postgres::types::ToSql;

use super::super::document::{
    DocumentContent, DocumentHead, DocumentStaging, DocumentVersion, NewDocument, PIECE_BYTES, StoredVersion,
};
use super::super::sql;
use super::super::{DeleteResult, DocumentCreated, DocumentKey, RecordReach};
use super::{DIALECT, PostgresStore};
use crate::etag::{self, TagCondition};
use fedgate_base::db::DbError;
use fedgate_base::db::actor::ChangeActor;
use fedgate_core::json;

/// Columns of a head. The server hashes the bytes, and knows their length without reading them.
const HEAD: &str = "coalesce(data::text, 'null'), data ->> 'content_type', substring(document from 1 for 16), \
     octet_length(document)::bigint, encode(sha256(document), 'hex'), xmin::text";

/// The hash from which the tag of a document is made.
const TAG: &str = "encode(sha256(document), 'hex')";

/// `$1` person, `$2` page, `$3` document, `$4` the list of persons within reach (or null), `$5` data. Then `$6` the
/// bytes, or upload, first place and length of the staged pieces. The last one is the actor.
const INSERT: &str = "INSERT INTO personal_docs (id, fedacct, pol, data, document) \
     SELECT $3::varchar, $1::varchar, $2::varchar, $5::text::jsonb, bytes FROM (SELECT ";

fn into() -> String {
    format!(" AS bytes) AS source WHERE {}", DIALECT.reaches("$1", "$4"))
}

/// An expression for the bytes of a document to store.
fn source(content: &DocumentContent) -> &'static str {
    match content {
        DocumentContent::Whole(_) => "$6::bytea",
        DocumentContent::Staged(_) => {
            "(SELECT string_agg(piece, ''::bytea ORDER BY place) FROM fedgate_pieces WHERE upload = $6::text AND \
             place >= $7::bigint)"
        }
    }
}

impl PostgresStore {
    pub(in super::super) async fn document(
        &self,
        key: &DocumentKey,
        reach: &RecordReach,
    ) -> Result<Option<DocumentHead>, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(&sql::select_document(DIALECT, HEAD)).await?;
        let parameters: [&(dyn ToSql + Sync); 4] = [&key.person, &key.page, &key.document, &reach.ids()];
        let Some(row) = session.query_opt(&statement, &parameters).await? else { return Ok(None) };
        let (start, length, tag): (Option<Vec<u8>>, Option<i64>, Option<String>) =
            (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        Ok(Some(DocumentHead {
            data: row.try_get(0)?,
            kind: row.try_get(1)?,
            start: start.unwrap_or_default(),
            length: length.and_then(|length| u64::try_from(length).ok()),
            tag: tag.unwrap_or_default(),
            version: DocumentVersion(StoredVersion::Transaction(row.try_get(5)?)),
        }))
    }

    pub(in super::super) async fn piece(
        &self,
        key: &DocumentKey,
        version: &DocumentVersion,
        at: u64,
        reach: &RecordReach,
    ) -> Result<Option<Vec<u8>>, DbError> {
        let DocumentVersion(StoredVersion::Transaction(xmin)) = version else { return Ok(None) };
        // `EXTERNAL` storage lets `substring` read no more than the piece. The version is checked in the same
        // statement, so no write can come between.
        let columns = format!("CASE WHEN xmin::text = $5 THEN substring(document from $6 for {PIECE_BYTES}) END");
        let session = self.reader().await?;
        let statement = session.prepare_cached(&sql::select_document(DIALECT, &columns)).await?;
        let from = i32::try_from(at * PIECE_BYTES as u64 + 1).unwrap_or(i32::MAX);
        let parameters: [&(dyn ToSql + Sync); 6] = [&key.person, &key.page, &key.document, &reach.ids(), xmin, &from];
        let row = session.query_opt(&statement, &parameters).await?;
        row.map_or(Ok(None), |row| Ok(row.try_get(0)?))
    }

    pub(in super::super) async fn stage(&self, upload: &str, place: i64, piece: &[u8]) -> Result<(), DbError> {
        let session = self.writer().await?;
        // The first piece of an upload also deletes what killed processes left behind.
        if place == 0 {
            let statement = session.prepare_cached(sql::SWEEP_POSTGRES).await?;
            session.execute(&statement, &[]).await?;
        }
        let statement = session.prepare_cached(sql::STAGE).await?;
        session.execute(&statement, &[&upload, &place, &piece]).await?;
        Ok(())
    }

    pub(in super::super) async fn unstage(&self, upload: &str) -> Result<(), DbError> {
        let session = self.writer().await?;
        let statement = session.prepare_cached(sql::UNSTAGE).await?;
        session.execute(&statement, &[&upload]).await?;
        Ok(())
    }

    pub(in super::super) async fn create_document(
        &self,
        key: &DocumentKey,
        document: &NewDocument,
        reach: &RecordReach,
    ) -> Result<DocumentCreated, DbError> {
        let session = self.writer().await?;
        let own = reach.ids();
        let page = session.prepare_cached(&sql::page_exists(DIALECT)).await?;
        if !session.query_one(&page, &[&key.page, &key.person, &own]).await?.try_get::<_, bool>(0)? {
            return Ok(DocumentCreated::NoPage);
        }
        let mut sql = format!("{INSERT}{}{}", source(&document.content), into());
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&key.person, &key.page, &key.document, &own, &document.data];
        match &document.content {
            DocumentContent::Whole(bytes) => parameters.push(bytes),
            DocumentContent::Staged(DocumentStaging { upload, from, length }) => {
                parameters.extend([upload as &(dyn ToSql + Sync), from, length]);
                // If pieces are missing, as after a failover, nothing is inserted rather than half a document.
                sql.push_str(" AND octet_length(bytes) = $8::bigint");
            }
        }
        let acts = self.acts();
        parameters.push(&acts);
        let sql = ChangeActor::told_by(&sql, parameters.len());
        let insert = session.prepare_cached(&format!("{sql} ON CONFLICT DO NOTHING")).await?;
        let inserted = match session.execute(&insert, &parameters).await {
            // The page was deleted between the check and the write.
            Err(error) if error.is_foreign_key_violation() => return Ok(DocumentCreated::NoPage),
            inserted => inserted?,
        };
        drop(session);
        if inserted > 0 { Ok(DocumentCreated::Done) } else { self.compare(key, document, reach).await }
    }

    /// Compares a document with the stored one of the same id. The server compares the bytes.
    pub(in super::super) async fn compare(
        &self,
        key: &DocumentKey,
        document: &NewDocument,
        reach: &RecordReach,
    ) -> Result<DocumentCreated, DbError> {
        // Every prepared parameter must occur in the statement, so the places are renumbered for each form.
        let columns =
            format!("coalesce(data::text, 'null'), document IS NOT DISTINCT FROM {}", source(&document.content));
        let own = reach.ids();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&key.person, &key.page, &key.document, &own];
        let sql = match &document.content {
            DocumentContent::Whole(bytes) => {
                parameters.push(bytes);
                columns.replace("$6", "$5")
            }
            DocumentContent::Staged(DocumentStaging { upload, from, length: _ }) => {
                parameters.extend([upload as &(dyn ToSql + Sync), from]);
                columns.replace("$6", "$5").replace("$7", "$6")
            }
        };
        let session = self.reader().await?;
        let statement = session.prepare_cached(&sql::select_document(DIALECT, &sql)).await?;
        let Some(row) = session.query_opt(&statement, &parameters).await? else {
            // The session is returned first: a caller that needed two turns for one request could wait for itself.
            drop(session);
            return self.explain_absence(key).await;
        };
        let is_same = row.try_get::<_, bool>(1)? && json::is_same(row.try_get(0)?, &document.data);
        Ok(if is_same { DocumentCreated::Same } else { DocumentCreated::Taken })
    }

    /// Why no document was stored, if none is within reach.
    async fn explain_absence(&self, key: &DocumentKey) -> Result<DocumentCreated, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(sql::DOCUMENT_ID_TAKEN).await?;
        let is_taken: bool = session.query_one(&statement, &[&key.document]).await?.try_get(0)?;
        Ok(if is_taken { DocumentCreated::Taken } else { DocumentCreated::Incomplete })
    }

    pub(in super::super) async fn delete_document(
        &self,
        key: &DocumentKey,
        condition: &TagCondition,
        reach: &RecordReach,
    ) -> Result<DeleteResult, DbError> {
        let parameters: [&(dyn ToSql + Sync); 4] = [&key.person, &key.page, &key.document, &reach.ids()];
        let mut session = self.writer().await?;
        let transaction = session.transaction().await?;
        if condition.is_conditional() {
            let tag = format!("{} FOR UPDATE", sql::select_document(DIALECT, TAG));
            let statement = transaction.prepare_cached(&tag).await?;
            let Some(row) = transaction.query_opt(&statement, &parameters).await? else {
                return Ok(DeleteResult::Missing);
            };
            let tag: Option<String> = row.try_get(0)?;
            if !condition.admits_tag(|| etag::of_hash(&tag.unwrap_or_default())) {
                return Ok(DeleteResult::Stale);
            }
        }
        let acts = self.acts();
        let mut parameters = parameters.to_vec();
        parameters.push(&acts);
        let sql = ChangeActor::told_by(&sql::delete_document(DIALECT), parameters.len());
        let statement = transaction.prepare_cached(&sql).await?;
        let deleted = transaction.execute(&statement, &parameters).await?;
        transaction.commit().await?;
        Ok(if deleted > 0 { DeleteResult::Done } else { DeleteResult::Missing })
    }
}
