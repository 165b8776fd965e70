//! Compares each person who was changed with all others, and writes the review list.
//!
//! The one rule: whom to compare depends on the database alone. A person is compared once its keys are there, so of two who
//! are written at the same time at least the one who is compared later finds the other.

use fedgate_index::assess::Grade;
use fedgate_index::fold::FoldedPerson;

use super::alike::{LikePerson, in_ten_thousandths};
use super::{PersonIndex, mark_of};
use crate::store::{DuePerson, FoundPair, RecordKey, RecordReach, RecordStore};
use fedgate_base::db::DbError;

/// Pairs of a lower grade are not put on the list.
pub(super) const LEAST: Grade = Grade::Probable;

/// Compares the next persons. Returns whether there were any.
pub(super) async fn step(store: &RecordStore, index: &PersonIndex) -> Result<bool, DbError> {
    let due = store.take_due_persons().await?;
    for person in &due {
        compare(store, index, person).await?;
    }
    Ok(!due.is_empty())
}

async fn compare(store: &RecordStore, index: &PersonIndex, due: &DuePerson) -> Result<(), DbError> {
    let key = RecordKey::Person(due.person.clone());
    let Some(text) = store.whole_record(&key, &RecordReach::Global).await? else {
        return store.person_is_gone(due).await;
    };
    let Some(record) = index.folded(&text) else { return store.person_is_compared(due, &[]).await };
    let alike = index.alike(store, &record, &RecordReach::Global, LEAST).await?;
    let others = alike.iter().filter(|other| other.id != due.person);
    let found: Vec<FoundPair> = others.map(|other| pair(&due.person, &record, other)).collect();
    store.person_is_compared(due, &found).await
}

fn pair(person: &str, record: &FoldedPerson, other: &LikePerson) -> FoundPair {
    let LikePerson { id, mark, assessment } = other;
    let (one, other) = ((person.to_owned(), mark_of(record)), (id.clone(), *mark));
    let evidence = i64::from(assessment.evidence);
    FoundPair::of(one, other, assessment.grade.as_str(), in_ten_thousandths(assessment.score), evidence)
}
