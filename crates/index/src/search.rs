//! How a store finds the persons whom a query may mean, without looking at all of them.
//!
//! The one rule: a person whom [`Query::rank`] accepts has a key of every way to find it that is complete. So a store
//! takes the way that finds the fewest, and ranks whom it finds. Numbers of keys never change their meaning: another way
//! to make them needs another [`WORDS_VERSION`](crate::words::WORDS_VERSION).
//!
//! | kind | made of |
//! |---|---|
//! | 33 | a word of the name, and its standard spelling |
//! | 34 | two words of the name in their standard spelling, in any order |
//! | 35 | a word of the name in its standard spelling, and the year of birth |
//! | 36, 37, 38 | date of birth to the day, month and year |
//! | 39 | gender |
//! | 40 | the id of the record, or an identifier |
//! | 41 | the beginning of the id of the record |
//! | 42 | the last digits of a telephone number |
//! | 43 | nothing: the person has more words than kinds 34 and 35 are made of |

use crate::fold::{BirthDate, FoldedGender, FoldedName, FoldedPerson, NameWord, folded_code, is_particle};
use crate::keys::KeyHash;
use crate::query::{Query, QueryPart};
use crate::words::search_words;

/// Words of each name that are combined with others.
const COMBINED: usize = 4;
/// Lengths of the beginnings of ids that are keys.
const BEGINNINGS: [usize; 3] = [4, 6, 9];
/// Digits of a telephone number that are a key: the fewest that find one.
const LAST_DIGITS: usize = 6;
/// The most keys of one way.
const MAX_KEYS_OF_A_WAY: usize = 128;

/// The words of a vocabulary that a part of a query finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundWords {
    /// The words.
    pub words: Vec<String>,
    /// Whether these are all.
    pub is_complete: bool,
}

/// A way to find the persons of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchWay {
    /// Persons with one of these are meant before those with one of `others`.
    pub keys: Vec<u64>,
    /// Further keys.
    pub others: Vec<u64>,
    /// Whether everybody whom the query means has one of the keys.
    pub is_complete: bool,
    /// The parts of the query that it stands for.
    pub parts: Vec<usize>,
    /// How common its keys usually are: the least is the rarest.
    commonness: u8,
}

impl SearchWay {
    /// A way by keys alone, for one part of a search.
    #[must_use]
    pub fn of_keys(keys: Vec<u64>, is_complete: bool, part: usize) -> Self {
        Self { keys, others: Vec::new(), is_complete, parts: vec![part], commonness: 0 }
    }
}

/// The key of a word, as a store keeps it for persons and looks for it.
#[must_use]
pub fn word_key(word: &str) -> u64 {
    KeyHash::new(33).text(word).end()
}

/// The number of a deletion of a word, under which a vocabulary finds the word.
#[must_use]
pub fn deletion_key(text: &str) -> u64 {
    KeyHash::new(44).text(text).end()
}

/// The key of an identifier or of an id. None if it has no letters or digits.
#[must_use]
pub fn code_key(text: &str) -> Option<u64> {
    let code = folded_code(text);
    (!code.is_empty()).then(|| KeyHash::new(40).text(&code).end())
}

/// The key of a telephone number by its last digits. None if it is too short to be one.
#[must_use]
pub fn phone_key(text: &str) -> Option<u64> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let last = digits.get(digits.len().checked_sub(LAST_DIGITS)?..)?;
    Some(KeyHash::new(42).text(last).end())
}

/// The key of a date of birth in whole or in part.
#[must_use]
pub fn birth_key(birth: BirthDate) -> u64 {
    let year = KeyHash::new(if birth.is_whole() {
        36
    } else if birth.month().is_some() {
        37
    } else {
        38
    });
    let known = if birth.month().is_none() { birth.number() / 10_000 } else { birth.number() };
    year.number(known).end()
}

