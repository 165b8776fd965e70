//! Permission to verify one password, and the passwords that are being verified.
//!
//! The one rule: a password under way counts as a failure of its pair and account, so many passwords at once allow no
//! more guesses than one after another.

use std::time::Instant;

use super::failures::WAIT;
use super::{GuessThrottle, ThrottleWait, lock};
use crate::authn::client::ClientSource;

/// Where a password counts while it is verified: its account and client address, or its account across all unknown
/// addresses.
pub(super) type AttemptPlace = (Box<str>, Option<ClientSource>);

/// A password of one client address under verification, for this many requests. The same password from two addresses
/// counts as two guesses.
pub(super) struct PasswordUnderway {
    guess: (ClientSource, u64),
    requests: u32,
}

/// Permission to verify one password, until dropped.
pub(in crate::authn) struct PasswordAttempt<'a> {
    /// Whether its client address is known to the account.
    pub(in crate::authn) is_known: bool,
    throttle: &'a GuessThrottle,
    guess: Option<(ClientSource, u64)>,
    places: Vec<AttemptPlace>,
}

impl Drop for PasswordAttempt<'_> {
    fn drop(&mut self) {
        let mut underway = lock(&self.throttle.underway);
        for place in &self.places {
            let Some(passwords) = underway.get_mut(place) else { continue };
            passwords.retain_mut(|password| {
                password.requests -= u32::from(Some(password.guess) == self.guess);
                password.requests > 0
            });
            if passwords.is_empty() {
                underway.remove(place);
            }
        }
    }
}

impl GuessThrottle {
    /// Asks for permission to verify a password for `account` from `source`; `fingerprint` is a keyed hash of it. The
    /// outcome must be reported to [`succeeded`](Self::succeeded) or [`failed`](Self::failed) before the attempt is
    /// dropped.
    pub(in crate::authn) fn begin(
        &self,
        account: &str,
        source: Option<ClientSource>,
        fingerprint: u64,
        now: Instant,
    ) -> Result<PasswordAttempt<'_>, ThrottleWait> {
        let Some(source) = source else {
            return Ok(PasswordAttempt { is_known: false, throttle: self, guess: None, places: Vec::new() });
        };
        let guess = (source, fingerprint);
        let is_known = self.knows(account, Some(source), now);
        // Under this lock, each earlier attempt is under way, counted, right, or cancelled. So no two requests both
        // take the last free guess.
        let mut underway = lock(&self.underway);
        let pair = |source| (Some(source), self.pairs.get(&(Box::from(account), source)), self.free.of_pair);
        let mut counted = vec![pair(source)];
        // A known address answers only for its own failures. Otherwise failures elsewhere would lock the person out.
        if !is_known {
            counted.extend(source.shared().map(pair));
            counted.push((None, self.accounts.get(account), self.free.of_account));
        }
        let waits_for_source = !is_known && !self.vouched.holds(account, now);
        let of_sources = [Some(source), source.shared()].into_iter().flatten().filter(|_| waits_for_source);
        let of_sources = of_sources.filter_map(|source| self.sources.get(&source));
        let failures = counted.iter().filter_map(|(_, failures, _)| failures.clone()).chain(of_sources);
        // All waits that apply must have passed, so the longest counts.
        if let Some(longest) = failures.filter_map(|failures| lock(&failures).wait(now)).max() {
            return Err(ThrottleWait(longest));
        }
        let places: Vec<_> = counted
            .into_iter()
            .map(|(source, failures, free)| {
                let failed = failures.map_or(0, |failures| lock(&failures).count);
                ((Box::from(account), source), failed as usize, free as usize)
            })
            .collect();
        // There is room if one more failure has no wait, no other password is under way, or this one already is.
        let has_room = places.iter().all(|(place, failed, free)| {
            underway.get(place).is_none_or(|passwords| {
                passwords.iter().any(|password| password.guess == guess) || failed + passwords.len() <= *free
            })
        });
        if !has_room {
            // The passwords under way may all fail. So this one waits as if they had.
            return Err(ThrottleWait(WAIT.0));
        }
        let places: Vec<AttemptPlace> = places.into_iter().map(|(place, ..)| place).collect();
        for place in &places {
            let passwords = underway.entry(place.clone()).or_default();
            match passwords.iter_mut().find(|password| password.guess == guess) {
                Some(password) => password.requests += 1,
                None => passwords.push(PasswordUnderway { guess, requests: 1 }),
            }
        }
        Ok(PasswordAttempt { is_known, throttle: self, guess: Some(guess), places })
    }
}
