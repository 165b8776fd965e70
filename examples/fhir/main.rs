//! A small FHIR service, standing for any HIS that is not ours: it knows nothing of fedgate, accounts or roles, and
//! shows and changes whatever it is asked for.
//!
//! `cargo run --example fhir` listens on 127.0.0.1:8090 (or the address given as first argument); fedgate in front of it
//! decides by `examples/fhir/fedgate.toml` and `examples/fhir/roles.cfg`. See the README beside this file.

#![allow(clippy::indexing_slicing, reason = "a missing member of a JSON value is null")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

/// The resources of a page, if a search does not say.
const PAGE: usize = 100;

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

/// All resources of a type, or those that `patient`, `subject`, `_id` and `code` leave, in pages of `_count` from
/// `_offset` on. Parameters that are not known have no effect.
async fn search(
    State(shelf): State<Shelf>,
    Path(kind): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    RawQuery(asked_query): RawQuery,
    headers: HeaderMap,
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
    let number = |name: &str| query.get(name).and_then(|number| number.parse::<usize>().ok());
    let (offset, count) = (number("_offset").unwrap_or(0), number("_count").unwrap_or(PAGE));
    let page = found.iter().skip(offset).take(count);
    let entry: Vec<_> = page.map(|(_, resource)| json!({ "resource": resource })).collect();
    let mut bundle = json!({ "resourceType": "Bundle", "type": "searchset", "total": found.len() });
    if count > 0 && found.len() > offset + count {
        // It names itself by the name under which it was asked.
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let asked = asked_query.unwrap_or_default();
        let kept: Vec<_> = asked.split('&').filter(|part| !part.is_empty() && !part.starts_with("_offset=")).collect();
        let kept = kept.join("&");
        let url = format!("http://{host}/fhir/{kind}?{kept}&_offset={}", offset + count);
        bundle["link"] = json!([{ "relation": "next", "url": url }]);
    }
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
    if !resource.is_object() {
        return outcome(StatusCode::BAD_REQUEST, "a resource is an object");
    }
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
    if !resource.is_object() {
        return outcome(StatusCode::BAD_REQUEST, "a resource is an object");
    }
    resource["id"] = json!(id);
    shelf.lock().insert((kind, id), resource.clone());
    fhir(resource)
}

async fn remove(State(shelf): State<Shelf>, Path(key): Path<(String, String)>) -> StatusCode {
    shelf.lock().remove(&key);
    StatusCode::NO_CONTENT
}
