//! Persons.
//!
//! The one rule: who may log in, and as what, is written by callers with the `account` permission alone, and a password
//! hash is written here or at `/password`, and never read out.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Uri};

use super::body::Document;
use super::error::Problem;
use super::etag::IfMatch;
use super::guard::{Caller, Ids};
use super::hashing::{Hashing, NewPassword};
use super::store::{Changed, Created, Deleted, Key, List, PatchCondition};
use super::{Service, answer, date, list};
use fedgate_core::json::{self, Object, Value};
use fedgate_core::password::{MIN_PASSWORD_CHARACTERS, can_sign_in, is_acceptable_hash};
use fedgate_core::path::new_person_id;

/// Members that a list can be narrowed by.
const FILTERS: [&str; 4] = ["name", "lastname", "dob", "gender"];
/// The role of a person whose document names none.
const DEFAULT_ROLE: &str = "end_user";
/// Longest list of roles, in bytes as JSON; logins read no more than twice that (`fedgate_login`), and take longer ones for
/// none.
const MAX_ROLES_BYTES: usize = 8 * 1024;
/// Longest password in a person's document, in characters, as Thalamus has it. A hash may be longer.
const MAX_PASSWORD_CHARACTERS: usize = 64;

type Answer = Result<Response, Problem>;

/// `GET /people`
pub(super) async fn list(State(service): State<Arc<Service>>, caller: Caller, uri: Uri) -> Answer {
    let pairs = list::pairs(&uri)?;
    if pairs.value("dob").is_some_and(|text| !date::is_day(text)) {
        return Err(Problem::BadQuery("dob".into()));
    }
    let members = FILTERS.iter().filter_map(|name| Some((*name, pairs.value(name)?.to_owned()))).collect();
    list::answer(&service, List::People { members }, caller, &uri).await
}

/// `GET /people/{id}`
pub(super) async fn read(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([id]): Ids<1>,
    headers: HeaderMap,
) -> Answer {
    answer::record(&service, &caller, &Key::Person(id), &headers).await?.ok_or(Problem::UserNotFound)
}

/// `POST /people/{id}`
pub(super) async fn create(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([id]): Ids<1>,
    Document(document, _held): Document,
) -> Answer {
    let id = new_person_id(&id).map_err(|_| Problem::BadId)?;
    let mut person = Person::parse(document, &id)?;
    if !caller.may_write_accounts() {
        person.check_unprivileged(&service.hashing)?;
    }
    service.check_size(&person.document)?;
    let key = Key::Person(id);
    if let Some(known) = caller.store(&service).whole_record(&key, &caller.reach).await? {
        return same_again(&known, &person);
    }
    person.put_password(&service.hashing).await?;
    match caller.store(&service).create(&key, &person.document, &caller.reach).await? {
        Created::Done => Ok(answer::null()),
        Created::Taken(existing) => same_again(&existing.text, &person),
        Created::Twin => Err(Problem::UserExists),
        Created::NoPerson => Err(Problem::NeedsAccount("id")),
    }
}

/// A person whose id is taken: fine if it is the same document, sent again by a node that lost the answer.
///
/// A password in clear is never the same again: to compare it would be a way to guess passwords that no throttle sees.
fn same_again(known: &str, person: &Person) -> Answer {
    let Ok(Value::Object(known)) = json::parse_stored(known) else {
        return Err(Problem::UserExists);
    };
    let is_same_password = match &person.password {
        NewPassword::Absent | NewPassword::NoLogin => true,
        NewPassword::Hash(hash) => known.member("password").and_then(Value::as_str) == Some(hash),
        NewPassword::Clear(_) => false,
    };
    match is_same_password && known.same_besides(&person.document, &["password"]) {
        true => Ok(answer::null()),
        false => Err(Problem::UserExists),
    }
}

/// A new person, checked.
struct Person {
    document: Object,
    password: NewPassword,
}

impl Person {
    /// Sets the id, defaults the role, and takes the password out.
    fn parse(mut document: Object, id: &str) -> Result<Self, Problem> {
        document.set("id", Value::String(id.to_owned()));
        complete(&mut document)?;
        let password = match document.member("password") {
            None => NewPassword::Absent,
            Some(Value::Null) => NewPassword::NoLogin,
            Some(Value::String(text)) if text.is_empty() => NewPassword::NoLogin,
            Some(Value::String(text)) if is_acceptable_hash(text) => NewPassword::of(text),
            Some(Value::String(text)) if text.chars().count() > MAX_PASSWORD_CHARACTERS => {
                return Err(Problem::PasswordTooLong);
            }
            Some(Value::String(text)) if text.chars().count() < MIN_PASSWORD_CHARACTERS => {
                return Err(Problem::PasswordTooShort);
            }
            Some(Value::String(text)) if !can_sign_in(text.as_bytes()) => return Err(Problem::PasswordUnusable),
            Some(Value::String(text)) => NewPassword::of(text),
            Some(_) => return Err(Problem::BadMember("password")),
        };
        Ok(Self { document, password })
    }

