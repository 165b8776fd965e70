//! The test of a text: its beginning, any part of it, or the whole of it (R4, 3.1.1.4.8).

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// One test of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextTest {
    /// The text, or one of its words, begins with this; case and accents do not count.
    Begins(String),
    /// The text has this somewhere (`:contains`); case and accents do not count.
    Contains(String),
    /// The text is this (`:exact`); case and accents count.
    Is(String),
}

impl TextTest {
    /// A test by the modifier of its parameter. `None` if the modifier is not one of texts, or if nothing is left of
    /// the value, as of accents alone: everybody's name begins with nothing.
    pub(super) fn of(modifier: Option<&str>, value: &str) -> Option<Self> {
        let plain = folded(value);
        match modifier {
            _ if plain.is_empty() => None,
            None => Some(Self::Begins(plain)),
            Some("contains") => Some(Self::Contains(plain)),
            Some("exact") => Some(Self::Is(value.nfc().collect())),
            Some(_) => None,
        }
    }

    /// Whether a text fulfils it.
    #[must_use]
    pub fn accepts(&self, text: &str) -> bool {
        match self {
            // People with two surnames are looked for by either, so each word is a beginning. Two names with a hyphen
            // between them are two words, as they are to the index.
            Self::Begins(begin) => {
                let text = folded(text);
                let mut before = None;
                text.char_indices().any(|(at, sign)| {
                    let is_word = before.replace(sign).is_none_or(|before| !before.is_alphanumeric());
                    is_word && text.get(at..).is_some_and(|rest| rest.starts_with(begin.as_str()))
                })
            }
            Self::Contains(part) => folded(text).contains(part.as_str()),
            Self::Is(whole) => text.nfc().eq(whole.chars()),
        }
    }
}

/// A text without case, accents, and blanks around it. Blanks within it are single.
fn folded(text: &str) -> String {
    let plain: String = text.nfkd().filter(|sign| !is_combining_mark(*sign)).flat_map(char::to_lowercase).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PDQm, 2:3.78.4.1.2.2: `:exact` on every string parameter.
    #[test]
    fn a_text_is_tested_by_its_beginning_a_part_or_the_whole() {
        #[rustfmt::skip]
        let cases = [
            // modifier         value         text              accepted
            (None,              "gar",        "García Pérez",   true),
            (None,              "GARCÍA",     "García Pérez",   true),
            (None,              "perez",      "García Pérez",   true),
            (None,              "garcia  pe", "García Pérez",   true),
            (None,              "arcia",      "García Pérez",   false),
            (None,              "perez",      "García-Pérez",   true),
            (None,              "neil",       "O'Neil",         true),
            (None,              "garcía-pér", "García-Pérez",   true),
            (None,              "érez",       "García-Pérez",   false),
            (None,              "a a",        "xa a a",         true),
            (None,              "-pérez",     "García-Pérez",   false),
            (None,              "García",     "Garc",           false),
            (Some("contains"),  "ARCIA P",    "García Pérez",   true),
            (Some("contains"),  "x",          "García Pérez",   false),
            (Some("exact"),     "García",     "García",         true),
            (Some("exact"),     "Garci\u{301}a", "García",      true),
            (Some("exact"),     "garcía",     "García",         false),
            (Some("exact"),     "Garcia",     "García",         false),
            (Some("exact"),     "García",     "García Pérez",   false),
        ];
        for (modifier, value, text, accepted) in cases {
            let test = TextTest::of(modifier, value).unwrap();
            assert_eq!(test.accepts(text), accepted, "{modifier:?} {value} {text}");
        }
        assert_eq!(TextTest::of(Some("text"), "x"), None);
        for nothing in ["", " ", "\u{301}", " \u{301}\u{308} "] {
            for modifier in [None, Some("contains"), Some("exact")] {
                assert_eq!(TextTest::of(modifier, nothing), None, "{nothing:?}");
            }
        }
    }
}
