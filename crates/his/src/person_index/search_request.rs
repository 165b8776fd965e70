//! `GET /people?q=…`: the persons whom somebody has typed, the best first.
//!
//! The one rule: the list has the form of `GET /people`, `[[person], …]`. What was found stands beside each person, as the
//! second element of its row.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use fedgate_index::query::{Query, Rank};
use futures_util::stream::try_unfold;
use http::header::LINK;
use http::{HeaderName, HeaderValue, Uri};
use serde_json::{Value, json};

use super::search::ROOM;
use crate::budget::{self, AnswerStage, HeldBytes};
use crate::error::HisError;
use crate::query::{self, QueryPairs};
use crate::reading::BrokenOff;
use crate::store::{LONG_CANDIDATE_BYTES, RecordKey, RecordReach, RecordStore, RecordText};
use crate::verify_assertion::Caller;
use crate::{HisService, answer, paging};
use fedgate_core::path::MAX_ID_BYTES;

/// Persons on a page, usually and at most.
const COUNT: (usize, usize) = (50, 300);
/// The most bytes of a place in a link: a score and an id, percent-encoded.
const PLACE_BYTES: usize = 3 * MAX_ID_BYTES + 16;
/// Says of an answer that not everybody was looked at who may be meant.
const PARTIAL: HeaderName = HeaderName::from_static("fedgate-search");

/// Where a page begins: behind the person of this score and id.
struct Place {
    score: u32,
    id: String,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (score, id) = text.split_once('.')?;
        Some(Self { score: score.parse().ok()?, id: id.to_owned() })
    }

    fn of((id, rank): &(String, Rank)) -> Self {
        Self { score: rank.score, id: id.clone() }
    }

    /// Whether a person comes behind it.
    fn is_before(&self, (id, rank): &(String, Rank)) -> bool {
        rank.score < self.score || (rank.score == self.score && *id > self.id)
    }

    fn text(&self) -> String {
        format!("{}.{}", self.score, self.id)
    }
}

/// Answers a search.
///
/// # Errors
/// The query cannot be read, there is no room in time, or the store fails.
pub(crate) async fn find(
    service: &Arc<HisService>,
    caller: Caller,
    uri: &Uri,
    pairs: &QueryPairs,
    typed: &str,
) -> Result<Response, HisError> {
    let bad = HisError::bad_query;
    let query = Query::parse(typed).map_err(|_| bad("q"))?;
    let limit = paging::count(pairs, "limit", COUNT.1)?.unwrap_or(COUNT.0);
    let after = pairs.value("after").map(|text| Place::parse(text).ok_or(bad("after"))).transpose()?;
    let rest = query::target_without(uri, &["after"], PLACE_BYTES).ok_or_else(|| bad("q"))?;
    let room = service.budget.hold(&caller.account, ROOM, budget::PATIENCE).await.ok_or(HisError::NoRoom)?;
    let store = caller.store(service);
    let mut found = service.person_index.search(&store, &query, &caller.reach).await?;
    drop(room);
    if let Some(after) = &after {
        found.persons.retain(|person| after.is_before(person));
    }
    let goes_on = found.persons.len() > limit;
    found.persons.truncate(limit);
    let next = found.persons.last().filter(|_| goes_on).map(Place::of);
    let rows: Vec<(String, String)> =
        found.persons.into_iter().map(|(id, rank)| (id, shown(&query, &rank).to_string())).collect();
    let mut response = answer::json(body(service, caller, store, rows).await?);
    let headers = response.headers_mut();
    if let Some(place) = next
        && let Ok(link) = HeaderValue::try_from(query::next_link(rest, "after", &place.text()))
    {
        headers.insert(LINK, link);
    }
    headers.insert(PARTIAL, HeaderValue::from_static(if found.is_whole { "whole" } else { "partial" }));
    Ok(response.into_response())
}

