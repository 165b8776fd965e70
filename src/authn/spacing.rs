//! The time at which a wrong password is answered: on a clock of its client address, one step after another.
//!
//! The one rule: of the rejections that wait at one time, the k-th is answered k steps after its request came, however
//! long its verification took. That duration depends on the kind of the stored hash, and grows with each password that
//! is verified at the same time, so an answer that depended on it would reveal the kind. For the same reason
//! rejections take their steps in the order in which the requests came, not in the order in which verifications end.
//! The hashers' schedule handles the influence of verifications from other addresses: nothing is rejected before its
//! time.
//!
//! No answer waits longer than [`LONGEST`]; a request that would wait longer is told to try again later, after exactly
//! that time. An answer comes later only if its verification did, and then by whole steps. A right password never
//! takes a step.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// The longest time that an answer is held back.
pub(super) const LONGEST: Duration = Duration::from_secs(10);
/// The most clocks at a time; the least recently used one is dropped.
const CAPACITY: u64 = 100_000;
/// The most answers that one clock holds back before it counts as full.
const MOST_HELD_OF_KEY: usize = 1000;

/// A rejection that would wait longer than [`LONGEST`], and by how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany(pub(super) Duration);

/// The clocks of all client addresses, or of all accounts at their client addresses.
pub(super) struct RejectionSpacing<K> {
    clocks: Cache<K, Arc<AddressClock>>,
    /// How many clocks are full.
    full: Arc<AtomicUsize>,
}

/// The clock of one client address.
#[derive(Default)]
struct AddressClock {
    times: Mutex<RejectionTimes>,
    /// Notifies that a request was decided.
    decided: Notify,
}

#[derive(Default)]
struct RejectionTimes {
    /// When the latest scheduled rejection is answered.
    last: Option<Instant>,
    /// How many requests have come.
    came: u64,
    /// The numbers of the undecided requests.
    undecided: BTreeSet<u64>,
    /// How many answers are held back.
    held: usize,
}

