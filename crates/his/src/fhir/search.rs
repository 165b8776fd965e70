//! `GET /fhir/Patient` and `POST /fhir/Patient/_search` (PDQm, ITI-78).
//!
//! The one rule: who is found fulfils all criteria as the package reads them, and an answer says if not everybody was looked
//! at. The index finds people by identifiers, numbers, words and dates; for other criteria the records are read one after
//! the other, a bounded number for each page.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use fedgate_fhir::outcome::{IssueCode, IssueSeverity, OutcomeIssue, RequestFault};
use fedgate_fhir::patient::{LogicalId, PatientFacts, PersonRecord};
use fedgate_fhir::search::{ParameterHandling, QueryPairs, SearchCriterion, SearchRequest};
use fedgate_fhir::search_answer::{EntryMode, SearchPage};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Uri};

use super::FhirScene;
use super::document::parsed;
use super::links::link;
use super::matching::read_body;
use super::read::record;
use super::search_ways::ways;
use crate::error::HisError;
use crate::fhir_form::{FhirForm, FhirRefusal, FhirResult};
use crate::person_index::search::{ROOM, each_record, own_ids, searched};
use crate::verify_assertion::Caller;
use crate::{HisService, body, budget};

/// The most bytes of a form, as of a query.
const MAX_FORM_BYTES: usize = 16 * 1024;
/// The most people whose records one search reads.
const MOST_READ: usize = 1000;
/// People who are read at a time where the index finds none.
const AT_A_TIME: u64 = 64;
/// The most people who are counted for a search without criteria.
const MOST_COUNTED: u64 = 100_000;

/// Whom a page shows.
#[derive(Default)]
struct Found {
    patients: Vec<PatientFacts>,
    total: usize,
    next: Option<String>,
    is_whole: bool,
}

/// `GET /fhir/Patient`
pub(in super::super) async fn search(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
) -> FhirResult<Response> {
    let pairs = pairs(uri.query().unwrap_or_default().as_bytes())?;
    answer(&service, &caller, &headers, &pairs).await
}

/// `POST /fhir/Patient/_search`
pub(in super::super) async fn search_by_form(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    request: Request,
) -> FhirResult<Response> {
    let (parts, content) = request.into_parts();
    // The body first: an answer that overtakes its request is lost.
    let (bytes, _held) = read_body(&service, &caller, &parts.headers, content, MAX_FORM_BYTES).await?;
    // Without a type there may be an empty body alone.
    let is_form = body::media_type(&parts.headers).is_some_and(|kind| kind == "application/x-www-form-urlencoded");
    if !is_form && (!bytes.is_empty() || parts.headers.contains_key(CONTENT_TYPE)) {
        return Err(RequestFault::UnsupportedMediaType.into());
    }
    let pairs = pairs(parts.uri.query().unwrap_or_default().as_bytes())?.and(pairs(&bytes)?);
    answer(&service, &caller, &parts.headers, &pairs).await
}

fn pairs(encoded: &[u8]) -> FhirResult<QueryPairs> {
    QueryPairs::parse(encoded).map_err(|_| FhirRefusal::Fault(RequestFault::Malformed))
}

async fn answer(
    service: &Arc<HisService>,
    caller: &Caller,
    headers: &HeaderMap,
    pairs: &QueryPairs,
) -> FhirResult<Response> {
    let form = FhirForm::chosen(pairs.value("_format"), headers)?;
    let scene = FhirScene::of(service, caller, headers)?;
    let prefer = headers.get("prefer").and_then(|value| value.to_str().ok());
    let request = SearchRequest::parse(pairs, ParameterHandling::of(prefer))?;
    let _room = service.budget.hold(&caller.account, ROOM, budget::PATIENCE).await.ok_or(HisError::NoRoom)?;
    let mut found = find(&scene, &request).await?;
    link(&caller.store(service), &mut found.patients).await?;
    let issues: Vec<OutcomeIssue> = (!found.is_whole).then(|| partial(found.next.is_some())).into_iter().collect();
    let patients = found.patients.into_iter().map(|patient| (patient, EntryMode::Match)).collect();
    let page = SearchPage { patients, total: found.total, next: found.next };
    Ok(form.answer(&page.resource_with(&request, &scene.mapping(), &issues)))
}

fn partial(goes_on: bool) -> OutcomeIssue {
    let text = match goes_on {
        true => {
            "not everybody was looked at who may be meant, so the total is the least one; narrow the search, or follow the next links"
        }
        false => "not everybody was looked at who may be meant, and nobody else is shown; narrow the search",
    };
    OutcomeIssue::new(IssueSeverity::Warning, IssueCode::TooCostly, text)
}

