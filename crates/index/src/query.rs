//! What somebody types to find a person, and how well a person fits.
//!
//! The one rule: every part of a query must fit, in whatever order the parts are. A part is a word of a name, a date of
//! birth in whole or in part, a gender, an id, or a telephone number; where it can be read in two ways, both count.
//! Particles (`de`, `al`) may be missing in the record.

use thiserror::Error;

use crate::compare::FieldName;
use crate::fold::{BirthDate, FoldedGender, FoldedPerson, NameWord, folded_code, folded_words, is_particle};
use crate::words::{WordMatch, find};

/// The most bytes and the most parts of a query.
pub const MAX_QUERY_BYTES: usize = 256;
/// The most parts of a query.
pub const MAX_QUERY_PARTS: usize = 8;
/// From this many signs on, the begin of an id is enough.
const LEAST_OF_AN_ID: usize = 4;

/// A query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    parts: Vec<QueryPart>,
}

/// A part of a query, in all its readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryPart {
    /// As a word of a name.
    pub word: Option<NameWord>,
    /// As a date of birth in whole or in part.
    pub birth: Option<BirthDate>,
    /// As a gender.
    pub gender: Option<FoldedGender>,
    /// As an id, an identifier or a telephone number: letters and digits.
    pub code: Box<str>,
    /// A particle, which a record need not have.
    pub is_optional: bool,
}

/// Why a text is no query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QueryError {
    /// Nothing to look for
    #[error("the query has no word, date or number")]
    Empty,
    /// Too long
    #[error("the query is longer than {MAX_QUERY_BYTES} bytes, or has more than {MAX_QUERY_PARTS} parts")]
    TooLong,
}

/// How well a person fits: the higher, the better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rank {
    /// The sum over the parts.
    pub score: u32,
    /// What each part has found, in the order of the query. Particles that the record lacks are left out.
    pub found: Vec<Found>,
}

/// What a part of a query has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The place of the part in the query.
    pub part: usize,
    /// Where it was found; nothing for the id of the record itself.
    pub field: Option<FieldName>,
    /// How it was found.
    pub how: WordMatch,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// If it is empty or too long.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > MAX_QUERY_BYTES {
            return Err(QueryError::TooLong);
        }
        let mut parts: Vec<QueryPart> = text.split_whitespace().flat_map(QueryPart::of).collect();
        if parts.len() > MAX_QUERY_PARTS {
            return Err(QueryError::TooLong);
        }
        if parts.is_empty() {
            return Err(QueryError::Empty);
        }
        if parts.iter().all(|part| part.is_optional) {
            parts.iter_mut().for_each(|part| part.is_optional = false);
        }
        Ok(Self { parts })
    }

    /// The parts, so that a store can look for the rarest first.
    #[must_use]
    pub fn parts(&self) -> &[QueryPart] {
        &self.parts
    }

    /// How well a person fits, if every part does. `id` is the id of the record.
    ///
    /// ```
    /// use fedgate_index::{fields::Demographics, fold::FoldedPerson, query::Query};
    ///
    /// let ana = FoldedPerson::of(&Demographics {
    ///     given: Some("Ana".into()), family: Some("García López".into()), birth_date: Some("1985-10-04".into()),
    ///     ..Default::default()
    /// });
    /// let score = |text| Query::parse(text).ok()?.rank("ESPGNU777ORG", &ana).map(|rank| rank.score);
    /// assert!(score("ana garcia") > score("lopez an"));
    /// assert!(score("gracia ana").is_some() && score("ana ruiz").is_none());
    /// ```
    #[must_use]
    pub fn rank(&self, id: &str, person: &FoldedPerson) -> Option<Rank> {
        let id = folded_code(id);
        let words: Vec<(FieldName, &NameWord)> = (person.given.all().map(|word| (FieldName::Given, word)))
            .chain(person.family.all().map(|word| (FieldName::Family, word)))
            .collect();
        let mut taken = vec![false; words.len()];
        let mut found: Vec<Option<Found>> =
            self.parts.iter().enumerate().map(|(part, query)| other_than_words(part, query, &id, person)).collect();
        // The best matches first, so that a prefix never takes the word that another part has exactly.
        for how in WordMatch::ALL {
            for (part, (query, place)) in self.parts.iter().zip(&mut found).enumerate() {
                let (None, Some(typed)) = (&place, &query.word) else { continue };
                let mut free = words.iter().zip(&mut taken).filter(|(_, taken)| !**taken);
                if let Some(((field, _), is_taken)) = free.find(|((_, word), _)| find(typed, word) == Some(how)) {
                    *is_taken = true;
                    *place = Some(Found { part, field: Some(*field), how });
                }
            }
        }
        let fits = self.parts.iter().zip(&found).all(|(query, found)| found.is_some() || query.is_optional);
        let found: Vec<Found> = found.into_iter().flatten().collect();
        // Of two who fit alike, the one with fewer other names comes first.
        let others = taken.iter().filter(|taken| !**taken).count();
        let sum: u32 = found.iter().map(|found| self.points(found)).sum();
        fits.then(|| Rank { score: sum.saturating_sub(u32::try_from(others).unwrap_or(u32::MAX)), found })
    }

    fn points(&self, found: &Found) -> u32 {
        let is_whole = self.parts.get(found.part).and_then(|part| part.birth).is_some_and(BirthDate::is_whole);
        match (found.field, found.how) {
            (None | Some(FieldName::Identifiers | FieldName::Phone), WordMatch::Exact) => 1000,
            (None | Some(FieldName::Identifiers | FieldName::Phone), _) => 500,
            (Some(FieldName::BirthDate), _) if is_whole => 200,
            (Some(FieldName::BirthDate), _) => 80,
            (Some(FieldName::Gender), _) => 20,
            (_, WordMatch::Exact) => 100,
            (_, WordMatch::Spelling) => 90,
            (_, WordMatch::Prefix) => 60,
            (_, WordMatch::Error) => 50,
        }
    }
}

