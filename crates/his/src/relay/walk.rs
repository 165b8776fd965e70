//! Reads messages for one answer, one chunk at a time.
//!
//! The one rule: an answer that ends cleanly holds every message that it promised. A message that is not kept any longer
//! breaks it off. No chunk is read before there is room for it.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{try_unfold, unfold};
use tokio::time::Instant;

use super::format::MessageFormat;
use super::place::ReaderPlace;
use super::{HEARTBEAT, MessageReader};
use crate::HisService;
use crate::budget::AnswerStage;
use crate::error::HisError;
use crate::reading::BrokenOff;
use crate::store::{CHUNK_BYTES, MessagePlaces, MessageReach, RecordStore};
use crate::verify_assertion::Caller;

/// Messages in the first chunk, before the size of a message is known.
const FIRST: usize = 64;
/// The members of a message beside its data, at most: three ids, an author and what JSON adds.
const AROUND: usize = 8 * 1024;

/// A walk through the messages at some positions.
pub(super) struct MessageWalk {
    service: Arc<HisService>,
    store: RecordStore,
    account: String,
    reach: MessageReach,
    positions: Vec<u64>,
    at: usize,
    limit: usize,
    format: MessageFormat,
    history: Option<u64>,
    /// The length of the next message, if it exceeds a chunk.
    exceeding: Option<usize>,
}

impl MessageWalk {
    pub(super) fn new(
        service: Arc<HisService>,
        store: RecordStore,
        caller: &Caller,
        reach: MessageReach,
        positions: Vec<u64>,
        format: MessageFormat,
    ) -> Self {
        let account = caller.account.clone();
        Self { service, store, account, reach, positions, at: 0, limit: FIRST, format, history: None, exceeding: None }
    }

    /// The positions belong to this history.
    pub(super) fn within(self, history: Option<u64>) -> Self {
        Self { history, ..self }
    }

    fn is_over(&self) -> bool {
        self.at >= self.positions.len()
    }

    /// The next messages as text, paid for; `None` at the end.
    async fn next(&mut self, stage: AnswerStage) -> Result<Option<Bytes>, BrokenOff> {
        loop {
            let wanted = self.positions.get(self.at..).unwrap_or_default();
            if wanted.is_empty() {
                return Ok(None);
            }
            // A message longer than a chunk comes alone, once there is room for its length.
            let (limit, most) = self.exceeding.map_or((self.limit, CHUNK_BYTES), |bytes| (1, bytes));
            let wanted = wanted.get(..limit).unwrap_or(wanted);
            let room = if self.exceeding.is_some() { most } else { CHUNK_BYTES + most } + AROUND;
            let held = self.service.budget.hold(&self.account, room, stage.patience()).await;
            let mut held = held.ok_or(BrokenOff::NoRoom)?;
            let (store, reach, shape) = (&self.store, &self.reach, self.format.shape());
            let chunk = stage.ask(|| store.messages(wanted, most, reach, shape)).await?;
            self.exceeding = chunk.exceeding;
            if chunk.rows.is_empty() {
                match self.exceeding {
                    Some(_) => continue,
                    None => return Err(BrokenOff::Replaced),
                }
            }
            self.limit = chunk.rows_that_fit();
            let mut text = String::new();
            for row in &chunk.rows {
                // A gap means that the message was dropped in the meantime.
                let position = self.positions.get(self.at).copied().filter(|position| position.to_string() == row.id);
                let place = ReaderPlace { position: position.ok_or(BrokenOff::Replaced)?, history: self.history };
                self.format.write(&mut text, place, &row.text, self.at == 0);
                self.at += 1;
            }
            held.shrink_to(text.len());
            return Ok(Some(held.around(text)));
        }
    }

