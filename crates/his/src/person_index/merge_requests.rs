//! `/index/merges`: which records are of one person, as a caller has decided.
//!
//! The one rule: only callers with the scope `global` merge, because a merge lets the holder of each id read the records
//! of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::Uri;
use serde_json::{Value, json};

use crate::body::JsonBody;
use crate::error::{HandlerResult, HisError};
use crate::store::{MemberSource, MergeOrder, MergeResult, PersonMerge, RecordReach, UnmergeResult};
use crate::verify_assertion::{Caller, RouteIds, is_id};
use crate::{HisService, answer, paging};
use fedgate_core::json::{JsonObject, JsonValue};

/// Merges on a page, usually and at most.
const LIMIT: (u64, u64) = (100, 1000);
/// The longest reason, in bytes.
const WHY_BYTES: usize = 2000;
/// The most digits of a number.
const NUMBER_BYTES: usize = 18;

/// `POST /index/merges`
pub(crate) async fn merge(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    JsonBody(body, _held): JsonBody,
) -> HandlerResult {
    check(&caller)?;
    let order = order(&body, &caller, service.limits.max_record_bytes)?;
    let (old, survivor) = (order.old.clone(), order.survivor.clone());
    match caller.store(&service).merge(order).await? {
        MergeResult::Done(number) => {
            Ok(answer::json(json!({ "merge": number, "old": old, "survivor": survivor }).to_string()))
        }
        MergeResult::Missing => Err(HisError::UserNotFound),
        MergeResult::Itself => Err(HisError::MergeWithItself),
        MergeResult::Merged(survivor) => Err(HisError::PersonMerged(Some(survivor))),
        MergeResult::TooManyIds => Err(HisError::TooManyIds),
        MergeResult::TooLarge => Err(HisError::RecordTooLarge),
        MergeResult::NotAnObject => Err(HisError::NotARecord),
    }
}

/// `GET /index/merges`
pub(crate) async fn all(State(service): State<Arc<HisService>>, caller: Caller, uri: Uri) -> HandlerResult {
    check(&caller)?;
    let pairs = paging::only(&uri, &["limit", "after", "person"])?;
    let limit = match pairs.value("limit") {
        None => LIMIT.0,
        Some(text) => number(text).filter(|limit| (1..=LIMIT.1).contains(limit)).ok_or(HisError::bad_query("limit"))?,
    };
    let after = pairs.value("after").map_or(Ok(0), |text| number(text).ok_or(HisError::bad_query("after")))?;
    let merges = caller.store(&service).person_merges(after, limit + 1, pairs.value("person")).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    paging::page(&uri, merges, limit, shown, (|last: &PersonMerge| last.number.to_string(), NUMBER_BYTES))
}

/// `GET /index/merges/{merge}`
pub(crate) async fn read(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, merge]): RouteIds<2>,
) -> HandlerResult {
    check(&caller)?;
    let merge = number(&merge).ok_or(HisError::MergeNotFound)?;
    let merge = caller.store(&service).person_merge(merge).await?.ok_or(HisError::MergeNotFound)?;
    Ok(answer::json(shown(&merge).to_string()))
}

/// `DELETE /index/merges/{merge}`
pub(crate) async fn undo(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, merge]): RouteIds<2>,
) -> Result<Response, HisError> {
    check(&caller)?;
    let merge = number(&merge).ok_or(HisError::MergeNotFound)?;
    match caller.store(&service).unmerge(merge, &caller.account).await? {
        UnmergeResult::Done => Ok(answer::null()),
        UnmergeResult::Missing => Err(HisError::MergeNotFound),
        UnmergeResult::Later(later) => Err(HisError::MergeNotNewest(later)),
        UnmergeResult::NotAnObject => Err(HisError::NotARecord),
    }
}

/// Refuses callers whose scope is not `global`.
fn check(caller: &Caller) -> Result<(), HisError> {
    match caller.reach {
        RecordReach::Global => Ok(()),
        RecordReach::Own(_) | RecordReach::Nobody => Err(HisError::NeedsGlobal),
    }
}

/// What a body orders.
fn order(body: &JsonObject, caller: &Caller, most: Option<usize>) -> Result<MergeOrder, HisError> {
    let id = |member: &'static str| {
        let id = body.member(member).and_then(JsonValue::as_str).filter(|id| is_id(id));
        id.map(str::to_owned).ok_or(HisError::BadMember(member))
    };
    let why = match body.member("why") {
        None | Some(JsonValue::Null) => None,
        Some(JsonValue::String(why)) if why.len() <= WHY_BYTES && !why.contains('\0') => Some(why.clone()),
        Some(_) => return Err(HisError::BadMember("why")),
    };
    let mut members = BTreeMap::new();
    match body.member("fields") {
        None | Some(JsonValue::Null) => {}
        Some(JsonValue::Object(fields)) => {
            for name in fields.names() {
                let source = match fields.member(name).and_then(JsonValue::as_str) {
                    Some("old") => MemberSource::Old,
                    Some("survivor") => MemberSource::Survivor,
                    Some(_) | None => return Err(HisError::BadMember("fields")),
                };
                members.insert(name.to_owned(), source);
            }
        }
        Some(_) => return Err(HisError::BadMember("fields")),
    }
    let by = caller.account.clone();
    Ok(MergeOrder { old: id("old")?, survivor: id("survivor")?, why, members, by, most })
}

fn number(text: &str) -> Option<u64> {
    let is_number = text.len() <= NUMBER_BYTES && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// A merge as it is shown.
pub fn shown(merge: &PersonMerge) -> Value {
    let PersonMerge { number, old, survivor, at, by, why, undone_at, undone_by } = merge;
    json!({
        "merge": number, "old": old, "survivor": survivor, "at": at, "by": by, "why": why,
        "undone_at": undone_at, "undone_by": undone_by,
    })
}
