//! Personal documents: bytes that belong to a page.
//!
//! The one rule: bytes that someone uploaded are never run. Few types are shown inline, the rest is downloaded, and no
//! browser is left to guess a type.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Uri};

use super::error::Problem;
use super::guard::{Caller, Ids};
use super::json::{self, Object, Value};
use super::store::{DocumentCreated, DocumentForm, DocumentKey, List, Owned, StoredDocument};
use super::{Service, answer, body, content, list};

type Answer = Result<Response, Problem>;

/// `GET /personal_docs/{person}`
pub(super) async fn list_of_person(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person]): Ids<1>,
    uri: Uri,
) -> Answer {
    let documents = List::Documents { person, page: None, form: form(&uri)? };
    list::answer(&caller.store(&service), documents, caller.reach, &uri).await
}

/// `GET /personal_docs/{person}/{page}`
pub(super) async fn list_of_page(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person, page]): Ids<2>,
    uri: Uri,
) -> Answer {
    let documents = List::Documents { person, page: Some(page), form: form(&uri)? };
    list::answer(&caller.store(&service), documents, caller.reach, &uri).await
}

fn form(uri: &Uri) -> Result<DocumentForm, Problem> {
    match list::pairs(uri)?.value("document") {
        None | Some("base64") => Ok(DocumentForm::Embedded),
        Some("link") => Ok(DocumentForm::Link),
        Some(_) => Err(Problem::BadQuery("document".into())),
    }
}

/// `GET /personal_docs/{person}/{page}/{document}`
pub(super) async fn read(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person, page, document]): Ids<3>,
    headers: HeaderMap,
) -> Answer {
    let key = DocumentKey { person, page, document };
    let stored = caller.store(&service).document(&key, &caller.reach).await?.ok_or(Problem::DocumentNotFound)?;
    let bytes = stored.bytes.ok_or(Problem::DocumentNotFound)?;
    Ok(content::answer(&headers, &key.document, &stored.data, bytes.into()))
}

/// `POST /personal_docs/{person}/{page}/{document}`
pub(super) async fn create(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person, page, document]): Ids<3>,
    request: Request,
) -> Answer {
    let key = DocumentKey { person, page, document };
    let (parts, bytes) = request.into_parts();
    let limit = service.limits.max_document_bytes;
    let document = match body::media_type(&parts.headers).as_deref() {
        None | Some("application/json") => from_json(&parts.headers, bytes, &key, limit).await?,
        Some(_) => from_bytes(&parts.headers, bytes, limit).await?,
    };
    let count = async |most| caller.store(&service).count(Owned::Documents, &key.person, most, &caller.reach).await;
    if !service.quotas.documents.admits(&key.person, count).await? {
        return match caller.store(&service).document(&key, &caller.reach).await? {
            Some(known) if known.bytes == document.bytes && json::is_same(&known.data, &document.data) => {
                Ok(answer::null())
            }
            Some(_) => Err(Problem::DocumentExists),
            None => Err(Problem::TooManyDocuments),
        };
    }
    match caller.store(&service).create_document(&key, document, &caller.reach).await? {
        DocumentCreated::Done | DocumentCreated::Same => Ok(answer::null()),
        DocumentCreated::Taken => Err(Problem::DocumentExists),
        DocumentCreated::NoPage => Err(Problem::PageNotFound),
    }
}

/// A JSON object: `document` in base64, the other members are what is known about it.
async fn from_json(
    headers: &HeaderMap,
    bytes: Body,
    key: &DocumentKey,
    limit: usize,
) -> Result<StoredDocument, Problem> {
    // Base64 takes four bytes for three; what is known about a document is small beside it.
    const DATA_BYTES: usize = 64 * 1024;
    let most = (limit / 3 + 1) * 4 + DATA_BYTES;
    let bytes = body::read(headers, bytes, most).await?;
    let mut data = body::object(&bytes, most)?;
    drop(bytes);
    for (name, expected) in [("id", &key.document), ("fedacct", &key.person), ("pol", &key.page)] {
        if data.member(name).is_some_and(|given| given.as_str() != Some(expected)) {
            return Err(Problem::DocumentMismatch(name));
        }
    }
    match data.member("content_type") {
        None => {}
        Some(Value::String(kind)) if content::is_media_type(kind) => {}
        Some(_) => return Err(Problem::BadMember("content_type")),
    }
    let bytes = match data.remove("document") {
        None | Some(Value::Null) => None,
        Some(Value::String(encoded)) => Some(STANDARD.decode(encoded).map_err(|_| Problem::NotBase64)?),
        Some(_) => return Err(Problem::NotBase64),
    };
    if bytes.as_ref().is_some_and(|bytes| bytes.len() > limit) {
        return Err(Problem::TooLarge);
    }
    Ok(StoredDocument { data: data.to_text(), bytes })
}

/// The bytes themselves; their type is all that is known about them.
async fn from_bytes(headers: &HeaderMap, bytes: Body, limit: usize) -> Result<StoredDocument, Problem> {
    let bytes = body::read(headers, bytes, limit).await?;
    let is_form = body::media_type(headers).is_some_and(|kind| body::is_form(&kind));
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.filter(|kind| content::is_media_type(kind) && !is_form).ok_or(Problem::UnsupportedMediaType)?;
    let mut data = Object::default();
    data.set("content_type", Value::String(kind.to_owned()));
    Ok(StoredDocument { data: data.to_text(), bytes: Some(bytes.into()) })
}

/// `DELETE /personal_docs/{person}/{page}/{document}`
pub(super) async fn delete(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([person, page, document]): Ids<3>,
) -> Answer {
    let key = DocumentKey { person, page, document };
    if !caller.store(&service).delete_document(&key, &caller.reach).await? {
        return Err(Problem::DocumentNotFound);
    }
    service.quotas.documents.release(&key.person);
    Ok(answer::null())
}
