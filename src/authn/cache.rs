//! Cached principals, and the lease that bounds how long a revoked right can live in them.
//!
//! Law 1: cached equals uncached, for every request, at every moment while the lease is valid. Law 2: a principal is
//! usable only while less than the freshness bound has passed since the primary was *asked* what changed, and
//! answered. Law 3 follows: no instance admits a request by a revoked right later than the bound after the commit.
//!
//! The lease is also valid only while this instance is listed among the running ones. A caller that waits until all
//! instances have applied a change must know each instance that could still use the old right. An instance whose
//! reports fail reads every account from the database.
//!
//! The gate makes insertion safe: a read from before a change cannot be inserted after the change was applied, because
//! inserting and applying exclude each other, and inserting compares epochs. The generation does the same for whole
//! histories: once everything may have changed, nothing that was read before is kept or found.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use super::Principal;
use super::bounded::BoundedMap;
use super::figures::CacheFigures;
use super::stream_ledger::StreamLedger;
use crate::accounts::{AccountChanges, ChangedAccounts, listed_for};
use fedgate_base::moment::BootMoment;

/// Principals by account id.
pub(super) struct PrincipalCache {
    cache: BoundedMap<Box<str>, Arc<Principal>>,
    /// How long a principal may be used at all.
    time_to_live: Duration,
    lease: AdmissionLease,
    gate: RwLock<CacheGate>,
    streams: StreamLedger,
    /// Raised whenever everything may have changed.
    generation: AtomicU64,
    /// Publishes the applied epoch to tasks that wait for it.
    epoch: watch::Sender<u64>,
    hits: AtomicU64,
    misses: AtomicU64,
    dropped: DroppedEntries,
}

/// The state shared by inserting, applying and listing.
struct CacheGate {
    /// The epoch whose changes have been applied to the cache.
    applied: u64,
    /// Since when this instance has been listed without a gap. Questions from before do not extend the lease, because
    /// a caller that waited then did not see this instance.
    listed_since: BootMoment,
    /// The confirming server refused a report because it takes no writes, so it is not the primary.
    refused: bool,
}

/// Why an entry left a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropCause {
    /// What it says may have changed.
    Change,
    /// Others needed the room.
    Room,
    /// It was over.
    Age,
}

/// Counts of entries that left a cache.
#[derive(Default)]
pub(super) struct DroppedEntries {
    invalidated: AtomicU64,
    evicted: AtomicU64,
    /// Sum of the seconds that those entries were held.
    ages: AtomicU64,
}

impl DroppedEntries {
    /// Counts a dropped entry that was held since `since`.
    pub(super) fn note(&self, since: BootMoment, cause: DropCause) {
        let counter = match cause {
            DropCause::Age | DropCause::Room => &self.evicted,
            DropCause::Change => &self.invalidated,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.ages.fetch_add(BootMoment::now().since(since).as_secs(), Ordering::Relaxed);
    }

    /// How many entries were dropped by a change, how many for lack of room or for age, and their mean age in seconds.
    pub(super) fn figures(&self) -> (u64, u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (invalidated, evicted) = (of(&self.invalidated), of(&self.evicted));
        (invalidated, evicted, of(&self.ages).checked_div(invalidated + evicted).unwrap_or_default())
    }
}

/// The history in which an account is read; taken before the read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheGeneration(u64);

/// Until when cached principals may be used. Both fields are [`BootMoment`]s and only grow, so a late answer never
/// shortens a lease.
struct AdmissionLease {
    /// The time of the last answered question plus the freshness bound.
    confirmed: AtomicU64,
    /// The time of the last report that arrived, plus the time for which others count on it.
    listed: AtomicU64,
    bound: Duration,
}

impl PrincipalCache {
    pub(super) fn new(capacity: u64, time_to_live: Duration, bound: Duration) -> Self {
        Self {
            cache: BoundedMap::new(capacity),
            time_to_live,
            lease: AdmissionLease { confirmed: AtomicU64::new(0), listed: AtomicU64::new(0), bound },
            gate: RwLock::new(CacheGate { applied: 0, listed_since: BootMoment::now(), refused: false }),
            streams: StreamLedger::new(),
            generation: AtomicU64::new(0),
            epoch: watch::Sender::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            dropped: DroppedEntries::default(),
        }
    }

