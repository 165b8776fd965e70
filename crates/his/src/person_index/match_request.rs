//! `POST /index/match`: the persons whom demographics may describe.
//!
//! The one rule: the answer names persons within reach, with what each field says, and shows none of their data.

use std::sync::Arc;

use axum::extract::State;
use fedgate_index::assess::Grade;
use http::Uri;
use serde_json::{Value, json};

use crate::body::JsonBody;
use crate::error::{HandlerResult, HisError};
use crate::verify_assertion::Caller;
use crate::{HisService, answer, budget, paging};
use fedgate_core::json::JsonObject;

use super::alike::{LikePerson, ROOM, in_ten_thousandths};

/// Candidates in an answer, usually and at most.
const COUNT: (usize, usize) = (10, 100);

/// `POST /index/match`
pub(crate) async fn find(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    uri: Uri,
    JsonBody(body, _held): JsonBody,
) -> HandlerResult {
    let pairs = paging::only(&uri, &["count", "grade"])?;
    let count = paging::count(&pairs, "count", COUNT.1)?.unwrap_or(COUNT.0);
    let least = match pairs.value("grade") {
        None => Grade::Possible,
        Some(word) => [Grade::Possible, Grade::Probable, Grade::Certain]
            .into_iter()
            .find(|grade| grade.as_str() == word)
            .ok_or(HisError::bad_query("grade"))?,
    };
    let index = &service.person_index;
    let Some(asked) = index.folded(&body.to_text()) else { return Ok(answer::json("[]")) };
    let _room = service.budget.hold(&caller.account, ROOM, budget::PATIENCE).await.ok_or(HisError::NoRoom)?;
    let found = index.alike(&caller.store(&service), &asked, &caller.reach, least).await?;
    let candidates: Vec<Value> = found.iter().take(count).map(candidate).collect();
    Ok(answer::json(Value::from(candidates).to_string()))
}

/// Refuses a new person who certainly is one that is there. The candidates are for callers who may match.
///
/// Persons whose keys are not there yet are not found, such as one who is registered at the same moment. The review list
/// has both afterwards.
pub(crate) async fn refuse_match(service: &HisService, caller: &Caller, document: &JsonObject) -> Result<(), HisError> {
    let index = &service.person_index;
    let Some(asked) = index.folded(&document.to_text()) else { return Ok(()) };
    let _room = service.budget.hold(&caller.account, ROOM, budget::PATIENCE).await.ok_or(HisError::NoRoom)?;
    let found = index.alike(&caller.store(service), &asked, &caller.reach, Grade::Certain).await?;
    if found.is_empty() {
        return Ok(());
    }
    let candidates: Vec<Value> = found.iter().take(COUNT.0).map(candidate).collect();
    Err(HisError::MatchesPerson(caller.may_match().then(|| Value::from(candidates).to_string().into())))
}

/// A candidate as answers show it: who, how likely, and why.
pub(crate) fn candidate(person: &LikePerson) -> Value {
    let LikePerson { id, assessment: is, .. } = person;
    let said = is.reasons.iter().filter(|reason| reason.level.as_str() != "missing");
    let reasons: Vec<Value> = said
        .map(|reason| {
            json!({
                "field": reason.field.as_str(), "level": reason.level.as_str(), "bits": f64::from(reason.weight) / 1000.0,
            })
        })
        .collect();
    let score = in_ten_thousandths(is.score) as f64 / 10_000.0;
    json!({ "person": id, "score": score, "grade": is.grade.as_str(), "reasons": reasons })
}
