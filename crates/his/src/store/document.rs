//! The types of personal documents, whose bytes travel in pieces.

use std::sync::Arc;

/// The size of a piece: whole groups of base64, and few statements for a picture.
pub const PIECE_BYTES: usize = 192 * 1024;

/// Names one personal document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentKey {
    /// The person it belongs to.
    pub person: String,
    /// The page it belongs to. `None` for a document that Thalamus left without a page; only lists find such a one.
    pub page: Option<String>,
    /// The document's id.
    pub document: String,
}

/// The facts about a stored document that are known before its bytes are read.
#[derive(Debug, Clone)]
pub struct DocumentHead {
    /// Its members besides the bytes, as JSON text.
    pub data: String,
    /// Its stored `content_type`.
    pub kind: Option<String>,
    /// Its first bytes.
    pub start: Vec<u8>,
    /// Its length in bytes; `None` without content.
    pub length: Option<u64>,
    /// A hexadecimal hash of its bytes.
    pub tag: String,
    /// The version that these facts describe.
    pub version: DocumentVersion,
}

/// One version of a document. Pieces of different versions are never mixed.
#[derive(Debug, Clone)]
pub struct DocumentVersion(pub(super) StoredVersion);

#[derive(Debug, Clone)]
pub(super) enum StoredVersion {
    /// The transaction that wrote the row.
    Transaction(String),
    /// The row, and a hash of each piece, because SQLite's rows have no versions.
    Hashes(i64, Arc<[blake3::Hash]>),
}

/// A document to store.
#[derive(Debug, Clone)]
pub struct NewDocument {
    /// Its members besides the bytes, as JSON text.
    pub data: String,
    /// Its bytes.
    pub content: DocumentContent,
}

/// The bytes of a document to store.
#[derive(Debug, Clone)]
pub enum DocumentContent {
    /// At most one piece.
    Whole(Vec<u8>),
    /// More than one piece: they are in the store already.
    Staged(DocumentStaging),
}

/// Pieces that wait in the store until they become a document.
#[derive(Debug, Clone)]
pub struct DocumentStaging {
    /// The name of the upload.
    pub upload: String,
    /// The place of the first piece that counts.
    pub from: i64,
    /// The number of their bytes.
    pub length: i64,
}

/// The result of creating a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentCreated {
    /// The document was stored.
    Done,
    /// The same document was stored before.
    Same,
    /// The id belongs to another document.
    Taken,
    /// No such page within reach.
    NoPage,
    /// Its pieces are missing, as after a failover. The client must send it again.
    Incomplete,
}
