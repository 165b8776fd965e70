//! The bytes that bodies, documents and lists may take of this process's memory, all together and for each caller.
//!
//! The one rule: whatever is read from the store for a client, or from a client for the store, is paid for before, and given
//! back when it has left this process. So readers that do not read hold their own share and nothing else, and who waits for
//! room waits with a bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What is counted: a KiB.
const UNIT: usize = 1024;
/// Which part of the budget one caller may hold.
const SHARE: usize = 4;
/// How many callers are remembered that hold nothing.
const CALLERS: usize = 1024;

/// How long a request waits for room before anything of its answer was sent.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer that has begun waits for room for its next piece, before it is broken off.
pub(super) const PATIENCE_WITHIN: Duration = Duration::from_secs(30);

/// The budget of this process.
pub(super) struct Budget {
    /// None: without bound.
    total: Option<Arc<Semaphore>>,
    share: usize,
    callers: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Room that is given back when this is dropped.
pub(super) struct Held {
    _room: Option<[OwnedSemaphorePermit; 2]>,
}

impl Budget {
    /// So many bytes in all; 0 for any number.
    pub(super) fn new(bytes: usize) -> Self {
        Self::in_parts(bytes, SHARE)
    }

    /// As [`Budget::new`], for parsed bodies: of the largest, which count as a whole share, there are two at a time.
    pub(super) fn of_trees(bytes: usize) -> Self {
        Self::in_parts(bytes, 2)
    }

    fn in_parts(bytes: usize, parts: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        let total = (bytes > 0).then(|| Arc::new(Semaphore::new(units)));
        Self { total, share: (units / parts).max(1), callers: Mutex::default() }
    }

    /// Waits for room; none if there is none in time. What is larger than a caller's share counts as all of it, so that it passes
    /// alone.
    pub(super) async fn hold(&self, caller: &str, bytes: usize, patience: Duration) -> Option<Held> {
        let Some(total) = &self.total else { return Some(Held { _room: None }) };
        let units = u32::try_from(bytes.div_ceil(UNIT).clamp(1, self.share)).ok()?;
        let own = self.caller(caller);
        let both = async {
            // First the caller's own, so that who has no share left holds up nobody else.
            let own = own.acquire_many_owned(units).await.ok()?;
            let total = Arc::clone(total).acquire_many_owned(units).await.ok()?;
            Some(Held { _room: Some([own, total]) })
        };
        timeout(patience, both).await.ok().flatten()
    }

    fn caller(&self, caller: &str) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= CALLERS {
            // Who waits or holds has another reference.
            callers.retain(|_, share| Arc::strong_count(share) > 1);
        }
        Arc::clone(callers.entry(caller.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.share))))
    }
}

impl Held {
    /// The bytes, which give their room back when the last reference to them is gone: when they were sent.
    pub(super) fn around(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        struct Paid<T> {
            bytes: T,
            _held: Held,
        }
        impl<T: AsRef<[u8]>> AsRef<[u8]> for Paid<T> {
            fn as_ref(&self) -> &[u8] {
                self.bytes.as_ref()
            }
        }
        Bytes::from_owner(Paid { bytes, _held: self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_caller_holds_its_share_and_leaves_the_rest_to_others() {
        let budget = Budget::new(64 * UNIT);
        let mut held = vec![];
        for _ in 0..4 {
            held.push(budget.hold("ANA", 4 * UNIT, PATIENCE).await.unwrap().around(vec![0_u8; 9]));
        }
        assert!(budget.hold("ANA", 1, PATIENCE).await.is_none(), "her share");
        for caller in ["BOB", "EVE", "JOE"] {
            held.push(budget.hold(caller, 1 << 30, PATIENCE).await.unwrap().around(Vec::new()));
        }
        assert!(budget.hold("ZOE", 1, PATIENCE).await.is_none(), "the whole");
        let part = held.remove(0).slice(2..4);
        assert!(budget.hold("ANA", 1, PATIENCE).await.is_none(), "a part of the bytes is still there");
        drop(part);
        assert!(budget.hold("ANA", 4 * UNIT, PATIENCE).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_vain_leaves_nothing_behind() {
        let budget = Budget::new(8 * UNIT);
        for at in 0..2 * CALLERS {
            assert!(budget.hold(&at.to_string(), 2 * UNIT, PATIENCE).await.is_some());
        }
        assert!(budget.callers.lock().unwrap().len() <= CALLERS);
        let all = [budget.hold("A", 1 << 20, PATIENCE).await, budget.hold("B", 1 << 20, PATIENCE).await];
        let more = [budget.hold("C", 1 << 20, PATIENCE).await, budget.hold("D", 1 << 20, PATIENCE).await];
        assert!(budget.hold("E", 1, PATIENCE).await.is_none());
        drop((all, more));
        assert!(budget.hold("E", 1 << 20, PATIENCE).await.is_some());
        assert!(Budget::new(0).hold("A", usize::MAX, PATIENCE).await.is_some(), "no bound");
    }
}
