//! Guarded names, and their comparison with a name that arrives character by character.
//!
//! Letters are compared without regard to case, because some services (in Go and .NET) do the same when they read
//! members. For them `Roles` is `roles`, and so is `roleſ`: U+017F folds to `s`, and U+212A to `k`.

use std::sync::Arc;

/// The most names that one route can look for: one bit each.
pub const MAX_NAMES: usize = 64;

/// Names of members, folded; at most [`MAX_NAMES`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldedNames(Box<[Box<[char]>]>);

impl FoldedNames {
    /// Takes the names in order; none if there are more than [`MAX_NAMES`].
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let names: Box<[_]> = names.into_iter().map(|name| name.chars().map(fold).collect()).collect();
        (names.len() <= MAX_NAMES).then_some(Self(names))
    }

    fn all(&self) -> u64 {
        match self.0.len() {
            MAX_NAMES.. => u64::MAX,
            length => (1 << length) - 1,
        }
    }
}

fn fold(character: char) -> char {
    match character {
        // By simple case folding, only these two characters outside ASCII fold to ASCII letters.
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

/// Whether two names are the same without regard to case.
pub(crate) fn equal_folded(known: &str, name: &str) -> bool {
    known.chars().map(fold).eq(name.chars().map(fold))
}

/// Compares one name at a time, against all [`FoldedNames`] at once: one bit for each.
pub(super) struct NameMatcher {
    names: Arc<FoldedNames>,
    /// The names that begin with the characters so far.
    alive: u64,
    /// How many characters have come.
    length: usize,
}

impl NameMatcher {
    pub(super) fn new(names: Arc<FoldedNames>) -> Self {
        Self { names, alive: 0, length: 0 }
    }

    /// Starts a name.
    pub(super) fn begin(&mut self) {
        (self.alive, self.length) = (self.names.all(), 0);
    }

    /// Whether the characters so far may still become one of the names.
    pub(super) fn is_open(&self) -> bool {
        self.alive != 0
    }

    /// Takes the next character.
    pub(super) fn push(&mut self, character: char) {
        if self.alive == 0 {
            return;
        }
        let character = fold(character);
        self.keep(|name, length| name.get(length) == Some(&character));
        self.length += 1;
    }

    /// Takes something that is not a character: the name can match nothing from here on.
    pub(super) fn stray(&mut self) {
        self.alive = 0;
    }

    /// Ends the name, and returns the names that it equals.
    pub(super) fn end(&mut self) -> u64 {
        self.keep(|name, length| name.len() == length);
        std::mem::take(&mut self.alive)
    }

    fn keep(&mut self, fits: impl Fn(&[char], usize) -> bool) {
        let mut left = self.alive;
        while left != 0 {
            let at = left.trailing_zeros();
            left &= left - 1;
            if !self.names.0.get(at as usize).is_some_and(|name| fits(name, self.length)) {
                self.alive &= !(1 << at);
            }
        }
    }
}
