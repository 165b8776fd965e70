//! Bodies: read within their bound, parsed at the edge.
//!
//! The one rule: a handler is given what is already true, a JSON object, or bytes no longer than allowed. The
//! Content-Type is not asked, since the clients of Thalamus send none; only forms are refused, because a browser sends
//! those across origins without asking.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use tokio::time::timeout;

use super::Service;
use super::error::Problem;
use super::json::{self, Object, Value};

/// How long a body may take to arrive; the gateway is stricter where it must be.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// A JSON object that came as a body.
pub(super) struct Document(pub(super) Object);

impl FromRequest<Arc<Service>> for Document {
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if media_type(&parts.headers).is_some_and(|kind| is_form(&kind)) {
            return Err(Problem::UnsupportedMediaType);
        }
        let bytes = read(&parts.headers, body, service.limits.max_body_bytes).await?;
        object(&bytes).map(Self)
    }
}

/// Parses a JSON object.
///
/// # Errors
/// The bytes are no JSON, or no object.
pub(super) fn object(bytes: &[u8]) -> Result<Object, Problem> {
    match json::parse(bytes)? {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Problem::NotAnObject)
        }
    }
}

/// Reads a body of at most `limit` bytes; one that announces itself as longer is not read at all.
///
/// # Errors
/// The body is too long, encoded, or broken off.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::UnsupportedMediaType);
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > limit)) {
        return Err(Problem::TooLarge);
    }
    let read = timeout(BODY_TIMEOUT, to_bytes(body, limit)).await.map_err(|_| Problem::BodyTimeout)?;
    read.map_err(|error| {
        let too_large =
            std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("length limit"));
        if too_large { Problem::TooLarge } else { Problem::BodyUnreadable }
    })
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
