//! Books of life and their pages.
//!
//! The one rule: a page is known by its person and its id together, in the path, in the body and in the row.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Uri};

use super::body::Document;
use super::error::Problem;
use super::etag::IfMatch;
use super::guard::{Caller, Ids};
use super::store::{Changed, Created, Deleted, Existing, Key, List, Owned, PatchCondition, Since};
use super::{Service, answer, list};
use fedgate_core::json::{self, Object, Value};

type Answer = Result<Response, Problem>;

/// `GET /pols/{person}`
pub(super) async fn list(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person]): Ids<1>,
    uri: Uri,
) -> Answer {
    let pairs = list::pairs(&uri)?;
    let since = pairs.value("since").map(|text| Since::parse(text).ok_or_else(|| Problem::BadQuery("since".into())));
    let page_type = pairs.value("page_type").map(str::to_owned);
    let pages = List::Pages { person, since: since.transpose()?, page_type };
    list::answer(&service, pages, caller, &uri).await
}

/// `GET /pols/{person}/{page}`
pub(super) async fn read(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person, page]): Ids<2>,
    headers: HeaderMap,
) -> Answer {
    let key = Key::Page { person, page };
    answer::record(&service, &caller, &key, &headers).await?.ok_or(Problem::BookOrPageNotFound)
}

/// `POST /pols/{person}/{page}`
pub(super) async fn create(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person, page]): Ids<2>,
    Document(mut document, _held): Document,
) -> Answer {
    match document.member("id") {
        None => return Err(Problem::NoPageId),
        Some(id) if id.as_str() != Some(&page) => return Err(Problem::PageIdChange),
        Some(_) => {}
    }
    match document.member("book") {
        book if is_unset(book) => document.set("book", Value::String(person.clone())),
        Some(book) if book.as_str() != Some(&person) => return Err(Problem::BookMismatch),
        Some(_) | None => {}
    }
    service.check_size(&document)?;
    let key = Key::Page { person: person.clone(), page };
    let count = async |most| caller.store(&service).count(Owned::Pages, &person, most, &caller.reach).await;
    if !service.quotas.pages.admits(&person, count).await? {
        // One that is there already is sent again by a node that lost the answer.
        return match caller.store(&service).whole_record(&key, &caller.reach).await? {
            Some(known) if is_same(&known, &person, &document) => Ok(answer::null()),
            Some(_) => Err(Problem::PageExists),
            None => Err(Problem::TooManyPages),
        };
    }
    match caller.store(&service).create(&key, &document, &caller.reach).await? {
        Created::Done => Ok(answer::null()),
        Created::Taken(Existing { book: Some(book), text }) if book == person && is_same(&text, &person, &document) => {
            Ok(answer::null())
        }
        Created::Taken(_) => Err(Problem::PageExists),
        Created::Twin | Created::NoPerson => Err(Problem::PersonNotFound),
    }
}

/// Whether a page of this book was stored before, exactly so: a node that lost the answer sends it again. A page that
/// Thalamus stored may name no book where the path does.
fn is_same(known: &str, person: &str, document: &Object) -> bool {
    let Ok(Value::Object(mut known)) = json::parse_stored(known) else { return false };
    if is_unset(known.member("book")) {
        known.set("book", Value::String(person.to_owned()));
    }
    known == *document
}

/// Whether a page names no book. The phone writes null, or nothing, for pages of the time before an account was entered.
fn is_unset(book: Option<&Value>) -> bool {
    match book {
        None | Some(Value::Null) => true,
        Some(book) => book.as_str() == Some(""),
    }
}

/// `PATCH /pols/{person}/{page}`
pub(super) async fn patch(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person, page]): Ids<2>,
    headers: HeaderMap,
    Document(mut patch, _held): Document,
) -> Answer {
    if patch.remove("id").is_some_and(|given| given.as_str() != Some(&page)) {
        return Err(Problem::PageIdChange);
    }
    let book = patch.remove("book");
    if !is_unset(book.as_ref()) && book.is_some_and(|given| given.as_str() != Some(&person)) {
        return Err(Problem::BookMismatch);
    }
    let key = Key::Page { person, page };
    let condition = PatchCondition { tag: IfMatch::of(&headers), most: service.limits.max_record_bytes };
    match caller.store(&service).patch(&key, patch, &condition, &caller.reach).await? {
        Changed::Done => Ok(answer::null()),
        Changed::Missing => Err(Problem::PageNotFound),
        Changed::Stale => Err(Problem::Stale),
        Changed::TooLarge => Err(Problem::RecordTooLarge),
        Changed::NotAnObject => Err(Problem::NotARecord),
    }
}

/// `DELETE /pols/{person}/{page}`
pub(super) async fn delete(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person, page]): Ids<2>,
    headers: HeaderMap,
) -> Answer {
    let key = Key::Page { person: person.clone(), page };
    match caller.store(&service).delete(&key, &IfMatch::of(&headers), &caller.reach).await? {
        Deleted::Done => {
            service.quotas.pages.release(&person);
            Ok(answer::null())
        }
        Deleted::Missing => Err(Problem::PageNotFound),
        Deleted::Stale => Err(Problem::Stale),
        Deleted::Active | Deleted::InUse => Err(Problem::PageInUse),
    }
}