async fn find(scene: &FhirScene<'_>, request: &SearchRequest) -> FhirResult<Found> {
    let store = scene.caller.store(scene.service);
    let stated = request.criteria.iter().find_map(|criterion| match criterion {
        SearchCriterion::Id(ids) => Some(ids),
        _ => None,
    });
    if let Some(ids) = stated {
        return by_id(scene, request, ids).await;
    }
    let (persons, is_whole) = match own_ids(&scene.caller.reach) {
        Some(own) => (own, true),
        None => {
            let ways = ways(&store, &request.criteria, &scene.base).await?;
            if ways.is_empty() {
                return walk(scene, request).await;
            }
            let searched = searched(&store, &ways, MOST_READ).await?;
            (searched.persons, searched.is_whole)
        }
    };
    let (mut patients, mut by_old) = (Vec::new(), BTreeSet::new());
    let mut all_read = each_record(&store, &persons, &scene.caller.reach, |id, stays, text| {
        match accepted(scene, request, &id, text) {
            Some(patient) if id == stays => patients.push(patient),
            Some(_) => _ = by_old.insert(stays),
            None => {}
        }
    })
    .await?;
    // Whose old record is meant is found as the person who stays.
    patients.iter().for_each(|patient: &PatientFacts| _ = by_old.remove(&patient.own_id));
    let by_old: Vec<String> = by_old.into_iter().collect();
    all_read &= each_record(&store, &by_old, &scene.caller.reach, |id, _, text| {
        let document = parsed(text);
        patients.extend(scene.mapping().patient(&PersonRecord::new(&id, &document)));
    })
    .await?;
    Ok(page(request, patients, is_whole && all_read))
}

/// A person as a Patient, if it fulfils the criteria.
fn accepted(scene: &FhirScene<'_>, request: &SearchRequest, id: &str, text: &str) -> Option<PatientFacts> {
    let document = parsed(text);
    scene.mapping().patient(&PersonRecord::new(id, &document)).filter(|patient| request.accepts(patient))
}

/// The people of a page, of all that were found.
fn page(request: &SearchRequest, mut patients: Vec<PatientFacts>, is_whole: bool) -> Found {
    patients.sort_by(|one, other| one.own_id.cmp(&other.own_id));
    let total = patients.len();
    if let Some(after) = request.cursor.as_deref().and_then(LogicalId::own) {
        patients.retain(|patient| patient.own_id > after);
    }
    let goes_on = patients.len() > request.count && request.count > 0;
    patients.truncate(request.count);
    let next = patients.last().filter(|_| goes_on).map(|patient| patient.id.as_str().to_owned());
    Found { patients, total, next, is_whole }
}

/// People whose ids are stated. An old id is answered too, since its Patient names the survivor.
async fn by_id(scene: &FhirScene<'_>, request: &SearchRequest, ids: &[String]) -> FhirResult<Found> {
    let (mut patients, mut known) = (Vec::new(), std::collections::HashSet::new());
    for id in ids.iter().filter(|id| known.insert(*id)) {
        let Some((text, _held)) = record(scene, id).await? else { continue };
        let document = parsed(&text);
        patients.extend(scene.mapping().patient(&PersonRecord::new(id, &document)));
    }
    // An old record is not active, which is a criterion.
    link(&scene.caller.store(scene.service), &mut patients).await?;
    patients.retain(|patient| request.accepts(patient));
    Ok(page(request, patients, true))
}

/// The people of a page, looked for in all records from the cursor on.
async fn walk(scene: &FhirScene<'_>, request: &SearchRequest) -> FhirResult<Found> {
    let store = scene.caller.store(scene.service);
    let mut after = request.cursor.as_deref().and_then(LogicalId::own).unwrap_or_default();
    let (mut patients, mut read, mut ended): (Vec<PatientFacts>, usize, bool) = (Vec::new(), 0, false);
    while read < MOST_READ && patients.len() <= request.count {
        let persons = store.person_ids_after(&after, AT_A_TIME).await?;
        let Some(last) = persons.last().cloned() else {
            ended = true;
            break;
        };
        let mut found = Vec::new();
        each_record(&store, &persons, &scene.caller.reach, |id, stays, text| {
            found.extend(Some(text).filter(|_| id == stays).and_then(|text| accepted(scene, request, &id, text)));
        })
        .await?;
        found.sort_by(|one, other| one.own_id.cmp(&other.own_id));
        patients.extend(found);
        (after, read) = (last, read + persons.len());
    }
    let is_full = patients.len() > request.count;
    let found = patients.len();
    patients.truncate(request.count);
    let last = if is_full { patients.last().map(|patient| patient.id.clone()) } else { LogicalId::of(&after) };
    let next = last.filter(|_| request.count > 0 && (is_full || !ended)).map(|id| id.as_str().to_owned());
    let is_first = request.cursor.is_none();
    if request.criteria.is_empty() {
        let total = store.count_persons(MOST_COUNTED).await?;
        let total_is_whole = total < MOST_COUNTED;
        return Ok(Found {
            patients,
            total: usize::try_from(total).unwrap_or(usize::MAX),
            next,
            is_whole: total_is_whole,
        });
    }
    Ok(Found { patients, total: found, next, is_whole: ended && !is_full && is_first })
}
