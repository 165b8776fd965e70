//! The page where a password is changed.
//!
//! The one rule: a new password is taken from our own form alone. The form carries a random token that is also in a
//! cookie only this origin can set (double submit with the `__Host-` prefix), and a browser that says the request
//! comes from another origin is believed, as the gateway believes it. The gateway has decided by then whose password the
//! caller may change.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use rand::TryRngCore;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::Problem;
use super::etag::IfMatch;
use super::guard::{Caller, Ids};
use super::json::{Object, Value};
use super::query::Pairs;
use super::store::{Changed, Key, PatchCondition};
use super::{Service, body, site};
use crate::password::{MAX_PASSWORD_BYTES, MIN_PASSWORD_CHARACTERS};

const COOKIE_NAME: &str = "__Host-csrf";
const TOKEN_BYTES: usize = 32;
/// Largest form: two passwords in percent-encoding, and room.
const MAX_FORM_BYTES: usize = 16 * 1024;

const REQUIRED: &str = "This field is required.";
const LENGTH: &str = "Field must be between 6 and 1024 characters long.";
const MISMATCH: &str = "Passwords do not match.";
const EXPIRED: &str = "The form has expired. Please try again.";

type Answer = Result<Response, Problem>;

/// What is wrong with a form, by field.
#[derive(Default)]
struct Complaints {
    form: Option<&'static str>,
    password: Option<&'static str>,
    repetition: Option<&'static str>,
}

/// `GET /password/{id}`
pub(super) async fn form(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([id]): Ids<1>,
    headers: HeaderMap,
) -> Answer {
    match caller.store(&service).record(&Key::Person(id.clone()), &caller.reach).await? {
        Some(_) => show(&id, &headers, &Complaints::default()),
        None => Ok(unknown(&id)),
    }
}

/// `POST /password/{id}`
pub(super) async fn change(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([id]): Ids<1>,
    request: Request,
) -> Answer {
    let (parts, bytes) = request.into_parts();
    let bytes = Zeroizing::new(Vec::from(body::read(&parts.headers, bytes, MAX_FORM_BYTES).await?));
    if body::media_type(&parts.headers).as_deref() != Some("application/x-www-form-urlencoded") {
        return Err(Problem::UnsupportedMediaType);
    }
    let fields = Pairs::parse(&bytes).ok_or(Problem::BodyUnreadable)?;
    if !is_own_form(&parts.headers, fields.value("csrf_token").unwrap_or_default()) {
        return show(&id, &parts.headers, &Complaints { form: Some(EXPIRED), ..Complaints::default() });
    }
    let password = match check(&fields) {
        Ok(password) => password,
        Err(complaints) => return show(&id, &parts.headers, &complaints),
    };
    let key = Key::Person(id.clone());
    if caller.store(&service).record(&key, &caller.reach).await?.is_none() {
        return Ok(unknown(&id));
    }
    let mut patch = Object::default();
    patch.set("password", Value::String(service.hashing.hash(password).await?));
    // Whatever the size of the record: a password can always be changed.
    let always = PatchCondition { tag: IfMatch::of(&HeaderMap::new()), most: None };
    match caller.store(&service).patch(&key, patch, &always, &caller.reach).await? {
        Changed::Done => {
            tracing::info!(account = ?caller.account, request.id = caller.request_id, "a password was changed");
            Ok((StatusCode::FOUND, [(LOCATION, "/"), (CACHE_CONTROL, "no-store")]).into_response())
        }
        Changed::Missing | Changed::Stale | Changed::TooLarge | Changed::NotAnObject => Ok(unknown(&id)),
    }
}