/// The keys by which a person is found, in ascending order, each once; `words` are those of its names.
#[must_use]
pub fn search_keys(id: &str, person: &FoldedPerson, words: &[String]) -> Vec<u64> {
    let mut keys: Vec<u64> = words.iter().map(|word| word_key(word)).collect();
    let combined = |name: &FoldedName| -> Vec<String> {
        name.words().iter().take(COMBINED).map(|word| word.standard().to_owned()).collect()
    };
    let mut names = combined(&person.given);
    names.extend(combined(&person.family));
    for (at, one) in names.iter().enumerate() {
        keys.extend(names.iter().skip(at + 1).map(|other| pair_key(one, other)));
        keys.extend(person.birth.map(|birth| year_key(one, birth)));
    }
    if person.given.words().len().max(person.family.words().len()) > COMBINED {
        keys.push(many_words_key());
    }
    keys.extend(person.birth.into_iter().flat_map(BirthDate::with_parts).map(birth_key));
    keys.extend(person.gender.map(gender_key));
    let code = folded_code(id);
    keys.extend(code_key(&code));
    let beginnings = BEGINNINGS.into_iter().filter_map(|length| code.get(..length));
    keys.extend(beginnings.map(|begin| KeyHash::new(41).text(begin).end()));
    keys.extend(person.identifiers.iter().filter_map(|identifier| code_key(&identifier.value)));
    keys.extend(person.phones.iter().filter_map(|phone| phone_key(phone)));
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// The words of a person's names, as a vocabulary has them.
#[must_use]
pub fn words_of(person: &FoldedPerson) -> Vec<String> {
    search_words(person).into_iter().map(str::to_owned).collect()
}

fn pair_key(one: &str, other: &str) -> u64 {
    let (first, last) = if one <= other { (one, other) } else { (other, one) };
    KeyHash::new(34).text(first).text(last).end()
}

fn year_key(word: &str, birth: BirthDate) -> u64 {
    KeyHash::new(35).text(word).number(birth.year().into()).end()
}

fn gender_key(gender: FoldedGender) -> u64 {
    KeyHash::new(39).number(gender as u64).end()
}

fn many_words_key() -> u64 {
    KeyHash::new(43).end()
}

/// The ways to find the persons of a query, the usually rarest first. `words` are those that each part finds.
#[must_use]
pub fn ways(query: &Query, words: &[FoundWords]) -> Vec<SearchWay> {
    let parts: Vec<(usize, &QueryPart, &FoundWords)> = query
        .parts()
        .iter()
        .zip(words)
        .enumerate()
        .filter(|(_, (part, _))| !part.is_optional)
        .map(|(at, (part, words))| (at, part, words))
        .collect();
    let mut ways: Vec<SearchWay> = parts.iter().map(|(at, part, words)| single(*at, part, words)).collect();
    for (place, (at, part, words)) in parts.iter().enumerate() {
        for (other_at, other, other_words) in parts.iter().skip(place + 1) {
            ways.extend(pair((*at, part, words), (*other_at, other, other_words)));
        }
        for (other_at, dated, dated_words) in &parts {
            let Some(birth) = dated.birth.filter(|birth| birth.month().is_none() && other_at != at) else { continue };
            let with_year = |word: &NameWord| Some(year_key(word.standard(), birth));
            let Some(keys) = combined_keys(part, words, with_year) else { continue };
            let mut others = other_keys(part);
            others.extend(other_keys(&QueryPart { birth: None, ..(*dated).clone() }));
            others.extend(dated_words.words.iter().map(|word| word_key(word)));
            others.push(many_words_key());
            let is_complete = words.is_complete && dated_words.is_complete;
            ways.push(SearchWay { keys, others, is_complete, parts: vec![*at, *other_at], commonness: 3 });
        }
    }
    ways.retain(|way| way.keys.len() + way.others.len() <= MAX_KEYS_OF_A_WAY);
    ways.sort_by_key(|way| (!way.is_complete, way.commonness));
    ways
}

/// One part in all its readings.
fn single(at: usize, part: &QueryPart, words: &FoundWords) -> SearchWay {
    let mut keys = Vec::new();
    if let Some(word) = &part.word {
        keys.extend([word.text(), word.standard()].map(word_key));
    }
    keys.extend(other_keys(part));
    let mut others: Vec<u64> = words.words.iter().map(|word| word_key(word)).collect();
    keys.sort_unstable();
    keys.dedup();
    others.retain(|key| !keys.contains(key));
    let commonness = match (part.birth, part.gender) {
        (Some(birth), _) if birth.is_whole() => 1,
        (Some(birth), _) if birth.month().is_some() => 4,
        (Some(_), _) => 6,
        (None, Some(_)) => 7,
        (None, None) if part.code.bytes().any(|sign| sign.is_ascii_digit()) => 0,
        (None, None) => 5,
    };
    SearchWay { keys, others, is_complete: words.is_complete, parts: vec![at], commonness }
}

/// Two words of one person.
fn pair(
    (at, one, words): (usize, &QueryPart, &FoundWords),
    (other_at, other, other_words): (usize, &QueryPart, &FoundWords),
) -> Option<SearchWay> {
    let mut keys = Vec::new();
    for second in combinable(other, other_words)? {
        keys.extend(combined_keys(one, words, |word| Some(pair_key(word.standard(), second.standard())))?);
    }
    keys.sort_unstable();
    keys.dedup();
    let mut others = other_keys(one);
    others.extend(other_keys(other));
    others.push(many_words_key());
    let is_complete = words.is_complete && other_words.is_complete;
    Some(SearchWay { keys, others, is_complete, parts: vec![at, other_at], commonness: 2 })
}

fn combined_keys(part: &QueryPart, words: &FoundWords, key: impl Fn(&NameWord) -> Option<u64>) -> Option<Vec<u64>> {
    Some(combinable(part, words)?.iter().filter_map(key).collect())
}

/// The words that a part may find, if all of them are combined with others: particles are not.
fn combinable(part: &QueryPart, words: &FoundWords) -> Option<Vec<NameWord>> {
    let typed = part.word.clone()?;
    let mut found = vec![typed];
    for word in &words.words {
        if is_particle(word) {
            return None;
        }
        if found.iter().all(|known| known.text() != word) {
            found.push(NameWord::of_letters(word));
        }
    }
    (found.len() <= MAX_KEYS_OF_A_WAY).then_some(found)
}

/// The keys of a part in its readings besides words, as [`Query::rank`] reads them.
fn other_keys(part: &QueryPart) -> Vec<u64> {
    let code = part.code.as_ref();
    let mut keys = Vec::new();
    keys.extend(part.birth.map(birth_key));
    keys.extend(part.gender.map(gender_key));
    keys.extend(code_key(code));
    if code.bytes().all(|sign| sign.is_ascii_digit()) {
        keys.extend(phone_key(code));
    }
    let begin = BEGINNINGS.into_iter().rev().find_map(|length| code.get(..length));
    keys.extend(begin.map(|begin| KeyHash::new(41).text(begin).end()));
    keys
}

#[cfg(test)]
mod tests;
