//! The page on which a password is changed.
//!
//! The one rule: a new password is accepted only from our own form. The form carries a random token that is also
//! in a cookie, which only this origin can set (double submit with the `__Host-` prefix). A browser that reports
//! another origin is believed, as in the gateway. By then the gateway has decided whose password the caller may
//! change. But a browser sends its credential by itself, so the page asks for the caller's current password again.

mod changed;
mod common;
mod guesses;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, COOKIE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use rand::TryRngCore;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::{HandlerResult, HisError};
use super::etag::TagCondition;
use super::html::fault::FormFault;
use super::html::form::{self, FormComplaints, PasswordForm};
use super::html::words::PageWords;
use super::html::{is_for_people, is_for_programs};
use super::query::QueryPairs;
use super::store::{ChangeResult, PatchCondition, RecordKey, RecordReach};
use super::verify_assertion::{Caller, RouteIds};
use super::{HisService, body};
use fedgate_core::json::{self, JsonObject, JsonValue};
use fedgate_core::password::{HashKind, MIN_PASSWORD_CHARACTERS, can_sign_in, guessed_of, is_blank};

pub(super) use self::changed::{CHANGED_FILE, confirm};
use self::guesses::GuessTarget;
pub(super) use self::guesses::OwnPasswordGuesses;

const COOKIE_NAME: &str = "__Host-csrf";
const TOKEN_BYTES: usize = 32;
/// Largest form: three passwords in percent-encoding, and enough room that an overlong one is reported beside its
/// field.
const MAX_FORM_BYTES: usize = 64 * 1024;
/// The most characters of a password.
const MAX_PASSWORD_CHARACTERS: usize = 1024;

/// `GET /password/{id}`
pub(super) async fn form(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([id]): RouteIds<1>,
    headers: HeaderMap,
) -> HandlerResult {
    match is_there(&service, &caller, &id).await? {
        true => {
            let is_asked = own_hash(&service, &caller).await?.is_some();
            show(&id, is_asked.then_some(&caller.account), &headers, &FormComplaints::default())
        }
        false => unknown(&headers, &id),
    }
}

/// The answer for an id that belongs to no person.
fn unknown(headers: &HeaderMap, id: &str) -> HandlerResult {
    match is_for_programs(headers) {
        true => Err(HisError::PersonNotFound),
        false => Ok(form::unknown(PageWords::of(headers), id)),
    }
}

/// Whether the person exists. The record is not read for that.
async fn is_there(service: &HisService, caller: &Caller, id: &str) -> Result<bool, HisError> {
    Ok(caller.store(service).record(&RecordKey::Person(id.to_owned()), 0, &caller.reach).await?.is_some())
}

/// `POST /password/{id}`
pub(super) async fn change(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([id]): RouteIds<1>,
    request: Request,
) -> HandlerResult {
    let (parts, bytes) = request.into_parts();
    let (headers, fields) = (&parts.headers, submitted(&parts.headers, bytes).await?);
    let own_hash = own_hash(&service, &caller).await?;
    let asked = own_hash.is_some().then_some(&caller.account);
    // Checked before the person: a forged form must not learn who exists.
    if !is_own_form(headers, fields.value("csrf_token").unwrap_or_default()) {
        let complaints = FormComplaints { form: Some(FormFault::NotOurs), ..FormComplaints::default() };
        return show(&id, asked, headers, &complaints);
    }
    if !is_there(&service, &caller, &id).await? {
        return unknown(headers, &id);
    }
    let complaints = complaints(&service, &caller, &id, &fields, own_hash).await?;
    if !complaints.is_empty() {
        return show(&id, asked, headers, &complaints);
    }
    match store_password(&service, &caller, &id, &fields).await? {
        ChangeResult::Done => {
            let by = &caller.account;
            tracing::info!(account = ?id, ?by, request.id = caller.request_id, "a password was changed");
            Ok(match is_for_people(parts.uri.path(), headers) {
                true => changed::redirect(&id),
                false => (StatusCode::FOUND, [(LOCATION, "/"), (CACHE_CONTROL, "no-store")]).into_response(),
            })
        }
        ChangeResult::NotAnObject => Err(HisError::NotARecord),
        ChangeResult::Missing | ChangeResult::Stale | ChangeResult::TooLarge => unknown(headers, &id),
    }
}

