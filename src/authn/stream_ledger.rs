//! The running streams by account, and the changes that concern them.
//!
//! The one rule: a reported change stays with its streams until each has looked at it. [`super::cache`] reports, and
//! [`super::streams`] looks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::accounts::ChangedAccounts;

/// Accounts that are read again at the same time: a change of everything must not take all connections to the store.
const READ_AT_ONCE: usize = 8;

/// All running streams, by account. Those of anonymous callers have the empty one, which is no account's id.
pub(super) struct StreamLedger {
    streams: Mutex<HashMap<Box<str>, Vec<Arc<StreamSignal>>>>,
    reads: Semaphore,
}

/// Changes that concern one stream.
#[derive(Default)]
pub(super) struct StreamSignal {
    /// Counts the reported changes.
    reported: AtomicU64,
    /// How many of them have been looked at.
    settled: AtomicU64,
    wake: Notify,
}

impl StreamLedger {
    pub(super) fn new() -> Self {
        Self { streams: Mutex::default(), reads: Semaphore::new(READ_AT_ONCE) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<Arc<StreamSignal>>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream of an account.
    pub(super) fn add(&self, account: &str) -> Arc<StreamSignal> {
        let signal = Arc::new(StreamSignal::default());
        self.lock().entry(account.into()).or_default().push(Arc::clone(&signal));
        signal
    }

    /// Removes a stream.
    pub(super) fn remove(&self, account: &str, signal: &Arc<StreamSignal>) {
        let mut streams = self.lock();
        let Some(signals) = streams.get_mut(account) else { return };
        if let Some(at) = signals.iter().position(|known| Arc::ptr_eq(known, signal)) {
            signals.swap_remove(at);
        }
        if signals.is_empty() {
            streams.remove(account);
        }
    }

    /// A turn to read an account again.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so there is always one.
        self.reads.acquire().await.ok()
    }

    /// Notes reported changes, before the lease is extended.
    pub(super) fn note(&self, changes: &ChangedAccounts) {
        let streams = self.lock();
        let report = |signals: &[Arc<StreamSignal>]| signals.iter().for_each(|signal| signal.report());
        match changes {
            ChangedAccounts::Everything => streams.values().for_each(|signals| report(signals)),
            ChangedAccounts::These(accounts) => {
                accounts.iter().filter_map(|account| streams.get(account.as_str())).for_each(|signals| report(signals));
            }
        }
    }

    /// Lets every stream look whether it may run on.
    pub(super) fn wake(&self) {
        self.lock().values().flatten().for_each(|signal| signal.wake.notify_one());
    }
}

impl StreamSignal {
    /// How many changes were reported.
    pub(super) fn reported(&self) -> u64 {
        self.reported.load(Ordering::Acquire)
    }

    /// Whether all of them have been looked at.
    pub(super) fn is_settled(&self) -> bool {
        self.reported() == self.settled.load(Ordering::Acquire)
    }

    /// So many have been looked at.
    pub(super) fn settle(&self, reported: u64) {
        self.settled.store(reported, Ordering::Release);
    }

    /// Waits for a report, or a wake-up.
    pub(super) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Reports a change.
    pub(super) fn report(&self) {
        self.reported.fetch_add(1, Ordering::AcqRel);
        self.wake.notify_one();
    }
}
