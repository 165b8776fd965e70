//! Personal documents: bytes that belong to a page.
//!
//! The one rule: uploaded bytes are never executed. A browser shows a few types inline and downloads all others,
//! and it never guesses a type.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use futures_util::stream::try_unfold;
use http::{HeaderMap, Method, Uri};

use super::budget::AnswerStage;
use super::error::{HandlerResult, HisError};
use super::etag::{self, TagCondition};
use super::list_form::ListForm;
use super::reading::{BrokenOff, StoreReading};
use super::store::{DeleteResult, DocumentCreated, DocumentForm, DocumentKey, ListQuery, OwnedKey};
use super::verify_assertion::{Caller, RouteIds};
use super::{HisService, answer, content, list, paging, upload};

/// `GET /personal_docs/{person}`
pub(super) async fn list_of_person(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person]): RouteIds<1>,
    lines: ListForm,
    uri: Uri,
) -> HandlerResult {
    let form = form(&uri)?;
    let persons = match answer::same_person(&service, &caller, &person, &uri).await? {
        Ok(same) => same.ids,
        Err(moved) => return Ok(moved),
    };
    let documents = ListQuery::Documents { persons, page: None, form };
    list::answer(&service, documents, None, caller, lines, &uri).await
}

/// `GET /personal_docs/{person}/{page}`
pub(super) async fn list_of_page(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person, page]): RouteIds<2>,
    lines: ListForm,
    uri: Uri,
) -> HandlerResult {
    let form = form(&uri)?;
    let persons = match answer::same_person(&service, &caller, &person, &uri).await? {
        Ok(same) => same.ids,
        Err(moved) => return Ok(moved),
    };
    let documents = ListQuery::Documents { persons, page: Some(page), form };
    list::answer(&service, documents, None, caller, lines, &uri).await
}

fn form(uri: &Uri) -> Result<DocumentForm, HisError> {
    match paging::pairs(uri)?.value("document") {
        None | Some("base64") => Ok(DocumentForm::Embedded),
        Some("link") => Ok(DocumentForm::Link),
        Some(_) => Err(HisError::BadQuery("document".into())),
    }
}

/// `GET /personal_docs/{person}/{page}/{document}`
pub(super) async fn read(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person, page, document]): RouteIds<3>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
) -> HandlerResult {
    if let Err(moved) = answer::same_person(&service, &caller, &person, &uri).await? {
        return Ok(moved);
    }
    let key = DocumentKey { person, page: Some(page), document };
    let store = caller.store(&service);
    let mut head = store.document(&key, &caller.reach).await?.ok_or(HisError::DocumentNotFound)?;
    // The members beside the bytes are no part of this answer, and would take memory while it waits for room.
    head.data = String::new();
    let length = head.length.ok_or(HisError::DocumentNotFound)?;
    let answer = content::ContentAnswer::of(&method, &headers, &head, length)?;
    let (from, to) = answer.stretch();
    let (version, account, reach) = (head.version.clone(), caller.account, caller.reach);
    let mut reading = StoreReading { service: Arc::clone(&service), store, account, key, reach, version, from, to };
    let name = reading.key.document.clone();
    // The first piece is read before the answer begins, so that a failure still becomes a status.
    let first = match from < to && method != Method::HEAD {
        true => Some(first(&mut reading).await?),
        false => None,
    };
    let body = match first {
        Some(first) => Body::from_stream(try_unfold((Some(first), reading), async |(first, mut reading)| {
            let next = match first {
                Some(first) => Some(first),
                None => reading.next_bytes(AnswerStage::Within).await?,
            };
            Ok::<_, BrokenOff>(next.map(|bytes| (bytes, (None, reading))))
        })),
        None => Body::empty(),
    };
    Ok(answer.into_response(&name, &head, body))
}

/// The first piece of a document. If there is no room in time, the answer is 503 `busy`.
async fn first(reading: &mut StoreReading) -> Result<Bytes, HisError> {
    match reading.next_bytes(AnswerStage::Before).await {
        Ok(bytes) => Ok(bytes.unwrap_or_default()),
        Err(BrokenOff::Database(error)) => Err(error.into()),
        Err(BrokenOff::Replaced | BrokenOff::NoRoom) => Err(HisError::NoRoom),
    }
}

/// `POST /personal_docs/{person}/{page}/{document}`
pub(super) async fn create(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person, page, document]): RouteIds<3>,
    request: Request,
) -> HandlerResult {
    let key = DocumentKey { person, page: Some(page), document };
    let (parts, body) = request.into_parts();
    let arrived = upload::receive(&service, &caller, &key, &parts.headers, body).await?;
    check_condition(&service, &caller, &key, &parts.headers).await?;
    let document = &arrived.document;
    let count = async |most| caller.store(&service).count(OwnedKey::Documents, &key.person, most, &caller.reach).await;
    let created = match service.quotas.documents.admits(&key.person, count).await? {
        true => caller.store(&service).create_document(&key, document, &caller.reach).await?,
        // A node that lost the answer sends a stored document again. It is 200 even if the person has no room left.
        false => match caller.store(&service).compare_document(&key, document, &caller.reach).await? {
            DocumentCreated::Incomplete => return Err(HisError::TooManyDocuments),
            known => known,
        },
    };
    match created {
        DocumentCreated::Done | DocumentCreated::Same => Ok(answer::null()),
        DocumentCreated::Taken => Err(HisError::DocumentExists),
        DocumentCreated::NoPage => Err(HisError::PageNotFound),
        DocumentCreated::Incomplete => Err(HisError::DatabaseUnavailable),
    }
}

/// Whether the stored document meets the conditions of a POST.
async fn check_condition(
    service: &HisService,
    caller: &Caller,
    key: &DocumentKey,
    headers: &HeaderMap,
) -> Result<(), HisError> {
    let condition = TagCondition::of(headers);
    if !condition.is_conditional() {
        return Ok(());
    }
    let known = caller.store(service).document(key, &caller.reach).await?;
    match known.map_or_else(|| condition.admits_absence(), |head| condition.admits_tag(|| etag::of_hash(&head.tag))) {
        true => Ok(()),
        false => Err(HisError::Stale),
    }
}

/// `DELETE /personal_docs/{person}/{page}/{document}`
pub(super) async fn delete(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([person, page, document]): RouteIds<3>,
    headers: HeaderMap,
) -> HandlerResult {
    let key = DocumentKey { person, page: Some(page), document };
    match caller.store(&service).delete_document(&key, &TagCondition::of(&headers), &caller.reach).await? {
        DeleteResult::Done => {
            service.quotas.documents.release(&key.person);
            Ok(answer::null())
        }
        DeleteResult::Stale => Err(HisError::Stale),
        DeleteResult::Missing | DeleteResult::Active | DeleteResult::InUse | DeleteResult::Merged => {
            Err(HisError::DocumentNotFound)
        }
    }
}
