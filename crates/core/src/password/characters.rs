//! The characters of a password: which passwords may be set, and the form in which one is hashed.
//!
//! The one rule: a letter has one spelling in a hash. A keyboard writes `é` as one character or as `e` with an accent,
//! and RFC 7617 (2.1) and RFC 8265 (4.2, `OpaqueString`) take both for the same. The decision needs one hash: a second
//! one for each wrong password would double the cost of guesses for this side, and show in the time of the answer.

use unicode_normalization::{UnicodeNormalization, is_nfc};
use zeroize::Zeroizing;

use crate::escape::is_unseen;

/// Whether a password can be used to sign in. No sign-in accepts a line break or NUL (RFC 7617, 2), though a form, a
/// file or a script can set one.
pub fn can_sign_in(password: &[u8]) -> bool {
    !password.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
}

/// Whether a password is blanks alone, of any script, or characters that are not seen. Such a password still signs in
/// where it was set before; it is not set any more.
pub fn is_blank(password: &[u8]) -> bool {
    let mut chars = std::str::from_utf8(password).unwrap_or("?").chars();
    chars.all(|c| c.is_whitespace() || is_unseen(c))
}

/// The form that a new argon2id hash is made of: every blank is U+0020, and the text is in normalization form C. Bytes
/// that are not UTF-8 stay as they are.
pub(super) fn prepared(password: &[u8]) -> Zeroizing<Vec<u8>> {
    match std::str::from_utf8(password) {
        Ok(text) if !is_prepared_text(text) => {
            // With room for the longest form C of a text: growing would leave copies that nothing wipes.
            let mut prepared = String::with_capacity(text.len().saturating_mul(3));
            prepared.extend(text.chars().map(|c| if is_other_space(c) { ' ' } else { c }).nfc());
            Zeroizing::new(prepared.into_bytes())
        }
        Ok(_) | Err(_) => Zeroizing::new(password.to_vec()),
    }
}

/// Whether [`prepared`] leaves a password as it is.
pub(super) fn is_prepared(password: &[u8]) -> bool {
    std::str::from_utf8(password).map_or(true, is_prepared_text)
}

fn is_prepared_text(text: &str) -> bool {
    text.is_ascii() || (is_nfc(text) && !text.contains(is_other_space))
}

/// The blanks of Unicode (general category `Zs`) but U+0020.
fn is_other_space(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_of_every_script_are_blank_and_one_letter_ends_that() {
        for blank in ["", " ", "      ", "\t \u{a0}\u{3000}", "\u{2003}\u{200b}\u{feff}", "\u{2800}\u{3164}\u{ad}"] {
            assert!(is_blank(blank.as_bytes()), "{blank:?}");
        }
        for other in ["     .", "a     ", "\u{3000}氏\u{3000}"] {
            assert!(!is_blank(other.as_bytes()), "{other:?}");
        }
        assert!(!is_blank(b"\xff\xff\xff"));
    }

    #[test]
    fn a_letter_has_one_spelling() {
        #[rustfmt::skip]
        let cases = [
            ("plain ASCII",     "plain ASCII"),
            ("cafe\u{301}",     "café"),
            ("e\u{302}\u{301}", "\u{1ebf}"),
            ("\u{ea}\u{301}",   "\u{1ebf}"),
            ("\u{1112}\u{1161}", "\u{d558}"),
            ("a\u{a0}b\u{3000}c", "a b c"),
            ("\u{fb01}\u{ff21}", "\u{fb01}\u{ff21}"),
        ];
        for (sent, expected) in cases {
            assert_eq!(&*prepared(sent.as_bytes()), expected.as_bytes(), "{sent:?}");
            assert_eq!(is_prepared(sent.as_bytes()), sent == expected, "{sent:?}");
            assert_eq!(&*prepared(expected.as_bytes()), expected.as_bytes(), "twice is as once");
        }
        assert_eq!(&*prepared(b"\xff\xcc\x81"), b"\xff\xcc\x81");
    }
}
