//! Answers that many handlers share.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::{HeaderMap, StatusCode};

use super::budget::{self, HeldBytes};
use super::error::{HisError, JSON};
use super::etag::TagCondition;
use super::store::{RecordKey, RecordText};
use super::verify_assertion::Caller;
use super::{HisService, etag};

/// The answer to every write: `null`, as Thalamus sends it.
pub(super) fn null() -> Response {
    json("null")
}

/// A JSON answer that is not to be stored. Without an `ETag` a copy could not be validated, and would only be a
/// record in the wrong place.
pub(super) fn json(text: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")], text.into()).into_response()
}

/// One record, if it exists. Room for a long one is held before it is read, and until the socket has taken it.
///
/// # Errors
/// There is no room in time, or the store fails.
pub(super) async fn record(
    service: &HisService,
    caller: &Caller,
    key: &RecordKey,
    headers: &HeaderMap,
) -> Result<Option<Response>, HisError> {
    let store = caller.store(service);
    let (mut most, mut held) = (budget::SMALL_BYTES, HeldBytes::nothing());
    loop {
        match store.record(key, most, &caller.reach).await? {
            None => return Ok(None),
            Some(RecordText::Fits(text)) => {
                held.shrink_to(text.len());
                return Ok(Some(document(headers, text, held)));
            }
            // The record may grow between two reads. The old room is returned before more is waited for.
            Some(RecordText::Exceeds(bytes)) => {
                drop(held);
                most = bytes;
                held = service.budget.hold(&caller.account, most, budget::PATIENCE).await.ok_or(HisError::NoRoom)?;
            }
        }
    }
}

/// A document as it came from its row, or 304 if the client has it.
fn document(headers: &HeaderMap, text: String, held: HeldBytes) -> Response {
    let tag = etag::of(text.as_bytes());
    if !etag::is_wanted(headers, &tag) {
        return HisError::Stale.into_response();
    }
    // Only the client may keep a copy, and it must validate the copy each time.
    let validators = [(ETAG, tag.clone()), (CACHE_CONTROL, "private, no-cache".to_owned())];
    if etag::is_known(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    (validators, json(held.around(text))).into_response()
}

/// Whether the stored record meets the conditions of a POST. Without any, as usual, nothing is read.
///
/// # Errors
/// [`HisError::Stale`], or as [`record`].
pub(super) async fn check_condition(
    service: &HisService,
    caller: &Caller,
    key: &RecordKey,
    headers: &HeaderMap,
) -> Result<(), HisError> {
    let condition = TagCondition::of(headers);
    if !condition.is_conditional() {
        return Ok(());
    }
    let known = record(service, caller, key, &HeaderMap::new()).await?;
    let tag = known.as_ref().and_then(|known| known.headers().get(ETAG)?.to_str().ok());
    match tag.map_or_else(|| condition.admits_absence(), |tag| condition.admits_tag(|| tag.to_owned())) {
        true => Ok(()),
        false => Err(HisError::Stale),
    }
}
