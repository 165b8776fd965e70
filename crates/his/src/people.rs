//! Persons.
//!
//! The one rule: only callers with the `account` permission decide who may log in, and with which roles. A password
//! hash is written here or at `/password`, and is never returned.

use std::sync::Arc;

use axum::extract::State;
use http::{HeaderMap, Uri};

use super::body::JsonBody;
use super::changes::{self, WantedChanges};
use super::error::{HandlerResult, HisError};
use super::etag::TagCondition;
use super::hashing::{HashingThreads, NewPassword};
use super::list_form::ListForm;
use super::store::{ChangeResult, CreateResult, DeleteResult, ListQuery, PatchCondition, RecordKey};
use super::verify_assertion::{Caller, RouteIds};
use super::{HisService, answer, date, list, paging, person_index};
use fedgate_core::json::{self, JsonObject, JsonValue};
use fedgate_core::password::{MIN_PASSWORD_CHARACTERS, can_sign_in, is_acceptable_hash, is_blank, looks_like_hash};
use fedgate_core::path::new_person_id;

/// Members by which a list can be filtered.
const FILTERS: [&str; 4] = ["name", "lastname", "dob", "gender"];
/// The role of a person whose document names none.
const DEFAULT_ROLE: &str = "end_user";
/// The longest list of roles, in bytes of JSON. A login reads at most twice that (`fedgate_login`), and treats a
/// longer list as empty.
const MAX_ROLES_BYTES: usize = 8 * 1024;
/// The longest password in a person's document, in characters, as in Thalamus. A hash may be longer.
const MAX_PASSWORD_CHARACTERS: usize = 64;

/// `GET /people`
pub(super) async fn list(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    form: ListForm,
    uri: Uri,
) -> HandlerResult {
    let pairs = paging::pairs(&uri)?;
    if let Some(typed) = pairs.value("q") {
        // A filter compares whole texts, and a query finds parts: nobody asks for both.
        if let Some(name) = FILTERS.iter().chain(&[changes::PARAMETER]).find(|name| pairs.value(name).is_some()) {
            return Err(HisError::BadQuery((*name).to_owned()));
        }
        return person_index::find_typed(&service, caller, &uri, &pairs, typed).await;
    }
    if pairs.value("dob").is_some_and(|text| !date::is_day(text)) {
        return Err(HisError::BadQuery("dob".into()));
    }
    let members = FILTERS.iter().filter_map(|name| Some((*name, pairs.value(name)?.to_owned()))).collect();
    let changes = WantedChanges::begin(&service, &caller, &pairs).await?;
    list::answer(&service, ListQuery::People { members }, changes, caller, form, &uri).await
}

/// `GET /people/{id}`
pub(super) async fn read(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([id]): RouteIds<1>,
    headers: HeaderMap,
    uri: Uri,
) -> HandlerResult {
    answer::read(&service, &caller, &RecordKey::Person(id), &headers, &uri).await?.ok_or(HisError::UserNotFound)
}

/// `POST /people/{id}`
pub(super) async fn create(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([id]): RouteIds<1>,
    uri: Uri,
    headers: HeaderMap,
    JsonBody(document, _held): JsonBody,
) -> HandlerResult {
    let refuses_match = match paging::pairs(&uri)?.value("on_match") {
        None => false,
        Some("refuse") => true,
        Some(_) => return Err(HisError::BadQuery("on_match".into())),
    };
    let id = new_person_id(&id).map_err(|_| HisError::BadId)?;
    let mut person = PersonView::parse(document, &id)?;
    if !caller.may_write_accounts() {
        person.check_unprivileged(&service.hashing)?;
    }
    service.check_size(&person.document)?;
    let key = RecordKey::Person(id);
    answer::check_condition(&service, &caller, &key, &headers).await?;
    // Before the hash is made, so that a repeated POST costs none.
    if let Some(known) = caller.store(&service).whole_record(&key, &caller.reach).await? {
        return same_again(&known, &person);
    }
    if refuses_match {
        person_index::refuse_match(&service, &caller, &person.document).await?;
    }
    person.put_password(&service.hashing).await?;
    match caller.store(&service).create(&key, &person.document, &caller.reach).await? {
        CreateResult::Done => Ok(answer::null()),
        CreateResult::Taken(existing) => same_again(&existing.text, &person),
        CreateResult::Twin => Err(HisError::UserExists),
        CreateResult::NoPerson => Err(HisError::NeedsAccount("id")),
    }
}

