//! A name as a list of words, with its particles kept apart.

use super::word::{NameWord, folded_words};

/// Words that join names and tell few people apart.
const PARTICLES: [&str; 46] = [
    "a", "abd", "abu", "al", "am", "ap", "ar", "as", "at", "az", "ben", "bin", "bint", "da", "das", "de", "degli",
    "dei", "del", "della", "den", "der", "des", "di", "do", "dos", "du", "e", "el", "ibn", "ik", "la", "las", "le",
    "los", "mc", "o", "san", "te", "ter", "und", "van", "von", "y", "zu", "zum",
]; // rustfmt keeps several to a line

/// Whether a folded word joins names.
pub(crate) fn is_particle(word: &str) -> bool {
    PARTICLES.binary_search(&word).is_ok()
}

/// A name: its words in their order, and its particles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldedName {
    words: Box<[NameWord]>,
    particles: Box<[NameWord]>,
    /// Empty if there is one word alone.
    joined: Box<str>,
}

impl FoldedName {
    /// Folds a name.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self::of_letters(folded_words(text).iter().map(String::as_str))
    }

    /// The name of folded words.
    pub(super) fn of_letters<'a>(folded: impl Iterator<Item = &'a str>) -> Self {
        let (mut particles, mut words) = (Vec::new(), Vec::new());
        for letters in folded {
            if is_particle(letters) { &mut particles } else { &mut words }.push(NameWord::of_letters(letters));
        }
        // A name of particles alone is a name all the same: `Van`, `Ben`, `San`.
        if words.is_empty() {
            std::mem::swap(&mut words, &mut particles);
        }
        let joined = match words.as_slice() {
            [] | [_] => String::new(),
            _ => words.iter().map(NameWord::text).collect(),
        };
        Self { words: words.into(), particles: particles.into(), joined: joined.into() }
    }

    /// The words that tell people apart. Empty if the name is missing.
    #[must_use]
    pub fn words(&self) -> &[NameWord] {
        &self.words
    }

    /// All words, particles last.
    pub fn all(&self) -> impl Iterator<Item = &NameWord> {
        self.words.iter().chain(&self.particles)
    }

    /// The words without spaces, so that `Mac Donald` is `Macdonald`.
    #[must_use]
    pub fn joined(&self) -> &str {
        match &*self.words {
            [word] => word.text(),
            _ => &self.joined,
        }
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.words.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[NameWord]) -> Vec<&str> {
        words.iter().map(NameWord::text).collect()
    }

    #[test]
    fn particles_are_kept_apart_and_not_lost() {
        for (name, words, particles) in [
            ("de la Cruz", &["cruz"][..], &["de", "la"][..]),
            ("García y López", &["garcia", "lopez"], &["y"]),
            ("dos Santos Silva", &["santos", "silva"], &["dos"]),
            ("Al-Hassan", &["hassan"], &["al"]),
            ("bin Laden", &["laden"], &["bin"]),
            ("van der Berg", &["berg"], &["van", "der"]),
            ("Van", &["van"], &[]),
            ("De La", &["de", "la"], &[]),
        ] {
            let folded = FoldedName::of(name);
            assert_eq!(
                (texts(&folded.words), texts(&folded.particles)),
                (words.to_vec(), particles.to_vec()),
                "{name}"
            );
        }
    }

    #[test]
    fn the_list_of_particles_is_in_the_order_that_it_is_searched_in() {
        assert!(PARTICLES.is_sorted());
    }

    #[test]
    fn names_written_apart_are_joined() {
        assert_eq!(FoldedName::of("Mac Donald").joined(), FoldedName::of("MacDonald").joined());
        assert!(FoldedName::of(" - ").is_missing());
    }
}
