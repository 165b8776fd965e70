//! The media type of an answer that a client wants (`Accept`).
//!
//! The one rule: a type counts only if it is named. `*/*` and unknown types lead to the usual form, as in Thalamus, which
//! reads no `Accept`.

use http::HeaderMap;
use http::header::ACCEPT;

/// One JSON document in each line.
pub(crate) const JSON_LINES: &str = "application/x-ndjson";

/// The first of the known types that a client names and does not refuse (RFC 9110, section 12.5.1).
pub(crate) fn first_named(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let wanted = accepted.flat_map(|value| value.split(',')).filter(|kind| !is_refused(kind));
    let mut names = wanted.map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    names.find_map(|name| known.iter().copied().find(|media_type| *media_type == name))
}

/// Whether an element of `Accept` says that the client does not take this (RFC 9110, section 12.4.2).
fn is_refused(kind: &str) -> bool {
    let weights = kind.split(';').skip(1).filter_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("q").then_some(value)
    });
    weights.into_iter().any(|weight| weight.parse() == Ok(0.0))
}