impl QueryPart {
    /// The parts of a text without spaces: several if it has hyphens.
    fn of(text: &str) -> Vec<Self> {
        let (birth, code) = (plausible_date(text), folded_code(text));
        let has_digit = code.bytes().any(|sign| sign.is_ascii_digit());
        if birth.is_some() || has_digit {
            let one = |word: &String| NameWord::of_letters(word);
            let words = folded_words(text);
            let word = if let [word] = words.as_slice() { Some(one(word)) } else { None };
            return vec![Self { word, birth, gender: None, code, is_optional: false }];
        }
        let part = |word: String| Self {
            word: Some(NameWord::of_letters(&word)),
            birth: None,
            gender: FoldedGender::parse(&word),
            is_optional: is_particle(&word),
            code: word.into(),
        };
        folded_words(text).into_iter().map(part).collect()
    }
}

/// A number is a date only if somebody who lives may have been born then.
fn plausible_date(text: &str) -> Option<BirthDate> {
    let birth = BirthDate::parse(text)?;
    let is_day = birth.month().is_none_or(|month| month <= 12) && birth.day().is_none_or(|day| day <= 31);
    ((1850..2200).contains(&birth.year()) && is_day).then_some(birth)
}

/// What a part finds besides names.
fn other_than_words(part: usize, query: &QueryPart, id: &str, person: &FoldedPerson) -> Option<Found> {
    let code = query.code.as_ref();
    let is_code = !code.is_empty() && query.word.as_ref().is_none_or(|word| word.text().len() >= LEAST_OF_AN_ID);
    let exact = |field| Some(Found { part, field, how: WordMatch::Exact });
    if is_code && id == code {
        return exact(None);
    }
    if is_code && person.identifiers.iter().any(|known| known.value.as_ref() == code) {
        return exact(Some(FieldName::Identifiers));
    }
    let is_number = code.len() >= 6 && code.bytes().all(|sign| sign.is_ascii_digit());
    if is_number && person.phones.iter().any(|phone| phone.ends_with(code) || code.ends_with(phone.as_ref())) {
        return exact(Some(FieldName::Phone));
    }
    if let (Some(birth), Some(known)) = (query.birth, person.birth)
        && known.has(birth)
    {
        return exact(Some(FieldName::BirthDate));
    }
    if query.gender.is_some() && query.gender == person.gender {
        return exact(Some(FieldName::Gender));
    }
    let is_begin = code.len() >= LEAST_OF_AN_ID && id.starts_with(code);
    is_begin.then_some(Found { part, field: None, how: WordMatch::Prefix })
}

#[cfg(test)]
mod tests;
