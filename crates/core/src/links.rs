//! The words of links and relations: names of other systems, ids in them, and kinds of relations.
//!
//! The one rule: a word has one spelling. A name of a system or a kind is lower-case ASCII, and an id is compared byte
//! for byte, so each of its characters can be seen.
//!
//! The operator's commands and the configuration of routes call it. The database checks the same bounds.

use thiserror::Error;

use crate::escape;

/// The longest name of a system or kind, in bytes.
pub const MAX_WORD_BYTES: usize = 32;
/// The longest id in another system, in bytes.
pub const MAX_LINKED_ID_BYTES: usize = 256;
/// The most links of one account.
pub const MOST_LINKS: usize = 64;
/// The most relations of one account that have not run out.
pub const MOST_RELATIONS: usize = 256;

/// Why a word cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LinkWordError {
    /// The name of a system, or a kind.
    #[error(
        "`{}` is no {what}; it has 1 to {MAX_WORD_BYTES} lower-case letters, digits and `-`, and does not begin with `-`",
        escape::name(.word)
    )]
    Word {
        /// What it should be.
        what: &'static str,
        /// What it is.
        word: String,
    },
    /// An id in another system.
    #[error(
        "`{}` is no id in another system; it has 1 to {MAX_LINKED_ID_BYTES} bytes, each of its characters can be seen, \
         and it neither begins nor ends with a blank",
        escape::name(.0)
    )]
    Id(String),
}

/// The name of a system, such as `fhir`.
///
/// # Errors
/// It has another spelling.
pub fn parse_system(text: &str) -> Result<&str, LinkWordError> {
    parse_word("name of a system", text)
}

/// The kind of a relation, such as `guardian`.
///
/// # Errors
/// It has another spelling.
pub fn parse_kind(text: &str) -> Result<&str, LinkWordError> {
    parse_word("kind of a relation", text)
}

fn parse_word<'t>(what: &'static str, text: &'t str) -> Result<&'t str, LinkWordError> {
    let is_of_words = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_word = (1..=MAX_WORD_BYTES).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(is_of_words);
    if is_word { Ok(text) } else { Err(LinkWordError::Word { what, word: text.to_owned() }) }
}

/// An id in another system, such as `Patient/123`.
///
/// # Errors
/// It is empty or too long, or has characters that nobody sees.
pub fn parse_linked_id(text: &str) -> Result<&str, LinkWordError> {
    let is_seen = !text.contains(escape::is_unseen) && text.trim() == text;
    let is_id = (1..=MAX_LINKED_ID_BYTES).contains(&text.len()) && is_seen;
    if is_id { Ok(text) } else { Err(LinkWordError::Id(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_one_spelling_and_each_character_of_an_id_is_seen() {
        for word in ["fhir", "openmrs", "lab-2", "7", &"x".repeat(MAX_WORD_BYTES)] {
            assert_eq!((parse_system(word), parse_kind(word)), (Ok(word), Ok(word)));
        }
        for wrong in ["", "FHIR", "-a", "a b", "a_b", "é", "a.b", &"x".repeat(MAX_WORD_BYTES + 1)] {
            assert!(parse_system(wrong).is_err() && parse_kind(wrong).is_err(), "{wrong}");
        }
        for id in ["Patient/123", "ba5b5c36-0a1f-4a07-a7a9-4b2a3f1f5b3e", "urn:oid:1.2|7", "Ñandú 7", &"x".repeat(256)]
        {
            assert_eq!(parse_linked_id(id), Ok(id));
        }
        for wrong in ["", " a", "a ", "a\nb", "a\0", "a\u{202e}b", "a\u{200b}", "\u{7f}", &"x".repeat(257)] {
            assert!(parse_linked_id(wrong).is_err(), "{wrong:?}");
        }
    }
}