/// Answers a POST for an id that exists: 200 if the document is the same, sent again by a node that lost the
/// answer.
///
/// A password in clear text never counts as the same. To compare it would allow guesses that no throttle counts.
fn same_again(known: &str, person: &PersonView) -> HandlerResult {
    let Ok(JsonValue::Object(known)) = json::parse_stored(known) else {
        return Err(HisError::UserExists);
    };
    let is_same_password = match &person.password {
        NewPassword::Absent | NewPassword::NoLogin => true,
        NewPassword::Hash(hash) => known.member("password").and_then(JsonValue::as_str) == Some(hash),
        NewPassword::Clear(_) => false,
    };
    match is_same_password && known.same_besides(&person.document, &["password"]) {
        true => Ok(answer::null()),
        false => Err(HisError::UserExists),
    }
}

/// A new person, checked.
struct PersonView {
    document: JsonObject,
    password: NewPassword,
}

impl PersonView {
    /// Sets the id, adds the default role, and checks the password.
    fn parse(mut document: JsonObject, id: &str) -> Result<Self, HisError> {
        document.set("id", JsonValue::String(id.to_owned()));
        complete(&mut document)?;
        let password = match document.member("password") {
            None => NewPassword::Absent,
            Some(JsonValue::Null) => NewPassword::NoLogin,
            Some(JsonValue::String(text)) if text.is_empty() => NewPassword::NoLogin,
            Some(JsonValue::String(text)) if is_acceptable_hash(text) => NewPassword::of(text),
            Some(JsonValue::String(text)) if looks_like_hash(text) => return Err(HisError::PasswordUnknownHash),
            Some(JsonValue::String(text)) if is_blank(text.as_bytes()) => return Err(HisError::PasswordUnusable),
            Some(JsonValue::String(text)) if text.chars().count() > MAX_PASSWORD_CHARACTERS => {
                return Err(HisError::PasswordTooLong);
            }
            Some(JsonValue::String(text)) if text.chars().count() < MIN_PASSWORD_CHARACTERS => {
                return Err(HisError::PasswordTooShort);
            }
            Some(JsonValue::String(text)) if !can_sign_in(text.as_bytes()) => return Err(HisError::PasswordUnusable),
            Some(JsonValue::String(text)) => NewPassword::of(text),
            Some(_) => return Err(HisError::BadMember("password")),
        };
        Ok(Self { document, password })
    }

    /// Checks the limits of a caller without the `account` permission: it may create an `end_user` who may log in,
    /// with a password that costs no more to verify than today's hashes. The Federation Portal always writes these
    /// defaults out.
    fn check_unprivileged(&self, hashing: &HashingThreads) -> Result<(), HisError> {
        // Every attempt to log in to this account would cost the gateway such a hash.
        if !hashing.is_open_to_all(&self.password) {
            return Err(HisError::NeedsAccount("password"));
        }
        if self.document.member("roles") != Some(&default_roles()) {
            return Err(HisError::NeedsAccount("roles"));
        }
        match self.document.member("active") {
            Some(JsonValue::Bool(true)) | None => Ok(()),
            Some(_) => Err(HisError::NeedsAccount("active")),
        }
    }

