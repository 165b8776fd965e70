//! Compares each person who was changed with all others, and writes the review list.
//!
//! The one rule: whom to compare depends on the database alone. A person is compared once its keys are there, so of two who
//! are written at the same time at least the one who is compared later finds the other. Records that a merge made old are
//! compared with nobody: their pairs would be those of the person who stays.

use std::collections::{BTreeMap, HashMap};

use fedgate_index::assess::Grade;
use fedgate_index::fold::FoldedPerson;

use super::alike::{LikePerson, in_ten_thousandths};
use super::{PersonIndex, keys_of, mark_of};
use crate::store::{Candidate, DuePerson, FoundPair, RecordReach, RecordStore};
use fedgate_base::db::DbError;

/// Pairs of a lower grade are not put on the list.
pub(super) const LEAST: Grade = Grade::Probable;

/// Compares the next persons. Returns whether there were any.
pub(super) async fn step(store: &RecordStore, index: &PersonIndex) -> Result<bool, DbError> {
    let due = store.take_due_persons().await?;
    let ids: Vec<&str> = due.iter().map(|due| due.person.as_str()).collect();
    let kept = match ids.is_empty() {
        true => vec![],
        false => store.compared(&ids).await?,
    };
    let folded = |kept: &Candidate| Some((kept.person.clone(), FoldedPerson::of_line(kept.compared.as_deref()?)?));
    let kept: HashMap<String, FoldedPerson> = kept.iter().filter_map(folded).collect();
    let known: Vec<(&DuePerson, &FoldedPerson)> =
        due.iter().filter_map(|due| Some((due, kept.get(&due.person)?))).collect();
    if !known.is_empty() {
        compare_all(store, index, &known).await?;
    }
    // Those of whom nothing is kept: they have gone, or their records are odd.
    for person in due.iter().filter(|due| !kept.contains_key(&due.person)) {
        compare(store, index, person).await?;
    }
    Ok(!due.is_empty())
}

/// Compares persons with all others, with one question and one write for all of them.
async fn compare_all(
    store: &RecordStore,
    index: &PersonIndex,
    known: &[(&DuePerson, &FoldedPerson)],
) -> Result<(), DbError> {
    let keys: Vec<Vec<i64>> = known.iter().map(|(_, record)| keys_of(record)).collect();
    let shared = store.candidates_of_all(&keys, &RecordReach::Global).await?;
    let mut found: BTreeMap<[String; 2], FoundPair> = BTreeMap::new();
    for ((due, record), shared) in known.iter().zip(shared) {
        let judged = index.judge(store, record, &[], others_of(due, shared), &RecordReach::Global).await?;
        let alike = judged.persons.iter().filter(|other| other.assessment.grade >= LEAST);
        found.extend(alike.map(|other| pair(&due.person, record, other)).map(|pair| (pair.persons.clone(), pair)));
    }
    let due: Vec<&DuePerson> = known.iter().map(|(due, _)| *due).collect();
    let found: Vec<FoundPair> = found.into_values().collect();
    store.persons_are_compared(&due, &found).await
}

async fn compare(store: &RecordStore, index: &PersonIndex, due: &DuePerson) -> Result<(), DbError> {
    let Some(text) = store.compared_record(&due.person, &RecordReach::Global).await? else {
        return store.person_is_gone(due).await;
    };
    let Some(record) = index.folded(&text) else { return store.persons_are_compared(&[due], &[]).await };
    let others = others_of(due, store.candidates(&keys_of(&record), &RecordReach::Global).await?);
    let judged = index.judge(store, &record, &[], others, &RecordReach::Global).await?;
    let alike = judged.persons.iter().filter(|other| other.assessment.grade >= LEAST);
    let found: Vec<FoundPair> = alike.map(|other| pair(&due.person, &record, other)).collect();
    store.persons_are_compared(&[due], &found).await
}

fn others_of(due: &DuePerson, shared: Vec<Candidate>) -> Vec<Candidate> {
    shared.into_iter().filter(|other| other.person != due.person && other.person == other.stays).collect()
}

fn pair(person: &str, record: &FoldedPerson, other: &LikePerson) -> FoundPair {
    let LikePerson { id, mark, assessment } = other;
    let (one, other) = ((person.to_owned(), mark_of(record)), (id.clone(), *mark));
    let evidence = i64::from(assessment.evidence);
    FoundPair::of(one, other, assessment.grade.as_str(), in_ten_thousandths(assessment.score), evidence)
}
