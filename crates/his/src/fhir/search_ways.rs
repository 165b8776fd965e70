//! By which keys of the index the criteria of a search find people.
//!
//! The one rule: a criterion whose people the index may not have all is no way to them. Criteria are joined by "and", so
//! one way is enough, and the package tests the rest.

use fedgate_fhir::patient::LogicalId;
use fedgate_fhir::search::{DateTest, IdentifierTest, SearchCriterion, TextTest};
use fedgate_index::fold::{BirthDate, folded_words};
use fedgate_index::search::{SearchWay, birth_key, code_key, phone_key, word_key};

use crate::person_index::search::typed_words;
use crate::store::RecordStore;
use fedgate_base::db::DbError;

/// The fewest signs of an identifier that the index keeps.
const LEAST_OF_AN_IDENTIFIER: usize = 4;

/// The ways, the usually rarest first.
pub(super) async fn ways(
    store: &RecordStore,
    criteria: &[SearchCriterion],
    base: &str,
) -> Result<Vec<SearchWay>, DbError> {
    let mut ranked: Vec<(u8, SearchWay)> = Vec::new();
    for (at, criterion) in criteria.iter().enumerate() {
        let found = match criterion {
            SearchCriterion::Identifier(tests) => all(tests, |test| identifier_keys(test, base)).map(|keys| (0, keys)),
            SearchCriterion::Telecom(numbers) => {
                all(numbers, |number| phone_key(number).map(|key| vec![key])).map(|keys| (0, keys))
            }
            SearchCriterion::BirthDate(tests) => {
                let rank = tests.iter().filter_map(|test| day(*test)).map(rank_of_date).max();
                all(tests, |test| day(*test).map(|day| vec![birth_key(day)])).zip(rank).map(|(keys, rank)| (rank, keys))
            }
            SearchCriterion::Family(tests) | SearchCriterion::Given(tests) | SearchCriterion::Name(tests) => {
                let Some((keys, is_complete)) = text_keys(store, tests).await? else { continue };
                ranked.push((2, SearchWay::of_keys(keys, is_complete, at)));
                continue;
            }
            SearchCriterion::Id(_)
            | SearchCriterion::Active(_)
            | SearchCriterion::Gender(_)
            | SearchCriterion::Address(_)
            | SearchCriterion::City(_)
            | SearchCriterion::PostalCode(_) => None,
        };
        ranked.extend(found.map(|(rank, keys)| (rank, SearchWay::of_keys(keys, true, at))));
    }
    ranked.sort_by_key(|(rank, way)| (!way.is_complete, *rank));
    Ok(ranked.into_iter().map(|(_, way)| way).collect())
}

/// The keys of all alternatives; none if one of them has none.
fn all<T>(tests: &[T], keys: impl Fn(&T) -> Option<Vec<u64>>) -> Option<Vec<u64>> {
    let keys: Option<Vec<Vec<u64>>> = tests.iter().map(keys).collect();
    keys.map(|keys| keys.concat())
}

fn identifier_keys(test: &IdentifierTest, base: &str) -> Option<Vec<u64>> {
    let value = match test {
        IdentifierTest::Value(value) | IdentifierTest::Both(_, value) => value,
        IdentifierTest::System(_) => return None,
        // No identifier of a Patient is without a system.
        IdentifierTest::NoSystem => return Some(vec![]),
    };
    // Without a system of its own, the hub's id is the address of the Patient.
    let own = value.strip_prefix(base).and_then(|rest| LogicalId::own(rest.strip_prefix("/Patient/")?));
    let signs: Vec<char> = value.chars().filter(|sign| sign.is_alphanumeric()).collect();
    let is_filler = signs.len() < LEAST_OF_AN_IDENTIFIER || signs.iter().all(|sign| Some(sign) == signs.first());
    match own {
        Some(own) => Some([own.as_str(), value].into_iter().filter_map(code_key).collect()),
        None if is_filler => None,
        None => Some(code_key(value).into_iter().collect()),
    }
}

/// The date of a test that asks for nothing else.
fn day(test: DateTest) -> Option<BirthDate> {
    test.equals().and_then(|date| BirthDate::parse(&date.to_string()))
}

fn rank_of_date(date: BirthDate) -> u8 {
    match (date.is_whole(), date.month()) {
        (true, _) => 1,
        (false, Some(_)) => 3,
        (false, None) => 4,
    }
}

/// The keys of the words by which texts are found, and whether these are all.
async fn text_keys(store: &RecordStore, tests: &[TextTest]) -> Result<Option<(Vec<u64>, bool)>, DbError> {
    let (mut keys, mut is_complete) = (Vec::new(), true);
    for test in tests {
        match test {
            TextTest::Begins(begin) => match folded_words(begin).as_slice() {
                [] => return Ok(None),
                [word] => {
                    let known = typed_words(store, word).await?;
                    let begun = known.words.iter().filter(|known| known.starts_with(word.as_str()));
                    keys.extend(begun.map(|word| word_key(word)));
                    is_complete &= known.is_complete;
                }
                // What is followed by another word is whole.
                [word, ..] => keys.push(word_key(word)),
            },
            TextTest::Is(whole) => match folded_words(whole).iter().max_by_key(|word| word.len()) {
                Some(word) => keys.push(word_key(word)),
                None => return Ok(None),
            },
            TextTest::Contains(_) => return Ok(None),
        }
    }
    Ok(Some((keys, is_complete)))
}
