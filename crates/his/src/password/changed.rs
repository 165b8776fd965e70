//! The page that confirms a changed password to a browser.
//!
//! The one rule: a browser sees the confirmation once, at an address that changes nothing, so a reload submits no form
//! again. The page is public. After a change of the caller's own password, a browser still sends the old one, and would
//! ask for the new one before it shows a protected page. A cookie that only this origin can set holds the account.

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use http::{HeaderMap, StatusCode};

use super::cookie_named;
use crate::html::form;
use crate::html::words::PageWords;

/// The name of the page among the public files.
pub(in super::super) const CHANGED_FILE: &str = "password-changed";
const COOKIE_NAME: &str = "__Host-changed";
/// How long a browser may take to ask for the page, in seconds.
const COOKIE_AGE: u32 = 60;

/// Redirects a browser from the form to the confirmation.
pub(super) fn redirect(id: &str) -> Response {
    let location = format!("/static/{CHANGED_FILE}");
    let headers = [(LOCATION, location), (CACHE_CONTROL, "no-store".into()), (SET_COOKIE, set(id, COOKIE_AGE))];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// `GET /static/password-changed`: the confirmation; after it was shown, the welcome page.
pub(in super::super) fn confirm(headers: &HeaderMap) -> Response {
    let id = cookie_named(headers, COOKIE_NAME).and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
    match id.and_then(|id| String::from_utf8(id).ok()) {
        Some(id) => ([(SET_COOKIE, set("", 0))], form::changed(PageWords::of(headers), &id)).into_response(),
        None => (StatusCode::SEE_OTHER, [(LOCATION, "/"), (CACHE_CONTROL, "no-store")]).into_response(),
    }
}

fn set(id: &str, seconds: u32) -> String {
    let value = URL_SAFE_NO_PAD.encode(id);
    format!("{COOKIE_NAME}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict")
}
