//! How far two names agree.

use rapidfuzz::distance::jaro_winkler;

use super::distance;
use super::level::Level;
use crate::fold::{FoldedName, NameWord};

/// From this many letters on, two typing errors leave a word recognizable.
const LONG: usize = 6;
/// Jaro-Winkler similarities above which two names are near, and have some likeness.
const NEAR: f64 = 0.88;
const FAR: f64 = 0.7;

/// Compares two names. Costs at most 64 comparisons of words.
pub(super) fn level(one: &FoldedName, other: &FoldedName) -> Level {
    if one.is_missing() || other.is_missing() {
        return Level::Missing;
    }
    if one.joined() == other.joined() {
        return Level::Same;
    }
    let (short, long) = if one.words().len() <= other.words().len() { (one, other) } else { (other, one) };
    let is_several = long.words().len() > 1;
    let shared = shared_words(short.words(), long.words(), |word, known| word.standard() == known.standard());
    if shared == short.words().len() {
        let is_spelled_alike = shared_words(short.words(), long.words(), |word, known| word.text() == known.text());
        return match (short.words().len() == long.words().len(), is_spelled_alike == shared) {
            (true, true) => Level::Same,
            (true, false) => Level::Sound,
            (false, _) => Level::Part,
        };
    }
    let errors = distance(one.joined(), other.joined(), 2);
    let letters = one.joined().len().min(other.joined().len());
    if errors == Some(1) && letters >= 3 {
        return Level::Close;
    }
    if is_several {
        if let Some(level) = of_several(short.words(), long.words(), shared) {
            return level;
        }
    } else if same_sound(short.words(), long.words()) {
        return Level::Sound;
    }
    if errors == Some(2) && letters >= LONG {
        return Level::Near;
    }
    of_likeness(one.joined(), other.joined())
}

/// Names of several words: each word for itself.
fn of_several(short: &[NameWord], long: &[NameWord], shared: usize) -> Option<Level> {
    let alike = shared_words(short, long, |word, known| {
        word.standard() == known.standard()
            || sounds_like(word, known)
            || (word.text().len() >= 4 && distance(word.text(), known.text(), 1).is_some())
    });
    match (alike == short.len(), short.len() == long.len()) {
        (true, true) => Some(Level::Close),
        (true, false) => Some(Level::Near),
        (false, _) if shared > 0 => Some(Level::Overlap),
        (false, _) => None,
    }
}

fn of_likeness(one: &str, other: &str) -> Level {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    if long.starts_with(short) {
        return if short.len() < 3 { Level::Initial } else { Level::Near };
    }
    match jaro_winkler::similarity(one.bytes(), other.bytes()) {
        likeness if likeness >= NEAR => Level::Near,
        likeness if likeness >= FAR => Level::Far,
        _ => Level::Different,
    }
}

/// How many words of one list have a partner of their own in the other.
fn shared_words(short: &[NameWord], long: &[NameWord], is_pair: impl Fn(&NameWord, &NameWord) -> bool) -> usize {
    let mut taken = 0_u32;
    let mut shared = 0;
    for word in short {
        let partner = (0_u32..).zip(long).find(|(at, known)| taken & (1 << at) == 0 && is_pair(word, known));
        if let Some((at, _)) = partner {
            taken |= 1 << at;
            shared += 1;
        }
    }
    shared
}

fn same_sound(short: &[NameWord], long: &[NameWord]) -> bool {
    short.len() == long.len() && short.iter().zip(long).all(|(word, known)| sounds_like(word, known))
}

fn sounds_like(word: &NameWord, known: &NameWord) -> bool {
    word.sound() == known.sound() && !word.sound().is_short()
}
