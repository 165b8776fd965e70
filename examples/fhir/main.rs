//! A small FHIR-like service, standing for any HIS that is not ours: it knows nothing of fedgate, accounts or roles.
//!
//! `cargo run --example fhir` listens on 127.0.0.1:8090 (or the address given as first argument); fedgate in front of it
//! decides by `examples/fhir/fedgate.toml` and `examples/fhir/roles.cfg`. See the README beside this file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

type Shelf = Arc<Mutex<BTreeMap<String, Value>>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8090".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, service()).await
}

fn service() -> Router {
    let patients = [("ESPGNU777ORG", "Ana", "Betz"), ("ITAPYT999HON", "Cameron", "Cordara")];
    let patient = |(id, given, family): (&str, &str, &str)| {
        (
            id.to_owned(),
            json!({ "resourceType": "Patient", "id": id, "name": [{ "given": [given], "family": family }] }),
        )
    };
    let shelf: Shelf = Arc::new(Mutex::new(patients.map(patient).into()));
    Router::new()
        .route(
            "/fhir/metadata",
            get(|| async { Json(json!({ "resourceType": "CapabilityStatement", "fhirVersion": "4.0.1" })) }),
        )
        .route("/fhir/Patient", get(search))
        .route("/fhir/Patient/{id}", get(read).put(update))
        .route("/fhir/Patient/{id}/Observation", get(observations))
        .with_state(shelf)
}

async fn search(State(shelf): State<Shelf>) -> Json<Value> {
    let shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    let entries: Vec<Value> = shelf.values().map(|patient| json!({ "resource": patient })).collect();
    Json(json!({ "resourceType": "Bundle", "type": "searchset", "total": entries.len(), "entry": entries }))
}

async fn read(State(shelf): State<Shelf>, Path(id): Path<String>) -> impl IntoResponse {
    let shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
    match shelf.get(&id) {
        Some(patient) => (StatusCode::OK, Json(patient.clone())),
        None => (StatusCode::NOT_FOUND, Json(json!({ "resourceType": "OperationOutcome" }))),
    }
}

async fn update(State(shelf): State<Shelf>, Path(id): Path<String>, Json(patient): Json<Value>) -> Json<Value> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner).insert(id, patient.clone());
    Json(patient)
}

async fn observations(Path(id): Path<String>) -> Json<Value> {
    let entry =
        json!({ "resource": { "resourceType": "Observation", "subject": { "reference": format!("Patient/{id}") } } });
    Json(json!({ "resourceType": "Bundle", "type": "searchset", "total": 1, "entry": [entry] }))
}