/// The fields of the form.
async fn submitted(headers: &HeaderMap, bytes: Body) -> Result<QueryPairs, HisError> {
    // The buffer is wiped: it holds passwords in clear text.
    let bytes = body::read(headers, bytes, MAX_FORM_BYTES).await.map_err(|fault| match fault {
        // A compressed form: the answer must not ask for JSON.
        HisError::UnsupportedMediaType => HisError::NotAForm,
        other => other,
    })?;
    let bytes = Zeroizing::new(Vec::from(bytes));
    if body::media_type(headers).as_deref() != Some("application/x-www-form-urlencoded") {
        return Err(HisError::NotAForm);
    }
    QueryPairs::parse(&bytes).ok_or(HisError::BodyUnreadable)
}

/// The faults of what was submitted. `own_hash` is the caller's, if the current password is asked for.
async fn complaints(
    service: &HisService,
    caller: &Caller,
    id: &str,
    fields: &QueryPairs,
    own_hash: Option<String>,
) -> Result<FormComplaints, HisError> {
    let kind = service.hashing.kind().await?;
    let mut complaints = check(id, fields, kind, service.limits.refuse_common_passwords);
    // The hash comes last, because it costs time. A form with other faults is answered without it.
    if complaints.is_empty()
        && let Some(hash) = own_hash
    {
        complaints.current = check_current(service, caller, hash, fields).await?;
        // Only a caller who knows the password learns that the new one is the same.
        if complaints.is_empty() && id == caller.account && fields.value("current") == fields.value("password") {
            complaints.password = Some(FormFault::Unchanged);
        }
    }
    Ok(complaints)
}

/// Hashes the new password and stores the hash.
async fn store_password(
    service: &HisService,
    caller: &Caller,
    id: &str,
    fields: &QueryPairs,
) -> Result<ChangeResult, HisError> {
    let password = Zeroizing::new(fields.value("password").unwrap_or_default().to_owned());
    let mut patch = JsonObject::default();
    patch.set("password", JsonValue::String(service.hashing.hash(password).await?));
    // Without a bound on the record: a password can be changed however large its record is.
    let always = PatchCondition { tag: TagCondition::of(&HeaderMap::new()), most: None };
    let person = RecordKey::Person(id.to_owned());
    Ok(caller.store(service).patch(&person, patch, &always, &caller.reach).await?)
}

/// The caller's own hash, if the current password is to be asked for. A caller with a certificate may have none.
async fn own_hash(service: &HisService, caller: &Caller) -> Result<Option<String>, HisError> {
    if !service.limits.ask_current_password {
        return Ok(None);
    }
    // The caller's own record, whatever the scope of the decision.
    let own = (RecordKey::Person(caller.account.clone()), RecordReach::only(caller.account.clone()));
    let text = caller.store(service).whole_record(&own.0, &own.1).await?;
    let person = text.and_then(|text| json::parse_stored(&text).ok());
    Ok(match person {
        Some(JsonValue::Object(person)) => person.member("password").and_then(JsonValue::as_str).map(str::to_owned),
        _ => None,
    })
}

/// Compares the current password with the caller's own, and returns the fault.
async fn check_current(
    service: &HisService,
    caller: &Caller,
    hash: String,
    fields: &QueryPairs,
) -> Result<Option<FormFault>, HisError> {
    let current = Zeroizing::new(fields.value("current").unwrap_or_default().to_owned());
    if current.is_empty() {
        return Ok(Some(FormFault::CurrentMissing));
    }
    let (guesses, account, store) = (&service.guesses, &caller.account, caller.store(service));
    let target = GuessTarget { password: guessed_of(&hash), unlocks: store.page_unlocks(account).await? };
    // Counted before the comparison: guesses sent at the same moment would otherwise all be compared.
    let wait = guesses.begin(account, &target, Instant::now()).inspect_err(|_| {
        tracing::warn!(?account, request.id = caller.request_id, "too many wrong current passwords");
    })?;
    match service.hashing.verify(hash, current).await {
        Ok(true) => {
            guesses.was_right(account);
            Ok(None)
        }
        Ok(false) => {
            if let Some(wait) = wait
                && let Err(error) = store.note_page_wait(account, wait, &target.password).await
            {
                // The wait is in memory and still applies; only operators do not see it.
                tracing::warn!(?account, "operators cannot see that this account waits on its page: {error}");
            }
            Ok(Some(FormFault::CurrentWrong))
        }
        Err(problem) => {
            // Not compared, because the hashing threads were busy or failed: that costs no guess.
            guesses.was_not_compared(account);
            Err(problem)
        }
    }
}

