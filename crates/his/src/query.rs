//! Names and values of a query string or a form (`application/x-www-form-urlencoded`).

use std::collections::HashSet;
use std::fmt::Write;

use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use fedgate_core::path::MAX_TARGET_BYTES;

/// Names and values, in order.
#[derive(Debug, Default)]
pub(super) struct QueryPairs(Vec<(String, String)>);

impl QueryPairs {
    /// Parses names and values; `None` if one of them is not text.
    pub(super) fn parse(encoded: &[u8]) -> Option<Self> {
        let pairs = encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            Some((decode(halves.next()?)?, decode(halves.next().unwrap_or_default())?))
        });
        decoded.collect::<Option<_>>().map(Self)
    }

    /// The first name that is not among these, or that is there twice.
    pub(super) fn misplaced(&self, names: &[&str]) -> Option<&str> {
        let mut seen = HashSet::new();
        let mut of = self.0.iter().map(|(name, _)| name.as_str());
        of.find(|name| !names.contains(name) || !seen.insert(*name))
    }

    /// The first value of a name.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Whether an encoded pair has this name.
fn is_named(pair: &str, name: &str) -> bool {
    let encoded = pair.split('=').next().unwrap_or_default();
    decode(encoded.as_bytes()).is_some_and(|known| known == name)
}

/// A target as the client wrote it, without some parameters. `None` if a link with another value of the first of them,
/// of at most `most` bytes, could exceed the target length that the gateway accepts.
pub(super) fn target_without(uri: &Uri, names: &[&str], most: usize) -> Option<String> {
    let query = uri.query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !names.iter().any(|name| is_named(pair, name)));
    let rest = format!("{}?{}", uri.path(), pairs.collect::<Vec<_>>().join("&"));
    // An ampersand and an equals sign.
    (rest.len() + names.first().map_or(0, |name| name.len()) + 2 + most <= MAX_TARGET_BYTES).then_some(rest)
}

/// A link to the next page (RFC 8288): a target without the parameter, and its value.
pub(super) fn next_link(mut target: String, name: &str, value: &str) -> String {
    append(&mut target, name, value);
    format!("<{target}>; rel=\"next\"")
}

/// Characters that are encoded: all but the unreserved ones (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends a name and a value to a target that has a query, or that ends with `?`.
fn append(target: &mut String, name: &str, value: &str) {
    let separator = if target.ends_with('?') { "" } else { "&" };
    let (name, value) = (utf8_percent_encode(name, RESERVED), utf8_percent_encode(value, RESERVED));
    // Writing to a `String` cannot fail.
    let _ = write!(target, "{separator}{name}={value}");
}

fn decode(encoded: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let text = String::from_utf8(percent_decode(&spaced).collect()).ok()?;
    // PostgreSQL stores no NUL, so a value with one could match nothing.
    (!text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_encoded_again() {
        let pairs = QueryPairs::parse(b"name=Ana+Mar%C3%ADa&after=x&empty&a=1&a=2").unwrap();
        assert_eq!(pairs.value("name"), Some("Ana María"));
        assert_eq!(pairs.value("empty"), Some(""));
        assert_eq!(pairs.value("a"), Some("1"));
        assert_eq!(pairs.value("none"), None);
        assert!(is_named("%61fter=1", "after") && !is_named("x=after", "after") && !is_named("%ff=1", "after"));
        let mut target = "/people?".to_owned();
        append(&mut target, "name", "Ana María");
        append(&mut target, "after", "x");
        assert_eq!(target, "/people?name=Ana%20Mar%C3%ADa&after=x");
        assert!(QueryPairs::parse(b"a=%ff").is_none() && QueryPairs::parse(b"a=%00").is_none());
    }
}
