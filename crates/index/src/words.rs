//! The words by which a record is found, and how a typed word finds them.
//!
//! The one rule: a typed word finds a word of a name that is the same, begins with it, is another spelling of it, or
//! differs by one typing error. A store keeps [`search_words`] of each record. It finds exact words and prefixes in its
//! index. For typing errors it keeps [`deletions`] of its vocabulary (each different word once, not of each record), and
//! checks with [`find`].

use crate::compare::distance;
use crate::fold::{FoldedPerson, NameWord};

/// The version of the words and deletions. It changes with any change of them.
pub const WORDS_VERSION: u32 = 1;
/// From this many letters on, a typed word may have one error.
pub const LEAST_LETTERS_FOR_AN_ERROR: usize = 4;

/// How a typed word found a word. The first is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WordMatch {
    /// The same word.
    Exact,
    /// Another spelling of the same name: `Mohamed` for `Muhammad`.
    Spelling,
    /// The begin of the word.
    Prefix,
    /// The word with one error: a letter too many, too few, another one, or two exchanged.
    Error,
}

impl WordMatch {
    /// All kinds, the best first.
    pub const ALL: [Self; 4] = [Self::Exact, Self::Spelling, Self::Prefix, Self::Error];

    /// The name of the kind, for answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Spelling => "spelling",
            Self::Prefix => "prefix",
            Self::Error => "error",
        }
    }
}

/// The words by which a record is found, in ascending order, each once: those of its names, and their standard spelling.
#[must_use]
pub fn search_words(person: &FoldedPerson) -> Vec<&str> {
    let names = person.given.all().chain(person.family.all());
    let mut words: Vec<&str> = names.flat_map(|word| [word.text(), word.standard()]).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// How a typed word finds a word of a record.
#[must_use]
pub fn find(typed: &NameWord, word: &NameWord) -> Option<WordMatch> {
    let (text, known) = (typed.text(), word.text());
    if text == known {
        Some(WordMatch::Exact)
    } else if typed.standard() == word.standard() {
        Some(WordMatch::Spelling)
    } else if known.starts_with(text) {
        Some(WordMatch::Prefix)
    } else {
        let may_err = text.len() >= LEAST_LETTERS_FOR_AN_ERROR;
        (may_err && distance(text, known, 1).is_some()).then_some(WordMatch::Error)
    }
}

/// The same for a word as a vocabulary has it.
#[must_use]
pub fn find_text(typed: &NameWord, word: &str) -> Option<WordMatch> {
    find(typed, &NameWord::of_letters(word))
}

/// The word, and the word without each of its letters: at most 33 texts, each once, in ascending order.
///
/// Two words that differ by one error share at least one of them. Some that share one differ by more, so [`find`] decides.
///
/// ```
/// use fedgate_index::words::deletions;
///
/// assert_eq!(deletions("ruiz"), ["riz", "rui", "ruiz", "ruz", "uiz"]);
/// let (right, wrong) = (deletions("smith"), deletions("smiht"));
/// assert!(right.iter().any(|text| wrong.contains(text)));
/// ```
#[must_use]
pub fn deletions(word: &str) -> Vec<String> {
    let without = |at: usize| word.char_indices().filter(|(place, _)| *place != at).map(|(_, sign)| sign).collect();
    let mut texts: Vec<String> = word.char_indices().map(|(at, _)| without(at)).collect();
    texts.push(word.to_owned());
    texts.sort_unstable();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Demographics;
    use crate::fold::FoldedName;

    fn word(text: &str) -> NameWord {
        FoldedName::of(text).words()[0].clone()
    }

    #[test]
    fn a_typed_word_finds_words_in_four_ways() {
        for (typed, known, found) in [
            ("garcia", "García", Some(WordMatch::Exact)),
            ("mohamed", "Muhammad", Some(WordMatch::Spelling)),
            ("gar", "García", Some(WordMatch::Prefix)),
            ("g", "García", Some(WordMatch::Prefix)),
            ("gracia", "García", Some(WordMatch::Error)),
            ("garciia", "García", Some(WordMatch::Error)),
            ("garca", "García", Some(WordMatch::Error)),
            ("gerard", "Gerald", Some(WordMatch::Error)),
            ("eva", "Ana", None),
            ("ama", "Ana", None),
            ("anna", "Ana", Some(WordMatch::Error)),
            ("grcai", "García", None),
        ] {
            assert_eq!(find(&word(typed), &word(known)), found, "{typed} {known}");
        }
    }

    #[test]
    fn words_of_one_error_share_a_deletion() {
        let words =
            ["garcia", "gracia", "garca", "garciia", "marcia", "mercia", "arcia", "ruiz", "luiz", "ruzi", "riz"];
        for one in words {
            for other in words {
                let shares = deletions(one).iter().any(|text| deletions(other).contains(text));
                assert!(shares || distance(one, other, 1).is_none(), "{one} {other}");
            }
        }
        assert!(!deletions("garcia").contains(&"gia".to_owned()));
    }

    #[test]
    fn a_record_is_found_by_all_its_words_in_each_spelling() {
        let person = Demographics {
            given: Some("Mohamed José".into()),
            family: Some("de la Cruz-José".into()),
            ..Default::default()
        };
        let person = FoldedPerson::of(&person);
        assert_eq!(search_words(&person), ["cruz", "de", "jose", "la", "mohamed", "muhammad"]);
    }
}