/// The faults of a new password and its repetition.
fn check(id: &str, fields: &QueryPairs, kind: HashKind, refuse_common: bool) -> FormComplaints {
    let field = |name| fields.value(name).unwrap_or_default();
    let (password, repetition) = (field("password"), field("pconfirm"));
    let characters = password.chars().count();
    let mut complaints = FormComplaints::default();
    if password.is_empty() {
        complaints.password = Some(FormFault::Missing);
    } else if is_blank(password.as_bytes()) {
        complaints.password = Some(FormFault::Blank);
    } else if characters < MIN_PASSWORD_CHARACTERS {
        complaints.password = Some(FormFault::TooShort);
    } else if characters > MAX_PASSWORD_CHARACTERS {
        complaints.password = Some(FormFault::TooLong);
    } else if password.len() > kind.longest() {
        // bcrypt reads 72 bytes of a password: every text with the same beginning would fit a longer one.
        complaints.password = Some(match kind {
            HashKind::Argon2id(_) => FormFault::TooManyBytes,
            HashKind::Bcrypt => FormFault::TooManyBytesBeside,
        });
    } else if !can_sign_in(password.as_bytes()) {
        complaints.password = Some(FormFault::LineBreak);
    } else if password.to_lowercase() == id.to_lowercase() {
        complaints.password = Some(FormFault::OwnId);
    } else if refuse_common && common::is_common(password) {
        complaints.password = Some(FormFault::Common);
    } else if password != repetition && !repetition.is_empty() {
        complaints.repetition = Some(FormFault::Mismatch);
    }
    if repetition.is_empty() {
        complaints.repetition = Some(FormFault::Missing);
    }
    complaints
}

/// Whether this service served the form to this browser.
fn is_own_form(headers: &HeaderMap, token: &str) -> bool {
    // A browser that names another site is refused even with the right token. Older browsers send no such header.
    let is_foreign = |site: &HeaderValue| !matches!(site.as_bytes(), b"same-origin" | b"none");
    let is_own = !headers.get_all("sec-fetch-site").iter().any(is_foreign);
    let cookie = cookie(headers);
    // In constant time: the answer must not tell how much of a guessed token is right.
    is_own && cookie.is_some_and(|cookie| bool::from(cookie.as_bytes().ct_eq(token.as_bytes())))
}

/// The token in the cookie, if it has the form of ours.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let token = cookie_named(headers, COOKIE_NAME)?;
    let is_token = URL_SAFE_NO_PAD.decode(token).is_ok_and(|bytes| bytes.len() == TOKEN_BYTES);
    is_token.then_some(token)
}

/// The value of a cookie.
fn cookie_named<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// The form for people, or the first fault for programs. A token that the browser already has is kept, so that a
/// second tab does not invalidate the first.
fn show(id: &str, asked: Option<&String>, headers: &HeaderMap, complaints: &FormComplaints) -> HandlerResult {
    if let Some(fault) = complaints.first()
        && is_for_programs(headers)
    {
        return Err(HisError::BadForm(fault));
    }
    let token = match cookie(headers) {
        Some(token) => token.to_owned(),
        None => {
            let mut bytes = [0; TOKEN_BYTES];
            rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|error| {
                tracing::error!("no randomness for a form token: {error}");
                HisError::Internal
            })?;
            URL_SAFE_NO_PAD.encode(bytes)
        }
    };
    let set_cookie = format!("{COOKIE_NAME}={token}; Path=/; Secure; HttpOnly; SameSite=Strict");
    let form = PasswordForm { id, asked: asked.map(String::as_str), token: &token };
    Ok(form::form(PageWords::of(headers), &form, complaints, set_cookie))
}
