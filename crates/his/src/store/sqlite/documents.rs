//! Personal documents on SQLite, one piece at a time.
//!
//! Bytes are read and written by SQLite's incremental I/O, so that this process never holds a whole document
//! outside of SQLite. SQLite itself holds one twice while it builds the row. In a query, `length` alone does not
//! load the bytes. A row has no version here, and a new row may reuse the place of a deleted one. So a piece counts
//! only if it has the hash that it had at first.
use rusqlite::blob::Blob;
use rusqlite::{Connection, MAIN_DB, OptionalExtension, Transaction, params};

use super::super::document::{
    DocumentContent, DocumentHead, DocumentStaging, DocumentVersion, NewDocument, PIECE_BYTES, StoredVersion,
};
use super::super::sql;
use super::super::{DeleteResult, DocumentCreated, DocumentKey, RecordReach};
use super::{DIALECT, SqliteStore, exists};
use crate::etag::{self, TagCondition};
use fedgate_base::db::DbError;
use fedgate_core::json;

const INSERT: &str =
    "INSERT INTO personal_docs (id, fedacct, pol, data, document) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
const INSERT_EMPTY: &str = "INSERT INTO personal_docs (id, fedacct, pol, data, document) VALUES (?1, ?2, ?3, ?4, \
                            zeroblob(?5)) ON CONFLICT DO NOTHING";
const HEAD: &str = "coalesce(data, 'null'), CAST(data ->> 'content_type' AS text), length(document) IS NULL, rowid";
const STAGED: &str = "SELECT rowid FROM fedgate_pieces WHERE upload = ?1 AND place >= ?2 ORDER BY place";
const STAGED_LENGTH: &str =
    "SELECT coalesce(sum(length(piece)), 0) FROM fedgate_pieces WHERE upload = ?1 AND place >= ?2";

type PieceOutcome<T> = Result<T, rusqlite::Error>;

impl SqliteStore {
    pub(in super::super) async fn document(
        &self,
        key: &DocumentKey,
        reach: &RecordReach,
    ) -> Result<Option<DocumentHead>, DbError> {
        let (key, reach) = (key.clone(), reach.clone());
        self.read(move |connection| head(connection, &key, &reach)).await
    }

