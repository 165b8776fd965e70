//! `GET /fhir/Patient/{id}`: one Patient.
//!
//! The one rule: who is beyond reach is not there. Who was merged into another person is: the Patient names the survivor.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use fedgate_fhir::outcome::RequestFault;
use fedgate_fhir::patient::{LogicalId, PersonRecord};
use http::{HeaderMap, Uri};

use super::FhirScene;
use super::document::parsed;
use super::links::link;
use crate::HisService;
use crate::budget::{self, HeldBytes};
use crate::error::HisError;
use crate::fhir_form::{FhirForm, FhirResult};
use crate::store::{RecordKey, RecordText};
use crate::verify_assertion::{Caller, RouteIds};

/// `GET /fhir/Patient/{id}`
pub(in super::super) async fn read(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, logical]): RouteIds<2>,
    uri: Uri,
    headers: HeaderMap,
) -> FhirResult<Response> {
    let form = FhirForm::of(&uri, &headers)?;
    let scene = FhirScene::of(&service, &caller, &headers)?;
    let id = LogicalId::own(&logical).ok_or(RequestFault::NotFound)?;
    let (text, _held) = record(&scene, &id).await?.ok_or(RequestFault::NotFound)?;
    let (mapping, document) = (scene.mapping(), parsed(&text));
    let mut patient = mapping.patient(&PersonRecord::new(&id, &document)).ok_or(RequestFault::NotFound)?;
    link(&caller.store(&service), [&mut patient]).await?;
    Ok(form.answer(&patient.resource(&mapping, None)))
}

/// A person's visible record, with room for it if it is long.
pub(super) async fn record(scene: &FhirScene<'_>, id: &str) -> Result<Option<(String, HeldBytes)>, HisError> {
    let FhirScene { service, caller, .. } = scene;
    let (store, key) = (caller.store(service), RecordKey::Person(id.to_owned()));
    let (mut most, mut held) = (budget::SMALL_BYTES, HeldBytes::nothing());
    loop {
        match store.record(&key, most, &caller.reach).await?.map(|found| found.text) {
            None => return Ok(None),
            Some(RecordText::Fits(text)) => return Ok(Some((text, held))),
            // The record may grow between two reads. The old room is returned before more is waited for.
            Some(RecordText::Exceeds(bytes)) => {
                drop(held);
                most = bytes;
                held = service.budget.hold(&caller.account, most, budget::PATIENCE).await.ok_or(HisError::NoRoom)?;
            }
        }
    }
}