    async fn put_password(&mut self, hashing: &HashingThreads) -> Result<(), HisError> {
        match hashing.stored_form(self.password.clone()).await? {
            Some(hash) => self.document.set("password", JsonValue::String(hash)),
            None if matches!(self.password, NewPassword::NoLogin) => self.document.set("password", JsonValue::Null),
            None => {}
        }
        Ok(())
    }
}

/// Checks `roles` and `active`, and gives a person without roles the default.
pub(super) fn complete(document: &mut JsonObject) -> Result<(), HisError> {
    check_accounts(document)?;
    if document.member("roles").is_none() {
        document.set("roles", default_roles());
    }
    Ok(())
}

fn default_roles() -> JsonValue {
    JsonValue::Array(vec![JsonValue::String(DEFAULT_ROLE.to_owned())])
}

/// Checks that `roles` is a list of names and `active` a truth value, where they are given.
fn check_accounts(document: &JsonObject) -> Result<(), HisError> {
    match document.member("roles") {
        None => {}
        Some(JsonValue::Array(roles)) if are_roles(roles) => {}
        Some(_) => return Err(HisError::BadMember("roles")),
    }
    match document.member("active") {
        None | Some(JsonValue::Bool(_)) => Ok(()),
        Some(_) => Err(HisError::BadMember("active")),
    }
}

/// Whether these are names, within the bound.
fn are_roles(roles: &[JsonValue]) -> bool {
    // Quotes, comma and a blank are 4 bytes. A control character is 6 bytes in JSON.
    let bytes = |name: &str| name.chars().map(|c| if c.is_control() { 6 } else { c.len_utf8() }).sum::<usize>() + 4;
    let names: Option<Vec<&str>> = roles.iter().map(JsonValue::as_str).collect();
    names.is_some_and(|names| names.into_iter().map(bytes).sum::<usize>() <= MAX_ROLES_BYTES)
}

/// `PATCH /people/{id}`
pub(super) async fn patch(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([id]): RouteIds<1>,
    headers: HeaderMap,
    JsonBody(mut patch, _held): JsonBody,
) -> HandlerResult {
    if patch.remove("id").is_some_and(|given| given.as_str() != Some(&id)) {
        return Err(HisError::PersonIdChange);
    }
    // A hash set here would bypass the current password, the length rules and the list of common passwords.
    if patch.member("password").is_some() {
        return Err(HisError::PasswordHere);
    }
    // Without this check `person` under PATCH would be enough to become an administrator.
    let privileged = ["roles", "active"].into_iter().find(|name| patch.member(name).is_some());
    match privileged {
        Some(name) if !caller.may_write_accounts() => return Err(HisError::NeedsAccount(name)),
        Some(_) | None => check_accounts(&patch)?,
    }
    let condition = PatchCondition { tag: TagCondition::of(&headers), most: service.limits.max_record_bytes };
    match caller.store(&service).patch(&RecordKey::Person(id), patch, &condition, &caller.reach).await? {
        ChangeResult::Done => Ok(answer::null()),
        ChangeResult::Missing => Err(HisError::UserNotFound),
        ChangeResult::Stale => Err(HisError::Stale),
        ChangeResult::TooLarge => Err(HisError::RecordTooLarge),
        ChangeResult::NotAnObject => Err(HisError::NotARecord),
    }
}

/// `DELETE /people/{id}`
pub(super) async fn delete(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    RouteIds([id]): RouteIds<1>,
    headers: HeaderMap,
) -> HandlerResult {
    match caller.store(&service).delete(&RecordKey::Person(id), &TagCondition::of(&headers), &caller.reach).await? {
        DeleteResult::Done => Ok(answer::null()),
        DeleteResult::Missing => Err(HisError::UserDoesNotExist),
        DeleteResult::Stale => Err(HisError::Stale),
        DeleteResult::Active => Err(HisError::UserActive),
        DeleteResult::InUse => Err(HisError::UserInUse),
        DeleteResult::Merged => Err(HisError::PersonMerged(None)),
    }
}