    async fn next_framed(&mut self, is_begun: bool, stage: AnswerStage) -> Result<Option<Bytes>, BrokenOff> {
        let (before, after) = self.format.frame();
        let next = self.next(stage).await?;
        let mut text = if is_begun { String::new() } else { before.to_owned() };
        let is_over = self.is_over();
        match next {
            // Most answers are one chunk, and are moved rather than copied when nothing is added.
            Some(bytes) if text.is_empty() && (!is_over || after.is_empty()) => return Ok(Some(bytes)),
            Some(bytes) => text.push_str(&String::from_utf8_lossy(&bytes)),
            None if is_begun => return Ok(None),
            None => {}
        }
        if is_over {
            text.push_str(after);
        }
        Ok(Some(text.into()))
    }
}

/// The body of a finite answer. The first chunk is read before the answer begins, so that its failure is a status.
pub(super) async fn body(mut walk: MessageWalk) -> Result<Body, HisError> {
    let first = match walk.next_framed(false, AnswerStage::Before).await {
        Ok(first) => first.unwrap_or_default(),
        Err(BrokenOff::Database(error)) => return Err(error.into()),
        Err(BrokenOff::Replaced) => return Err(HisError::MessagesGone(0)),
        Err(BrokenOff::NoRoom) => return Err(HisError::NoRoom),
    };
    if walk.is_over() {
        return Ok(Body::from(first));
    }
    let bytes = try_unfold((Some(first), walk), async |(first, mut walk)| {
        let next = match first {
            Some(first) => Some(first),
            None if walk.is_over() => None,
            None => {
                let next = walk.next_framed(true, AnswerStage::Within).await;
                next.inspect_err(|error| tracing::warn!("a list of messages was broken off: {error}"))?
            }
        };
        Ok::<_, BrokenOff>(next.map(|bytes| (bytes, (None, walk))))
    });
    Ok(Body::from_stream(bytes))
}

/// An event stream: messages as they come, and the place from time to time. It ends when the service stops, and when a
/// reader cannot be served without a gap; the client then asks again, and gets the status.
///
/// A block with an `id` and no `data` is no event, but a browser keeps the `id` (WHATWG HTML, 9.2.6). So a reader to whom
/// nothing was sent goes on from where it was, and not from where it began.
pub(super) fn events(
    reader: MessageReader,
    places: MessagePlaces,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
    // Tells a browser how long to wait before it reconnects, and a proxy that the answer has begun. Messages that were
    // found bring their own places.
    let place = if places.found.is_empty() { place_block(&reader) } else { "\n".to_owned() };
    let first = Bytes::from(format!("retry: 1000\n{place}"));
    let start = Box::new(EventState { walk: reader.walk(places.found), reader });
    unfold((start, Some(first)), async |(mut state, first)| {
        let bytes = match first {
            Some(first) => first,
            None => state.next().await?,
        };
        Some((Ok(bytes), (state, None)))
    })
}

/// The end of a block that tells the reader its place.
fn place_block(reader: &MessageReader) -> String {
    format!("id: {}\n\n", reader.after)
}

struct EventState {
    reader: MessageReader,
    walk: MessageWalk,
}

impl EventState {
    async fn next(&mut self) -> Option<Bytes> {
        // Not renewed while it looks through messages that are not for this reader, which may take long.
        let deadline = Instant::now() + HEARTBEAT;
        loop {
            // Boxed, as thousands of readers wait below.
            match Box::pin(self.walk.next(AnswerStage::Within)).await {
                Ok(Some(bytes)) => return Some(bytes),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("an event stream was broken off: {error}");
                    return None;
                }
            }
            let places = match self.reader.awaited_places(deadline).await {
                Ok(places) => places,
                Err(error) => {
                    tracing::debug!("an event stream ends: {error}");
                    return None;
                }
            };
            if self.reader.service.is_stopping() {
                return None;
            }
            if places.found.is_empty() && Instant::now() >= deadline {
                return Some(place_block(&self.reader).into());
            }
            self.walk = self.reader.walk(places.found);
        }
    }
}
