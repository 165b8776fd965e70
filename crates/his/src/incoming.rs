//! A body that is arriving: how long it may take, and how much of it is read.
//!
//! The one rule: unwanted bytes are read and dropped up to a bound, because an answer that overtakes its request is
//! lost.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::HisError;

/// How long a body may take to arrive. The gateway has stricter limits of its own.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// A body that is arriving. It is read up to a bound; a sender of more may lose the answer.
pub(super) struct IncomingBody {
    chunks: BodyDataStream,
    deadline: Instant,
    endurance: usize,
    /// The number of bytes that have arrived.
    pub(super) count: usize,
}

impl IncomingBody {
    /// Starts with a body of which at most `limit` bytes are wanted.
    ///
    /// # Errors
    /// The announced length is beyond the bound.
    pub(super) fn new(headers: &HeaderMap, body: Body, limit: usize) -> Result<Self, HisError> {
        // The gateway lets as many bytes pass for a document of `limit` bytes in base64.
        const DATA_BYTES: usize = 64 * 1024;
        let endurance = (limit / 3 + 1).saturating_mul(4).saturating_add(DATA_BYTES);
        if announced(headers).is_some_and(|length| length > endurance) {
            return Err(HisError::TooLarge);
        }
        Ok(Self { chunks: body.into_data_stream(), deadline: Instant::now() + BODY_TIMEOUT, endurance, count: 0 })
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The body is beyond the bound, too late, or broken off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, HisError> {
        let chunk = timeout_at(self.deadline, self.chunks.next()).await.map_err(|_| HisError::BodyTimeout)?;
        let Some(chunk) = chunk else { return Ok(None) };
        let chunk = chunk.map_err(|_| HisError::BodyUnreadable)?;
        self.count += chunk.len();
        if self.count > self.endurance { Err(HisError::TooLarge) } else { Ok(Some(chunk)) }
    }

    /// Reads the rest and drops it, before an answer that does not need it.
    pub(super) async fn forget(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }
}

/// Reads a small body and drops it, before an answer that does not need it.
pub(super) async fn drain(body: Body) {
    const BYTES: usize = 64 * 1024;
    const TIMEOUT: Duration = Duration::from_secs(1);
    if let Ok(mut incoming) = IncomingBody::new(&HeaderMap::new(), body, BYTES) {
        // A sender of more bytes, or a slow one, may lose the answer.
        let _ = timeout(TIMEOUT, incoming.forget()).await;
    }
}

/// The length that a body announces.
pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    // A length that does not fit is longer than every limit.
    let length = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
    Some(usize::try_from(length).unwrap_or(usize::MAX))
}
