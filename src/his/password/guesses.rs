//! How often the caller's own current password may be given wrong.
//!
//! The one rule: no more than a few comparisons for an account, then one after each wait. Who asks has signed in already, so
//! whoever guesses here sits before a browser that somebody left open; signing in is not touched by any of it. An instance
//! remembers for itself, in bounded memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::his::error::Problem;

/// Wrong passwords that nothing is waited for.
const FREE: u32 = 5;
/// The first wait and the longest; each is twice the one before.
const WAIT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// How long an account is remembered after it was last asked for.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Accounts that are remembered; the one that was not asked for the longest gives way.
const ACCOUNTS: u64 = 10_000;

/// Wrong passwords by account.
pub(in super::super) struct Guesses(Cache<String, Arc<Mutex<WrongOnes>>>);

/// What an account has given wrong since it was right.
#[derive(Default)]
struct WrongOnes {
    count: u32,
    waits_until: Option<Instant>,
}

impl Default for Guesses {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(ACCOUNTS).time_to_idle(REMEMBERED_FOR).build())
    }
}

impl Guesses {
    /// Lets a password be compared, and takes it for a wrong one until it is known how it ends: many at once are no more
    /// guesses than one after the other, and a caller who goes away has guessed, too.
    ///
    /// # Errors
    /// [`Problem::TooManyGuesses`]: how long to wait.
    pub(super) fn begin(&self, account: &str, now: Instant) -> Result<(), Problem> {
        let wrong_ones = self.0.get_with_by_ref(account, Arc::default);
        let mut wrong_ones = lock(&wrong_ones);
        if let Some(left) = wrong_ones.waits_until.map(|until| until.saturating_duration_since(now))
            && !left.is_zero()
        {
            return Err(Problem::TooManyGuesses(left));
        }
        wrong_ones.count = wrong_ones.count.saturating_add(1);
        if let Some(doublings) = wrong_ones.count.checked_sub(FREE) {
            let wait = WAIT.0.saturating_mul(2_u32.saturating_pow(doublings)).min(WAIT.1);
            wrong_ones.waits_until = Some(now + wait);
        }
        Ok(())
    }

    /// It was the right one: what was mistyped before is forgotten.
    pub(super) fn was_right(&self, account: &str) {
        self.0.invalidate(account);
    }

    /// It was not compared.
    pub(super) fn was_not_compared(&self, account: &str) {
        if let Some(wrong_ones) = self.0.get(account) {
            let mut wrong_ones = lock(&wrong_ones);
            wrong_ones.count = wrong_ones.count.saturating_sub(1);
            wrong_ones.waits_until = None;
        }
    }
}

fn lock(wrong_ones: &Mutex<WrongOnes>) -> MutexGuard<'_, WrongOnes> {
    wrong_ones.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wait that is asked for, in seconds.
    fn waited(guesses: &Guesses, account: &str, now: Instant) -> Option<u64> {
        match guesses.begin(account, now) {
            Ok(()) => None,
            Err(Problem::TooManyGuesses(wait)) => Some(wait.as_secs()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn after_five_wrong_ones_each_guess_waits_twice_as_long_as_the_one_before_to_an_hour_at_most() {
        let (guesses, mut now) = (Guesses::default(), Instant::now());
        assert!((0..FREE).all(|_| waited(&guesses, "ANA", now).is_none()));
        for seconds in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            assert_eq!(waited(&guesses, "ANA", now), Some(seconds));
            assert_eq!(waited(&guesses, "ANA", now), Some(seconds), "who asks while it lasts makes it no longer");
            assert_eq!(waited(&guesses, "BEA", now), None, "others wait for nothing");
            guesses.was_right("BEA");
            now += Duration::from_secs(seconds);
            assert_eq!(waited(&guesses, "ANA", now), None);
        }
        guesses.was_right("ANA");
        assert!((0..FREE).all(|_| waited(&guesses, "ANA", now).is_none()), "a right one takes all back");
    }

    #[test]
    fn what_was_not_compared_is_no_guess() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(waited(&guesses, "ANA", now), None);
            guesses.was_not_compared("ANA");
        }
        assert!((0..FREE).all(|_| waited(&guesses, "ANA", now).is_none()));
        assert!(waited(&guesses, "ANA", now).is_some());
    }
}
