//! Answers that many handlers share.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::budget::{self, HeldBytes};
use super::error::{HisError, JSON};
use super::etag::TagCondition;
use super::store::{RecordKey, RecordStore, RecordText, SamePerson};
use super::verify_assertion::Caller;
use super::{HisService, etag};

/// Characters that are encoded in a segment of a path: all but the unreserved ones (RFC 3986).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The answer to every write: `null`, as Thalamus sends it.
pub(super) fn null() -> Response {
    json("null")
}

/// A JSON answer that is not to be stored. Without an `ETag` a copy could not be validated, and would only be a
/// record in the wrong place.
pub(super) fn json(text: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, JSON), (CACHE_CONTROL, "no-store")], text.into()).into_response()
}

/// One record, if it exists, or the way to where it is now.
///
/// # Errors
/// See [`record`].
pub(super) async fn read(
    service: &HisService,
    caller: &Caller,
    key: &RecordKey,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Option<Response>, HisError> {
    if let Some(found) = record(service, caller, key, headers, Some(uri)).await? {
        return Ok(Some(found));
    }
    let (RecordKey::Person(person) | RecordKey::Page { person, .. }) = key else { return Ok(None) };
    // Of an old id everything is elsewhere, also what does not exist.
    // Boxed, as below: what is rare would otherwise make the room of every request larger, which is copied.
    let survivor = Box::pin(async { caller.store(service).survivor_of(person, &caller.reach).await }).await?;
    Ok(survivor.map(|survivor| moved(uri, &survivor)))
}

/// The ids of the person whose records are read, or the way to them if the id has become old.
///
/// # Errors
/// The store fails.
pub(super) async fn same_person(
    service: &HisService,
    caller: &Caller,
    person: &str,
    uri: &Uri,
) -> Result<Result<SamePerson, Response>, HisError> {
    let same = caller.store(service).members(person, &caller.reach).await?;
    Ok(if same.is_old(person) { Err(moved(uri, &same.survivor)) } else { Ok(same) })
}

/// Sends a reader from an old id to the same path under the surviving one. Nobody may keep the answer, because the merge
/// may end.
pub(super) fn moved(uri: &Uri, survivor: &str) -> Response {
    let mut segments = uri.path().splitn(4, '/').skip(1);
    let (kind, rest) = (segments.next().unwrap_or_default(), segments.nth(1));
    let mut location = format!("/{kind}/{}", utf8_percent_encode(survivor, SEGMENT));
    for (mark, part) in [('/', rest), ('?', uri.query())] {
        location.extend(part.map(|_| mark));
        location.push_str(part.unwrap_or_default());
    }
    let headers = [(LOCATION, location), (CACHE_CONTROL, "no-store".to_owned())];
    (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
}

/// One record, if it exists. Room for a long one is held before it is read, and until the socket has taken it. A reader,
/// who has an address, is sent on from an old id.
///
/// # Errors
/// There is no room in time, or the store fails.
pub(super) async fn record(
    service: &HisService,
    caller: &Caller,
    key: &RecordKey,
    headers: &HeaderMap,
    reader: Option<&Uri>,
) -> Result<Option<Response>, HisError> {
    record_in(&caller.reading(service), service, caller, key, headers, reader).await
}

async fn record_in(
    store: &RecordStore,
    service: &HisService,
    caller: &Caller,
    key: &RecordKey,
    headers: &HeaderMap,
    reader: Option<&Uri>,
) -> Result<Option<Response>, HisError> {
    let (mut most, mut held) = (budget::SMALL_BYTES, HeldBytes::nothing());
    loop {
        let Some(found) = store.record(key, most, &caller.reach).await? else { return Ok(None) };
        if let Some((uri, survivor)) = reader.zip(found.survivor.as_deref()) {
            return Ok(Some(moved(uri, survivor)));
        }
        match found.text {
            RecordText::Fits(text) => {
                held.shrink_to(text.len());
                return Ok(Some(document(headers, text, held)));
            }
            // The record may grow between two reads. The old room is returned before more is waited for.
            RecordText::Exceeds(bytes) => {
                drop(held);
                most = bytes;
                let room = Box::pin(service.budget.hold(&caller.account, most, budget::PATIENCE));
                held = room.await.ok_or(HisError::NoRoom)?;
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
    // It decides, so the primary is asked.
    let known = record_in(&caller.store(service), service, caller, key, &HeaderMap::new(), None).await?;
    let tag = known.as_ref().and_then(|known| known.headers().get(ETAG)?.to_str().ok());
    match tag.map_or_else(|| condition.admits_absence(), |tag| condition.admits_tag(|| tag.to_owned())) {
        true => Ok(()),
        false => Err(HisError::Stale),
    }
}