    /// What a caller without the `account` permission may create: an `end_user` who may log in, whose password is no dearer
    /// to verify than those of today. The Federation Portal always writes these defaults out.
    fn check_unprivileged(&self, hashing: &Hashing) -> Result<(), Problem> {
        if !hashing.is_open_to_all(&self.password) {
            return Err(Problem::NeedsAccount("password"));
        }
        if self.document.member("roles") != Some(&default_roles()) {
            return Err(Problem::NeedsAccount("roles"));
        }
        match self.document.member("active") {
            Some(Value::Bool(true)) | None => Ok(()),
            Some(_) => Err(Problem::NeedsAccount("active")),
        }
    }

    async fn put_password(&mut self, hashing: &Hashing) -> Result<(), Problem> {
        match hashing.stored_form(self.password.clone()).await? {
            Some(hash) => self.document.set("password", Value::String(hash)),
            None if matches!(self.password, NewPassword::NoLogin) => self.document.set("password", Value::Null),
            None => {}
        }
        Ok(())
    }
}

/// Checks `roles` and `active`, and gives a person without roles the default.
pub(super) fn complete(document: &mut Object) -> Result<(), Problem> {
    check_accounts(document)?;
    if document.member("roles").is_none() {
        document.set("roles", default_roles());
    }
    Ok(())
}

fn default_roles() -> Value {
    Value::Array(vec![Value::String(DEFAULT_ROLE.to_owned())])
}

/// `roles` is a list of names and `active` a truth value, where they are given.
fn check_accounts(document: &Object) -> Result<(), Problem> {
    match document.member("roles") {
        None => {}
        Some(Value::Array(roles)) if are_roles(roles) => {}
        Some(_) => return Err(Problem::BadMember("roles")),
    }
    match document.member("active") {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(_) => Err(Problem::BadMember("active")),
    }
}

/// Whether they are names, and not too many.
fn are_roles(roles: &[Value]) -> bool {
    // With quotes, comma and a blank; a control character is six bytes in JSON.
    let bytes = |name: &str| name.chars().map(|c| if c.is_control() { 6 } else { c.len_utf8() }).sum::<usize>() + 4;
    let names: Option<Vec<&str>> = roles.iter().map(Value::as_str).collect();
    names.is_some_and(|names| names.into_iter().map(bytes).sum::<usize>() <= MAX_ROLES_BYTES)
}

/// `PATCH /people/{id}`
pub(super) async fn patch(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([id]): Ids<1>,
    headers: HeaderMap,
    Document(mut patch, _held): Document,
) -> Answer {
    if patch.remove("id").is_some_and(|given| given.as_str() != Some(&id)) {
        return Err(Problem::PersonIdChange);
    }
    if patch.member("password").is_some() {
        return Err(Problem::PasswordHere);
    }
    let privileged = ["roles", "active"].into_iter().find(|name| patch.member(name).is_some());
    match privileged {
        Some(name) if !caller.may_write_accounts() => return Err(Problem::NeedsAccount(name)),
        Some(_) | None => check_accounts(&patch)?,
    }
    let condition = PatchCondition { tag: IfMatch::of(&headers), most: service.limits.max_record_bytes };
    match caller.store(&service).patch(&Key::Person(id), patch, &condition, &caller.reach).await? {
        Changed::Done => Ok(answer::null()),
        Changed::Missing => Err(Problem::UserNotFound),
        Changed::Stale => Err(Problem::Stale),
        Changed::TooLarge => Err(Problem::RecordTooLarge),
        Changed::NotAnObject => Err(Problem::NotARecord),
    }
}

/// `DELETE /people/{id}`
pub(super) async fn delete(
    State(service): State<Arc<Service>>,
    caller: Caller,
    Ids([id]): Ids<1>,
    headers: HeaderMap,
) -> Answer {
    match caller.store(&service).delete(&Key::Person(id), &IfMatch::of(&headers), &caller.reach).await? {
        Deleted::Done => Ok(answer::null()),
        Deleted::Missing => Err(Problem::UserDoesNotExist),
        Deleted::Stale => Err(Problem::Stale),
        Deleted::Active => Err(Problem::UserActive),
        Deleted::InUse => Err(Problem::UserInUse),
    }
}
