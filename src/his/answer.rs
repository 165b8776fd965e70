//! Answers that many handlers give.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderMap, StatusCode};

use super::etag;

pub(super) const JSON: &str = "application/json";

/// The answer to every write: `null`, as Thalamus has it.
pub(super) fn null() -> Response {
    json("null")
}

/// A JSON text. Without a version that could be asked about, a copy of it would only be a record in the wrong place.
pub(super) fn json(text: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")], text.into()).into_response()
}

/// A document as it came from its row, or 304 when the client has it.
pub(super) fn document(headers: &HeaderMap, text: String) -> Response {
    let tag = etag::of(text.as_bytes());
    // Kept by the client alone, and asked about each time.
    let validators = [(ETAG, tag.clone()), (CACHE_CONTROL, "private, no-cache".to_owned())];
    if etag::is_known(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    (validators, json(text)).into_response()
}
