//! Named cursors: a node keeps here the position that it has reached.
//!
//! The one rule: a cursor belongs to the account of the assertion. The scope of a decision never reaches another
//! account's cursors, so for other callers they do not exist.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, ETAG};
use http::{HeaderMap, StatusCode};

use super::place::ReaderPlace;
use crate::body::JsonBody;
use crate::error::{HandlerResult, HisError};
use crate::etag::{self, TagCondition};
use crate::store::{CursorKey, CursorWritten, MessageCursor};
use crate::verify_assertion::{Caller, RouteIds};
use crate::{HisService, answer};
use fedgate_core::json::{JsonValue, write_string};

/// The longest name, in bytes.
const NAME_BYTES: usize = 64;

/// `GET /messages/cursors`
pub(in super::super) async fn list(State(service): State<Arc<HisService>>, caller: Caller) -> HandlerResult {
    let cursors = caller.store(&service).cursors(&caller.account).await?;
    let texts: Vec<String> = cursors.iter().map(text).collect();
    Ok(answer::json(format!("[{}]", texts.join(","))))
}

/// `GET /messages/cursors/{name}`
pub(in super::super) async fn read(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, name]): RouteIds<2>,
    headers: HeaderMap,
) -> HandlerResult {
    let key = key(&caller, name)?;
    let cursor = caller.store(&service).cursor(&key).await?.ok_or(HisError::CursorNotFound)?;
    let tag = cursor.tag();
    if !etag::is_wanted(&headers, &tag) {
        return Err(HisError::Stale);
    }
    if etag::is_known(&headers, &tag) {
        let validators = [(ETAG, tag), (CACHE_CONTROL, "private, no-cache".to_owned())];
        return Ok((StatusCode::NOT_MODIFIED, validators).into_response());
    }
    Ok(shown(StatusCode::OK, &cursor))
}

/// `PUT /messages/cursors/{name}`
pub(in super::super) async fn put(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, name]): RouteIds<2>,
    headers: HeaderMap,
    JsonBody(body, _held): JsonBody,
) -> HandlerResult {
    let key = key(&caller, name)?;
    let place = match body.member("position") {
        // As it is written out, so `1e3` is a thousand.
        Some(JsonValue::Number(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().map(ReaderPlace::at)
        }
        Some(JsonValue::String(place)) => ReaderPlace::parse(place),
        Some(_) | None => None,
    };
    let mut place = place.ok_or(HisError::BadMember("position"))?;
    let (position, store) = (place.position, caller.store(&service));
    if place.history.is_some() {
        place.follow(&store.message_bounds().await?, &store).await?;
    }
    let status = match store.put_cursor(&key, position, &TagCondition::of(&headers)).await? {
        CursorWritten::Created => StatusCode::CREATED,
        CursorWritten::Moved => StatusCode::OK,
        CursorWritten::Stale => return Err(HisError::Stale),
        CursorWritten::Passed(known) => return Err(HisError::CursorAhead(known)),
        CursorWritten::Unknown(last) => return Err(HisError::PositionUnknown(last)),
        CursorWritten::TooMany => return Err(HisError::TooManyCursors),
        CursorWritten::Contended => return Err(HisError::Locked),
    };
    let tag = [(ETAG, format!("\"{position}\""))];
    Ok((status, tag, answer::null()).into_response())
}

/// `DELETE /messages/cursors/{name}`
pub(in super::super) async fn delete(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, name]): RouteIds<2>,
    headers: HeaderMap,
) -> HandlerResult {
    let key = key(&caller, name)?;
    match caller.store(&service).delete_cursor(&key, &TagCondition::of(&headers)).await? {
        Some(true) => Ok(answer::null()),
        Some(false) => Err(HisError::Stale),
        None => Err(HisError::CursorNotFound),
    }
}

/// The cursor of a caller, by a name that is checked.
///
/// # Errors
/// The name is not one of a cursor.
pub(super) fn key(caller: &Caller, name: String) -> Result<CursorKey, HisError> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    match is_plain && (1..=NAME_BYTES).contains(&name.len()) {
        true => Ok(CursorKey { account: caller.account.clone(), name }),
        false => Err(HisError::BadId),
    }
}

fn shown(status: StatusCode, cursor: &MessageCursor) -> Response {
    let validators = [(ETAG, cursor.tag()), (CACHE_CONTROL, "private, no-cache".to_owned())];
    (status, validators, answer::json(text(cursor))).into_response()
}

fn text(cursor: &MessageCursor) -> String {
    let mut text = "{\"name\":".to_owned();
    write_string(&cursor.name, &mut text);
    // Writing to a `String` cannot fail.
    let _ = write!(text, ",\"position\":{},\"time\":", cursor.position);
    write_string(&cursor.time, &mut text);
    text.push('}');
    text
}
