//! Keeps the keys of persons, and the words of their names: of those who were changed, and of all when keys are made in another way.
//!
//! The one rule: whether a person's keys are due depends on the database alone. Every instance looks, and the turn of
//! the index lets one of them write. What an instance reads and another one writes first is read again.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{PersonIndex, pairs};
use crate::store::{DueKeys, PersonRecord, RecordKey, RecordReach, RecordStore};
use fedgate_base::db::DbError;

/// How often to look for changes by other programs, which do not report their writes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The least time from one look to the next while this process writes. What waits meanwhile is done together.
const PACE: Duration = Duration::from_millis(100);
/// Persons after whom a walk over all of them reports how far it is.
const PROGRESS: usize = 50_000;
/// The pause after a failure, and after a turn that another instance took.
const RETRY: Duration = Duration::from_millis(250);

/// Runs for as long as it is polled.
pub(crate) async fn run(store: &RecordStore, index: &PersonIndex) {
    let mut written = store.written().subscribe();
    let mut walked = 0;
    loop {
        let began = Instant::now();
        match step(store, index, &mut walked).await {
            Ok(IndexStep::Wrote) => continue,
            Ok(IndexStep::Nothing) => {
                let _ = timeout(LOOK_EVERY, written.changed()).await;
                sleep(PACE.saturating_sub(began.elapsed())).await;
            }
            Ok(IndexStep::TurnTaken) => sleep(RETRY).await,
            // The outage of the database is logged elsewhere.
            Err(error) => {
                tracing::debug!("the index waits for the store: {error}");
                sleep(RETRY).await;
            }
        }
    }
}

/// What one step did.
enum IndexStep {
    Wrote,
    Nothing,
    TurnTaken,
}

async fn step(store: &RecordStore, index: &PersonIndex, walked: &mut usize) -> Result<IndexStep, DbError> {
    let queued = store.queued_keys().await?;
    if queued.made_of != index.made_of {
        return write(store, index, &queued, Some("")).await;
    }
    // Changes first: they are awaited.
    if !queued.persons.is_empty() {
        let upto = queued.upto.clone();
        return write(store, index, &queued, upto.as_deref()).await;
    }
    let Some(upto) = queued.upto else {
        // Those whose keys are there are compared.
        return Ok(if pairs::step(store, index).await? { IndexStep::Wrote } else { IndexStep::Nothing });
    };
    let due = store.keys_after(&upto).await?;
    // Another instance may have begun anew or gone on between the two reads.
    if due.upto.as_deref() != Some(upto.as_str()) || due.made_of != index.made_of {
        return Ok(IndexStep::TurnTaken);
    }
    let last = due.persons.last().map(|(person, _)| person.clone());
    // A store without persons has nothing to tell of.
    match (upto.is_empty(), last.is_none()) {
        (true, false) => {
            *walked = 0;
            tracing::info!("all persons are indexed anew; those who are not yet are not found meanwhile");
        }
        (false, true) => tracing::info!("all persons are indexed now"),
        (true, true) | (false, false) => {}
    }
    let step = write(store, index, &due, last.as_deref()).await?;
    if matches!(step, IndexStep::Wrote) {
        let before = *walked / PROGRESS;
        *walked += due.persons.len();
        if *walked / PROGRESS > before {
            tracing::info!("{walked} persons are indexed so far");
        }
    }
    Ok(step)
}

async fn write(
    store: &RecordStore,
    index: &PersonIndex,
    due: &DueKeys,
    upto: Option<&str>,
) -> Result<IndexStep, DbError> {
    let mut persons = Vec::with_capacity(due.persons.len());
    for (person, record) in &due.persons {
        let made = match record {
            PersonRecord::Text(text) => Some(index.keys(person, text)),
            PersonRecord::Missing => None,
            PersonRecord::Long => {
                let text = store.whole_record(&RecordKey::Person(person.clone()), &RecordReach::Global).await?;
                text.map(|text| index.keys(person, &text))
            }
        };
        persons.push((person.clone(), made));
    }
    Ok(match store.put_keys(due, persons, &index.made_of, upto).await? {
        true => IndexStep::Wrote,
        false => IndexStep::TurnTaken,
    })
}
