//! The primitive types of FHIR that this package reads and writes.
//!
//! The one rule: a value is one of its type or is none. Called by the mapping, which leaves out what is none, and by
//! the readers of requests, which refuse it.

mod date;
mod logical_id;

use fedgate_index::fields::Identifier;
use fedgate_index::fold::FoldedGender;
use serde::Deserialize;
use thiserror::Error;

pub use date::{CalendarDay, PartialDate};
pub use logical_id::LogicalId;

/// The most bytes of a URI that names a system.
const MAX_SYSTEM_BYTES: usize = 256;

/// The administrative gender (R4, value set `administrative-gender`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdministrativeGender {
    /// `male`
    Male,
    /// `female`
    Female,
    /// `other`
    Other,
    /// `unknown`
    Unknown,
}

impl AdministrativeGender {
    /// The code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Male => "male",
            Self::Female => "female",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }

    /// Reads a code.
    pub(crate) fn of_code(code: &str) -> Option<Self> {
        [Self::Male, Self::Female, Self::Other, Self::Unknown].into_iter().find(|gender| gender.code() == code)
    }

    /// Reads the letters and words of people's documents, as the index does.
    pub(crate) fn of_document(word: &str) -> Option<Self> {
        match FoldedGender::parse(word) {
            Some(FoldedGender::Male) => Some(Self::Male),
            Some(FoldedGender::Female) => Some(Self::Female),
            Some(FoldedGender::Other) => Some(Self::Other),
            None if matches!(word.trim().to_lowercase().as_str(), "u" | "unknown") => Some(Self::Unknown),
            None => None,
        }
    }
}

/// A text that FHIR and XML can hold: not blank, and without control characters (R4, 2.24.0.1, `string`).
pub(crate) fn is_text(text: &str) -> bool {
    let is_control = |sign: char| matches!(sign, '\0'..'\t' | '\u{b}' | '\u{c}' | '\u{e}'..' ' | '\u{7f}'..='\u{9f}');
    // XML 1.0, 2.2 has no characters U+FFFE and U+FFFF.
    let is_none = |sign: char| is_control(sign) || matches!(sign, '\u{fffe}' | '\u{ffff}');
    !text.trim().is_empty() && !text.contains(is_none)
}

/// The URI that names a system of identifiers.
///
/// Holding one is the proof that it is absolute (RFC 3986, 4.3) and without blanks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct SystemUri(String);

/// Why a text names no system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the system of identifiers is an absolute URI without blanks, such as `urn:oid:1.2.3` or `https://…`")]
pub struct SystemUriError;

impl SystemUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// If it is not absolute, has blanks or control characters, or is too long.
    pub fn parse(text: &str) -> Result<Self, SystemUriError> {
        let (scheme, rest) = text.split_once(':').ok_or(SystemUriError)?;
        let is_scheme = scheme.starts_with(|sign: char| sign.is_ascii_alphabetic())
            && scheme.chars().all(|sign| sign.is_ascii_alphanumeric() || "+-.".contains(sign));
        let is_rest = !rest.is_empty() && is_text(rest) && !rest.contains(char::is_whitespace);
        let fits = text.len() <= MAX_SYSTEM_BYTES;
        (is_scheme && is_rest && fits).then(|| Self(text.to_owned())).ok_or(SystemUriError)
    }

    /// The URI as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SystemUri {
    type Error = SystemUriError;

    fn try_from(text: String) -> Result<Self, SystemUriError> {
        Self::parse(&text)
    }
}

/// An identifier with its system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentifier {
    /// The system.
    pub system: SystemUri,
    /// The number.
    pub value: String,
}

impl From<SystemIdentifier> for Identifier {
    fn from(identifier: SystemIdentifier) -> Self {
        Self { system: Some(identifier.system.0), value: identifier.value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_no_control_characters_and_a_system_is_absolute() {
        for (text, is_one) in [
            ("Ana\tMaría\r\n", true),
            ("", false),
            (" \t", false),
            ("a\0", false),
            ("a\u{b}", false),
            ("a\u{1f}", false),
            ("a\u{85}", false),
            ("a\u{ffff}", false),
        ] {
            assert_eq!(is_text(text), is_one, "{text:?}");
        }
        for (uri, is_one) in [
            ("urn:oid:1.2.3", true),
            ("https://hub.example.org/people", true),
            ("dni", false),
            ("1a:b", false),
            ("urn:", false),
            ("urn:a b", false),
            (":x", false),
            (&format!("urn:{}", "x".repeat(300)), false),
        ] {
            assert_eq!(SystemUri::parse(uri).is_ok(), is_one, "{uri}");
        }
    }
}
