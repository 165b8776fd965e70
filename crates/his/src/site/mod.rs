//! What anybody may have: the pages for people (plain HTML that works without script, and one stylesheet), and the
//! description of the interface for programs.

use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, VARY,
};
use http::{HeaderMap, StatusCode};

use super::error::{HisError, JSON};
use super::etag;
use super::html;
use super::password::{self, CHANGED_FILE};
use super::verify_assertion::{Caller, RouteIds};
use fedgate_core::web_page::{self, PageLanguage};

/// The files, with their types.
const FILES: [(&str, &str, &str); 2] = [
    ("fedhis.css", "text/css; charset=utf-8", web_page::STYLESHEET),
    ("favicon.svg", "image/svg+xml", include_str!("favicon.svg")),
];
/// When the files were last changed. Update it with them.
const MODIFIED: &str = "Sun, 29 Nov 2026 00:00:00 GMT";

/// `GET /`
pub(super) async fn welcome(_: Caller, headers: HeaderMap) -> Response {
    let language = html::language(&headers);
    let (title, main) = match language {
        PageLanguage::English => ("Health Federation", include_str!("welcome.html")),
        PageLanguage::Spanish => ("Federación de salud", include_str!("welcome.es.html")),
    };
    let headers = [(CONTENT_LANGUAGE, language.tag()), (VARY, "Accept-Language")];
    (headers, html::page(StatusCode::OK, language, title, main)).into_response()
}

/// `GET /static/{file}`
pub(super) async fn file(_: Caller, RouteIds([file]): RouteIds<1>, headers: HeaderMap) -> Result<Response, HisError> {
    if file == CHANGED_FILE {
        return Ok(password::confirm(&headers));
    }
    let (_, kind, text) = FILES.into_iter().find(|(name, ..)| *name == file).ok_or(HisError::NoRoute)?;
    Ok(kept(&headers, kind, text))
}

/// `GET /openapi.json`: docs/openapi.yaml as JSON.
pub(super) async fn openapi(_: Caller, headers: HeaderMap) -> Response {
    kept(&headers, JSON, include_str!("openapi.json"))
}

/// A file that clients may keep for an hour, or 304 if the client has it.
fn kept(headers: &HeaderMap, kind: &'static str, text: &'static str) -> Response {
    let tag = etag::of(text.as_bytes());
    // `If-Modified-Since` counts only without `If-None-Match` (RFC 9110, 13.1.3).
    let is_unmodified = !headers.contains_key(IF_NONE_MATCH)
        && headers.get(IF_MODIFIED_SINCE).is_some_and(|since| since.as_bytes() == MODIFIED.as_bytes());
    let is_known = etag::is_known(headers, &tag) || is_unmodified;
    let validators =
        [(ETAG, tag), (LAST_MODIFIED, MODIFIED.to_owned()), (CACHE_CONTROL, "public, max-age=3600".to_owned())];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, validators).into_response(),
        false => (validators, [(CONTENT_TYPE, kind)], text).into_response(),
    }
}
