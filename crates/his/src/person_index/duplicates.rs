//! `/index/duplicates`: the review list, and decisions about its pairs.
//!
//! The one rule: the list is for callers who reach every person, because a pair tells of two of them.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, SecondsFormat};
use http::Uri;
use serde_json::{Value, json};

use crate::body::JsonBody;
use crate::error::{HandlerResult, HisError};
use crate::store::{PairFilter, PairState, RecordReach, ReviewedPair};
use crate::verify_assertion::{Caller, RouteIds};
use crate::{HisService, answer, paging};
use fedgate_core::json::JsonValue;

/// Pairs on a page, usually and at most.
const LIMIT: (usize, usize) = (100, 1000);
/// The most bytes of a place in a link.
const PLACE_BYTES: usize = 48;
/// Of any state.
const ALL: &str = "all";

/// `GET /index/duplicates`
pub(crate) async fn list(State(service): State<Arc<HisService>>, caller: Caller, uri: Uri) -> HandlerResult {
    let pairs = paging::only(&uri, &["limit", "after", "state", "grade", "person"])?;
    let bad = HisError::bad_query;
    let limit = paging::count(&pairs, "limit", LIMIT.1)?.unwrap_or(LIMIT.0);
    let state = match pairs.value("state") {
        None => Some(PairState::Open),
        Some(ALL) => None,
        Some(word) => Some(PairState::parse(word).ok_or(bad("state"))?),
    };
    let grade = match pairs.value("grade") {
        None => None,
        Some(word @ ("certain" | "probable")) => Some(word.to_owned()),
        Some(_) => return Err(bad("grade")),
    };
    let after = pairs.value("after").map(|text| place(text).ok_or(bad("after"))).transpose()?;
    let filter = PairFilter { state, grade, person: pairs.value("person").map(str::to_owned), after };
    if caller.reach != RecordReach::Global {
        return Ok(answer::json("[]"));
    }
    let found = caller.store(&service).pairs(&filter, limit as u64 + 1).await?;
    let place = |last: &ReviewedPair| format!("{},{}", last.evidence, last.number);
    paging::page(&uri, found, limit, shown, (place, PLACE_BYTES))
}

/// `GET /index/duplicates/{pair}`
pub(crate) async fn read(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, pair]): RouteIds<2>,
) -> HandlerResult {
    let number = numbered(&pair, &caller)?;
    let found = caller.store(&service).pair(number).await?.ok_or(HisError::PairNotFound)?;
    Ok(answer::json(shown(&found).to_string()))
}

/// `PATCH /index/duplicates/{pair}`
pub(crate) async fn decide(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, pair]): RouteIds<2>,
    JsonBody(body, _held): JsonBody,
) -> HandlerResult {
    let number = numbered(&pair, &caller)?;
    let state = body.member("state").and_then(JsonValue::as_str).and_then(PairState::parse);
    let state = state.ok_or(HisError::BadMember("state"))?;
    let decided = caller.store(&service).decide_pair(number, state, &caller.account).await?;
    Ok(answer::json(shown(&decided.ok_or(HisError::PairNotFound)?).to_string()))
}

/// The number of a pair, for a caller who may see it.
fn numbered(pair: &str, caller: &Caller) -> Result<i64, HisError> {
    let number = pair.parse().ok().filter(|_| caller.reach == RecordReach::Global);
    number.ok_or(HisError::PairNotFound)
}

/// Evidence and number of a pair, as links have them.
fn place(text: &str) -> Option<(i64, i64)> {
    let (evidence, number) = text.split_once(',')?;
    Some((evidence.parse().ok()?, number.parse().ok()?))
}

/// A pair as answers and commands show it.
#[must_use]
pub fn shown(pair: &ReviewedPair) -> Value {
    let time =
        |at: i64| DateTime::from_timestamp_millis(at).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true));
    json!({
        "pair": pair.number,
        "persons": pair.persons,
        "grade": pair.grade,
        "score": pair.score as f64 / 10_000.0,
        "state": pair.state.as_str(),
        "found": time(pair.found_at),
        "decided": pair.decided.as_ref().map(|(at, _)| time(*at)),
        "by": pair.decided.as_ref().map(|(_, by)| by),
    })
}
