//! Misleading names in a policy: misspelled ones, and ones spelled with characters that look like others.
//!
//! The one rule: this module only warns the operator. A decision never uses it, and compares names byte for byte.
//! Look-alikes follow Unicode Technical Standard 39, sections 4 and 5.1.

use std::collections::BTreeMap;

use unicode_security::{MixedScript, skeleton};

use crate::escape;

/// The longest name that is compared letter by letter, in bytes: the cost grows with its square.
const LONGEST: usize = 100;

/// Suggests a known name that differs from an unknown one only by case; empty if there is none.
pub fn hint<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let folded = unknown.to_lowercase();
    // The least of them, so that the hint is always the same.
    let alike = known.into_iter().filter(|known| known.to_lowercase() == folded).min();
    alike
        .map_or(String::new(), |known| format!(" (did you mean `{}`? names are compared exactly)", escape::name(known)))
}

/// As [`hint`]; failing that, suggests a known name that looks the same or differs by one or two letters.
pub fn suggestion<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let hint = hint(unknown, known.clone());
    if !hint.is_empty() || unknown.len() > LONGEST {
        return hint;
    }
    if let Some(same) = known.clone().into_iter().filter(|known| skeleton(known).eq(skeleton(unknown))).min() {
        return format!(" (did you mean `{}`? it looks the same, but has other letters)", escape::name(same));
    }
    // If half of its letters differ, it is another name.
    let most = (unknown.chars().count() / 2).min(2);
    let folded = unknown.to_lowercase();
    let near = known.into_iter().map(|known| (edits(&folded, &known.to_lowercase()), known));
    let nearest = near.filter(|(edits, _)| *edits <= most).min();
    nearest.map_or(String::new(), |(_, known)| format!(" (did you mean `{}`?)", escape::name(known)))
}

/// The invisible part of a name, if there is one; the words continue a sentence.
pub(super) fn oddity_of_name(name: &str) -> Option<&'static str> {
    if name != name.trim() {
        Some("has blanks around it")
    } else if name.contains(|c: char| escape::is_unseen(c) || (c.is_whitespace() && c != ' ')) {
        Some("has characters that are not seen")
    } else if !name.is_single_script() {
        Some("mixes letters of several scripts, some of which look alike")
    } else {
        None
    }
}

/// Names that look like an earlier one.
pub(super) fn look_alikes<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    let mut looks: BTreeMap<String, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for name in names.filter(|name| name.len() <= LONGEST) {
        if let Some(other) = looks.insert(skeleton(name).collect(), name) {
            found.push((name, other));
        }
    }
    found
}

/// The number of letters to insert, remove, replace or swap with a neighbour to turn one name into the other (Damerau,
/// Levenshtein; no letter is touched twice).
fn edits(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let at = |row: &[usize], place: usize| row.get(place).copied().unwrap_or(usize::MAX / 2);
    let (mut before, mut row): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=other.len()).collect());
    for (line, letter) in one.iter().enumerate() {
        let mut next = vec![line + 1];
        for (column, known) in other.iter().enumerate() {
            let replaced = at(&row, column) + usize::from(known != letter);
            let mut least = replaced.min(at(&row, column + 1) + 1).min(at(&next, column) + 1);
            let is_exchanged =
                line > 0 && column > 0 && one.get(line - 1) == Some(known) && other.get(column - 1) == Some(letter);
            if is_exchanged {
                least = least.min(at(&before, column - 1) + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_reported_with_the_likely_name() {
        let meant = |unknown: &str| suggestion(unknown, ["GET", "POST", "PATCH", "DELETE"]);
        assert_eq!(meant("GTE"), " (did you mean `GET`?)");
        assert_eq!(meant("PTACH"), " (did you mean `PATCH`?)");
        assert!(meant("get").contains("`GET`? names are compared exactly"));
        assert!(meant("G\u{415}T").contains("`GET`? it looks the same"));
        assert_eq!(meant("PUT"), "");
        assert_eq!(edits("abcdef", "badcfe"), 3);
        assert_eq!((edits("", "abc"), edits("abc", ""), edits("kitten", "sitting")), (3, 3, 3));
    }

    #[test]
    fn unseen_characters_of_a_name_are_reported() {
        let oddities = [
            ("nurse ", "blanks"),
            ("nur\u{200b}se", "not seen"),
            ("nur\u{a0}se", "not seen"),
            ("nurs\u{435}", "scripts"),
        ];
        for (name, says) in oddities {
            assert!(oddity_of_name(name).is_some_and(|said| said.contains(says)), "{name}");
        }
        for name in ["nurse", "head nurse", "médico", "медсестра", "看護師", "nurse_2", "ιατρός"] {
            assert_eq!(oddity_of_name(name), None, "{name}");
        }
        let (latin, cyrillic) = ("nurse", "nurs\u{435}");
        assert_eq!(look_alikes([latin, "root", cyrillic].into_iter()), [(cyrillic, latin)]);
    }
}
