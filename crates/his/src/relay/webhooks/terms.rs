//! The terms of a webhook, as accounts and operators write them: its messages and its address.
//!
//! The one rule: a new webhook and a changed one are read by the same code, and an unknown member is an error: a filter
//! that was misspelt would send more than its account meant.

use thiserror::Error;

use super::url::{NotWebhookUrl, WebhookUrl};
use crate::relay::request::{METHODS, RESOURCES};
use crate::store::webhooks::{WebhookForm, WebhookKeyKind, WebhookTerms};
use fedgate_core::json::{JsonObject, JsonValue};

/// The longest value of a filter.
const MOST_FILTER: usize = 512;

/// Why terms cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TermsFault {
    /// The address.
    #[error("{0}")]
    Url(NotWebhookUrl),
    /// A member with a value that it cannot have.
    #[error("`{0}` has a value that it cannot have")]
    Member(&'static str),
    /// A member without a meaning.
    #[error("it has a member without a meaning")]
    Unknown,
}

/// The members of the terms, by which they are changed.
const MEMBERS: [&str; 7] = ["url", "form", "person", "resource", "node", "method", "type"];

/// The members that a body may have beside the terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BesideTerms {
    /// Where a new webhook begins, and how it signs.
    New,
    /// Whether an ended one goes on.
    Changed,
}

/// Refuses members without a meaning.
pub(super) fn check_names(body: &JsonObject, beside: BesideTerms) -> Result<(), TermsFault> {
    let further: &[&str] = match beside {
        BesideTerms::New => &["after", "signatures"],
        BesideTerms::Changed => &["state"],
    };
    let mut names = body.names();
    match names.all(|name| MEMBERS.contains(&name) || further.contains(&name)) {
        true => Ok(()),
        false => Err(TermsFault::Unknown),
    }
}

/// Applies the members of a body to terms. `null` removes a filter.
pub(super) fn apply(body: &JsonObject, terms: &mut WebhookTerms) -> Result<(), TermsFault> {
    for name in MEMBERS {
        if let Some(value) = body.member(name) {
            let text = match value {
                JsonValue::Null => None,
                value => Some(value.as_str().ok_or(TermsFault::Member(name))?),
            };
            set(terms, name, text)?;
        }
    }
    Ok(())
}

/// Sets one member of terms.
pub(super) fn set(terms: &mut WebhookTerms, name: &'static str, text: Option<&str>) -> Result<(), TermsFault> {
    let known = |words: &[&str]| match text {
        Some(word) if !words.contains(&word) => Err(TermsFault::Member(name)),
        word => Ok(word.map(str::to_owned)),
    };
    let id = || match text {
        Some(id) if id.is_empty() || id.len() > MOST_FILTER || id.chars().any(char::is_control) => {
            Err(TermsFault::Member(name))
        }
        id => Ok(id.map(str::to_owned)),
    };
    match name {
        "url" => {
            let text = text.ok_or(TermsFault::Member(name))?;
            WebhookUrl::parse(text).map_err(TermsFault::Url)?;
            text.clone_into(&mut terms.url);
        }
        "form" => terms.form = text.and_then(WebhookForm::parse).ok_or(TermsFault::Member(name))?,
        "person" => terms.filter.person = id()?,
        "node" => terms.filter.node = id()?,
        "type" => terms.filter.kind = id()?,
        "resource" => terms.filter.resource = known(&RESOURCES)?,
        "method" => terms.filter.method = known(&METHODS)?,
        _ => return Err(TermsFault::Member(name)),
    }
    Ok(())
}

/// Terms without an address, which must be set.
pub(super) fn empty() -> WebhookTerms {
    WebhookTerms { url: String::new(), form: WebhookForm::Json, filter: Default::default() }
}

/// The kinds of signatures of a list; v1 without one.
pub(super) fn kinds(value: Option<&JsonValue>) -> Result<Vec<WebhookKeyKind>, TermsFault> {
    const NAME: &str = "signatures";
    let Some(value) = value else { return Ok(vec![WebhookKeyKind::V1]) };
    let JsonValue::Array(words) = value else { return Err(TermsFault::Member(NAME)) };
    let mut kinds = Vec::new();
    for word in words {
        let kind = word.as_str().and_then(WebhookKeyKind::parse).ok_or(TermsFault::Member(NAME))?;
        if kinds.contains(&kind) {
            return Err(TermsFault::Member(NAME));
        }
        kinds.push(kind);
    }
    if kinds.is_empty() { Err(TermsFault::Member(NAME)) } else { Ok(kinds) }
}
