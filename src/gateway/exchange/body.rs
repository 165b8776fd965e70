//! Request bodies that are judged before the service behind hears of the request.
//!
//! The one rule: nothing of a guarded body is forwarded before all of it was judged, because what forbids it may come
//! last. So it is held here, within bounds, and released at once.
//!
//! pingora forwards a body while it reads it, with one exception: what it keeps for a retry, 64 KiB at most, it gives to
//! `request_body_filter` again, in one piece. So a body is read with that buffer off until no more than 64 KiB are left,
//! and then with it on; what comes back out of the buffer is replaced by the whole ([`Held::release`]). How much is left
//! must be known for that, so that a longer body needs a `Content-Length`.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use http::header;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::answer::is_old;
use super::request::content_length;
use crate::gateway::edge::pace::{ByteRate, ClientPace};
use fedgate_core::fields::{BodyCheck, BodyFault, check_request};

/// How many bytes pingora keeps for a retry.
const RETRY_BYTES: usize = 64 * 1024;
/// How many bytes of bodies may be held at a time, for all requests together.
const ROOM_BYTES: usize = 256 * 1024 * 1024;

/// Room for held bodies.
#[derive(Default)]
pub(crate) struct BodyRoom(AtomicUsize);

/// What one body takes of the room; given back when it is dropped.
pub(crate) struct BodyShare {
    room: Arc<BodyRoom>,
    bytes: usize,
}

impl BodyShare {
    pub(crate) fn of(room: &Arc<BodyRoom>) -> Self {
        Self { room: Arc::clone(room), bytes: 0 }
    }

    /// Takes more.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BodyFault> {
        self.bytes += bytes;
        match self.room.0.fetch_add(bytes, Ordering::AcqRel) + bytes {
            ..=ROOM_BYTES => Ok(()),
            _ => Err(BodyFault::NoRoom),
        }
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A body that was judged, whole.
pub(crate) struct HeldBody {
    body: Bytes,
    _share: BodyShare,
}

impl HeldBody {
    /// Puts the body where pingora has the end of it, and nothing before: over HTTP/2, what comes out of the retry buffer is
    /// not the end yet where trailers follow.
    pub(crate) fn release(&self, body: &mut Option<Bytes>, is_end: bool) {
        *body = match is_end {
            true if self.body.is_empty() => None,
            true => Some(self.body.clone()),
            // Nothing at all would be taken for the end.
            false => Some(Bytes::new()),
        };
    }
}

/// Why a body is not held.
pub(crate) enum BodyNotHeld {
    /// It may not pass.
    Refused(BodyFault),
    /// Its method has none.
    Unexpected,
    /// It could not be read.
    Failed(Box<Error>),
}

impl From<BodyFault> for BodyNotHeld {
    fn from(fault: BodyFault) -> Self {
        Self::Refused(fault)
    }
}

impl From<Box<Error>> for BodyNotHeld {
    fn from(error: Box<Error>) -> Self {
        Self::Failed(error)
    }
}

/// Tells a client that waits for it to send its body; pingora leaves that to the service behind, which is not asked to.
///
/// # Errors
/// The client has gone.
pub(crate) async fn invite(session: &mut Session) -> Result<()> {
    let head = session.req_header();
    // HTTP/1.0 has no interim answers (RFC 9110, 10.1.1).
    let waits = head.headers.contains_key(header::EXPECT) && !is_old(head.version);
    if waits && !session.as_mut().is_body_empty() {
        session.as_mut().write_continue_response().await.map_err(|error| error.into_down())?;
    }
    Ok(())
}

/// Waits for the end of a request whose method has no body: over HTTP/2 it may come after the head, in a frame of its own.
/// Before that pingora would announce a body, and a service that looks for none reads it as its next request.
pub(crate) async fn expect_none(session: &mut Session, tempo: ByteRate) -> Result<(), BodyNotHeld> {
    let mut pace = ClientPace::new(tempo);
    while !session.as_mut().is_body_empty() {
        let end = read(session, &mut pace).await?;
        // Trailers are an end without being one for pingora.
        if end.is_none_or(|chunk| !chunk.is_empty()) {
            return Err(BodyNotHeld::Unexpected);
        }
    }
    Ok(())
}

/// Reads a piece of a body, for as long as that may take.
async fn read(session: &mut Session, pace: &mut ClientPace) -> Result<Option<Bytes>, BodyNotHeld> {
    let read = tokio::select! {
        biased;
        read = session.as_mut().read_request_body() => read,
        () = poll_fn(|cx| pace.poll_too_slow(cx)) => {
            Err(Error::explain(ErrorType::ReadTimedout, "a body came too slowly"))
        }
    };
    read.map_err(|error| error.into_down().into())
}

/// Reads the body of a request and judges it while it comes.
///
/// `limit` is its largest size in bytes, `tempo` how fast it must come.
pub(crate) async fn hold(
    session: &mut Session,
    mut check: BodyCheck,
    limit: u64,
    tempo: ByteRate,
    room: &Arc<BodyRoom>,
) -> Result<HeldBody, BodyNotHeld> {
    let mut share = BodyShare::of(room);
    if session.as_mut().is_body_empty() {
        return Ok(HeldBody { body: Bytes::new(), _share: share });
    }
    let headers = &session.req_header().headers;
    check_request(headers)?;
    let declared = content_length(headers).map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    invite(session).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut pace = ClientPace::new(tempo);
    let mut body = BytesMut::new();
    loop {
        // INVARIANT: what is read from here on fits into the retry buffer, and is not nothing unless the body is.
        if declared.is_none_or(|length| length.saturating_sub(body.len()) <= RETRY_BYTES) {
            session.as_mut().enable_retry_buffering();
        }
        let Some(chunk) = read(session, &mut pace).await? else { break };
        pace.moved(chunk.len() as u64);
        share.grow(chunk.len())?;
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            return Err(BodyFault::TooLong.into());
        }
        if declared.is_none() && body.len() > RETRY_BYTES {
            return Err(BodyFault::NoLength.into());
        }
        check.feed(&chunk)?;
    }
    if body.is_empty() {
        return Ok(HeldBody { body: Bytes::new(), _share: share });
    }
    check.finish()?;
    if session.as_ref().get_retry_buffer().is_none() {
        let lost = "pingora keeps nothing of a guarded body";
        return Err(Error::explain(ErrorType::InternalError, lost).into());
    }
    Ok(HeldBody { body: body.freeze(), _share: share })
}
