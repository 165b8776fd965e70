//! `POST /index/match`: the persons whom demographics may describe.
//!
//! The one rule: the answer names persons within reach, with what each field says, and shows none of their data.

use std::sync::Arc;

use axum::extract::State;
use fedgate_index::assess::{Assessment, Grade};
use http::Uri;
use serde_json::{Value, json};

use crate::body::JsonBody;
use crate::error::{HandlerResult, HisError};
use crate::store::{CANDIDATES_AT_A_TIME, LONG_CANDIDATE_BYTES, PersonRecord, RecordKey};
use crate::verify_assertion::Caller;
use crate::{HisService, answer, budget, list};

use super::keys_of;

/// Candidates in an answer, usually and at most.
const COUNT: (usize, usize) = (10, 100);
/// The most records beyond the length of others that are read for one answer.
const MOST_LONG: usize = 8;
/// Room for the records that are read at a time, in bytes.
const ROOM: usize = CANDIDATES_AT_A_TIME * LONG_CANDIDATE_BYTES;

/// `POST /index/match`
pub(crate) async fn find(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    uri: Uri,
    JsonBody(body, _held): JsonBody,
) -> HandlerResult {
    let pairs = list::pairs(&uri)?;
    let count = match pairs.value("count") {
        None => COUNT.0,
        Some(text) => text.parse().ok().filter(|count| (1..=COUNT.1).contains(count)).ok_or(bad("count"))?,
    };
    let least = match pairs.value("grade") {
        None => Grade::Possible,
        Some(word) => [Grade::Possible, Grade::Probable, Grade::Certain]
            .into_iter()
            .find(|grade| grade.as_str() == word)
            .ok_or(bad("grade"))?,
    };
    let index = &service.person_index;
    let Some(asked) = index.folded(&body.to_text()) else { return Ok(answer::json("[]")) };
    let _room = service.budget.hold(&caller.account, ROOM, budget::PATIENCE).await.ok_or(HisError::NoRoom)?;
    let store = caller.store(&service);
    let (mut found, mut long) = (Vec::new(), 0);
    let candidates = store.candidates(&keys_of(&asked), &caller.reach).await?;
    for persons in candidates.chunks(CANDIDATES_AT_A_TIME) {
        for (person, record) in store.candidate_records(persons).await? {
            let text = match record {
                PersonRecord::Text(text) => Some(text),
                PersonRecord::Long if long < MOST_LONG => {
                    long += 1;
                    store.whole_record(&RecordKey::Person(person.clone()), &caller.reach).await?
                }
                PersonRecord::Long | PersonRecord::Missing => None,
            };
            let Some(known) = text.and_then(|text| index.folded(&text)) else { continue };
            let assessment = index.assess(&asked, &known);
            if assessment.grade >= least {
                found.push((person, assessment));
            }
        }
    }
    found.sort_by(|(one, a), (other, b)| b.evidence.cmp(&a.evidence).then_with(|| one.cmp(other)));
    let candidates: Vec<Value> = found.iter().take(count).map(|(person, is)| candidate(person, is)).collect();
    Ok(answer::json(Value::from(candidates).to_string()))
}

fn bad(parameter: &str) -> HisError {
    HisError::BadQuery(parameter.to_owned())
}

fn candidate(person: &str, is: &Assessment) -> Value {
    let said = is.reasons.iter().filter(|reason| reason.level.as_str() != "missing");
    let reasons: Vec<Value> = said
        .map(|reason| {
            json!({
                "field": reason.field.as_str(), "level": reason.level.as_str(), "bits": f64::from(reason.weight) / 1000.0,
            })
        })
        .collect();
    // Four digits: the model knows no more.
    let score = (is.score * 10_000.0).floor() / 10_000.0;
    json!({ "person": person, "score": score, "grade": is.grade.as_str(), "reasons": reasons })
}
