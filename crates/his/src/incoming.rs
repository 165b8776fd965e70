//! A body on its way: how long it may take, and how much of it is taken in.
//!
//! The one rule: what is not wanted is read and forgotten up to a bound, because an answer that overtakes its request is lost.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::StreamExt;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::HisError;

/// How long a body may take to arrive; the gateway is stricter where it must be.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// A body that arrives, up to where nothing is owed to who sends it.
pub(super) struct IncomingBody {
    chunks: BodyDataStream,
    deadline: Instant,
    endurance: usize,
    /// Bytes that have come.
    pub(super) count: usize,
}

impl IncomingBody {
    /// Begins with a body of which at most `limit` bytes are wanted.
    ///
    /// # Errors
    /// It says that it is far too long.
    pub(super) fn new(headers: &HeaderMap, body: Body, limit: usize) -> Result<Self, HisError> {
        // As many as the gateway lets pass for a document of that size in base64.
        const DATA_BYTES: usize = 64 * 1024;
        let endurance = (limit / 3 + 1).saturating_mul(4).saturating_add(DATA_BYTES);
        if announced(headers).is_some_and(|length| length > endurance) {
            return Err(HisError::TooLarge);
        }
        Ok(Self { chunks: body.into_data_stream(), deadline: Instant::now() + BODY_TIMEOUT, endurance, count: 0 })
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// The body is far too long, too late, or broken off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, HisError> {
        let chunk = timeout_at(self.deadline, self.chunks.next()).await.map_err(|_| HisError::BodyTimeout)?;
        let Some(chunk) = chunk else { return Ok(None) };
        let chunk = chunk.map_err(|_| HisError::BodyUnreadable)?;
        self.count += chunk.len();
        if self.count > self.endurance { Err(HisError::TooLarge) } else { Ok(Some(chunk)) }
    }

    /// Reads what is left and forgets it, before an answer that does not need it.
    pub(super) async fn forget(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }
}

/// Reads what there is of a small body and forgets it, before an answer that did not need it.
pub(super) async fn drain(body: Body) {
    const BYTES: usize = 64 * 1024;
    const TIMEOUT: Duration = Duration::from_secs(1);
    if let Ok(mut incoming) = IncomingBody::new(&HeaderMap::new(), body, BYTES) {
        // Nothing is owed to who sends more, or too slowly.
        let _ = timeout(TIMEOUT, incoming.forget()).await;
    }
}

/// How long a body says that it is.
pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    // One that does not fit a number is too long for every limit.
    let length = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
    Some(usize::try_from(length).unwrap_or(usize::MAX))
}
