//! `POST /fhir/Patient/$match` (PDQm, ITI-119): the people whom a Patient may describe.
//!
//! The one rule: the index judges. A Patient is made of those records alone that the answer may show.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use fedgate_fhir::format::BodyFormat;
use fedgate_fhir::match_answer::{MatchAnswer, MatchCandidate};
use fedgate_fhir::match_request::{MAX_BODY_BYTES, MatchRequest};
use fedgate_fhir::outcome::{IssueCode, IssueSeverity, OutcomeIssue, RequestFault};
use fedgate_fhir::patient::{FhirMapping, PatientFacts, PersonRecord};
use fedgate_index::assess::Assessment;
use fedgate_index::fold::FoldedPerson;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::FhirScene;
use super::document::parsed;
use super::links::link;
use crate::budget::HeldBytes;
use crate::error::HisError;
use crate::fhir_form::{FhirForm, FhirResult};
use crate::incoming::{IncomingBody, announced};
use crate::person_index::alike::ROOM;
use crate::verify_assertion::Caller;
use crate::{HisService, body, budget};

/// The most bytes that a parsed body takes for each byte of its text.
const BYTES_OF_A_TREE: usize = 16;

/// `POST /fhir/Patient/$match`
pub(in super::super) async fn find(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    request: Request,
) -> FhirResult<Response> {
    let (parts, body) = request.into_parts();
    // The body first: an answer that overtakes its request is lost.
    let (bytes, _held) = read_body(&service, &caller, &parts.headers, body, MAX_BODY_BYTES).await?;
    let form = FhirForm::of(&parts.uri, &parts.headers)?;
    let scene = FhirScene::of(&service, &caller, &parts.headers)?;
    let mapping = scene.mapping();
    let request = MatchRequest::parse(&bytes, body_format(&parts.headers)?, &mapping)?;
    let asked = FoldedPerson::of(&request.demographics);
    let mut found = Vec::new();
    let wanted = |person: String, text: &str, assessment: Assessment| {
        let patient = patient(&mapping, &person, text);
        found.extend(patient.map(|patient| MatchCandidate {
            patient,
            score: assessment.score,
            grade: assessment.grade,
        }));
    };
    let _room = service.budget.hold(&caller.account, ROOM, budget::PATIENCE).await.ok_or(HisError::NoRoom)?;
    let (index, store) = (&service.person_index, caller.store(&service));
    let is_whole = index.compare(&store, &asked, &request.own_ids, &caller.reach, wanted).await?;
    link(&store, found.iter_mut().map(|candidate: &mut MatchCandidate| &mut candidate.patient)).await?;
    let mut answer = MatchAnswer::of(&request, found);
    if !is_whole {
        let text = "not everybody was compared who may be meant; state more of the person";
        answer = answer.with_issue(OutcomeIssue::new(IssueSeverity::Warning, IssueCode::TooCostly, text));
    }
    Ok(form.answer(&answer.resource(&mapping)))
}

/// A person's record as a Patient; none if the id has no logical id.
fn patient(mapping: &FhirMapping<'_>, person: &str, text: &str) -> Option<PatientFacts> {
    let document = parsed(text);
    mapping.patient(&PersonRecord::new(person, &document))
}

fn body_format(headers: &HeaderMap) -> Result<BodyFormat, RequestFault> {
    BodyFormat::of(headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()))
}

/// Reads a body of at most `limit` bytes, with room for it and for what is made of it.
///
/// # Errors
/// There is no room in time; or the body is too long, compressed, or broken off.
pub(super) async fn read_body(
    service: &HisService,
    caller: &Caller,
    headers: &HeaderMap,
    body: axum::body::Body,
    limit: usize,
) -> Result<(Bytes, HeldBytes), HisError> {
    let most = announced(headers).map_or(limit, |length| length.min(limit));
    let room = most.saturating_mul(BYTES_OF_A_TREE);
    let Some(held) = service.trees.hold(&caller.account, room, budget::PATIENCE).await else {
        IncomingBody::new(headers, body, limit)?.forget().await;
        return Err(HisError::NoRoom);
    };
    Ok((body::read(headers, body, limit).await?, held))
}
