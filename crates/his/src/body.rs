//! Bodies: read within their bound, and parsed at the edge.
//!
//! The one rule: a handler receives only a JSON object, or bytes within the limit. `Content-Type` is not required,
//! because the clients of Thalamus send none. Two of the three form types are refused because they are not JSON. That
//! is no protection against other sites: browsers send `text/plain`, and bodies without a type, across origins without
//! a preflight. The gateway refuses such writes before they arrive here.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::HisService;
use super::budget::{self, HeldBytes};
use super::error::HisError;
use super::incoming::{IncomingBody, announced};
use super::verify_assertion::Caller;
use fedgate_core::json::{self, JsonObject, JsonValue};

/// The most bytes that a parsed object takes for each byte of its text.
const BYTES_OF_A_TREE: usize = 16;

/// A JSON object from a body, and the room that it takes.
pub(super) struct JsonBody(pub(super) JsonObject, pub(super) [HeldBytes; 2]);

impl FromRequest<Arc<HisService>> for JsonBody {
    type Rejection = HisError;

    async fn from_request(request: Request, service: &Arc<HisService>) -> Result<Self, HisError> {
        let (parts, body) = request.into_parts();
        let account = parts.extensions.get::<Caller>().ok_or(HisError::NoAssertion)?.account.as_str();
        let limit = service.limits.max_body_bytes;
        // Without `Content-Length` a body may have any size up to the limit, so the limit is what it pays.
        let most = announced(&parts.headers).map_or(limit, |length| length.min(limit));
        let Some(held) = service.budget.hold(account, most, budget::PATIENCE).await else {
            // Read and dropped: an answer that overtakes its request is lost.
            IncomingBody::new(&parts.headers, body, limit)?.forget().await;
            return Err(HisError::NoRoom);
        };
        let bytes = read(&parts.headers, body, limit).await?;
        if media_type(&parts.headers).is_some_and(|kind| is_form(&kind)) {
            return Err(HisError::UnsupportedMediaType);
        }
        let tree = hold_tree(service, account, bytes.len()).await?;
        object(&bytes, limit).map(|object| Self(object, [held, tree]))
    }
}

/// Waits for the room that `bytes` of text take once they are parsed. This is a second budget, so a wait here
/// always comes after the first one. No request waits in the other order, so none can block another for ever.
///
/// # Errors
/// There is no room in time.
pub(super) async fn hold_tree(service: &HisService, account: &str, bytes: usize) -> Result<HeldBytes, HisError> {
    service.trees.hold(account, bytes.saturating_mul(BYTES_OF_A_TREE), budget::PATIENCE).await.ok_or(HisError::NoRoom)
}

/// Parses a JSON object that takes at most `limit` bytes, also with its numbers written out. So an acknowledged
/// record reads back at about its own size.
///
/// # Errors
/// The bytes are not JSON or not an object, or they grow beyond the limit.
pub(super) fn object(bytes: &[u8], limit: usize) -> Result<JsonObject, HisError> {
    match json::parse_counted(bytes)? {
        (_, grown) if grown > 0 && bytes.len() + grown > limit => Err(HisError::TooLarge),
        (JsonValue::Object(object), _) => Ok(object),
        (
            JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_) | JsonValue::String(_) | JsonValue::Array(_),
            _,
        ) => Err(HisError::NotAnObject),
    }
}

/// Reads a body of at most `limit` bytes.
///
/// Faults are reported after the whole body was read. An answer that overtakes its request is lost, because the
/// connection is then closed under a peer that still sends. So a body over `limit` is read and dropped, up to
/// the size that the gateway may have let through. Beyond that the body is not read to its end.
///
/// # Errors
/// The body is too long, compressed, or broken off.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, HisError> {
    let mut incoming = IncomingBody::new(headers, body, limit)?;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = incoming.next().await? {
        if incoming.count > limit {
            // Nothing is kept over the limit: a large body would fill memory while it is read to its end.
            bytes = BytesMut::new();
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
    check_encoding(headers)?;
    if incoming.count > limit { Err(HisError::TooLarge) } else { Ok(bytes.freeze()) }
}

/// Refuses a compressed body: its size says nothing about what it expands to.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), HisError> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    match encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        true => Err(HisError::UnsupportedMediaType),
        false => Ok(()),
    }
}

/// The media type without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().unwrap_or("invalid");
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// Whether a media type is one of the two form types that are refused as JSON.
pub(super) fn is_form(media_type: &str) -> bool {
    matches!(media_type, "application/x-www-form-urlencoded" | "multipart/form-data")
}
