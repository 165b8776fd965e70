//! The pages for people: plain HTML that works without script, and one stylesheet.

use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, StatusCode};

use super::error::Problem;
use super::etag;
use super::guard::{Caller, Ids};

/// Nothing but our own stylesheet and sign is loaded, no form leaves, nobody frames the page.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// The files, with their types.
const FILES: [(&str, &str, &str); 2] = [
    ("fedhis.css", "text/css; charset=utf-8", include_str!("fedhis.css")),
    ("favicon.svg", "image/svg+xml", include_str!("favicon.svg")),
];
/// When they were last changed; move it on with them.
const MODIFIED: &str = "Sun, 29 Nov 2026 00:00:00 GMT";

/// `GET /`
pub(super) async fn welcome(_: Caller) -> Response {
    page(StatusCode::OK, "en", "Health Federation", include_str!("welcome.html"))
}

/// `GET /static/{file}`
pub(super) async fn file(_: Caller, Ids([file]): Ids<1>, headers: HeaderMap) -> Result<Response, Problem> {
    let (_, kind, text) = FILES.into_iter().find(|(name, ..)| *name == file).ok_or(Problem::NoRoute)?;
    let tag = etag::of(text.as_bytes());
    let is_unmodified = !headers.contains_key(IF_NONE_MATCH)
        && headers.get(IF_MODIFIED_SINCE).is_some_and(|since| since.as_bytes() == MODIFIED.as_bytes());
    let is_known = etag::is_known(&headers, &tag) || is_unmodified;
    let validators =
        [(ETAG, tag), (LAST_MODIFIED, MODIFIED.to_owned()), (CACHE_CONTROL, "public, max-age=3600".to_owned())];
    Ok(match is_known {
        true => (StatusCode::NOT_MODIFIED, validators).into_response(),
        false => (validators, [(CONTENT_TYPE, kind)], text).into_response(),
    })
}

/// A page in a language: `title` and `main` are HTML.
pub(super) fn page(status: StatusCode, language: &str, title: &str, main: &str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"{language}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <link rel=\"stylesheet\" href=\"/static/fedhis.css\">\n\
         <link rel=\"icon\" href=\"/static/favicon.svg\" type=\"image/svg+xml\">\n</head>\n<body>\n<main>\n{main}</main>\n</body>\n</html>\n"
    );
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: browsers would send `Origin: null` with our own form, as with anybody's who hides.
        (REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, html).into_response()
}

/// A text as HTML.
pub(super) fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}
