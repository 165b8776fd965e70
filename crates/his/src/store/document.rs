//! The words of personal documents, whose bytes travel in pieces.

use std::sync::Arc;

/// Bytes of a piece: whole groups of base64, and few statements for a picture.
pub const PIECE_BYTES: usize = 192 * 1024;

/// Which personal document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentKey {
    /// Whose document.
    pub person: String,
    /// The page it belongs to; none for one that Thalamus left without a page, and that lists alone find.
    pub page: Option<String>,
    /// The document's id.
    pub document: String,
}

/// What is known about a stored document before its bytes are read.
#[derive(Debug, Clone)]
pub struct DocumentHead {
    /// What was stored about it, as JSON text.
    pub data: String,
    /// Its `content_type`, as it was stored.
    pub kind: Option<String>,
    /// Its first bytes.
    pub start: Vec<u8>,
    /// How many bytes it has; none if it has no content.
    pub length: Option<u64>,
    /// A hash of its bytes, in hexadecimal.
    pub tag: String,
    /// The version that all this is said of.
    pub version: DocumentVersion,
}

/// One version of a document: pieces of different versions are never mixed.
#[derive(Debug, Clone)]
pub struct DocumentVersion(pub(super) StoredVersion);

#[derive(Debug, Clone)]
pub(super) enum StoredVersion {
    /// The transaction that wrote the row.
    Transaction(String),
    /// The row, and a hash of each piece: SQLite's rows have no versions.
    Hashes(i64, Arc<[blake3::Hash]>),
}

/// A document that is to be stored.
#[derive(Debug, Clone)]
pub struct NewDocument {
    /// What is known about it, as JSON text.
    pub data: String,
    /// Its bytes.
    pub content: DocumentContent,
}

/// The bytes of a document that is to be stored.
#[derive(Debug, Clone)]
pub enum DocumentContent {
    /// There are none.
    Absent,
    /// A few.
    Whole(Vec<u8>),
    /// Many: they are in the store already, in pieces.
    Staged(DocumentStaging),
}

/// Pieces that wait in the store until they become a document.
#[derive(Debug, Clone)]
pub struct DocumentStaging {
    /// What the pieces are called by.
    pub upload: String,
    /// The first of them; those before it do not count.
    pub from: i64,
    /// Their bytes.
    pub length: i64,
}

/// How the creation of a document ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentCreated {
    /// It is stored.
    Done,
    /// It was stored before, exactly so.
    Same,
    /// The id is taken by another.
    Taken,
    /// There is no such page within reach.
    NoPage,
    /// Its pieces are not there any more, as after a failover: it must be sent again.
    Incomplete,
}