    /// The epoch that was applied last, as a channel to wait on.
    pub(super) fn epoch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// Counts a request as answered from the cache or not.
    pub(super) fn count(&self, hit: bool) {
        let counter = if hit { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The figures so far.
    pub(super) fn figures(&self) -> CacheFigures {
        let now = BootMoment::now();
        // Nobody asks for them any more, perhaps; their memory is for others.
        self.cache.sweep(
            |principal| self.is_over(principal, now),
            |principal| self.dropped.note(principal.since, DropCause::Age),
        );
        let (invalidated, evicted, mean_age_seconds) = self.dropped.figures();
        CacheFigures {
            principals: self.cache.weight() as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            invalidated,
            evicted,
            mean_age_seconds,
            ..CacheFigures::default()
        }
    }

    /// The generation for a read that begins now. Its principal may be inserted while this generation lasts.
    pub(super) fn generation(&self) -> CacheGeneration {
        CacheGeneration(self.generation.load(Ordering::Acquire))
    }

    /// The principal of an account, if it is cached and the lease is valid. The only lookup on the hit path.
    pub(super) fn find(&self, account: &str, now: BootMoment) -> Option<Arc<Principal>> {
        // INVARIANT: no cached right is used without a valid lease; [`Self::confirm`] and [`Self::listed`] extend it.
        if !self.lease.is_valid(now) {
            return None;
        }
        // No lock is held here: everything may have been dropped since the lookup.
        let found = self.cache.get(account)?;
        (found.generation == self.generation() && !self.is_over(&found, now)).then_some(found)
    }

    /// Whether a principal is older than any may become, or the calendar has changed whom it is related to.
    fn is_over(&self, principal: &Principal, now: BootMoment) -> bool {
        now.since(principal.since) >= self.time_to_live || now >= principal.until
    }

    /// Inserts a principal, unless a change was applied since its account was read.
    pub(super) fn insert(&self, principal: &Arc<Principal>) {
        // A read lock: insertions run side by side, and `confirm` excludes them all.
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if principal.epoch >= gate.applied && principal.generation == self.generation() {
            self.put(principal);
        }
    }

    fn put(&self, principal: &Arc<Principal>) {
        let left = self.cache.insert(principal.account.clone(), Arc::clone(principal));
        left.iter().for_each(|left| self.dropped.note(left.since, DropCause::Room));
    }

    /// Replaces a principal by the same one with rights under another policy, if it is still cached.
    pub(super) fn replace(&self, held: &Arc<Principal>, recompiled: &Arc<Principal>) {
        let _applied = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        // Only the very same entry: otherwise an old principal would replace one that was read since.
        if self.cache.peek(&held.account, |known| Arc::ptr_eq(known, held)) == Some(true) {
            self.put(recompiled);
        }
    }

    /// Applies the changes, then extends the lease. False if the server takes no writes: its answer is no
    /// confirmation.
    pub(super) fn confirm(&self, asked: BootMoment, changes: &AccountChanges) -> bool {
        // Changes first, lease last: a lease that grew first would let dropped rights pass for a moment.
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let dropped: Vec<_> = match &changes.accounts {
            ChangedAccounts::Everything => {
                self.generation.fetch_add(1, Ordering::AcqRel);
                self.cache.take_all()
            }
            ChangedAccounts::These(accounts) => {
                accounts.iter().filter_map(|account| self.cache.remove(account.as_str())).collect()
            }
        };
        // After the cache, so that a stream that looks now finds no dropped entry; and before the lease.
        self.streams.note(&changes.accounts);
        gate.applied = changes.epoch;
        // Counted from the question: the answer does not vouch for anything that was committed after it was asked.
        if asked >= gate.listed_since && !gate.refused {
            self.lease.confirmed(asked);
        }
        self.epoch.send_if_modified(|known| std::mem::replace(known, changes.epoch) != changes.epoch);
        let is_confirmed = !gate.refused;
        // Counted and freed outside the gate: there may be a hundred thousand.
        drop(gate);
        dropped.iter().for_each(|principal| self.dropped.note(principal.since, DropCause::Change));
        is_confirmed
    }

    /// A report was refused because the server takes no writes: the lease ends until a report has arrived.
    pub(super) fn refused(&self) {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        gate.refused = true;
        self.lease.begin();
    }

    /// The running streams.
    pub(super) fn streams(&self) -> &StreamLedger {
        &self.streams
    }

    /// Whether this principal is the cached one, whatever policy its rights belong to.
    pub(super) fn has(&self, principal: &Principal) -> bool {
        let is_it = |known: &Arc<Principal>| known.since == principal.since && known.generation == self.generation();
        self.cache.peek(&principal.account, is_it) == Some(true)
    }

    /// For how long the lease is valid from `now` on.
    pub(super) fn lease_left(&self, now: BootMoment) -> Duration {
        let ends = |end: &AtomicU64| Duration::from_nanos(end.load(Ordering::Acquire).saturating_sub(now.as_nanos()));
        ends(&self.lease.listed).min(ends(&self.lease.confirmed))
    }

    /// Whether cached principals may be used at `now`.
    pub(super) fn lease_is_valid(&self, now: BootMoment) -> bool {
        self.lease.is_valid(now)
    }

    /// Whether the last confirmation is within the bound, apart from the listing.
    pub(super) fn is_confirmed(&self, now: BootMoment) -> bool {
        self.lease.is_confirmed(now)
    }

    /// Records at `now` that a report of this instance, made at `reported`, has arrived.
    pub(super) fn listed(&self, reported: BootMoment, now: BootMoment) {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        gate.refused = false;
        // After a gap in the list nobody waited for this instance, so confirmations from within the gap do not count.
        if !self.lease.is_listed(now) {
            gate.listed_since = now;
            self.lease.begin();
        }
        self.lease.listed(reported);
    }
}

impl AdmissionLease {
    fn is_valid(&self, now: BootMoment) -> bool {
        // The order matters: a reader that sees the new listing also sees that earlier confirmations are forgotten.
        self.is_listed(now) && self.is_confirmed(now)
    }

    fn is_listed(&self, now: BootMoment) -> bool {
        now.as_nanos() < self.listed.load(Ordering::Acquire)
    }

    /// Forgets the confirmations.
    fn begin(&self) {
        self.confirmed.store(0, Ordering::Release);
    }

    fn is_confirmed(&self, now: BootMoment) -> bool {
        now.as_nanos() < self.confirmed.load(Ordering::Acquire)
    }

    fn confirmed(&self, asked: BootMoment) {
        self.confirmed.fetch_max((asked + self.bound).as_nanos(), Ordering::AcqRel);
    }

    fn listed(&self, reported: BootMoment) {
        self.listed.fetch_max((reported + listed_for(self.bound)).as_nanos(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_age_is_of_all_that_were_dropped() {
        let dropped = DroppedEntries::default();
        assert_eq!(dropped.figures(), (0, 0, 0));
        let ago = |seconds| BootMoment::now() - Duration::from_secs(seconds);
        dropped.note(ago(10), DropCause::Age);
        dropped.note(ago(20), DropCause::Change);
        dropped.note(ago(12), DropCause::Room);
        assert_eq!(dropped.figures(), (1, 2, 14));
        let principals =
            PrincipalCache { dropped, ..PrincipalCache::new(1, Duration::from_secs(1), Duration::from_secs(1)) };
        let figures = principals.figures();
        assert_eq!((figures.invalidated, figures.evicted, figures.mean_age_seconds), (1, 2, 14));
    }
}
