//! The persons whom a query means, the best first.
//!
//! The one rule: [`Query::rank`] decides who is meant. The index only says whose records are read, and no more than a
//! bound of them. A caller who reaches some persons alone has their records read, and nothing else: neither what it is
//! told nor how long that takes depends on others.

use std::collections::HashSet;

use fedgate_index::fold::FoldedPerson;
use fedgate_index::query::{Query, QueryPart, Rank};
use fedgate_index::search::{FoundWords, SearchWay, deletion_key, ways};
use fedgate_index::words::{LEAST_LETTERS_FOR_AN_ERROR, deletions, find_text};

use super::PersonIndex;
use crate::store::{
    Candidate, CandidateRecord, KeyHolders, LONG_CANDIDATE_BYTES, PersonRecord, RecordReach, RecordStore,
};
use fedgate_base::db::DbError;

/// The most persons whose records one search reads.
pub(crate) const MOST_RANKED: usize = 300;
/// The most entries of the index that a search looks at for the way that it takes.
const MOST_ENTRIES: u64 = 2000;
/// The most ways whose entries are counted.
const MOST_COUNTED: usize = 6;
/// The most keys of another part by which those who are read are chosen.
const MOST_KEYS_OF_A_PART: usize = 32;
/// Records that are read at a time.
const AT_A_TIME: usize = 64;
/// The most records beyond the length of others that are read.
const MOST_LONG: usize = 8;
/// Room for the records that are read at a time, in bytes.
pub(crate) const ROOM: usize = AT_A_TIME * LONG_CANDIDATE_BYTES;

/// Whom a search has found.
#[derive(Debug, Clone, Default)]
pub(crate) struct FoundPersons {
    /// The persons with their ranks, the best first.
    pub(crate) persons: Vec<(String, Rank)>,
    /// Whether everybody was looked at who may be meant.
    pub(crate) is_whole: bool,
}

/// Persons whose records are to be read.
#[derive(Debug, Clone, Default)]
pub(crate) struct SearchedPersons {
    pub(crate) persons: Vec<String>,
    pub(crate) is_whole: bool,
}

impl PersonIndex {
    /// The persons within reach whom a query means.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn search(
        &self,
        store: &RecordStore,
        query: &Query,
        reach: &RecordReach,
    ) -> Result<FoundPersons, DbError> {
        let searched = match own_ids(reach) {
            Some(persons) => SearchedPersons { persons, is_whole: true },
            None => {
                let mut words = Vec::with_capacity(query.parts().len());
                for part in query.parts() {
                    words.push(words_of_part(store, part).await?);
                }
                searched(store, &ways(query, &words), MOST_RANKED).await?
            }
        };
        let mut found = FoundPersons { persons: Vec::new(), is_whole: searched.is_whole };
        let rank = |id: String, stays: String, person: &FoldedPerson| {
            found.persons.extend(query.rank(&id, person).map(|rank| (stays, rank)));
        };
        let all_read = each_person(self, store, searched.persons, reach, rank).await?;
        found.is_whole &= all_read;
        found.persons.sort_by(|(one, a), (other, b)| b.score.cmp(&a.score).then_with(|| one.cmp(other)));
        // Of a person with several records, the one that fits best counts.
        let mut known = HashSet::new();
        found.persons.retain(|(person, _)| known.insert(person.clone()));
        Ok(found)
    }
}

/// The persons of a reach that does not have everybody.
pub(crate) fn own_ids(reach: &RecordReach) -> Option<Vec<String>> {
    reach.ids().map(<[String]>::to_vec)
}

/// The words of names that a part of a query finds.
async fn words_of_part(store: &RecordStore, part: &QueryPart) -> Result<FoundWords, DbError> {
    let Some(typed) = part.word.as_ref().filter(|_| !part.is_optional) else {
        return Ok(FoundWords { words: vec![], is_complete: true });
    };
    let mut found = typed_words(store, typed.text()).await?;
    found.words.retain(|word| find_text(typed, word).is_some());
    Ok(found)
}

/// The words of names that begin with a text, and those that may differ from it by one error.
pub(crate) async fn typed_words(store: &RecordStore, typed: &str) -> Result<FoundWords, DbError> {
    let may_err = typed.len() >= LEAST_LETTERS_FOR_AN_ERROR;
    let keys: Vec<i64> = match may_err {
        true => deletions(typed).iter().map(|text| deletion_key(text).cast_signed()).collect(),
        false => vec![],
    };
    let known = store.typed_words(typed, &keys).await?;
    let mut words = known.begun;
    words.extend(known.near);
    words.sort_unstable();
    words.dedup();
    Ok(FoundWords { words, is_complete: known.is_complete })
}

