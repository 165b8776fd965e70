//! Reads a stored document for a client, one piece at a time.
//!
//! The one rule: pieces of different versions are never mixed. If a document is replaced or deleted while it is
//! read, the answer breaks off, so that it does not look complete.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::HisService;
use super::budget::{AnswerStage, HeldBytes};
use super::store::{DocumentKey, DocumentVersion, PIECE_BYTES, RecordReach, RecordStore};
use fedgate_base::db::DbError;

/// Why an answer that has begun is broken off.
#[derive(Debug, Error)]
pub(super) enum BrokenOff {
    /// The database cannot be reached, or refused the statement.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The document was replaced or deleted.
    #[error("a document was replaced or deleted while it was read")]
    Replaced,
    /// Too many bytes wait for clients that do not read.
    #[error("no room for the next piece: clients take their answers too slowly (`his.max_bytes_in_flight`)")]
    NoRoom,
}

/// A range of one version of a document that is being read.
pub(super) struct StoreReading {
    pub(super) service: Arc<HisService>,
    pub(super) store: RecordStore,
    /// The account that pays for the pieces.
    pub(super) account: String,
    pub(super) key: DocumentKey,
    pub(super) reach: RecordReach,
    pub(super) version: DocumentVersion,
    /// The next byte, and the end (exclusive).
    pub(super) from: u64,
    pub(super) to: u64,
}

impl StoreReading {
    /// The next bytes, at most one piece, and the room that pays for them; `None` at the end.
    ///
    /// # Errors
    /// See [`BrokenOff`].
    pub(super) async fn next(&mut self, stage: AnswerStage) -> Result<Option<(Vec<u8>, HeldBytes)>, BrokenOff> {
        const PIECE: u64 = PIECE_BYTES as u64;
        if self.from >= self.to {
            return Ok(None);
        }
        // Paid before it is read: slow readers would otherwise each hold a piece without a bound.
        let held = self.service.budget.hold(&self.account, PIECE_BYTES, stage.patience()).await;
        let held = held.ok_or(BrokenOff::NoRoom)?;
        let at = self.from / PIECE;
        let (store, key, version, reach) = (&self.store, &self.key, &self.version, &self.reach);
        let piece = stage.ask(|| store.piece(key, version, at, reach)).await?;
        let mut piece = piece.ok_or(BrokenOff::Replaced)?;
        let end = (self.to - at * PIECE).min(PIECE);
        // A piece shorter than its version promised is not usable either.
        let range = usize::try_from(self.from % PIECE).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
        if piece.len() < range.end {
            return Err(BrokenOff::Replaced);
        }
        piece.truncate(range.end);
        piece.drain(..range.start);
        self.from = at * PIECE + end;
        Ok(Some((piece, held)))
    }

    /// As [`next`](Self::next), as the bytes of an answer.
    ///
    /// # Errors
    /// See [`BrokenOff`], which is logged here.
    pub(super) async fn next_bytes(&mut self, stage: AnswerStage) -> Result<Option<Bytes>, BrokenOff> {
        let next = self.next(stage).await.inspect_err(|error| tracing::warn!("a document was broken off: {error}"))?;
        Ok(next.map(|(piece, held)| held.around(piece)))
    }
}
