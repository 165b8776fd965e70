//! Keeps the keys of persons, and the words of their names: of those who were changed, and of all when keys are made in another way.
//!
//! The one rule: whether a person's keys are due depends on the database alone. Every instance looks, and the turn of
//! the index lets one of them write. What an instance reads and another one writes first is read again.
//!
//! An instance makes the keys of all persons in its own way once, when it begins. If another one makes them in a third way
//! afterwards, the first one leaves them alone: both would begin anew for ever.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{PersonIndex, pairs};
use crate::store::{DueKeys, PersonRecord, RecordReach, RecordStore};
use fedgate_base::db::DbError;

/// How often to look for changes by other programs, which do not report their writes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The least time from one look to the next while this process writes. Persons that wait meanwhile are done together.
const PACE: Duration = Duration::from_millis(100);
/// Persons after whom a walk over all of them reports how far it is.
const PROGRESS: usize = 50_000;
/// The pause after a failure, and after a turn that another instance took.
const RETRY: Duration = Duration::from_millis(250);

/// How often the same trouble is reported.
const REPORT_EVERY: Duration = Duration::from_secs(600);
/// Failures in a row after which the index says that it stands still.
const FAILURES: u32 = 40;

/// The memory of an instance from one step to the next.
#[derive(Default)]
struct IndexState {
    /// Persons whose keys were made anew in this walk.
    walked: usize,
    /// Whether keys were made in the way of this instance, since it began.
    had_own_way: bool,
    failures: u32,
    reported: Option<Instant>,
}

impl IndexState {
    /// Whether it is time to report a trouble again.
    fn reports(&mut self) -> bool {
        let is_due = self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
        if is_due {
            self.reported = Some(Instant::now());
        }
        is_due
    }
}

/// Runs for as long as it is polled.
pub(crate) async fn run(store: &RecordStore, index: &PersonIndex) {
    let mut written = store.written().subscribe();
    let mut state = IndexState::default();
    loop {
        let began = Instant::now();
        let done = step(store, index, &mut state).await;
        state.failures = if done.is_ok() { 0 } else { state.failures.saturating_add(1) };
        match done {
            Ok(IndexStep::Wrote) => continue,
            Ok(IndexStep::Nothing) => {
                let _ = timeout(LOOK_EVERY, written.changed()).await;
                sleep(PACE.saturating_sub(began.elapsed())).await;
            }
            Ok(IndexStep::TurnTaken) => sleep(RETRY).await,
            // The outage of the database is logged elsewhere.
            Err(error) => {
                tracing::debug!("the index waits for the store: {error}");
                if state.failures >= FAILURES && state.reports() {
                    tracing::warn!("new and changed persons are not found, because the index cannot go on: {error}");
                }
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

async fn step(store: &RecordStore, index: &PersonIndex, state: &mut IndexState) -> Result<IndexStep, DbError> {
    let queued = store.queued_keys().await?;
    if queued.made_of != index.made_of {
        if state.had_own_way && !queued.made_of.is_empty() {
            if state.reports() {
                tracing::warn!(
                    "another fedhis with other `index.fields`, or of another version, keeps the index: until all are \
                     alike, persons may not be found by this one"
                );
            }
            return Ok(IndexStep::Nothing);
        }
        return write(store, index, &queued, Some("")).await;
    }
    state.had_own_way = true;
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
            state.walked = 0;
            tracing::info!("all persons are indexed anew; those who are not yet are not found meanwhile");
        }
        (false, true) => tracing::info!("all persons are indexed now"),
        (true, true) | (false, false) => {}
    }
    let step = write(store, index, &due, last.as_deref()).await?;
    if matches!(step, IndexStep::Wrote) {
        let before = state.walked / PROGRESS;
        state.walked += due.persons.len();
        if state.walked / PROGRESS > before {
            tracing::info!("{} persons are indexed so far", state.walked);
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
                let text = store.compared_record(person, &RecordReach::Global).await?;
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
