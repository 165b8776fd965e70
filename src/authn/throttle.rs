//! Brute-force protection that cannot be used to lock a doctor out.
//!
//! The one rule: no number of failures elsewhere keeps away who proved the password from the same source lately. What
//! slows down is a *pair* of account and source after its own failures, an account's *unknown* sources while it is under
//! attack from many, and a source that fails on many accounts. Waits begin at one second, double, and end at an hour.
//!
//! Passwords that are being looked at count as failures of their pair and account until it is known how they end, so
//! that many at once are no more guesses than one after the other. They do not count for their source: a hospital behind
//! one address signs in all at once in the morning, and what the hashers take at a time is bounded. What was mistyped
//! before the right password came is taken back.
//!
//! Nothing that is cached answers a source that has not proved that very password itself ([`Throttle::has_proved`]): it
//! would tell a guesser whether he is right as often as he likes, whatever a wrong guess is answered.
//!
//! Memory is bounded, and time is monotonic. A source is an IPv4 address or an IPv6 network of 64 bits (NIST SP 800-63B,
//! 5.2.2, asks for such limits).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::config::FreeFailures;

/// First and longest wait.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// How long a source stays known to an account after it last sent the right password.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// Sources known to an account, the latest; so that who holds one account cannot push out those of another.
const KNOWN: usize = 256;
/// How long failures are remembered after they were last asked for.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// Pairs, accounts and sources remembered, each; what was not asked for the longest gives way.
const CAPACITY: u64 = 100_000;

/// How long a caller must wait before a password of his is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub(super) Duration);

/// What has failed lately, what is being looked at, and who has succeeded.
pub(super) struct Throttle {
    pairs: Cache<(Box<str>, IpAddr), Arc<Mutex<Failures>>>,
    accounts: Cache<Box<str>, Arc<Mutex<Failures>>>,
    sources: Cache<IpAddr, Arc<Mutex<Failures>>>,
    known: Cache<Box<str>, Arc<Mutex<Known>>>,
    underway: Mutex<HashMap<Place, Vec<Underway>>>,
    free: FreeFailures,
}

/// The sources known to an account, the latest last.
type Known = Vec<Sighting>;

/// A source that sent the right password of an account.
struct Sighting {
    source: IpAddr,
    fingerprint: u64,
    last: Instant,
}

/// Where a password counts while it is looked at: its account and source, or its account among all unknown sources.
type Place = (Box<str>, Option<IpAddr>);

/// A password of one source that is being looked at, for so many requests. To send one that somebody else sends at the
/// same time is a guess like any.
struct Underway {
    guess: (IpAddr, u64),
    requests: u32,
}

/// Permission to look at one password, until dropped.
pub(super) struct Attempt<'a> {
    /// Whether its source is known to the account.
    pub(super) is_known: bool,
    throttle: &'a Throttle,
    guess: (IpAddr, u64),
    places: Vec<Place>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut underway = lock(&self.throttle.underway);
        for place in &self.places {
            let Some(passwords) = underway.get_mut(place) else { continue };
            passwords.retain_mut(|password| {
                password.requests -= u32::from(password.guess == self.guess);
                password.requests > 0
            });
            if passwords.is_empty() {
                underway.remove(place);
            }
        }
    }
}

/// The failures of one pair, account or source.
#[derive(Default)]
struct Failures {
    count: u32,
    not_before: Option<Instant>,
    /// What failed, by hash: the same once more is no new failure. Of a source, its accounts; else, the last password.
    seen: Vec<u64>,
}

impl Failures {
    /// Counts a failure, unless it is the last one again; past `free`, the next attempt has to wait.
    fn add(&mut self, what: u64, free: u32, remembered: usize, now: Instant) {
        if self.seen.contains(&what) {
            return;
        }
        if self.seen.len() >= remembered.max(1) {
            self.seen.remove(0);
        }
        self.seen.push(what);
        self.count = self.count.saturating_add(1);
        if let Some(beyond) = self.count.checked_sub(free + 1) {
            let wait = WAIT.0.saturating_mul(1u32.checked_shl(beyond.min(20)).unwrap_or(u32::MAX)).min(WAIT.1);
            self.not_before = Some(now + wait);
        }
    }

