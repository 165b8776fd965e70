//! Books of life and their pages.
//!
//! The one rule: person and page id together identify a page, in the path, in the body and in the row.

use std::sync::Arc;

use axum::extract::State;
use http::{HeaderMap, Uri};

use super::body::JsonBody;
use super::changes::WantedChanges;
use super::error::{HandlerResult, HisError};
use super::etag::TagCondition;
use super::list_form::ListForm;
use super::store::{
    ChangeResult, ChangedSince, CreateResult, DeleteResult, ExistingKey, ListQuery, OwnedKey, PatchCondition, RecordKey,
};
use super::verify_assertion::{Caller, RouteIds};
use super::{HisService, answer, list, paging};
use fedgate_core::json::{self, JsonObject, JsonValue};

/// `GET /pols/{person}`
pub(super) async fn list(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person]): RouteIds<1>,
    form: ListForm,
    uri: Uri,
) -> HandlerResult {
    let pairs = paging::pairs(&uri)?;
    let since =
        pairs.value("since").map(|text| ChangedSince::parse(text).ok_or_else(|| HisError::BadQuery("since".into())));
    let (since, page_type) = (since.transpose()?, pairs.value("page_type").map(str::to_owned));
    let pages = |persons, only_alone| ListQuery::Pages {
        persons,
        since: since.clone(),
        page_type: page_type.clone(),
        only_alone,
    };
    // Before the ids of the person are read.
    let changes = WantedChanges::begin(&service, &caller, &pairs).await?;
    // Few persons have several ids, so the ids are asked for only if this finds nothing.
    let alone = pages(vec![person.clone()], true);
    if changes.is_none()
        && let Some(answer) = list::answer_alone(&service, alone, caller.clone(), form, &pairs).await?
    {
        return Ok(answer);
    }
    // Boxed: it is rare, and every request would carry its room.
    let of_all_ids = async {
        match answer::same_person(&service, &caller, &person, &uri).await? {
            Ok(same) => list::answer(&service, pages(same.ids, false), changes, caller.clone(), form, &uri).await,
            Err(moved) => Ok(moved),
        }
    };
    Box::pin(of_all_ids).await
}

/// `GET /pols/{person}/{page}`
pub(super) async fn read(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person, page]): RouteIds<2>,
    headers: HeaderMap,
    uri: Uri,
) -> HandlerResult {
    let key = RecordKey::Page { person, page };
    answer::read(&service, &caller, &key, &headers, &uri).await?.ok_or(HisError::BookOrPageNotFound)
}

/// `POST /pols/{person}/{page}`
pub(super) async fn create(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person, page]): RouteIds<2>,
    headers: HeaderMap,
    JsonBody(mut document, _held): JsonBody,
) -> HandlerResult {
    match document.member("id") {
        None => return Err(HisError::NoPageId),
        Some(id) if id.as_str() != Some(&page) => return Err(HisError::PageIdChange),
        Some(_) => {}
    }
    match document.member("book") {
        book if is_unset(book) => document.set("book", JsonValue::String(person.clone())),
        Some(book) if book.as_str() != Some(&person) => return Err(HisError::BookMismatch),
        Some(_) | None => {}
    }
    service.check_size(&document)?;
    let key = RecordKey::Page { person: person.clone(), page };
    answer::check_condition(&service, &caller, &key, &headers).await?;
    let count = async |most| caller.store(&service).count(OwnedKey::Pages, &person, most, &caller.reach).await;
    if !service.quotas.pages.admits(&person, count).await? {
        // A node that lost the answer sends a stored page again. It is 200 even if the person has no room left.
        return match caller.store(&service).whole_record(&key, &caller.reach).await? {
            Some(known) => same_again(&service, &caller, &known, &person, &document).await,
            None => Err(HisError::TooManyPages),
        };
    }
    match caller.store(&service).create(&key, &document, &caller.reach).await? {
        CreateResult::Done => Ok(answer::null()),
        CreateResult::Taken(ExistingKey { book: Some(book), text }) => {
            match book == person || is_of_same_person(&service, &caller, &person, &book).await? {
                true => same_again(&service, &caller, &text, &person, &document).await,
                false => Err(HisError::PageExists),
            }
        }
        CreateResult::Taken(_) => Err(HisError::PageExists),
        CreateResult::Twin | CreateResult::NoPerson => Err(HisError::PersonNotFound),
    }
}

