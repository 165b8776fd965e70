//! A small FHIR service, standing for any HIS that is not ours: it knows nothing of fedgate, accounts or roles, and
//! shows and changes whatever it is asked for.
//!
//! `cargo run --example fhir` listens on 127.0.0.1:8090 (or the address given as first argument); fedgate in front of it
//! decides by `examples/fhir/fedgate.toml` and `examples/fhir/roles.cfg`. See the README beside this file.

#![allow(clippy::indexing_slicing, reason = "a missing member of a JSON value is null")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// Resources by type and id.
type Resources = BTreeMap<(String, String), Value>;

#[derive(Clone)]
struct Shelf(Arc<Mutex<Resources>>);

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Resources> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8090".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, service()).await
}

fn service() -> Router {
    let mut resources = Resources::new();
    for (id, given, family) in [("ESPGNU777ORG", "Ana", "Betz"), ("ITAPYT999HON", "Cameron", "Cordara")] {
        let name = json!([{ "given": [given], "family": family }]);
        resources.insert(("Patient".into(), id.into()), json!({ "resourceType": "Patient", "id": id, "name": name }));
        for kind in ["Observation", "Encounter", "DocumentReference"] {
            for number in 1..=2 {
                let own = format!("{}-{number}", id.to_lowercase());
                let subject = json!({ "reference": format!("Patient/{id}") });
                let mut resource = json!({ "resourceType": kind, "id": own, "status": "final", "subject": subject });
                if kind == "Observation" {
                    resource["code"] = json!({ "text": if number == 1 { "pulse" } else { "weight" } });
                }
                resources.insert((kind.into(), own), resource);
            }
        }
    }
    Router::new()
        .route(
            "/fhir/metadata",
            get(|| async { fhir(json!({ "resourceType": "CapabilityStatement", "fhirVersion": "4.0.1" })) }),
        )
        .route("/fhir/{kind}", get(search).post(create))
        .route("/fhir/{kind}/{id}", get(read).put(update).delete(remove))
        .with_state(Shelf(Arc::new(Mutex::new(resources))))
}

/// An answer in the media type of FHIR.
fn fhir(resource: Value) -> Response {
    ([(header::CONTENT_TYPE, "application/fhir+json")], resource.to_string()).into_response()
}

fn outcome(status: StatusCode, text: &str) -> Response {
    let issue = json!([{ "severity": "error", "code": "processing", "diagnostics": text }]);
    (status, fhir(json!({ "resourceType": "OperationOutcome", "issue": issue }))).into_response()
}

/// All resources of a type, or those that `patient`, `subject`, `_id` and `code` leave. Parameters that are not known
/// have no effect.
async fn search(
    State(shelf): State<Shelf>,
    Path(kind): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let asked = query.get("patient").or_else(|| query.get("subject"));
    let patients: Option<Vec<&str>> =
        asked.map(|asked| asked.split(',').map(|one| one.trim_start_matches("Patient/")).collect());
    let is_wanted = |resource: &Value| {
        let of = resource["subject"]["reference"].as_str().unwrap_or_default().trim_start_matches("Patient/");
        patients.as_ref().is_none_or(|patients| patients.contains(&of))
            && query.get("_id").is_none_or(|id| resource["id"] == **id)
            && query.get("code").is_none_or(|code| resource["code"]["text"] == **code)
    };
    let shelf = shelf.lock();
    let found: Vec<_> = shelf.iter().filter(|((of, _), resource)| *of == kind && is_wanted(resource)).collect();
    let entry: Vec<_> = found.iter().map(|(_, resource)| json!({ "resource": resource })).collect();
    let mut bundle = json!({ "resourceType": "Bundle", "type": "searchset", "total": found.len() });
    // FHIR has no empty lists, and a count has no entries.
    if !entry.is_empty() && query.get("_summary").is_none_or(|summary| summary != "count") {
        bundle["entry"] = json!(entry);
    }
    fhir(bundle)
}

async fn read(State(shelf): State<Shelf>, Path(key): Path<(String, String)>) -> Response {
    match shelf.lock().get(&key) {
        Some(resource) => fhir(resource.clone()),
        None => outcome(StatusCode::NOT_FOUND, "no such resource"),
    }
}

async fn create(State(shelf): State<Shelf>, Path(kind): Path<String>, Json(mut resource): Json<Value>) -> Response {
    let mut shelf = shelf.lock();
    let id = format!("new-{}", shelf.len());
    resource["id"] = json!(id);
    shelf.insert((kind.clone(), id.clone()), resource.clone());
    let place = format!("{kind}/{id}");
    (StatusCode::CREATED, [(header::LOCATION, place)], fhir(resource)).into_response()
}

async fn update(
    State(shelf): State<Shelf>,
    Path((kind, id)): Path<(String, String)>,
    Json(mut resource): Json<Value>,
) -> Response {
    resource["id"] = json!(id);
    shelf.lock().insert((kind, id), resource.clone());
    fhir(resource)
}

async fn remove(State(shelf): State<Shelf>, Path(key): Path<(String, String)>) -> StatusCode {
    shelf.lock().remove(&key);
    StatusCode::NO_CONTENT
}
