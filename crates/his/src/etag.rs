//! Entity tags: a strong validator for each document (RFC 9110, section 8.8.3).
//!
//! The one rule: a tag is a hash of exactly the bytes that are sent, so equal tags mean equal bytes on every
//! instance. The store computes the tags of personal documents, and PostgreSQL and SQLite use different hashes. So
//! a personal document has another tag on the other store.

use http::HeaderMap;
use http::header::{IF_MATCH, IF_NONE_MATCH};

/// The tag of a representation, with its quotes.
pub fn of(bytes: &[u8]) -> String {
    of_hash(&blake3::hash(bytes).to_hex())
}

/// The tag of bytes whose hexadecimal hash is known.
pub fn of_hash(hash: &str) -> String {
    format!("\"{}\"", hash.get(..32).unwrap_or(hash))
}

/// The condition of an `If-Match` header: the tags under which a change is allowed.
#[derive(Debug, Clone)]
pub struct IfMatch(Option<EntityTags>);

#[derive(Debug, Clone)]
enum EntityTags {
    Any,
    Listed(Vec<String>),
}

impl IfMatch {
    /// Reads the header. Without it there is no condition.
    pub fn of(headers: &HeaderMap) -> Self {
        Self(EntityTags::of(headers, &IF_MATCH))
    }

    /// Whether the request has a condition.
    pub fn is_conditional(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a document whose text is now `text` may be changed. The comparison is strong: weak tags never match.
    pub fn admits(&self, text: &str) -> bool {
        self.admits_tag(|| of(text.as_bytes()))
    }

    /// As [`admits`](Self::admits), for a representation with this tag.
    pub fn admits_tag(&self, tag: impl FnOnce() -> String) -> bool {
        match &self.0 {
            None | Some(EntityTags::Any) => true,
            // The tag is computed only here: it costs a hash of the whole text.
            Some(EntityTags::Listed(tags)) => tags.contains(&tag()),
        }
    }
}

/// Whether `If-None-Match` says that the client has the representation with this tag (weak comparison).
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    match EntityTags::of(headers, &IF_NONE_MATCH) {
        None => false,
        Some(EntityTags::Any) => true,
        Some(EntityTags::Listed(tags)) => tags.iter().any(|known| known.strip_prefix("W/").unwrap_or(known) == tag),
    }
}

impl EntityTags {
    // Our tags contain no comma, so a list can be split there. An unreadable value matches nothing.
    fn of(headers: &HeaderMap, name: &http::HeaderName) -> Option<Self> {
        let mut tags = Vec::new();
        for value in headers.get_all(name) {
            match value.to_str() {
                Ok(text) if text.trim() == "*" => return Some(Self::Any),
                Ok(text) => tags.extend(text.split(',').map(|tag| tag.trim().to_owned())),
                Err(_) => tags.push(String::new()),
            }
        }
        (!tags.is_empty()).then_some(Self::Listed(tags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_condition_admits_the_state_it_names_and_no_other() {
        let tag = of(b"{}");
        #[rustfmt::skip]
        let cases = [
            (tag.clone(), true), (format!("\"x\", {tag}"), true), ("*".into(), true),
            ("\"x\"".into(), false), (format!("W/{tag}"), false), (String::new(), false),
        ];
        for (value, admitted) in cases {
            assert_eq!(IfMatch::of(&headers(IF_MATCH, &value)).admits("{}"), admitted, "{value}");
        }
        assert!(IfMatch::of(&HeaderMap::new()).admits("{}"));
    }

    #[test]
    fn a_known_representation_is_recognised_weakly() {
        let tag = of(b"{}");
        for (value, known) in
            [(tag.clone(), true), (format!("W/{tag}"), true), ("*".into(), true), ("\"y\"".into(), false)]
        {
            assert_eq!(is_known(&headers(IF_NONE_MATCH, &value), &tag), known, "{value}");
        }
        assert!(!is_known(&HeaderMap::new(), &tag));
    }
}