/// What each part of the query has found.
fn shown(query: &Query, rank: &Rank) -> Value {
    let found = rank.found.iter().map(|found| {
        let part = query.parts().get(found.part).map_or("", |part| part.code.as_ref());
        json!({
            "part": part, "field": found.field.map_or("id", |field| field.as_str()), "how": found.how.as_str(),
        })
    });
    json!({ "score": rank.score, "found": found.collect::<Vec<_>>() })
}

/// A row that is on its way.
enum Row {
    /// The person, and what was found.
    Text(String),
    /// A long record is read when its turn has come.
    Long(String, String),
}

/// The rest of an answer.
struct Rest {
    service: Arc<HisService>,
    account: String,
    store: RecordStore,
    reach: RecordReach,
    rows: VecDeque<Row>,
    is_begun: bool,
    is_ended: bool,
}

/// The body: the shown records of the rows.
async fn body(
    service: &Arc<HisService>,
    caller: Caller,
    store: RecordStore,
    rows: Vec<(String, String)>,
) -> Result<Body, HisError> {
    let room = rows.len().saturating_mul(LONG_CANDIDATE_BYTES);
    let mut held = service.budget.hold(&caller.account, room, budget::PATIENCE).await.ok_or(HisError::NoRoom)?;
    let ids: Vec<String> = rows.iter().map(|(id, _)| id.clone()).collect();
    let mut records: HashMap<String, Option<String>> =
        store.shown_records(&ids, &caller.reach).await?.into_iter().collect();
    let rows: VecDeque<Row> = rows
        .into_iter()
        .filter_map(|(id, found)| match records.remove(&id)? {
            Some(record) => Some(Row::Text(format!("[{record},{found}]"))),
            None => Some(Row::Long(id, found)),
        })
        .collect();
    if rows.iter().all(|row| matches!(row, Row::Text(_))) {
        let texts: Vec<String> = rows
            .into_iter()
            .map(|row| match row {
                Row::Text(text) | Row::Long(text, _) => text,
            })
            .collect();
        let text = format!("[{}]", texts.join(","));
        held.shrink_to(text.len());
        return Ok(Body::from(held.around(text)));
    }
    let (account, reach) = (caller.account, caller.reach);
    let rest = Rest { service: Arc::clone(service), account, store, reach, rows, is_begun: false, is_ended: false };
    let bytes = try_unfold((rest, held), async |(mut rest, held)| {
        let next = rest.next().await.inspect_err(|error| tracing::warn!("a list was broken off: {error}"))?;
        // The room of the short rows is held until the last of them is sent.
        Ok::<_, BrokenOff>(next.map(|bytes| (bytes, (rest, held))))
    });
    Ok(Body::from_stream(bytes))
}

impl Rest {
    async fn next(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        while let Some(row) = self.rows.pop_front() {
            let separator = if self.is_begun { "," } else { "[" };
            let bytes = match row {
                Row::Text(text) => Bytes::from(format!("{separator}{text}")),
                Row::Long(id, found) => match self.record(&id).await? {
                    // The person has gone.
                    None => continue,
                    Some((record, held)) => held.around(format!("{separator}[{record},{found}]")),
                },
            };
            self.is_begun = true;
            return Ok(Some(bytes));
        }
        let end = if self.is_begun { "]" } else { "[]" };
        Ok((!std::mem::replace(&mut self.is_ended, true)).then(|| Bytes::from_static(end.as_bytes())))
    }

    /// A long record, with room for it.
    async fn record(&self, id: &str) -> Result<Option<(String, HeldBytes)>, BrokenOff> {
        let stage = AnswerStage::Within;
        let (key, mut most) = (RecordKey::Person(id.to_owned()), LONG_CANDIDATE_BYTES);
        loop {
            let held = self.service.budget.hold(&self.account, most, stage.patience()).await;
            let held = held.ok_or(BrokenOff::NoRoom)?;
            match stage.ask(|| self.store.record(&key, most, &self.reach)).await?.map(|found| found.text) {
                None => return Ok(None),
                Some(RecordText::Fits(text)) => return Ok(Some((text, held))),
                Some(RecordText::Exceeds(bytes)) => most = bytes,
            }
        }
    }
}
