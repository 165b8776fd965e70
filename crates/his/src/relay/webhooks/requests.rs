//! `/messages/webhooks`: an account's own webhooks.
//!
//! The one rule: every statement names the caller's account, so no account sees or changes a webhook of another one,
//! whatever its scope is.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use serde_json::{Value, json};

use super::desk::{DeskFault, IssuedKeys, WebhookDesk};
use super::shown::described;
use super::terms::{self, BesideTerms, TermsFault};
use crate::body::JsonBody;
use crate::error::{HandlerResult, HisError};
use crate::store::RecordStore;
use crate::store::webhooks::StoredWebhook;
use crate::verify_assertion::{Caller, RouteIds};
use crate::{HisService, answer};
use fedgate_core::json::{JsonObject, JsonValue};

/// How long the former keys of a webhook sign beside new ones, usually and at most, in seconds.
const KEPT: (u64, u64) = (86_400, 30 * 86_400);

/// The answer to terms that cannot be used.
fn bad(fault: TermsFault) -> HisError {
    HisError::BadWebhook(fault.to_string())
}

impl From<DeskFault> for HisError {
    fn from(fault: DeskFault) -> Self {
        match fault {
            DeskFault::Missing => Self::WebhookNotFound,
            DeskFault::Terms(fault) => bad(fault),
            DeskFault::TooMany => Self::TooManyWebhooks,
            DeskFault::Off => Self::WebhooksOff,
            DeskFault::Unknown(last) => Self::PositionUnknown(last),
            DeskFault::Gone(first) => Self::MessagesGone(first),
            DeskFault::Contended => Self::Locked,
            DeskFault::Store(error) => error.into(),
        }
    }
}

/// `GET /messages/webhooks`
pub(crate) async fn list(State(service): State<Arc<HisService>>, caller: Caller) -> HandlerResult {
    let store = caller.store(&service);
    let mut all = Vec::new();
    for webhook in store.webhooks(Some(&caller.account)).await? {
        all.push(shown(&service.webhooks, &store, &webhook).await?);
    }
    Ok(answer::json(Value::Array(all).to_string()))
}

/// `GET /messages/webhooks/{id}`
pub(crate) async fn read(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, id]): RouteIds<2>,
) -> HandlerResult {
    let store = caller.store(&service);
    let webhook = store.webhook(&id, Some(&caller.account)).await?.ok_or(HisError::WebhookNotFound)?;
    Ok(answer::json(shown(&service.webhooks, &store, &webhook).await?.to_string()))
}

/// `POST /messages/webhooks`
pub(crate) async fn create(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    JsonBody(body, _held): JsonBody,
) -> HandlerResult {
    let store = caller.store(&service);
    terms::check_names(&body, BesideTerms::New).map_err(bad)?;
    let mut terms = terms::empty();
    terms::apply(&body, &mut terms).map_err(bad)?;
    if terms.url.is_empty() {
        return Err(bad(TermsFault::Member("url")));
    }
    let kinds = terms::kinds(body.member("signatures")).map_err(bad)?;
    let after = match body.member("after") {
        None => None,
        Some(JsonValue::String(word)) if word == "last" => None,
        Some(JsonValue::Number(number)) => Some(
            number
                .parse::<u64>()
                .ok()
                .filter(|after| i64::try_from(*after).is_ok())
                .ok_or(bad(TermsFault::Member("after")))?,
        ),
        Some(_) => return Err(bad(TermsFault::Member("after"))),
    };
    let issued = service.webhooks.add(&store, &caller.account, &terms, after, &kinds).await?;
    service.webhooks_changed.notify_one();
    let place = format!("/messages/webhooks/{}", issued.id);
    Ok((StatusCode::CREATED, [(LOCATION, place)], keys_shown(&issued)).into_response())
}

/// `PATCH /messages/webhooks/{id}`
pub(crate) async fn change(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, id]): RouteIds<2>,
    JsonBody(body, _held): JsonBody,
) -> HandlerResult {
    let store = caller.store(&service);
    terms::check_names(&body, BesideTerms::Changed).map_err(bad)?;
    let goes_on = match body.member("state") {
        None => false,
        Some(JsonValue::String(word)) if word == "active" => true,
        Some(_) => return Err(bad(TermsFault::Member("state"))),
    };
    let change = |webhook: &mut StoredWebhook| {
        terms::apply(&body, &mut webhook.terms)?;
        if goes_on {
            webhook.ended = None;
        }
        Ok(())
    };
    service.webhooks.change(&store, &id, Some(&caller.account), change).await?;
    service.webhooks_changed.notify_one();
    Ok(answer::null())
}

/// `DELETE /messages/webhooks/{id}`
pub(crate) async fn remove(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, id]): RouteIds<2>,
) -> HandlerResult {
    let store = caller.store(&service);
    store.webhook(&id, Some(&caller.account)).await?.ok_or(HisError::WebhookNotFound)?;
    // The account of a webhook never changes.
    store.remove_webhook(&id).await?;
    service.webhooks_changed.notify_one();
    Ok(answer::null())
}

/// `POST /messages/webhooks/{id}/keys`
pub(crate) async fn rotate(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([_, id, _]): RouteIds<3>,
    JsonBody(body, _held): JsonBody,
) -> HandlerResult {
    let store = caller.store(&service);
    if body.names().any(|name| !matches!(name, "signatures" | "kept_seconds")) {
        return Err(bad(TermsFault::Unknown));
    }
    let kinds = body.member("signatures").map(|value| terms::kinds(Some(value))).transpose().map_err(bad)?;
    let kept = kept(&body).map_err(bad)?;
    let issued = service.webhooks.rotate(&store, &id, Some(&caller.account), kinds.as_deref(), kept).await?;
    service.webhooks_changed.notify_one();
    Ok(keys_shown(&issued))
}

fn kept(body: &JsonObject) -> Result<Duration, TermsFault> {
    let (usual, most) = KEPT;
    match body.member("kept_seconds") {
        None => Ok(Duration::from_secs(usual)),
        Some(JsonValue::Number(number)) => {
            let seconds = number.parse::<u64>().ok().filter(|seconds| *seconds <= most);
            seconds.map(Duration::from_secs).ok_or(TermsFault::Member("kept_seconds"))
        }
        Some(_) => Err(TermsFault::Member("kept_seconds")),
    }
}

/// New keys: what the receiver verifies with, and never the private key of a pair.
fn keys_shown(issued: &IssuedKeys) -> Response {
    let keys: Vec<&str> = issued.keys.iter().map(|key| key.verifying.as_str()).collect();
    answer::json(json!({ "id": issued.id, "keys": keys }).to_string())
}

async fn shown(desk: &WebhookDesk, store: &RecordStore, webhook: &StoredWebhook) -> Result<Value, HisError> {
    let public_keys = desk.public_keys(store, &webhook.id).await?;
    let mut shown = described(webhook);
    if let Some(members) = shown.as_object_mut() {
        members.insert("public_keys".into(), json!(public_keys));
    }
    Ok(shown)
}
