//! Request bodies that are judged before the upstream hears of the request.
//!
//! The one rule: nothing of a guarded body is forwarded before all of it was judged, because a forbidden member may
//! come last. So the body is held here, within bounds, and released whole.
//!
//! pingora forwards a body while it reads it, with one exception: the retry buffer, 64 KiB at most, is given to
//! `request_body_filter` again, in one piece. So a body is read with that buffer off until no more than 64 KiB are
//! left, and then with it on; the content of the buffer is then replaced by the whole body ([`HeldBody::release`]).
//! That needs the number of bytes left, so a longer body needs a `Content-Length`.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::body_room::BodyShare;
use super::hidden_members::is_old;
use crate::gateway::edge::pace::{ByteRate, ClientPace};
use fedgate_core::admission::content_length;
use fedgate_core::fields::{BodyCheck, BodyFault, check_request};

/// Size of pingora's retry buffer.
const RETRY_BYTES: usize = 64 * 1024;
/// A whole body that was judged.
pub(crate) struct HeldBody {
    body: Bytes,
    _share: BodyShare,
}

impl HeldBody {
    /// The whole body.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// Puts the body where pingora has the end of it, and empty pieces before: over HTTP/2, the content of the
    /// retry buffer is not the end yet if trailers follow.
    pub(crate) fn release(&self, body: &mut Option<Bytes>, is_end: bool) {
        *body = match is_end {
            true if self.body.is_empty() => None,
            true => Some(self.body.clone()),
            // pingora takes `None` for the end of the body.
            false => Some(Bytes::new()),
        };
    }
}

/// Why a body is not held.
pub(crate) enum BodyNotHeld {
    /// The field guard refuses it.
    Refused(BodyFault),
    /// Its method has no body.
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

/// Sends 100 (Continue) to a client that waits for it. pingora leaves that to the upstream, to which `Expect` is
/// not forwarded.
///
/// # Errors
/// The client has gone.
pub(crate) async fn invite(session: &mut Session) -> Result<()> {
    let head = session.req_header();
    // HTTP/1.0 has no interim answers (RFC 9110, 10.1.1).
    let waits = waits_for_100(&head.headers) && !is_old(head.version);
    if waits && !session.as_mut().is_body_empty() {
        session.as_mut().write_continue_response().await.map_err(|error| error.into_down())?;
    }
    Ok(())
}

/// Whether a client waits for 100 (Continue). Another expectation is passed over, as RFC 9110, 10.1.1 allows: what it
/// asks for, nobody here could promise.
pub(crate) fn waits_for_100(headers: &HeaderMap) -> bool {
    let expected = headers.get_all(header::EXPECT).iter();
    let mut members = expected.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"100-continue"))
}

/// Waits for the end of a request whose method has no body: over HTTP/2 it may come after the head, in a separate
/// frame. Without this wait, pingora would announce a body, and a service that expects none would read the body as its
/// next request.
pub(crate) async fn expect_none(session: &mut Session, tempo: ByteRate) -> Result<(), BodyNotHeld> {
    let mut pace = ClientPace::new(tempo);
    while !session.as_mut().is_body_empty() {
        let end = read(session, &mut pace).await?;
        // Trailers end a request, but pingora does not report them as its end.
        if end.is_none_or(|chunk| !chunk.is_empty()) {
            return Err(BodyNotHeld::Unexpected);
        }
    }
    Ok(())
}

/// Reads a piece of a body, within the pace.
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

/// Reads the body of a request, and judges it while it arrives.
///
/// `limit` is its largest size in bytes, `tempo` its slowest pace.
pub(crate) async fn hold(
    session: &mut Session,
    mut check: BodyCheck,
    limit: u64,
    tempo: ByteRate,
    mut share: BodyShare,
) -> Result<HeldBody, BodyNotHeld> {
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
        // INVARIANT: all bytes that are read from here on fit into the retry buffer, and at least one is, unless
        // the body is empty.
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
        // Judged while it arrives: a forbidden member ends the upload before the rest is held.
        check.feed(&chunk)?;
    }
    if body.is_empty() {
        return Ok(HeldBody { body: Bytes::new(), _share: share });
    }
    check.finish()?;
    // Without the buffer, `release` would have nothing to replace, and the body would be lost.
    if session.as_ref().get_retry_buffer().is_none() {
        let lost = "pingora keeps nothing of a guarded body";
        return Err(Error::explain(ErrorType::InternalError, lost).into());
    }
    Ok(HeldBody { body: body.freeze(), _share: share })
}