    /// Takes back so many failures, which were mistyped.
    fn take_back(&mut self, failures: u32, free: u32) {
        self.count = self.count.saturating_sub(failures);
        if self.count <= free {
            self.not_before = None;
        }
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        self.not_before.and_then(|until| until.checked_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}

impl Throttle {
    pub(super) fn new(free: FreeFailures) -> Self {
        fn remembered<K, V>(idle: Duration) -> Cache<K, V>
        where
            K: std::hash::Hash + Eq + Send + Sync + 'static,
            V: Clone + Send + Sync + 'static,
        {
            let cache = Cache::builder().max_capacity(CAPACITY).eviction_policy(EvictionPolicy::lru());
            cache.time_to_idle(idle).build()
        }
        Self {
            pairs: remembered(REMEMBERED_FOR),
            accounts: remembered(REMEMBERED_FOR),
            sources: remembered(REMEMBERED_FOR),
            known: remembered(KNOWN_FOR),
            underway: Mutex::default(),
            free,
        }
    }

    /// Whether this source has sent the right password of the account lately.
    pub(super) fn knows(&self, account: &str, client: Option<IpAddr>, now: Instant) -> bool {
        self.has_sighted(account, client, |seen| now.saturating_duration_since(seen.last) < KNOWN_FOR)
    }

    /// Whether this source has sent this very password, and it was right, less than `lately` ago; of a client without an
    /// address nothing is asked.
    pub(super) fn has_proved(
        &self,
        account: &str,
        client: Option<IpAddr>,
        fingerprint: u64,
        lately: Duration,
        now: Instant,
    ) -> bool {
        let is_it =
            |seen: &Sighting| seen.fingerprint == fingerprint && now.saturating_duration_since(seen.last) < lately;
        client.is_none() || self.has_sighted(account, client, is_it)
    }

    fn has_sighted(&self, account: &str, client: Option<IpAddr>, is_it: impl Fn(&Sighting) -> bool) -> bool {
        let (Some(source), Some(known)) = (client.map(network), self.known.get(account)) else { return false };
        lock(&known).iter().any(|sighting| sighting.source == source && is_it(sighting))
    }

    /// Asks to look at a password for `account` from `client`, of which `fingerprint` is a keyed hash. If it was right
    /// or wrong, that is told to [`succeeded`](Self::succeeded) or [`failed`](Self::failed) before the attempt is dropped.
    pub(super) fn begin(
        &self,
        account: &str,
        client: Option<IpAddr>,
        fingerprint: u64,
        now: Instant,
    ) -> Result<Attempt<'_>, Wait> {
        let Some(source) = client.map(network) else {
            return Ok(Attempt {
                is_known: false,
                throttle: self,
                guess: (Ipv6Addr::UNSPECIFIED.into(), fingerprint),
                places: Vec::new(),
            });
        };
        let guess = (source, fingerprint);
        let is_known = self.knows(account, client, now);
        // Under this lock each earlier attempt is still under way, or was counted, or was right, or came to no end.
        let mut underway = lock(&self.underway);
        let of_pair = self.pairs.get(&(Box::from(account), source));
        let (of_account, of_source) = match is_known {
            true => (None, None),
            false => (self.accounts.get(account), self.sources.get(&source)),
        };
        let wait = |failures: &Option<Arc<Mutex<Failures>>>| failures.as_ref().and_then(|of| lock(of).wait(now));
        if let Some(longest) = wait(&of_pair).max(wait(&of_account)).max(wait(&of_source)) {
            return Err(Wait(longest));
        }
        let mut places = vec![((Box::from(account), Some(source)), of_pair, self.free.of_pair)];
        if !is_known {
            places.push(((Box::from(account), None), of_account, self.free.of_account));
        }
        // One more could fail without a wait, or is alone, or is looked at already.
        let has_room = places.iter().all(|(place, failures, free)| {
            let failed = failures.as_ref().map_or(0, |of| lock(of).count as usize);
            underway.get(place).is_none_or(|passwords| {
                passwords.iter().any(|password| password.guess == guess) || failed + passwords.len() <= *free as usize
            })
        });
        if !has_room {
            return Err(Wait(WAIT.0));
        }
        let places: Vec<_> = places.into_iter().map(|(place, ..)| place).collect();
        for place in &places {
            let passwords = underway.entry(place.clone()).or_default();
            match passwords.iter_mut().find(|password| password.guess == guess) {
                Some(password) => password.requests += 1,
                None => passwords.push(Underway { guess, requests: 1 }),
            }
        }
        Ok(Attempt { is_known, throttle: self, guess, places })
    }

    /// The password, of which `fingerprint` is a keyed hash, was wrong.
    pub(super) fn failed(&self, account: &str, client: Option<IpAddr>, fingerprint: u64, now: Instant) {
        let Some(source) = client.map(network) else { return };
        let add = |failures: Arc<Mutex<Failures>>, what, free, remembered| {
            lock(&failures).add(what, free, remembered, now);
        };
        add(self.pairs.get_with((Box::from(account), source), Arc::default), fingerprint, self.free.of_pair, 1);
        if !self.knows(account, client, now) {
            add(self.accounts.get_with(Box::from(account), Arc::default), fingerprint, self.free.of_account, 1);
            let free = self.free.accounts_of_source;
            add(self.sources.get_with(source, Arc::default), number(account), free, free as usize);
        }
    }

    /// The password was right after all that failed before it, which is taken back: this source is known to the account
    /// from now on.
    pub(super) fn succeeded(&self, account: &str, client: Option<IpAddr>, fingerprint: u64, now: Instant) {
        let Some(source) = client.map(network) else { return };
        let mistyped = self.pairs.remove(&(Box::from(account), source)).map_or(0, |of_pair| lock(&of_pair).count);
        if !self.knows(account, client, now) {
            if let Some(of_account) = self.accounts.get(account) {
                lock(&of_account).take_back(mistyped, self.free.of_account);
            }
            if let Some(of_source) = self.sources.get(&source) {
                let (mut of_source, account) = (lock(&of_source), number(account));
                if let Some(found) = of_source.seen.iter().position(|other| *other == account) {
                    of_source.seen.remove(found);
                    of_source.take_back(1, self.free.accounts_of_source);
                }
            }
        }
        self.remember(account, client, fingerprint, now);
    }

    /// This source has sent the right password of the account once more.
    pub(super) fn remember(&self, account: &str, client: Option<IpAddr>, fingerprint: u64, now: Instant) {
        let Some(source) = client.map(network) else { return };
        let known = self.known.get_with(Box::from(account), Arc::default);
        let mut known = lock(&known);
        known.retain(|sighting| sighting.source != source);
        if known.len() >= KNOWN {
            known.remove(0);
        }
        known.push(Sighting { source, fingerprint, last: now });
    }
}

/// Stands for an account among those that a source failed on.
fn number(account: &str) -> u64 {
    u64::from_le_bytes(blake3::hash(account.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default())
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts as one source.
pub(crate) fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped.into(),
            None => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        },
    }
}

#[cfg(test)]
mod tests;