impl RejectionTimes {
    /// The time of the next rejection, for a request that came at `came`. It is never in the past.
    fn next(&mut self, came: Instant, now: Instant, step: Duration) -> Result<Instant, TooMany> {
        let mut next = self.last.map_or(came, |last| last.max(came)) + step;
        let steps_late = now.saturating_duration_since(next).as_nanos().div_ceil(step.as_nanos().max(1));
        next += step.saturating_mul(u32::try_from(steps_late).unwrap_or(u32::MAX));
        // A verification that alone took this long has waited enough.
        let latest = came + LONGEST;
        if next > latest.max(now + step) {
            return Err(TooMany((next - latest).max(step)));
        }
        self.last = Some(next);
        Ok(next)
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> RejectionSpacing<K> {
    pub(super) fn new() -> Self {
        let clocks = Cache::builder().max_capacity(CAPACITY).eviction_policy(EvictionPolicy::lru());
        // No scheduled answer is further ahead.
        Self { clocks: clocks.time_to_idle(4 * LONGEST).build(), full: Arc::default() }
    }

    /// Takes the next place in the order of the client address for a request that came now, until it is decided.
    pub(super) fn place(&self, key: K) -> RejectionPlace {
        let clock = self.clocks.get_with(key, Arc::default);
        let mut times = lock(&clock.times);
        times.came += 1;
        let number = times.came;
        times.undecided.insert(number);
        drop(times);
        RejectionPlace { clock, number, came: Instant::now() }
    }

    /// Whether any clock is full. Costs one atomic load.
    pub(super) fn is_any_full(&self) -> bool {
        self.full.load(Ordering::Relaxed) > 0
    }

    /// Whether one clock holds back as many answers as it may.
    pub(super) fn is_full(&self, key: &K) -> bool {
        self.clocks.get(key).is_some_and(|clock| lock(&clock.times).held >= MOST_HELD_OF_KEY)
    }

    /// Holds back an answer that a password is not the proved one, like a rejection of a request that came now.
    pub(super) async fn hold(&self, key: K, step: Duration) {
        let clock = self.clocks.get_with(key, Arc::default);
        let now = Instant::now();
        // The count falls when `held` is dropped, also if the client goes away while this sleeps.
        let (held, until) = {
            let mut times = lock(&clock.times);
            times.held += 1;
            if times.held == MOST_HELD_OF_KEY {
                self.full.fetch_add(1, Ordering::Relaxed);
            }
            (HeldRejection { clock: Arc::clone(&clock), full: Arc::clone(&self.full) }, times.next(now, now, step))
        };
        sleep_until(until.unwrap_or(now + LONGEST)).await;
        drop(held);
    }
}

/// An answer that is held back, until dropped; its client may disconnect meanwhile.
struct HeldRejection {
    clock: Arc<AddressClock>,
    full: Arc<AtomicUsize>,
}

impl Drop for HeldRejection {
    fn drop(&mut self) {
        let mut times = lock(&self.clock.times);
        if times.held == MOST_HELD_OF_KEY {
            self.full.fetch_sub(1, Ordering::Relaxed);
        }
        times.held -= 1;
    }
}

/// The place of an undecided request in the order of its client address.
pub(super) struct RejectionPlace {
    clock: Arc<AddressClock>,
    number: u64,
    came: Instant,
}

impl RejectionPlace {
    /// Rejects the request: returns when the answer is due.
    ///
    /// # Errors
    /// Too many rejections wait. This too is reported only [`LONGEST`] after the request came, because an earlier
    /// answer would depend on the verification, and reveal the kind of hash.
    pub(super) async fn rejected(self, step: Duration) -> Result<(), TooMany> {
        let latest = self.came + LONGEST;
        let next = match timeout_at(latest, self.turn()).await {
            Ok(()) => lock(&self.clock.times).next(self.came, Instant::now(), step),
            Err(_) => Err(TooMany(step)),
        };
        // Later requests may take their turn now.
        drop(self);
        match next {
            Ok(next) => sleep_until(next).await,
            Err(TooMany(_)) => sleep_until(latest).await,
        }
        next.map(drop)
    }

    /// Waits until all earlier requests are decided.
    async fn turn(&self) {
        loop {
            let decided = self.clock.decided.notified();
            tokio::pin!(decided);
            // Registered before the look, so that no decision after it is missed.
            decided.as_mut().enable();
            if lock(&self.clock.times).undecided.first() == Some(&self.number) {
                return;
            }
            decided.await;
        }
    }
}

impl Drop for RejectionPlace {
    fn drop(&mut self) {
        lock(&self.clock.times).undecided.remove(&self.number);
        self.clock.decided.notify_waiters();
    }
}

fn lock(times: &Mutex<RejectionTimes>) -> MutexGuard<'_, RejectionTimes> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(500);

    /// When each of these requests is answered, in ms after they all came. They are decided in the order of these
    /// numbers, each some time after the previous one.
    async fn answered(decided: &[usize], while_each: Duration) -> Vec<(u128, bool)> {
        let spacing = Arc::new(RejectionSpacing::new());
        let came = Instant::now();
        let places: Vec<_> = (0..decided.len()).map(|_| spacing.place(7)).collect();
        let answers = places.into_iter().enumerate().map(|(number, place)| {
            let ends = decided.iter().position(|other| *other == number).unwrap();
            tokio::spawn(async move {
                tokio::time::sleep(while_each * u32::try_from(ends + 1).unwrap()).await;
                let outcome = place.rejected(STEP).await;
                (came.elapsed().as_millis(), outcome.is_ok())
            })
        });
        let answers: Vec<_> = answers.collect();
        let mut times = Vec::new();
        for answer in answers {
            times.push(answer.await.unwrap());
        }
        times
    }

    #[tokio::test(start_paused = true)]
    async fn the_kth_of_many_at_once_is_answered_after_k_steps_however_long_verification_takes() {
        let expected: Vec<_> = (1..=6).map(|k| (k * 500, true)).collect();
        for while_each in [1, 40, 290, 500] {
            let while_each = Duration::from_millis(while_each);
            assert_eq!(answered(&[0, 1, 2, 3, 4, 5], while_each).await, expected, "{while_each:?}");
        }
        // The first takes longest, and is still answered first.
        assert_eq!(answered(&[1, 2, 3, 4, 5, 0], Duration::from_millis(80)).await, expected);
        // A verification that takes longer than its step is answered whole steps later.
        let late = answered(&[0, 1], Duration::from_millis(1100)).await;
        assert_eq!(late, [(1500, true), (2500, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn none_waits_longer_than_ten_seconds_and_the_rest_are_refused_for_now() {
        let decided: Vec<usize> = (0..30).collect();
        for while_each in [1, 100] {
            let times = answered(&decided, Duration::from_millis(while_each)).await;
            let expected = (1..=30).map(|k: u128| (k.min(20) * 500, k <= 20));
            assert!(times.into_iter().eq(expected), "{while_each}");
        }
        let spacing = RejectionSpacing::new();
        let places: Vec<_> = (0..22).map(|_| spacing.place(1)).collect();
        let waits = places.into_iter().map(|place| tokio::spawn(async move { place.rejected(STEP).await }));
        let mut last = Ok(());
        for wait in waits.collect::<Vec<_>>() {
            last = wait.await.unwrap();
        }
        assert_eq!(last, Err(TooMany(STEP)));
    }

    #[tokio::test(start_paused = true)]
    async fn rejections_wait_for_their_own_address_alone_and_for_what_is_undecided_before_them() {
        let spacing = RejectionSpacing::new();
        let came = Instant::now();
        let (first, second, elsewhere) = (spacing.place(1), spacing.place(1), spacing.place(2));
        elsewhere.rejected(STEP).await.unwrap();
        assert_eq!(came.elapsed().as_millis(), 500);
        let second = tokio::spawn(second.rejected(STEP));
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!second.is_finished(), "the first is undecided");
        // It was right, or its client disconnected: it took no step.
        drop(first);
        second.await.unwrap().unwrap();
        assert_eq!(came.elapsed().as_millis(), 1500);
        // An undecided request does not make others wait for ever.
        let (_undecided, behind) = (spacing.place(3), spacing.place(3));
        let came = Instant::now();
        assert_eq!((behind.rejected(STEP).await, came.elapsed()), (Err(TooMany(STEP)), LONGEST));
        // Verified for longer than any answer waits: one step remains.
        let slow = spacing.place(4);
        tokio::time::sleep(2 * LONGEST + STEP / 2).await;
        let decided = Instant::now();
        slow.rejected(STEP).await.unwrap();
        assert_eq!(decided.elapsed(), STEP / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_full_while_it_holds_a_thousand_answers() {
        let spacing = Arc::new(RejectionSpacing::new());
        let hold = |key| {
            let spacing = Arc::clone(&spacing);
            tokio::spawn(async move { spacing.hold(key, STEP).await })
        };
        let are_held = async |wanted| {
            while spacing.clocks.get(&1).is_none_or(|clock| lock(&clock.times).held != wanted) {
                tokio::task::yield_now().await;
            }
        };
        let came = Instant::now();
        let mut held: Vec<_> = (1..MOST_HELD_OF_KEY).map(|_| hold(1)).collect();
        are_held(MOST_HELD_OF_KEY - 1).await;
        assert!(!spacing.is_any_full() && !spacing.is_full(&1));
        held.extend([hold(1), hold(1)]);
        are_held(MOST_HELD_OF_KEY + 1).await;
        assert!(spacing.is_any_full() && spacing.is_full(&1) && !spacing.is_full(&2));
        tokio::time::sleep_until(came + STEP + STEP / 2).await;
        assert!(spacing.is_full(&1), "one of a thousand and one was answered");
        // Clients that disconnected hold nothing.
        held.pop().unwrap().abort();
        are_held(MOST_HELD_OF_KEY - 1).await;
        assert!(!spacing.is_any_full() && !spacing.is_full(&1));
        for one in held {
            let _ = one.await;
        }
        assert_eq!(came.elapsed(), LONGEST, "none is held longer");
        assert_eq!(lock(&spacing.clocks.get(&1).unwrap().times).held, 0);
    }
}