/// Answers a POST of a page that exists: 200 if exactly this page was stored before, and a node that lost the answer sends
/// it again. It may have been sent to another id of the same person then. A page that Thalamus stored may lack the book
/// that the path names.
async fn same_again(
    service: &HisService,
    caller: &Caller,
    known: &str,
    person: &str,
    document: &JsonObject,
) -> HandlerResult {
    let Ok(JsonValue::Object(mut known)) = json::parse_stored(known) else { return Err(HisError::PageExists) };
    let book = known.member("book");
    let is_persons = is_unset(book)
        || match book.and_then(JsonValue::as_str) {
            Some(book) => book == person || is_of_same_person(service, caller, person, book).await?,
            None => false,
        };
    if is_persons {
        known.set("book", JsonValue::String(person.to_owned()));
    }
    if known == *document { Ok(answer::null()) } else { Err(HisError::PageExists) }
}

/// Whether another id is one of the same person.
async fn is_of_same_person(service: &HisService, caller: &Caller, person: &str, other: &str) -> Result<bool, HisError> {
    let same = caller.store(service).members(person, &caller.reach).await?;
    Ok(same.ids.iter().any(|id| id == other))
}

/// Whether a page names no book. The phone app writes null or nothing for pages from before an account was entered.
fn is_unset(book: Option<&JsonValue>) -> bool {
    match book {
        None | Some(JsonValue::Null) => true,
        Some(book) => book.as_str() == Some(""),
    }
}

/// `PATCH /pols/{person}/{page}`
pub(super) async fn patch(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person, page]): RouteIds<2>,
    headers: HeaderMap,
    JsonBody(mut patch, _held): JsonBody,
) -> HandlerResult {
    if patch.remove("id").is_some_and(|given| given.as_str() != Some(&page)) {
        return Err(HisError::PageIdChange);
    }
    // The path names the book. A book in the body may repeat it, and changes nothing.
    let book = patch.remove("book");
    if !is_unset(book.as_ref()) && book.as_ref().is_some_and(|given| given.as_str() != Some(&person)) {
        // A reader is shown the id under which the page was written.
        let given = book.as_ref().and_then(JsonValue::as_str).ok_or(HisError::BookMismatch)?;
        if !is_of_same_person(&service, &caller, &person, given).await? {
            return Err(HisError::BookMismatch);
        }
    }
    let key = RecordKey::Page { person, page };
    let condition = PatchCondition { tag: TagCondition::of(&headers), most: service.limits.max_record_bytes };
    match caller.store(&service).patch(&key, patch, &condition, &caller.reach).await? {
        ChangeResult::Done => Ok(answer::null()),
        ChangeResult::Missing => Err(HisError::PageNotFound),
        ChangeResult::Stale => Err(HisError::Stale),
        ChangeResult::TooLarge => Err(HisError::RecordTooLarge),
        ChangeResult::NotAnObject => Err(HisError::NotARecord),
    }
}

/// `DELETE /pols/{person}/{page}`
pub(super) async fn delete(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person, page]): RouteIds<2>,
    headers: HeaderMap,
) -> HandlerResult {
    let key = RecordKey::Page { person: person.clone(), page };
    match caller.store(&service).delete(&key, &TagCondition::of(&headers), &caller.reach).await? {
        DeleteResult::Done => {
            service.quotas.pages.release(&person);
            Ok(answer::null())
        }
        DeleteResult::Missing => Err(HisError::PageNotFound),
        DeleteResult::Stale => Err(HisError::Stale),
        DeleteResult::Active | DeleteResult::InUse | DeleteResult::Merged => Err(HisError::PageInUse),
    }
}
