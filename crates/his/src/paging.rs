//! Pages of lists, and the query strings that ask for them.
//!
//! The one rule: a value that cannot be read is refused, and never taken for another one.

use axum::response::IntoResponse;
use http::Uri;
use http::header::LINK;
use serde_json::Value;

use super::answer;
use super::error::{HandlerResult, HisError};
use super::query::{self, QueryPairs};

/// The most records on a page.
const MAX_LIMIT: usize = 1000;

/// The requested page of a list.
#[derive(Debug, Default)]
pub(super) struct PageQuery {
    pub(super) limit: Option<usize>,
    pub(super) after: Option<String>,
}

/// Parses the query string.
pub(super) fn pairs(uri: &Uri) -> Result<QueryPairs, HisError> {
    QueryPairs::parse(uri.query().unwrap_or_default().as_bytes()).ok_or_else(|| HisError::BadQuery("%".into()))
}

/// Parses the query string of a route that takes these parameters alone, each once: a misspelt filter would show more than
/// was asked for.
pub(super) fn only(uri: &Uri, names: &[&str]) -> Result<QueryPairs, HisError> {
    let pairs = pairs(uri)?;
    match pairs.misplaced(names) {
        Some(name) => Err(HisError::bad_query(name)),
        None => Ok(pairs),
    }
}

/// A number from 1 to `most`, if the parameter is there.
pub(super) fn count(pairs: &QueryPairs, name: &str, most: usize) -> Result<Option<usize>, HisError> {
    let count = |text: &str| text.parse().ok().filter(|count| (1..=most).contains(count));
    pairs.value(name).map(|text| count(text).ok_or_else(|| HisError::bad_query(name))).transpose()
}

/// A list of what was found, of which one more than `limit` shows that there is a next page (RFC 8288). That begins after
/// the `place` of the last one, which has at most `most` bytes.
pub(super) fn page<T>(
    uri: &Uri,
    mut found: Vec<T>,
    limit: usize,
    shown: impl Fn(&T) -> Value,
    (place, most): (impl Fn(&T) -> String, usize),
) -> HandlerResult {
    let goes_on = found.len() > limit;
    found.truncate(limit);
    let body = answer::json(Value::from(found.iter().map(shown).collect::<Vec<_>>()).to_string());
    let Some(last) = found.last().filter(|_| goes_on) else { return Ok(body) };
    let rest = query::target_without(uri, &["after"], most).ok_or_else(|| HisError::bad_query("limit"))?;
    Ok(([(LINK, query::next_link(rest, "after", &place(last)))], body).into_response())
}

impl PageQuery {
    /// Reads `limit` (1 to 1000) and `after` (an id).
    pub(super) fn of(pairs: &QueryPairs) -> Result<Self, HisError> {
        Ok(Self { limit: count(pairs, "limit", MAX_LIMIT)?, after: pairs.value("after").map(str::to_owned) })
    }
}
