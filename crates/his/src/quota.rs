//! How many records a person may have: pages, documents.
//!
//! The one rule: the store does not count a person's records for each new record. One count permits new records for an
//! eighth of the remaining room; after those, the next count follows. So up to eight instances keep the limit
//! together. Each may exceed it at most by the records that are being stored at the same moment.
//!
//! The import has no quota: an operator's records are stored.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fedgate_base::db::DbError;

/// The fraction of the room that one count gives out: one instance's share of eight.
const SHARE: u64 = 8;
/// How long a count is valid. Other instances store and delete, too.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long a count is valid that found no room. Without it, each refusal would cost a count.
const FULL: Duration = Duration::from_secs(1);
/// The number of persons whose counts are kept. A forgotten person is counted again.
const PERSONS: usize = 10_000;

/// The bound on one kind of records of each person.
pub(super) struct RecordQuota {
    /// `None`: no bound.
    most: Option<u64>,
    known: Mutex<HashMap<String, KnownCount>>,
}

/// The result of the last count of a person's records.
struct KnownCount {
    until: Instant,
    /// Whether there was room.
    has_room: bool,
    /// How many more records may be stored without a count.
    left: u64,
}

impl RecordQuota {
    /// A bound for each person; 0 means no bound.
    pub(super) fn new(most: usize) -> Self {
        let most = u64::try_from(most).ok().filter(|most| *most > 0);
        Self { most, known: Mutex::default() }
    }

    /// Whether one more record may be stored for this person. `count` counts the stored ones, up to the bound
    /// it is given.
    ///
    /// # Errors
    /// The records could not be counted.
    pub(super) async fn admits<C>(&self, person: &str, count: impl FnOnce(u64) -> C) -> Result<bool, DbError>
    where
        C: Future<Output = Result<u64, DbError>>,
    {
        let Some(most) = self.most else { return Ok(true) };
        if let Some(is_admitted) = self.recall(person) {
            return Ok(is_admitted);
        }
        // The lock is not held over this await, so several requests may count at once. The last count stays.
        let room = most.saturating_sub(count(most).await?);
        let has_room = room > 0;
        // The record that is being stored is the first of them.
        let left = (room / SHARE).saturating_sub(1);
        let until = Instant::now() + if has_room { BELIEVED } else { FULL };
        let mut known = self.known();
        if known.len() >= PERSONS {
            let now = Instant::now();
            known.retain(|_, known| known.until > now);
        }
        // Every count is current, so nobody's can be dropped by age. To forget all of them costs one count
        // each.
        if known.len() >= PERSONS {
            known.clear();
        }
        known.insert(person.to_owned(), KnownCount { until, has_room, left });
        Ok(has_room)
    }

    /// The answer of the last count, as far as it goes.
    fn recall(&self, person: &str) -> Option<bool> {
        let mut known = self.known();
        let known = known.get_mut(person).filter(|known| known.until > Instant::now())?;
        if !known.has_room {
            return Some(false);
        }
        known.left = known.left.checked_sub(1)?;
        Some(true)
    }

    /// Forgets the count of a person one of whose records was deleted.
    pub(super) fn release(&self, person: &str) {
        self.known().remove(person);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, KnownCount>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_bound_is_kept_by_eight_instances_and_seldom_counted() {
        const MOST: usize = 1000;
        let instances: Vec<RecordQuota> = (0..8).map(|_| RecordQuota::new(MOST)).collect();
        let (stored, counts) = (Cell::new(0_u64), Cell::new(0));
        for round in 0..3 * MOST {
            let count = async |most| {
                counts.set(counts.get() + 1);
                assert_eq!(most, MOST as u64);
                Ok(stored.get())
            };
            if instances[round % 8].admits("ANA", count).await.unwrap() {
                stored.set(stored.get() + 1);
            }
        }
        assert_eq!(stored.get(), MOST as u64);
        assert!(counts.get() < 400, "{}", counts.get());
    }

    #[tokio::test]
    async fn zero_is_no_bound_and_is_not_counted() {
        let count = async |_| panic!("counted");
        assert!(RecordQuota::new(0).admits("ANA", count).await.unwrap());
    }

    #[tokio::test]
    async fn a_deletion_makes_room_again() {
        let quota = RecordQuota::new(2);
        assert!(!quota.admits("ANA", async |_| Ok(2)).await.unwrap());
        assert!(!quota.admits("ANA", async |_| Ok(1)).await.unwrap(), "not counted again so soon");
        quota.release("ANA");
        assert!(quota.admits("ANA", async |_| Ok(1)).await.unwrap());
        assert!(quota.admits("BOB", async |_| Ok(0)).await.unwrap());
    }
}
