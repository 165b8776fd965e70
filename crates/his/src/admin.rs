//! The admin listener: liveness, readiness, metrics, version.
//!
//! The one rule: it is for operators alone, on an address of its own (`his.admin`). It changes nothing, and reveals
//! nothing about persons. No request of a gateway reaches it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::HisService;
use super::error::JSON;

/// The admin listener's routes.
pub fn admin_router(service: Arc<HisService>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .fallback(async || (StatusCode::NOT_FOUND, "/livez /readyz /metrics /version\n"))
        .with_state(service)
}

/// 200 if this process should get requests: it is not stopping, and its database answers.
async fn ready(State(service): State<Arc<HisService>>) -> Response {
    let (is_stopping, is_away) = (service.is_stopping(), service.store.outage().is_away());
    let is_ready = !is_stopping && !is_away;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let detail = json!({ "ready": is_ready, "stopping": is_stopping, "database": { "available": !is_away } });
    (status, [(CONTENT_TYPE, JSON)], detail.to_string()).into_response()
}

async fn metrics(State(service): State<Arc<HisService>>) -> Response {
    let text = service.metrics.scrape(service.last_position.known());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn version() -> Response {
    let version = json!({
        "name": "fedhis", "version": env!("CARGO_PKG_VERSION"), "process": std::process::id(),
    });
    ([(CONTENT_TYPE, JSON)], version.to_string()).into_response()
}
