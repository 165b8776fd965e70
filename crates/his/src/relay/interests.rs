//! Wakes the waiting readers that a new message concerns.
//!
//! The one rule: a reader is woken by every message that it may see. It may be woken by others, and asks in vain then. So
//! thousands of persons who follow their own records cost nothing while others' records change: the positions of a
//! moment are read once for all of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::LastPosition;
use crate::store::{MESSAGE_TO_ALL, MessageConcern, RecordStore};

/// The most positions that are looked through at a time. After more, every reader is woken.
const MOST_POSITIONS: u64 = 5000;

/// The readers that wait for messages about certain persons and accounts.
#[derive(Default)]
pub(crate) struct ReaderInterests(Mutex<InterestTable>);

#[derive(Default)]
struct InterestTable {
    next: u64,
    readers: HashMap<u64, Arc<Notify>>,
    of_concern: HashMap<MessageConcern, HashSet<u64>>,
}

/// The interest of one reader. It ends with this value.
pub(super) struct ReaderInterest {
    interests: Arc<ReaderInterests>,
    id: u64,
    concerns: Vec<MessageConcern>,
    woken: Arc<Notify>,
}

impl ReaderInterests {
    /// Adds a reader. From now on nothing that concerns it is missed: what was written before, it finds by asking.
    pub(super) fn add(self: &Arc<Self>, concerns: Vec<MessageConcern>) -> ReaderInterest {
        let woken = Arc::new(Notify::new());
        let mut table = self.table();
        let id = table.next;
        table.next += 1;
        table.readers.insert(id, Arc::clone(&woken));
        for concern in &concerns {
            table.of_concern.entry(concern.clone()).or_default().insert(id);
        }
        drop(table);
        ReaderInterest { interests: Arc::clone(self), id, concerns, woken }
    }

    fn is_empty(&self) -> bool {
        self.table().readers.is_empty()
    }

    fn wake(&self, concerns: &[MessageConcern]) {
        let table = self.table();
        for concern in concerns {
            for id in table.of_concern.get(concern).into_iter().flatten() {
                if let Some(woken) = table.readers.get(id) {
                    // Kept until the reader waits, if it does not do so now.
                    woken.notify_one();
                }
            }
        }
    }

    fn wake_all(&self) {
        self.table().readers.values().for_each(|woken| woken.notify_one());
    }

    fn table(&self) -> MutexGuard<'_, InterestTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReaderInterest {
    /// Waits for a message that concerns the reader, since the last wait.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for ReaderInterest {
    fn drop(&mut self) {
        let mut table = self.interests.table();
        table.readers.remove(&self.id);
        for concern in &self.concerns {
            if let Some(ids) = table.of_concern.get_mut(concern) {
                ids.remove(&self.id);
                if ids.is_empty() {
                    table.of_concern.remove(concern);
                }
            }
        }
    }
}

/// Runs for as long as it is polled.
pub(super) async fn run(store: &RecordStore, last: &LastPosition, interests: &ReaderInterests) {
    let mut heard = last.subscribe();
    let mut upto = *heard.borrow_and_update();
    // The sender lives as long as `last`.
    while heard.changed().await.is_ok() {
        let after = std::mem::replace(&mut upto, *heard.borrow_and_update());
        // A reader that is added after this look asks for what there is by then.
        if interests.is_empty() {
            continue;
        }
        let is_looked_through = upto >= after && upto - after <= MOST_POSITIONS;
        let concerns = match is_looked_through {
            true => store.message_concerns(after, upto).await.ok(),
            // Positions have gone back after a failover, or there are too many.
            false => None,
        };
        match concerns {
            Some(concerns) if !concerns.iter().any(|concern| *concern == MESSAGE_TO_ALL) => interests.wake(&concerns),
            Some(_) | None => interests.wake_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_woken(interest: &ReaderInterest) -> bool {
        use futures_util::FutureExt;
        interest.woken().now_or_never().is_some()
    }

    #[test]
    fn a_message_wakes_those_whom_it_concerns_also_if_they_do_not_wait_yet() {
        let interests = Arc::new(ReaderInterests::default());
        let concerns = |names: &[&str]| names.iter().map(|name| MessageConcern::from(*name)).collect::<Vec<_>>();
        let ana = interests.add(concerns(&["person ANA", "node ANA"]));
        let bob = interests.add(concerns(&["person BOB", "node BOB", "role nurse"]));
        interests.wake(&concerns(&["person ANA", "person EVA"]));
        assert_eq!((is_woken(&ana), is_woken(&bob)), (true, false));
        assert!(!is_woken(&ana), "once");
        interests.wake(&concerns(&["role nurse", "node BOB"]));
        assert_eq!((is_woken(&ana), is_woken(&bob)), (false, true));
        interests.wake_all();
        assert_eq!((is_woken(&ana), is_woken(&bob)), (true, true));
        drop((ana, bob));
        assert!(interests.is_empty() && interests.table().of_concern.is_empty());
    }
}
