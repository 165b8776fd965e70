//! Domiciliary units and institutions: records that belong to no person, so only the endpoint decides.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{MethodRouter, get};
use http::{HeaderMap, Uri};

use super::body::JsonBody;
use super::changes::WantedChanges;
use super::error::{HandlerResult, HisError};
use super::etag::TagCondition;
use super::list_form::ListForm;
use super::store::{ChangeResult, CreateResult, DeleteResult, ListQuery, PatchCondition, RecordKey, UnitKind};
use super::verify_assertion::{Caller, RouteIds};
use super::{HisService, answer, list, paging};
use fedgate_core::json::{self, JsonValue};

type SharedUnit = State<Arc<HisService>>;

/// The methods of a list of units.
pub(super) fn list(units: UnitKind) -> MethodRouter<Arc<HisService>> {
    get(async move |State(service): SharedUnit, caller: Caller, form: ListForm, uri: Uri| -> HandlerResult {
        let changes = WantedChanges::begin(&service, &caller, &paging::pairs(&uri)?).await?;
        list::answer(&service, ListQuery::Units(units), changes, caller, form, &uri).await
    })
}

/// The methods of one unit.
pub(super) fn one(units: UnitKind) -> MethodRouter<Arc<HisService>> {
    get(
        async move |State(service): SharedUnit,
                    caller: Caller,
                    RouteIds([id]): RouteIds<1>,
                    headers: HeaderMap|
                    -> HandlerResult {
            answer::record(&service, &caller, &RecordKey::Unit(units, id), &headers, None)
                .await?
                .ok_or(HisError::UnitNotFound)
        },
    )
    .post(
        async move |State(service): SharedUnit,
                    caller: Caller,
                    RouteIds([id]): RouteIds<1>,
                    headers: HeaderMap,
                    document: JsonBody|
                    -> HandlerResult { create(&service, &caller, units, id, &headers, document).await },
    )
    .patch(
        async move |State(service): SharedUnit,
                    caller: Caller,
                    RouteIds([id]): RouteIds<1>,
                    headers: HeaderMap,
                    document: JsonBody|
                    -> HandlerResult { patch(&service, &caller, units, id, &headers, document).await },
    )
    .delete(
        async move |State(service): SharedUnit,
                    caller: Caller,
                    RouteIds([id]): RouteIds<1>,
                    headers: HeaderMap|
                    -> HandlerResult {
            match caller
                .store(&service)
                .delete(&RecordKey::Unit(units, id), &TagCondition::of(&headers), &caller.reach)
                .await?
            {
                DeleteResult::Done => Ok(answer::null()),
                DeleteResult::Missing | DeleteResult::Active | DeleteResult::InUse | DeleteResult::Merged => {
                    Err(HisError::UnitNotFound)
                }
                DeleteResult::Stale => Err(HisError::Stale),
            }
        },
    )
}

async fn create(
    service: &HisService,
    caller: &Caller,
    units: UnitKind,
    id: String,
    headers: &HeaderMap,
    JsonBody(mut document, _held): JsonBody,
) -> HandlerResult {
    match document.member("id") {
        None => document.set("id", JsonValue::String(id.clone())),
        Some(given) if given.as_str() != Some(&id) => return Err(HisError::UnitIdChange),
        Some(_) => {}
    }
    service.check_size(&document)?;
    let key = RecordKey::Unit(units, id);
    answer::check_condition(service, caller, &key, headers).await?;
    match caller.store(service).create(&key, &document, &caller.reach).await? {
        CreateResult::Done => Ok(answer::null()),
        CreateResult::Taken(existing) if json::is_same(&existing.text, &document.to_text()) => Ok(answer::null()),
        CreateResult::Taken(_) | CreateResult::Twin | CreateResult::NoPerson => Err(HisError::UnitExists),
    }
}

async fn patch(
    service: &HisService,
    caller: &Caller,
    units: UnitKind,
    id: String,
    headers: &HeaderMap,
    JsonBody(mut patch, _held): JsonBody,
) -> HandlerResult {
    if patch.remove("id").is_some_and(|given| given.as_str() != Some(&id)) {
        return Err(HisError::UnitIdChange);
    }
    let condition = PatchCondition { tag: TagCondition::of(headers), most: service.limits.max_record_bytes };
    match caller.store(service).patch(&RecordKey::Unit(units, id), patch, &condition, &caller.reach).await? {
        ChangeResult::Done => Ok(answer::null()),
        ChangeResult::Missing => Err(HisError::UnitNotFound),
        ChangeResult::Stale => Err(HisError::Stale),
        ChangeResult::TooLarge => Err(HisError::RecordTooLarge),
        ChangeResult::NotAnObject => Err(HisError::NotARecord),
    }
}