    pub(in super::super) async fn piece(
        &self,
        key: &DocumentKey,
        version: &DocumentVersion,
        at: u64,
        reach: &RecordReach,
    ) -> Result<Option<Vec<u8>>, DbError> {
        let DocumentVersion(StoredVersion::Hashes(rowid, hashes)) = version else { return Ok(None) };
        let Some((at, hash)) = usize::try_from(at).ok().and_then(|at| Some((at, *hashes.get(at)?))) else {
            return Ok(None);
        };
        let (key, reach, rowid) = (key.clone(), reach.clone(), *rowid);
        let work = move |connection: &Connection| {
            let mut statement =
                connection.prepare_cached(&sql::select_document(DIALECT, "rowid, length(document) IS NULL"))?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?));
            let found =
                // The row may be gone, or its rowid reused. The hash below decides whether the bytes still count.
                statement.query_row(params![key.person, key.page, key.document, reach.listed()], row).optional()?;
            if found != Some((rowid, false)) {
                return Ok(None);
            }
            let piece = read_piece(&open(connection, "personal_docs", rowid)?, at)?;
            Ok(Some(piece).filter(|piece| blake3::hash(piece) == hash))
        };
        self.read(work).await
    }

    pub(in super::super) async fn stage(&self, upload: &str, place: i64, piece: &[u8]) -> Result<(), DbError> {
        let (upload, piece) = (upload.to_owned(), piece.to_vec());
        let work = move |transaction: &Transaction<'_>| {
            if place == 0 {
                // The first piece of an upload also deletes what killed processes left behind.
                transaction.prepare_cached(sql::SWEEP_SQLITE)?.execute([])?;
            }
            let sql = DIALECT.placeholders(sql::STAGE);
            transaction.prepare_cached(&sql)?.execute(params![upload, place, piece]).map(|_| ())
        };
        self.write_alone(work).await
    }

    pub(in super::super) async fn unstage(&self, upload: &str) -> Result<(), DbError> {
        let upload = upload.to_owned();
        self.write_alone(move |transaction| unstage(transaction, &upload)).await
    }

    pub(in super::super) async fn create_document(
        &self,
        key: &DocumentKey,
        document: &NewDocument,
        reach: &RecordReach,
    ) -> Result<DocumentCreated, DbError> {
        let (key, reach, document) = (key.clone(), reach.clone(), document.clone());
        let work = move |transaction: &Transaction<'_>| {
            if !exists(transaction, &sql::page_exists(DIALECT), params![key.page, key.person, reach.listed()])? {
                return Ok(DocumentCreated::NoPage);
            }
            // Pieces may have been swept up after an hour. Half a document is never stored.
            if let DocumentContent::Staged(staging) = &document.content
                && staged_length(transaction, staging)? != staging.length
            {
                return Ok(DocumentCreated::Incomplete);
            }
            match insert(transaction, &key, &document)? {
                true => Ok(DocumentCreated::Done),
                false => compare(transaction, &key, &document, &reach),
            }
        };
        self.write_alone_as_actor(work).await
    }

    pub(in super::super) async fn compare(
        &self,
        key: &DocumentKey,
        document: &NewDocument,
        reach: &RecordReach,
    ) -> Result<DocumentCreated, DbError> {
        let (key, reach, document) = (key.clone(), reach.clone(), document.clone());
        self.read(move |connection| compare(connection, &key, &document, &reach)).await
    }

    pub(in super::super) async fn delete_document(
        &self,
        key: &DocumentKey,
        condition: &TagCondition,
        reach: &RecordReach,
    ) -> Result<DeleteResult, DbError> {
        let (key, condition, reach) = (key.clone(), condition.clone(), reach.clone());
        let work = move |transaction: &Transaction<'_>| {
            if condition.is_conditional() {
                let Some(head) = head(transaction, &key, &reach)? else { return Ok(DeleteResult::Missing) };
                if !condition.admits_tag(|| etag::of_hash(&head.tag)) {
                    return Ok(DeleteResult::Stale);
                }
            }
            let mut statement = transaction.prepare_cached(&sql::delete_document(DIALECT))?;
            let deleted = statement.execute(params![key.person, key.page, key.document, reach.listed()])?;
            Ok(if deleted > 0 { DeleteResult::Done } else { DeleteResult::Missing })
        };
        self.write_alone_as_actor(work).await
    }
}

fn head(connection: &Connection, key: &DocumentKey, reach: &RecordReach) -> PieceOutcome<Option<DocumentHead>> {
    let mut statement = connection.prepare_cached(&sql::select_document(DIALECT, HEAD))?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get::<_, bool>(2)?, row.get::<_, i64>(3)?));
    let found = statement.query_row(params![key.person, key.page, key.document, reach.listed()], row).optional()?;
    let Some((data, kind, is_absent, rowid)) = found else { return Ok(None) };
    let (mut start, mut hashes, mut whole, mut length) = (Vec::new(), Vec::new(), blake3::Hasher::new(), None);
    if !is_absent {
        let blob = open(connection, "personal_docs", rowid)?;
        // All pieces are hashed at once: together the hashes are the version that later reads compare with.
        for at in 0..blob.len().div_ceil(PIECE_BYTES) {
            let piece = read_piece(&blob, at)?;
            if at == 0 {
                start = piece.iter().take(16).copied().collect();
            }
            whole.update(&piece);
            hashes.push(blake3::hash(&piece));
        }
        length = u64::try_from(blob.len()).ok();
    }
    let tag = whole.finalize().to_hex().to_string();
    let version = DocumentVersion(StoredVersion::Hashes(rowid, hashes.into()));
    Ok(Some(DocumentHead { data, kind, start, length, tag, version }))
}

