//! HTML for people: pages that work without script, and their texts.
//!
//! The one rule: text from outside is escaped, and a page loads only the service's own stylesheet and icon.

pub(super) mod words;
pub(super) mod fault;
pub(super) mod form;

use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, StatusCode};

use fedgate_core::web_page::{self, PageLanguage, PageStyle, asks_for};

/// Whether the request comes from a browser on a page for people. Such a request receives HTML, errors included.
pub(super) fn is_for_people(path: &str, headers: &HeaderMap) -> bool {
    path.starts_with("/password/") && names(headers, "text/html")
}

/// Whether the request comes from a program: it accepts JSON by name, and no HTML. Thalamus does not make this
/// difference, so a client that names neither receives the faults of a form as a page.
pub(super) fn is_for_programs(headers: &HeaderMap) -> bool {
    let json = ["application/json", "application/problem+json", "application/*"];
    !names(headers, "text/html") && json.into_iter().any(|wanted| names(headers, wanted))
}

fn names(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get_all(ACCEPT).iter().any(|accept| asks_for(accept.as_bytes(), wanted))
}

/// The language for the sender of a request.
pub(super) fn language(headers: &HeaderMap) -> PageLanguage {
    PageLanguage::preferred(headers.get_all(ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok()))
}

/// A page in a language. `title` and `main` are HTML, so callers escape text from outside.
pub(super) fn page(status: StatusCode, language: PageLanguage, title: &str, main: &str) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, web_page::POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: browsers would then send `Origin: null` with our own form, as pages do that hide their
        // origin.
        (REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, web_page::page(language, title, main, PageStyle::Linked)).into_response()
}
