//! Bodies: read within their bound, parsed at the edge.
//!
//! The one rule: a handler is given what is already true, a JSON object, or bytes no longer than allowed. The
//! Content-Type is not asked, since the clients of Thalamus send none. Two of the three types of forms are refused because
//! they are no JSON; that is no protection, since browsers send `text/plain`, and bodies without a type, across origins
//! without asking. The gateway refuses such writes, before they come here.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use tokio::time::{Instant, timeout, timeout_at};

use super::Service;
use super::budget::{self, Held};
use super::error::Problem;
use super::guard::Caller;
use super::json::{self, Object, Value};

/// How long a body may take to arrive; the gateway is stricter where it must be.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// How many bytes a parsed object takes at most for each of its text.
const BYTES_OF_A_TREE: usize = 16;

/// A JSON object that came as a body, and the room that it takes.
pub(super) struct Document(pub(super) Object, pub(super) [Held; 2]);

impl FromRequest<Arc<Service>> for Document {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let account = parts.extensions.get::<Caller>().ok_or(Problem::NoAssertion)?.account.as_str();
        let limit = service.limits.max_body_bytes;
        let most = announced(&parts.headers).map_or(limit, |length| length.min(limit));
        let Some(held) = service.budget.hold(account, most, budget::PATIENCE).await else {
            Incoming::new(&parts.headers, body, limit)?.forget().await;
            return Err(Problem::NoRoom);
        };
        let bytes = read(&parts.headers, body, limit).await?;
        if media_type(&parts.headers).is_some_and(|kind| is_form(&kind)) {
            return Err(Problem::UnsupportedMediaType);
        }
        let tree = hold_tree(service, account, bytes.len()).await?;
        object(&bytes, limit).map(|object| Self(object, [held, tree]))
    }
}

/// Waits for the room that so many bytes of text take once they are parsed. It is a budget beside that of the bytes: whoever
/// holds some of that one waits here, and nobody waits the other way round.
///
/// # Errors
/// There is none in time.
pub(super) async fn hold_tree(service: &Service, account: &str, bytes: usize) -> Result<Held, Problem> {
    service.trees.hold(account, bytes.saturating_mul(BYTES_OF_A_TREE), budget::PATIENCE).await.ok_or(Problem::NoRoom)
}

/// How long a body says that it is.
fn announced(headers: &HeaderMap) -> Option<usize> {
    // One that does not fit a number is too long for every limit.
    let length = headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<u64>().ok()?;
    Some(usize::try_from(length).unwrap_or(usize::MAX))
}

/// Parses a JSON object that takes at most `limit` bytes, also with its numbers written out: what is acknowledged reads back
/// at about its size.
///
/// # Errors
/// The bytes are no JSON, or no object, or grow too large.
pub(super) fn object(bytes: &[u8], limit: usize) -> Result<Object, Problem> {
    match json::parse_counted(bytes)? {
        (_, grown) if grown > 0 && bytes.len() + grown > limit => Err(Problem::TooLarge),
        (Value::Object(object), _) => Ok(object),
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_), _) => {
            Err(Problem::NotAnObject)
        }
    }
}

/// Reads a body of at most `limit` bytes.
///
/// Whatever is wrong is said when it has been read: an answer that overtakes its request is lost, because the connection
/// is then closed under a peer that still sends. So what is longer than `limit`, but no longer than the gateway may have
/// let through, is read and forgotten; only beyond that nothing is owed.
///
/// # Errors
/// The body is too long, encoded, or broken off.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut incoming = Incoming::new(headers, body, limit)?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = incoming.next().await? {
        if incoming.count > limit {
            bytes = BytesMut::new();
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
    check_encoding(headers)?;
    if incoming.count > limit { Err(Problem::TooLarge) } else { Ok(bytes.freeze()) }
}

/// Refuses a body that is compressed.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    match encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        true => Err(Problem::UnsupportedMediaType),
        false => Ok(()),
    }
}

/// A body that arrives, up to where nothing is owed to who sends it.
pub(super) struct Incoming {
    chunks: BodyDataStream,
    deadline: Instant,
    endurance: usize,
    /// Bytes that have come.
    count: usize,
}

impl Incoming {
    /// Begins with a body of which at most `limit` bytes are wanted.
    ///
    /// # Errors
    /// It says that it is far too long.
    pub(super) fn new(headers: &HeaderMap, body: Body, limit: usize) -> Result<Self, Problem> {
        // As many as the gateway lets pass for a document of that size in base64.
        const DATA_BYTES: usize = 64 * 1024;
        let endurance = (limit / 3 + 1).saturating_mul(4).saturating_add(DATA_BYTES);
        if announced(headers).is_some_and(|length| length > endurance) {
            return Err(Problem::TooLarge);
        }
        Ok(Self { chunks: body.into_data_stream(), deadline: Instant::now() + BODY_TIMEOUT, endurance, count: 0 })
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// The body is far too long, too late, or broken off.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let chunk = timeout_at(self.deadline, self.chunks.next()).await.map_err(|_| Problem::BodyTimeout)?;
        let Some(chunk) = chunk else { return Ok(None) };
        let chunk = chunk.map_err(|_| Problem::BodyUnreadable)?;
        self.count += chunk.len();
        if self.count > self.endurance { Err(Problem::TooLarge) } else { Ok(Some(chunk)) }
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
    if let Ok(mut incoming) = Incoming::new(&HeaderMap::new(), body, BYTES) {
        // Nothing is owed to who sends more, or too slowly.
        let _ = timeout(TIMEOUT, incoming.forget()).await;
    }
}

/// The media type without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().unwrap_or("invalid");
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Whether a media type is one of the two that forms are sent as.
pub(super) fn is_form(media_type: &str) -> bool {
    matches!(media_type, "application/x-www-form-urlencoded" | "multipart/form-data")
}
