//! Domiciliary units and institutions: records that are nobody's, so the endpoint alone decides.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use http::{HeaderMap, Uri};

use super::body::Document;
use super::error::Problem;
use super::etag::IfMatch;
use super::guard::{Caller, Ids};
use super::store::{Changed, Created, Deleted, Key, List, PatchCondition, Units};
use super::{Service, answer, list};
use fedgate_core::json::{self, Value};

type Answer = Result<Response, Problem>;
type Shared = State<Arc<Service>>;

/// The methods of a list of units.
pub(super) fn list(units: Units) -> MethodRouter<Arc<Service>> {
    get(async move |State(service): Shared, caller: Caller, uri: Uri| -> Answer {
        list::answer(&service, List::Units(units), caller, &uri).await
    })
}

/// The methods of one unit.
pub(super) fn one(units: Units) -> MethodRouter<Arc<Service>> {
    get(async move |State(service): Shared, caller: Caller, Ids([id]): Ids<1>, headers: HeaderMap| -> Answer {
        answer::record(&service, &caller, &Key::Unit(units, id), &headers).await?.ok_or(Problem::UnitNotFound)
    })
    .post(async move |State(service): Shared, caller: Caller, Ids([id]): Ids<1>, document: Document| -> Answer {
        create(&service, &caller, units, id, document).await
    })
    .patch(
        async move |State(service): Shared,
                    caller: Caller,
                    Ids([id]): Ids<1>,
                    headers: HeaderMap,
                    document: Document|
                    -> Answer { patch(&service, &caller, units, id, &headers, document).await },
    )
    .delete(
        async move |State(service): Shared, caller: Caller, Ids([id]): Ids<1>, headers: HeaderMap| -> Answer {
            match caller.store(&service).delete(&Key::Unit(units, id), &IfMatch::of(&headers), &caller.reach).await? {
                Deleted::Done => Ok(answer::null()),
                Deleted::Missing | Deleted::Active | Deleted::InUse => Err(Problem::UnitNotFound),
                Deleted::Stale => Err(Problem::Stale),
            }
        },
    )
}

async fn create(
    service: &Service,
    caller: &Caller,
    units: Units,
    id: String,
    Document(mut document, _held): Document,
) -> Answer {
    match document.member("id") {
        None => document.set("id", Value::String(id.clone())),
        Some(given) if given.as_str() != Some(&id) => return Err(Problem::UnitIdChange),
        Some(_) => {}
    }
    service.check_size(&document)?;
    match caller.store(service).create(&Key::Unit(units, id), &document, &caller.reach).await? {
        Created::Done => Ok(answer::null()),
        Created::Taken(existing) if json::is_same(&existing.text, &document.to_text()) => Ok(answer::null()),
        Created::Taken(_) | Created::Twin | Created::NoPerson => Err(Problem::UnitExists),
    }
}

async fn patch(
    service: &Service,
    caller: &Caller,
    units: Units,
    id: String,
    headers: &HeaderMap,
    Document(mut patch, _held): Document,
) -> Answer {
    if patch.remove("id").is_some_and(|given| given.as_str() != Some(&id)) {
        return Err(Problem::UnitIdChange);
    }
    let condition = PatchCondition { tag: IfMatch::of(headers), most: service.limits.max_record_bytes };
    match caller.store(service).patch(&Key::Unit(units, id), patch, &condition, &caller.reach).await? {
        Changed::Done => Ok(answer::null()),
        Changed::Missing => Err(Problem::UnitNotFound),
        Changed::Stale => Err(Problem::Stale),
        Changed::TooLarge => Err(Problem::RecordTooLarge),
        Changed::NotAnObject => Err(Problem::NotARecord),
    }
}
