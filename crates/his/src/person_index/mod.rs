//! The index of persons: it finds the records that may be of one person.
//!
//! The one rule: [`fedgate_index`] decides, from what it takes of the records. Here records are read, keys are kept, and
//! answers are written. No caller learns of a person beyond its reach.
//!
//! [`indexer`] keeps the keys and [`pairs`] the review list, [`alike`] finds who may be somebody, [`match_request`] answers
//! `POST /index/match`, [`duplicates`] shows the list, [`merge_requests`] merges, and [`search_request`] answers
//! `GET /people?q=…`.

pub(super) mod alike;
pub(super) mod duplicates;
mod indexer;
mod match_request;
pub(super) mod merge_requests;
mod pairs;
pub mod register;
pub(super) mod search;
mod search_request;

use fedgate_index::assess::{Assessment, assess};
use fedgate_index::fields::{Demographics, FieldPointer, Fields};
use fedgate_index::fold::{FoldedPerson, LINE_VERSION, folded_words};
use fedgate_index::keys::{KEYS_VERSION, blocking_keys, record_mark};
use fedgate_index::model::Model;
use fedgate_index::search::{deletion_key, search_keys, word_key, words_of};
use fedgate_index::words::{WORDS_VERSION, deletions};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::store::{KeyMaker, MadeKeys, MadeWord};
use fedgate_base::config::{IndexConfig, IndexFields};
use fedgate_core::json::JsonObject;

pub use self::duplicates::shown as shown_pair;
pub(super) use self::indexer::run;
pub(super) use self::match_request::{find, refuse_match};
pub(super) use self::search_request::find as find_typed;

/// Where records hold what is compared, and how it is weighed.
pub(super) struct PersonIndex {
    fields: Fields,
    model: Model,
    made_of: String,
}

/// Why the index cannot be used as configured.
#[derive(Debug, Error)]
pub enum IndexError {
    /// A place in a document is none.
    #[error("`index.fields.{key}` is `{text}`: {problem}; write a JSON pointer (RFC 6901), such as `/name`")]
    Field {
        /// The key.
        key: &'static str,
        /// Its value.
        text: String,
        /// The reason.
        problem: String,
    },
    /// The file of the model cannot be used.
    #[error("`index.model` names `{file}`: {problem}")]
    Model {
        /// The file.
        file: String,
        /// The reason.
        problem: String,
    },
}

impl PersonIndex {
    /// The index as configured.
    ///
    /// # Errors
    /// See [`IndexError`].
    pub(super) fn new(config: &IndexConfig) -> Result<Self, IndexError> {
        let pointer = |key: &'static str, text: &str| {
            let fault = |problem: String| IndexError::Field { key, text: text.to_owned(), problem };
            FieldPointer::parse(text).map_err(|error| fault(error.to_string()))
        };
        let places = &config.fields;
        let fields = Fields {
            given: pointer("given", &places.given)?,
            family: pointer("family", &places.family)?,
            birth_date: pointer("birth_date", &places.birth_date)?,
            gender: pointer("gender", &places.gender)?,
            city: pointer("city", &places.city)?,
            postal_code: pointer("postal_code", &places.postal_code)?,
            phone: pointer("phone", &places.phone)?,
            identifiers: pointer("identifiers", &places.identifiers)?,
        };
        let model = match &config.model {
            None => Model::default(),
            Some(file) => {
                let fault = |problem: String| IndexError::Model { file: file.display().to_string(), problem };
                let text = std::fs::read_to_string(file).map_err(|error| fault(error.to_string()))?;
                Model::parse(&text).map_err(|error| fault(error.to_string()))?
            }
        };
        let made_of = made_of(places);
        Ok(Self { fields, model, made_of })
    }

    /// The places of what is compared.
    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// What is compared of a record; none if the record is no object.
    fn folded(&self, record: &str) -> Option<FoldedPerson> {
        Demographics::read(&self.fields, record).ok().map(|person| FoldedPerson::of(&person))
    }

    /// The keys of a record and its words, as the store keeps them.
    fn keys(&self, id: &str, record: &str) -> MadeKeys {
        let Ok(taken) = Demographics::read(&self.fields, record) else { return MadeKeys::default() };
        let person = FoldedPerson::of(&taken);
        let mut words = words_of(&person);
        words.extend([&taken.given, &taken.family].into_iter().flatten().flat_map(|name| other_words(name)));
        words.sort_unstable();
        words.dedup();
        words.truncate(MOST_WORDS);
        let mut keys = keys_of(&person);
        keys.extend(search_keys(id, &person, &words).into_iter().map(u64::cast_signed));
        keys.sort_unstable();
        keys.dedup();
        MadeKeys { keys, compared: person.line(), words: words.into_iter().map(made_word).collect() }
    }

    /// By what pairs are judged: the places of the fields, and the weights.
    fn judged_by(&self) -> String {
        let model = blake3::hash(self.model.to_text().as_bytes());
        format!("{} {model}", self.made_of)
    }

    fn assess(&self, one: &FoldedPerson, other: &FoldedPerson) -> Assessment {
        assess(&self.model, one, other)
    }
}

impl KeyMaker for PersonIndex {
    fn made(&self, id: &str, record: &str) -> MadeKeys {
        self.keys(id, record)
    }

    fn concerns(&self, change: &JsonObject) -> bool {
        change.names().any(|name| self.fields.have_member(name))
    }

    fn made_of(&self) -> &str {
        &self.made_of
    }
}

fn made_word(word: String) -> MadeWord {
    let deletions = deletions(&word).iter().map(|text| deletion_key(text).cast_signed()).collect();
    MadeWord { key: word_key(&word).cast_signed(), deletions, word }
}

/// The most words of a person that are kept.
const MOST_WORDS: usize = 48;

/// Words that a search of FHIR reads otherwise than the index does: an apostrophe ends one (`O'Neil`), and letters lose
/// their marks before all else (`Gonçalves`).
fn other_words(name: &str) -> Vec<String> {
    let plain: String = name.nfkd().filter(|sign| !is_combining_mark(*sign)).collect();
    let parts = plain.split(|sign: char| !sign.is_alphanumeric());
    parts.filter(|part| !part.is_empty()).flat_map(folded_words).collect()
}

/// All 64 bits count; the store has signed numbers.
fn keys_of(person: &FoldedPerson) -> Vec<i64> {
    blocking_keys(person).into_iter().map(u64::cast_signed).collect()
}

/// What is compared of a record, as the store keeps it.
fn mark_of(person: &FoldedPerson) -> i64 {
    record_mark(person).cast_signed()
}

/// How keys are made: keys that were made in another way are made anew.
fn made_of(places: &IndexFields) -> String {
    let IndexFields { given, family, birth_date, gender, city, postal_code, phone, identifiers } = places;
    let places = [given, family, birth_date, gender, city, postal_code, phone, identifiers].map(String::as_str);
    format!("{KEYS_VERSION} {WORDS_VERSION} {LINE_VERSION} {}", places.join(" "))
}
