//! How many records a person may have: pages, documents.
//!
//! The one rule: nobody's records are counted whole with each of them that is stored. A count allows an eighth of the room that
//! it has found; as many records are stored before it is done again. So up to eight instances keep the bound together, and
//! each goes over it at most by the records that are being stored at the same moment.
//!
//! The import does not ask: what the operator brings is stored.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fedgate_base::db::DbError;

/// Which part of the room may be used before it is counted again: an instance's share.
const SHARE: u64 = 8;
/// How long a count is believed: others store and delete, too.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long it is believed of a person who has no room left, lest every refusal be a count.
const FULL: Duration = Duration::from_secs(1);
/// Of how many persons counts are kept. One that is forgotten is counted again.
const PERSONS: usize = 10_000;

/// How many records of one kind each person may have.
pub(super) struct RecordQuota {
    /// None: without bound.
    most: Option<u64>,
    known: Mutex<HashMap<String, KnownCount>>,
}

/// What the last count has allowed a person.
struct KnownCount {
    until: Instant,
    /// Whether there was room.
    has_room: bool,
    /// How many more may be stored without counting.
    left: u64,
}

impl RecordQuota {
    /// At most so many for each person; 0 for any number.
    pub(super) fn new(most: usize) -> Self {
        let most = u64::try_from(most).ok().filter(|most| *most > 0);
        Self { most, known: Mutex::default() }
    }

    /// Whether one more may be stored for this person; `count` counts those that are there, up to the bound it is told.
    ///
    /// # Errors
    /// They could not be counted.
    pub(super) async fn admits<C>(&self, person: &str, count: impl FnOnce(u64) -> C) -> Result<bool, DbError>
    where
        C: Future<Output = Result<u64, DbError>>,
    {
        let Some(most) = self.most else { return Ok(true) };
        if let Some(is_admitted) = self.recall(person) {
            return Ok(is_admitted);
        }
        let room = most.saturating_sub(count(most).await?);
        let has_room = room > 0;
        // This one is the first of them.
        let left = (room / SHARE).saturating_sub(1);
        let until = Instant::now() + if has_room { BELIEVED } else { FULL };
        let mut known = self.known();
        if known.len() >= PERSONS {
            let now = Instant::now();
            known.retain(|_, known| known.until > now);
        }
        if known.len() >= PERSONS {
            known.clear();
        }
        known.insert(person.to_owned(), KnownCount { until, has_room, left });
        Ok(has_room)
    }

    /// What the last count says, as far as it goes.
    fn recall(&self, person: &str) -> Option<bool> {
        let mut known = self.known();
        let known = known.get_mut(person).filter(|known| known.until > Instant::now())?;
        if !known.has_room {
            return Some(false);
        }
        known.left = known.left.checked_sub(1)?;
        Some(true)
    }

    /// A record of this person was deleted.
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
    async fn who_has_deleted_one_has_room_again() {
        let quota = RecordQuota::new(2);
        assert!(!quota.admits("ANA", async |_| Ok(2)).await.unwrap());
        assert!(!quota.admits("ANA", async |_| Ok(1)).await.unwrap(), "not counted again so soon");
        quota.release("ANA");
        assert!(quota.admits("ANA", async |_| Ok(1)).await.unwrap());
        assert!(quota.admits("BOB", async |_| Ok(0)).await.unwrap());
    }
}
