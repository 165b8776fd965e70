//! The names and values of a query or of a submitted form (`application/x-www-form-urlencoded`).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use thiserror::Error;

/// The most pairs of a search, and the most bytes of a query or form.
const MAX_PAIRS: usize = 128;
const MAX_BYTES: usize = 16 * 1024;
/// Characters that are encoded: all but the unreserved ones (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Names and values in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryPairs(Vec<(String, String)>);

/// The query or the form is no text, or is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the parameters are not encoded UTF-8, contain NUL, or are too many or too long")]
pub struct QueryError;

impl QueryPairs {
    /// Reads pairs as they were sent.
    ///
    /// # Errors
    /// If one is no text, if there are more than 128, or more than 16 KiB.
    pub fn parse(encoded: &[u8]) -> Result<Self, QueryError> {
        if encoded.len() > MAX_BYTES {
            return Err(QueryError);
        }
        let mut pairs = Vec::new();
        for pair in encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let mut half = || decode(halves.next().unwrap_or_default()).ok_or(QueryError);
            pairs.push((half()?, half()?));
            if pairs.len() > MAX_PAIRS {
                return Err(QueryError);
            }
        }
        Ok(Self(pairs))
    }

    /// Both together: the query and the form of a search by POST (R4, 3.1.1.1).
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The first value of a name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn decode(encoded: &[u8]) -> Option<String> {
    // A percent sign with no two digits has two readings: the sign itself, or a fault.
    let mut after_percent = encoded.split(|byte| *byte == b'%').skip(1);
    let is_encoded = |rest: &[u8]| rest.get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if !after_percent.all(is_encoded) {
        return None;
    }
    let spaced: Vec<u8> = encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let text = String::from_utf8(percent_decode(&spaced).collect()).ok()?;
    // PostgreSQL stores no NUL, so a value with one could match nothing.
    (!text.contains('\0')).then_some(text)
}

/// Pairs as a query, encoded.
pub(crate) fn encoded<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let encode = |text: &'a str| utf8_percent_encode(text, RESERVED);
    let pairs = pairs.into_iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_encoded_again() {
        let pairs = QueryPairs::parse(b"family%3Aexact=P%C3%A9rez+Gil&&birthdate=ge1980&x").unwrap();
        let read: Vec<_> = pairs.iter().collect();
        assert_eq!(read, [("family:exact", "Pérez Gil"), ("birthdate", "ge1980"), ("x", "")]);
        assert_eq!(encoded(pairs.iter()), "family%3Aexact=P%C3%A9rez%20Gil&birthdate=ge1980&x=");
        assert_eq!(pairs.value("birthdate"), Some("ge1980"));
        assert_eq!(QueryPairs::parse(b"a=%ff"), Err(QueryError));
        assert_eq!(QueryPairs::parse(b"a=%00"), Err(QueryError));
        for fault in ["a=%zz", "a=%4", "a=%", "%=b", "a=%%41"] {
            assert_eq!(QueryPairs::parse(fault.as_bytes()), Err(QueryError), "{fault}");
        }
        assert_eq!(QueryPairs::parse(&vec![b'a'; MAX_BYTES + 1]), Err(QueryError));
        assert_eq!(QueryPairs::parse(&b"a&".repeat(129)), Err(QueryError));
    }
}