/// The new password, if both fields hold it.
fn check(fields: &Pairs) -> Result<Zeroizing<String>, Complaints> {
    let field = |name| fields.value(name).unwrap_or_default();
    let (password, repetition) = (field("password"), field("pconfirm"));
    let mut complaints = Complaints::default();
    if password.is_empty() {
        complaints.password = Some(REQUIRED);
    } else if password.chars().count() < MIN_PASSWORD_CHARACTERS || password.len() > MAX_PASSWORD_BYTES {
        complaints.password = Some(LENGTH);
    } else if password != repetition && !repetition.is_empty() {
        complaints.repetition = Some(MISMATCH);
    }
    if repetition.is_empty() {
        complaints.repetition = Some(REQUIRED);
    }
    match (complaints.password, complaints.repetition) {
        (None, None) => Ok(Zeroizing::new(password.to_owned())),
        _ => Err(complaints),
    }
}

/// Whether a form was served by us to this browser.
fn is_own_form(headers: &HeaderMap, token: &str) -> bool {
    let is_foreign = |site: &HeaderValue| !matches!(site.as_bytes(), b"same-origin" | b"none");
    let is_own = !headers.get_all("sec-fetch-site").iter().any(is_foreign);
    let cookie = cookie(headers);
    is_own && cookie.is_some_and(|cookie| bool::from(cookie.as_bytes().ct_eq(token.as_bytes())))
}

/// The token in the cookie, if it is one of ours by its form.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, token) = pairs.find(|(name, _)| *name == COOKIE_NAME)?;
    let is_token = URL_SAFE_NO_PAD.decode(token).is_ok_and(|bytes| bytes.len() == TOKEN_BYTES);
    is_token.then_some(token)
}

/// The form. A token that the browser has is kept, so that a second tab does not spoil the first.
fn show(id: &str, headers: &HeaderMap, complaints: &Complaints) -> Answer {
    let token = match cookie(headers) {
        Some(token) => token.to_owned(),
        None => {
            let mut bytes = [0; TOKEN_BYTES];
            rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|error| {
                tracing::error!("no randomness for a form token: {error}");
                Problem::Internal
            })?;
            URL_SAFE_NO_PAD.encode(bytes)
        }
    };
    let set_cookie = format!("{COOKIE_NAME}={token}; Path=/; Secure; HttpOnly; SameSite=Strict");
    let id = site::escape(id);
    let general =
        complaints.form.map(|text| format!("<p class=\"error\" role=\"alert\">{text}</p>\n")).unwrap_or_default();
    let password = field("password", "New password", complaints.password);
    let repetition = field("pconfirm", "New password, again", complaints.repetition);
    let main = format!(
        "<h1>Change the password of {id}</h1>\n{general}<form method=\"post\" accept-charset=\"utf-8\">\n\
         <input type=\"hidden\" name=\"csrf_token\" value=\"{token}\">\n\
         <p class=\"hint\" id=\"length\">At least 6 characters.</p>\n{password}{repetition}\
         <button type=\"submit\" name=\"update\" value=\"update\">Update</button>\n</form>\n"
    );
    let page = site::page(StatusCode::OK, "Change the password", &main);
    Ok(([(SET_COOKIE, set_cookie), (CACHE_CONTROL, "no-store".to_owned())], page).into_response())
}

fn field(name: &str, label: &str, complaint: Option<&str>) -> String {
    let (invalid, described, message) = match complaint {
        None => ("", String::from("length"), String::new()),
        Some(text) => (
            " aria-invalid=\"true\"",
            format!("length {name}-error"),
            format!("<p class=\"error\" id=\"{name}-error\" role=\"alert\">{text}</p>\n"),
        ),
    };
    format!(
        "<label for=\"{name}\">{label}</label>\n<input type=\"password\" id=\"{name}\" name=\"{name}\" required minlength=\"6\" \
         maxlength=\"1024\" autocomplete=\"new-password\" aria-describedby=\"{described}\"{invalid}>\n{message}"
    )
}

fn unknown(id: &str) -> Response {
    let main = format!("<h1>No such person</h1>\n<p>There is no federation account {}.</p>\n", site::escape(id));
    ([(CACHE_CONTROL, "no-store")], site::page(StatusCode::NOT_FOUND, "No such person", &main)).into_response()
}
