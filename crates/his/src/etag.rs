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

/// The condition of a change (RFC 9110, section 13.1): the tags that allow it (`If-Match`), and those that forbid it
/// (`If-None-Match`).
#[derive(Debug, Clone)]
pub struct TagCondition {
    wanted: Option<EntityTags>,
    unwanted: Option<EntityTags>,
}

/// The tags that a header lists.
#[derive(Debug, Clone)]
pub enum EntityTags {
    /// `*`: every tag.
    Any,
    /// These, as they were sent.
    Listed(Vec<String>),
}

impl TagCondition {
    /// Reads the headers. Without them there is no condition.
    pub fn of(headers: &HeaderMap) -> Self {
        Self { wanted: EntityTags::of(headers, &IF_MATCH), unwanted: EntityTags::of(headers, &IF_NONE_MATCH) }
    }

    /// Whether the request has a condition.
    pub fn is_conditional(&self) -> bool {
        self.wanted.is_some() || self.unwanted.is_some()
    }

    /// The tags that allow the change.
    pub fn wanted(&self) -> Option<&EntityTags> {
        self.wanted.as_ref()
    }

    /// The tags that forbid the change.
    pub fn unwanted(&self) -> Option<&EntityTags> {
        self.unwanted.as_ref()
    }

    /// Whether a record may be created where none exists.
    pub fn admits_absence(&self) -> bool {
        self.wanted.is_none()
    }

    /// Whether a document whose text is now `text` may be changed. The comparison is strong: weak tags never match.
    pub fn admits(&self, text: &str) -> bool {
        self.admits_tag(|| of(text.as_bytes()))
    }

    /// As [`admits`](Self::admits), for a representation with this tag.
    pub fn admits_tag(&self, tag: impl FnOnce() -> String) -> bool {
        // The tag costs a hash of the whole text, so it is computed only where there is a condition.
        if !self.is_conditional() {
            return true;
        }
        let tag = tag();
        let is_wanted = self.wanted.as_ref().is_none_or(|tags| tags.name(&tag));
        is_wanted && !self.unwanted.as_ref().is_some_and(|tags| tags.name_weakly(&tag))
    }
}

/// Whether `If-Match` lets a reader receive the representation with this tag.
pub fn is_wanted(headers: &HeaderMap, tag: &str) -> bool {
    EntityTags::of(headers, &IF_MATCH).is_none_or(|tags| tags.name(tag))
}

/// Whether `If-None-Match` says that the client has the representation with this tag (weak comparison).
pub fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    EntityTags::of(headers, &IF_NONE_MATCH).is_some_and(|tags| tags.name_weakly(tag))
}

impl EntityTags {
    /// By strong comparison.
    fn name(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|known| known == tag),
        }
    }

    /// By weak comparison.
    fn name_weakly(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|known| known.strip_prefix("W/").unwrap_or(known) == tag),
        }
    }

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
            assert_eq!(TagCondition::of(&headers(IF_MATCH, &value)).admits("{}"), admitted, "{value}");
        }
        assert!(TagCondition::of(&HeaderMap::new()).admits("{}"));
        for (value, admitted) in
            [(tag.clone(), false), (format!("W/{tag}"), false), ("*".into(), false), ("\"x\"".into(), true)]
        {
            assert_eq!(TagCondition::of(&headers(IF_NONE_MATCH, &value)).admits("{}"), admitted, "{value}");
        }
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
