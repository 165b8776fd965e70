//! Bounds how often the caller's own current password may be wrong.
//!
//! The one rule: an account has a few comparisons, then one after each wait. The caller has already signed in, so
//! the attacker to expect sits at a browser that was left open. Signing in is not affected. Each instance counts
//! for itself, in bounded memory. A count belongs to one stored password and ends with it, and ends when an operator
//! unlocks the account. A change of roles does not end it: an open browser may be able to make one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::HisError;

/// Wrong passwords before the first wait.
const FREE: u32 = 5;
/// The first wait and the longest. Each is twice the one before.
const WAIT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// How long an account is remembered after its last attempt.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// The number of accounts that are remembered. The one with the oldest attempt is dropped first.
const ACCOUNTS: usize = 10_000;

/// Wrong passwords by account.
#[derive(Default)]
pub(in super::super) struct OwnPasswordGuesses(Mutex<HashMap<String, WrongOnes>>);

/// The stored password and the unlock to which a count belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuessTarget {
    /// A digest of the stored hash.
    pub(super) password: String,
    /// How often an operator has unlocked the account.
    pub(super) unlocks: i64,
}

/// The wrong passwords of an account since its last right one.
struct WrongOnes {
    target: GuessTarget,
    count: u32,
    asked_at: Instant,
    waits_until: Option<Instant>,
}

impl OwnPasswordGuesses {
    /// Permits a comparison, and counts it as wrong until its result is known. So guesses sent at the same moment
    /// are no more than guesses one after the other, and a caller that goes away has used its guess. Returns the wait
    /// that follows, if one does.
    ///
    /// # Errors
    /// [`HisError::TooManyGuesses`], with the time to wait.
    pub(super) fn begin(
        &self,
        account: &str,
        target: &GuessTarget,
        now: Instant,
    ) -> Result<Option<Duration>, HisError> {
        let mut accounts = self.lock();
        if !accounts.contains_key(account) {
            make_room(&mut accounts, now);
        }
        let first = || WrongOnes { target: target.clone(), count: 0, asked_at: now, waits_until: None };
        let wrong_ones = accounts.entry(account.to_owned()).or_insert_with(first);
        // Guesses at the old password say nothing about a new one, and an unlock is the operator's decision.
        if wrong_ones.target != *target {
            *wrong_ones = first();
        }
        // Also during a wait, so that an account under attack is not the one that is forgotten.
        wrong_ones.asked_at = now;
        // During a wait nothing is compared, not even the right password: the answer would confirm it.
        if let Some(left) = wrong_ones.waits_until.map(|until| until.saturating_duration_since(now))
            && !left.is_zero()
        {
            return Err(HisError::TooManyGuesses(left));
        }
        wrong_ones.count = wrong_ones.count.saturating_add(1);
        let doublings = wrong_ones.count.checked_sub(FREE);
        let wait = doublings.map(|doublings| WAIT.0.saturating_mul(2_u32.saturating_pow(doublings)).min(WAIT.1));
        if let Some(wait) = wait {
            wrong_ones.waits_until = Some(now + wait);
        }
        Ok(wait)
    }

    /// The password was right: earlier mistakes are forgotten.
    pub(super) fn was_right(&self, account: &str) {
        self.lock().remove(account);
    }

    /// The password was not compared, so its guess is returned.
    pub(super) fn was_not_compared(&self, account: &str) {
        if let Some(wrong_ones) = self.lock().get_mut(account) {
            wrong_ones.count = wrong_ones.count.saturating_sub(1);
            wrong_ones.waits_until = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, WrongOnes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops accounts without a recent attempt. If that is not enough, drops the one with the oldest attempt.
fn make_room(accounts: &mut HashMap<String, WrongOnes>, now: Instant) {
    if accounts.len() < ACCOUNTS {
        return;
    }
    accounts.retain(|_, wrong_ones| now.saturating_duration_since(wrong_ones.asked_at) < REMEMBERED_FOR);
    if accounts.len() < ACCOUNTS {
        return;
    }
    // To push a count out, an attacker would have to sign in with as many accounts.
    if let Some(oldest) = accounts.iter().min_by_key(|(_, wrong_ones)| wrong_ones.asked_at).map(|(id, _)| id.clone()) {
        accounts.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wait that is demanded, in seconds.
    fn waited(guesses: &OwnPasswordGuesses, account: &str, now: Instant) -> Option<u64> {
        waited_for(guesses, account, "hash", 0, now)
    }

    fn waited_for(
        guesses: &OwnPasswordGuesses,
        account: &str,
        password: &str,
        unlocks: i64,
        now: Instant,
    ) -> Option<u64> {
        match guesses.begin(account, &GuessTarget { password: password.to_owned(), unlocks }, now) {
            Ok(_) => None,
            Err(HisError::TooManyGuesses(wait)) => Some(wait.as_secs()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn after_five_wrong_ones_each_guess_waits_twice_as_long_as_the_one_before_to_an_hour_at_most() {
        let (guesses, mut now) = (OwnPasswordGuesses::default(), Instant::now());
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
    fn another_password_and_an_unlocking_begin_the_count_anew_and_nothing_else_does() {
        let (guesses, now) = (OwnPasswordGuesses::default(), Instant::now());
        for (password, unlocks) in [("hash", 0), ("other", 0), ("other", 1)] {
            let guess = || waited_for(&guesses, "ANA", password, unlocks, now);
            assert!((0..FREE).all(|_| guess().is_none()), "{password} {unlocks}");
            assert_eq!(guess(), Some(60), "{password} {unlocks}");
        }
    }

    #[test]
    fn the_account_that_was_not_asked_for_the_longest_gives_way() {
        let (guesses, began) = (OwnPasswordGuesses::default(), Instant::now());
        for number in 0..=ACCOUNTS {
            let now = began + Duration::from_millis(number as u64);
            assert_eq!(waited(&guesses, &number.to_string(), now), None);
        }
        let accounts = guesses.lock();
        assert_eq!((accounts.len(), accounts.contains_key("0"), accounts.contains_key("1")), (ACCOUNTS, false, true));
    }

    #[test]
    fn what_was_not_compared_is_no_guess() {
        let (guesses, now) = (OwnPasswordGuesses::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(waited(&guesses, "ANA", now), None);
            guesses.was_not_compared("ANA");
        }
        assert!((0..FREE).all(|_| waited(&guesses, "ANA", now).is_none()));
        assert!(waited(&guesses, "ANA", now).is_some());
    }
}