fn open<'a>(connection: &'a Connection, table: &str, rowid: i64) -> PieceOutcome<Blob<'a>> {
    let column = if table == "personal_docs" { "document" } else { "piece" };
    connection.blob_open(MAIN_DB, table, column, rowid, true)
}

/// The piece at this place. The last one may be shorter.
fn read_piece(blob: &Blob<'_>, at: usize) -> PieceOutcome<Vec<u8>> {
    let from = at.saturating_mul(PIECE_BYTES);
    let mut piece = vec![0; blob.len().saturating_sub(from).min(PIECE_BYTES)];
    blob.read_at_exact(&mut piece, from)?;
    Ok(piece)
}

/// Stores a document unless its id is taken, and returns whether it was stored.
fn insert(transaction: &Transaction<'_>, key: &DocumentKey, document: &NewDocument) -> PieceOutcome<bool> {
    let data = &document.data;
    let bytes = match &document.content {
        DocumentContent::Whole(bytes) => bytes,
        DocumentContent::Staged(staging) => {
            // The row is made with its full length and then filled, because a parameter would have to be whole in
            // memory.
            let mut statement = transaction.prepare_cached(INSERT_EMPTY)?;
            if statement.execute(params![key.document, key.person, key.page, data, staging.length])? == 0 {
                return Ok(false);
            }
            let rowid = transaction.last_insert_rowid();
            let mut blob = transaction.blob_open(MAIN_DB, "personal_docs", "document", rowid, false)?;
            let mut at = 0;
            for piece in staged(transaction, staging)? {
                let piece = piece?;
                blob.write_all_at(&piece, at)?;
                at += piece.len();
            }
            drop(blob);
            // In the same transaction: either the document exists, or its pieces still do.
            unstage(transaction, &staging.upload)?;
            return Ok(true);
        }
    };
    let mut statement = transaction.prepare_cached(INSERT)?;
    Ok(statement.execute(params![key.document, key.person, key.page, data, bytes])? > 0)
}

/// Compares a document with the stored one of the same id.
fn compare(
    connection: &Connection,
    key: &DocumentKey,
    document: &NewDocument,
    reach: &RecordReach,
) -> PieceOutcome<DocumentCreated> {
    let Some(known) = head(connection, key, reach)? else {
        let is_taken = exists(connection, sql::DOCUMENT_ID_TAKEN, params![key.document])?;
        return Ok(if is_taken { DocumentCreated::Taken } else { DocumentCreated::Incomplete });
    };
    let mut hasher = blake3::Hasher::new();
    let length = match &document.content {
        DocumentContent::Whole(bytes) => {
            hasher.update(bytes);
            u64::try_from(bytes.len()).ok()
        }
        DocumentContent::Staged(staging) => {
            for piece in staged(connection, staging)? {
                hasher.update(&piece?);
            }
            u64::try_from(staging.length).ok()
        }
    };
    let is_same = known.length == length && known.tag == hasher.finalize().to_hex().as_str();
    let is_same = is_same && json::is_same(&known.data, &document.data);
    Ok(if is_same { DocumentCreated::Same } else { DocumentCreated::Taken })
}

/// The staged pieces, each read when its turn comes.
fn staged<'a>(
    connection: &'a Connection,
    staging: &DocumentStaging,
) -> PieceOutcome<impl Iterator<Item = PieceOutcome<Vec<u8>>> + use<'a>> {
    let mut statement = connection.prepare_cached(STAGED)?;
    let rows = statement.query_map(params![staging.upload, staging.from], |row| row.get::<_, i64>(0))?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(rows.into_iter().map(move |rowid| read_piece(&open(connection, "fedgate_pieces", rowid)?, 0)))
}

fn staged_length(connection: &Connection, staging: &DocumentStaging) -> PieceOutcome<i64> {
    connection.prepare_cached(STAGED_LENGTH)?.query_row(params![staging.upload, staging.from], |row| row.get(0))
}

fn unstage(transaction: &Transaction<'_>, upload: &str) -> PieceOutcome<()> {
    transaction.prepare_cached(&DIALECT.placeholders(sql::UNSTAGE))?.execute([upload]).map(|_| ())
}