/// Whom to read, by the way that finds the fewest.
pub(crate) async fn searched(store: &RecordStore, ways: &[SearchWay], most: usize) -> Result<SearchedPersons, DbError> {
    let persons = most as u64;
    let mut taken: Option<(&SearchWay, u64)> = None;
    // While keys are made anew, some persons have none.
    let mut is_built = true;
    for way in ways.iter().filter(|way| way.is_complete).take(MOST_COUNTED) {
        let all: Vec<u64> = way.keys.iter().chain(&way.others).copied().collect();
        let (entries, have_all_keys) = store.entries_of(&signed(&all), MOST_ENTRIES + 1).await?;
        is_built &= have_all_keys;
        if taken.is_none_or(|(_, fewest)| entries < fewest) {
            taken = Some((way, entries));
        }
        if entries <= persons {
            break;
        }
    }
    // Without a complete way, the best of the others finds some.
    let Some((way, entries)) = taken.or_else(|| ways.first().map(|way| (way, u64::MAX))) else {
        return Ok(SearchedPersons::default());
    };
    let (keys, others) = (signed(&way.keys), signed(&way.others));
    let mut of = KeyHolders { keys: &keys, others: &others, parts: &[], entries: MOST_ENTRIES.min(entries), persons };
    let further: Vec<Vec<i64>> = if entries <= persons { vec![] } else { further_parts(ways, way) };
    of.parts = &further;
    // One more than is read shows whether there are more.
    of.persons += 1;
    let mut found = store.holders(&of).await?;
    let is_whole = is_built && way.is_complete && entries <= MOST_ENTRIES && found.len() <= most;
    found.truncate(most);
    Ok(SearchedPersons { persons: found, is_whole })
}

/// The keys of the parts that a way does not stand for, where they are few and complete.
fn further_parts(ways: &[SearchWay], taken: &SearchWay) -> Vec<Vec<i64>> {
    let is_further = |way: &&SearchWay| match way.parts.as_slice() {
        [part] => way.is_complete && !taken.parts.contains(part),
        _ => false,
    };
    let keys = ways.iter().filter(is_further).map(|way| way.keys.iter().chain(&way.others).copied().collect());
    keys.filter(|keys: &Vec<u64>| keys.len() <= MOST_KEYS_OF_A_PART).map(|keys| signed(&keys)).take(3).collect()
}

pub(crate) fn signed(keys: &[u64]) -> Vec<i64> {
    keys.iter().map(|key| key.cast_signed()).collect()
}

/// Hands what is compared of persons within reach to `take`, with the id and the id that stays of each. It is kept of most of
/// everybody; the records of the others are read, and those of a caller who reaches some persons alone. Returns false if one
/// was left out for its length.
async fn each_person(
    index: &PersonIndex,
    store: &RecordStore,
    mut persons: Vec<String>,
    reach: &RecordReach,
    mut take: impl FnMut(String, String, &FoldedPerson),
) -> Result<bool, DbError> {
    if *reach == RecordReach::Global && !persons.is_empty() {
        let ids: Vec<&str> = persons.iter().map(String::as_str).collect();
        let mut done = HashSet::new();
        for Candidate { person, stays, compared } in store.compared(&ids).await? {
            if let Some(folded) = compared.as_deref().and_then(FoldedPerson::of_line) {
                done.insert(person.clone());
                take(person, stays, &folded);
            }
        }
        persons.retain(|person| !done.contains(person));
    }
    let folded = |id: String, stays: String, text: &str| {
        if let Some(person) = index.folded(text) {
            take(id, stays, &person);
        }
    };
    each_record(store, &persons, reach, folded).await
}

/// Reads the records of persons within reach, and hands each to `take`, with its id and the id that stays of that person.
/// Returns false if one was left out for its length.
pub(crate) async fn each_record(
    store: &RecordStore,
    persons: &[String],
    reach: &RecordReach,
    mut take: impl FnMut(String, String, &str),
) -> Result<bool, DbError> {
    let mut long = 0;
    for persons in persons.chunks(AT_A_TIME) {
        for CandidateRecord { person, stays, record } in store.candidate_records(persons, reach).await? {
            match record {
                PersonRecord::Text(text) => take(person, stays, &text),
                PersonRecord::Missing => {}
                PersonRecord::Long => {
                    long += 1;
                    if long > MOST_LONG {
                        continue;
                    }
                    if let Some(text) = store.compared_record(&person, reach).await? {
                        take(person, stays, &text);
                    }
                }
            }
        }
    }
    Ok(long <= MOST_LONG)
}
