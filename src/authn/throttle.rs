//! Brute-force protection that never locks out a doctor at an address where she has signed in, however often others
//! fail.
//!
//! The one rule: no number of failures, from any addresses, delays a password that this process has proved for the
//! account and client address. (A connection that holds back too many answers compares no more passwords: see
//! [`super::line`].) Three things slow down: a *pair* of account and client address after its own failures, the
//! *unknown* addresses of an account that is under attack from many, and an address that fails on many accounts. Waits
//! begin at one second, double, and end at one hour. An account that an operator has unlocked does not wait for what
//! its address has failed elsewhere ([`vouched`]).
//!
//! A proved password skips the wait, but only its verification admits the caller. The proof is remembered for days,
//! only for the address that supplied the password, and with the stored hash that it was proved against. A skip for
//! every address would let the whole world try passwords against one address's proof. A guesser behind that same
//! address who sends the right password learns no more than any sign-in reveals. If a skip does not end in an
//! admission (the password was changed, the account is not active), the caller must wait like everybody, and the proof
//! is forgotten.
//!
//! While a password is being verified, it counts as a failure of its pair and account, so many passwords at once allow
//! no more guesses than one after another. It does not count against its address: everybody in a hospital behind one
//! address signs in at the same time in the morning, and the hashers' queues bound that work. When the right password
//! comes, the mistyped ones before it are taken back.
//!
//! A cached proof is valid only for the client address that supplied the password ([`GuessThrottle::has_proved`]). For
//! another address it would reveal whether a guess is right, without a limit, even while wrong guesses are throttled.
//!
//! Memory is bounded by the number of accounts that are remembered, and time is monotonic.

mod attempt;
mod failures;
mod vouched;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::bounded::BoundedMap;
use super::client::{ClientSource, short_hash};
pub(super) use attempt::PasswordAttempt;
use attempt::{AttemptPlace, PasswordUnderway};
use failures::FailureCount;
use fedgate_base::config::FreeFailures;
use vouched::VouchedAccounts;

/// How long a client address stays known to an account after it last sent the right password.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a proved password skips waits at its address after its last use: longer than a weekend.
const PROVED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most client addresses known to an account, the latest ones. The bound is per account, so the holder of one
/// account cannot push out the addresses of another.
const KNOWN: usize = 256;
/// How long failures are remembered after they were last looked up.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// The fewest and the most pairs, accounts and addresses with failures that are remembered, each, whatever number of
/// accounts is. The least recently used one gives way.
const CAPACITY: (u64, u64) = (10_000, 100_000);
/// How many known client addresses are remembered for each account, in the mean. The account that was used least recently
/// gives way.
const KNOWN_EACH: u64 = 4;

/// How long a caller must wait before another password is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ThrottleWait(pub(super) Duration);

/// Recent failures, passwords under way, and successes.
pub(super) struct GuessThrottle {
    pairs: Cache<(Box<str>, ClientSource), Arc<Mutex<FailureCount>>>,
    accounts: Cache<Box<str>, Arc<Mutex<FailureCount>>>,
    sources: Cache<ClientSource, Arc<Mutex<FailureCount>>>,
    known: BoundedMap<Box<str>, KnownClients>,
    underway: Mutex<HashMap<AttemptPlace, Vec<PasswordUnderway>>>,
    vouched: VouchedAccounts,
    free: FreeFailures,
}

/// The client addresses known to an account, the latest last.
type KnownClients = Vec<ClientSighting>;

/// A client address that sent the right password of an account.
#[derive(Clone, Copy)]
struct ClientSighting {
    source: ClientSource,
    /// The password; none after it failed to admit its caller.
    password: Option<ProvedPassword>,
    last: Instant,
}

/// A password and the stored hash that it was proved against, as keyed hashes that reveal nothing. They are short: a
/// collision would skip a wait, but admit nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProvedPassword {
    /// Covers account and password.
    pub(super) fingerprint: u64,
    /// Covers account and stored hash.
    pub(super) stored: u64,
}

impl GuessThrottle {
    /// For so many remembered accounts.
    pub(super) fn new(free: FreeFailures, accounts: u64) -> Self {
        fn remembered<K, V>(accounts: u64) -> Cache<K, V>
        where
            K: std::hash::Hash + Eq + Send + Sync + 'static,
            V: Clone + Send + Sync + 'static,
        {
            let capacity = accounts.clamp(CAPACITY.0, CAPACITY.1);
            let cache = Cache::builder().max_capacity(capacity).eviction_policy(EvictionPolicy::lru());
            cache.time_to_idle(REMEMBERED_FOR).build()
        }
        Self {
            pairs: remembered(accounts),
            accounts: remembered(accounts),
            sources: remembered(accounts),
            known: BoundedMap::weighed(KNOWN_EACH.saturating_mul(accounts.max(CAPACITY.0)), Vec::len),
            underway: Mutex::default(),
            vouched: VouchedAccounts::new(),
            free,
        }
    }

    /// Whether this client address has recently sent the right password of the account.
    pub(super) fn knows(&self, account: &str, source: Option<ClientSource>, now: Instant) -> bool {
        self.sighting(account, source, |seen| now.saturating_duration_since(seen.last) < KNOWN_FOR).is_some()
    }

    /// Whether this client address has proved exactly this password less than `lately` ago. A client without an
    /// address is not throttled.
    pub(super) fn has_proved(
        &self,
        account: &str,
        source: Option<ClientSource>,
        fingerprint: u64,
        lately: Duration,
        now: Instant,
    ) -> bool {
        source.is_none()
            || self.proved(account, source, lately, now).is_some_and(|seen| seen.fingerprint == fingerprint)
    }

    /// The password that this client address proved in the last days, which skips waits: see [the rule](self).
    pub(super) fn proved_lately(
        &self,
        account: &str,
        source: Option<ClientSource>,
        now: Instant,
    ) -> Option<ProvedPassword> {
        self.proved(account, source, PROVED_FOR, now)
    }

    fn proved(
        &self,
        account: &str,
        source: Option<ClientSource>,
        lately: Duration,
        now: Instant,
    ) -> Option<ProvedPassword> {
        self.sighting(account, source, |seen| now.saturating_duration_since(seen.last) < lately)?.password
    }

    fn sighting(
        &self,
        account: &str,
        source: Option<ClientSource>,
        is_it: impl Fn(&ClientSighting) -> bool,
    ) -> Option<ClientSighting> {
        let source = source?;
        let found = |known: &mut KnownClients| {
            known.iter().find(|sighting| sighting.source == source && is_it(sighting)).copied()
        };
        self.known.with(account, found)?
    }

    /// Records a wrong password; `fingerprint` is a keyed hash of it.
    pub(super) fn failed(&self, account: &str, source: Option<ClientSource>, fingerprint: u64, now: Instant) {
        let Some(source) = source else { return };
        let add = |failures: Arc<Mutex<FailureCount>>, what, free, remembered| {
            lock(&failures).add(what, free, remembered, now);
        };
        let pair = |source| {
            let failures = self.pairs.get_with((Box::from(account), source), Arc::default);
            add(failures, fingerprint, self.free.of_pair, 1);
        };
        pair(source);
        // Failures of a known address count only against its pair: a person's own typing errors must not slow down her
        // other devices.
        if !self.knows(account, Some(source), now) {
            source.shared().into_iter().for_each(pair);
            add(self.accounts.get_with(Box::from(account), Arc::default), fingerprint, self.free.of_account, 1);
            let free = self.free.accounts_of_source;
            for source in [Some(source), source.shared()].into_iter().flatten() {
                add(self.sources.get_with(source, Arc::default), number(account), free, free as usize);
            }
        }
    }

    /// Records a right password, and takes back the failures before it, which were mistyped. From now on, this client
    /// address is known to the account.
    pub(super) fn succeeded(
        &self,
        account: &str,
        source: Option<ClientSource>,
        password: ProvedPassword,
        now: Instant,
    ) {
        let Some(from) = source else { return };
        let mistyped = self.pairs.remove(&(Box::from(account), from)).map_or(0, |of_pair| lock(&of_pair).count);
        // Only what this pair has failed itself: the guesses of other addresses stay counted.
        if !self.knows(account, source, now) {
            let of_shared = from.shared().and_then(|shared| self.pairs.get(&(Box::from(account), shared)));
            let of_account = self.accounts.get(account);
            for (failures, free) in [(of_shared, self.free.of_pair), (of_account, self.free.of_account)] {
                if let Some(failures) = failures {
                    lock(&failures).take_back(mistyped, free);
                }
            }
            [Some(from), from.shared()].into_iter().flatten().for_each(|source| self.take_back_of(source, account));
        }
        self.remember(account, source, password, now);
    }

    /// Takes back the failure of a client address at an account.
    fn take_back_of(&self, source: ClientSource, account: &str) {
        let Some(of_source) = self.sources.get(&source) else { return };
        let (mut of_source, account) = (lock(&of_source), number(account));
        if let Some(found) = of_source.seen.iter().position(|other| *other == account) {
            of_source.seen.remove(found);
            of_source.take_back(1, self.free.accounts_of_source);
        }
    }

    /// Forgets the failures at these accounts, because an administrator has set another password or unlocked them, and
    /// lets them past the waits of client addresses for some minutes. The addresses that they know remain.
    pub(super) fn forget<'a>(&self, accounts: impl IntoIterator<Item = &'a str>, now: Instant) {
        let named: HashSet<&str> =
            accounts.into_iter().inspect(|account| drop(self.accounts.remove(*account))).collect();
        if named.is_empty() {
            return;
        }
        self.vouched.vouch(named.iter().copied(), now);
        // One pass over all pairs, however many accounts are named.
        let pairs: Vec<_> = self.pairs.iter().map(|(pair, _)| pair).filter(|pair| named.contains(&*pair.0)).collect();
        for pair in pairs {
            let (account, source) = &*pair;
            self.pairs.remove(&*pair);
            self.take_back_of(*source, account);
        }
    }

    /// The accounts that must wait at some address, each with its longest wait, in no order.
    pub(super) fn waiting(&self, now: Instant) -> HashMap<Box<str>, Duration> {
        let mut waiting: HashMap<Box<str>, Duration> = HashMap::new();
        let mut note = |account: &str, failures: Arc<Mutex<FailureCount>>| {
            if let Some(wait) = lock(&failures).wait(now) {
                let longest = waiting.entry(account.into()).or_default();
                *longest = wait.max(*longest);
            }
        };
        self.pairs.iter().for_each(|(pair, failures)| note(&pair.0, failures));
        self.accounts.iter().for_each(|(account, failures)| note(&account, failures));
        waiting
    }

    /// The client addresses that must wait at every account that does not know them, each with its wait, in no order.
    pub(super) fn waiting_sources(&self, now: Instant) -> Vec<(ClientSource, Duration)> {
        let sources = self.sources.iter();
        sources.filter_map(|(source, failures)| Some((*source, lock(&failures).wait(now)?))).collect()
    }

    /// The accounts that do not wait for what their client address has failed elsewhere.
    pub(super) fn vouched_for(&self, now: Instant) -> Vec<String> {
        self.vouched.names(now)
    }

    /// Records that this client address sent the right password of the account again.
    pub(super) fn remember(&self, account: &str, source: Option<ClientSource>, password: ProvedPassword, now: Instant) {
        let Some(source) = source else { return };
        let sighting = ClientSighting { source, password: Some(password), last: now };
        // Most accounts have one address, and a vector that grows by itself begins with room for four.
        let new = || Some(Vec::with_capacity(1));
        self.known.change(Box::from(account), new, |known| {
            let Some(known) = known else { return };
            known.retain(|other| other.source != source);
            if known.len() >= KNOWN {
                known.remove(0);
            }
            known.push(sighting);
        });
    }

    /// Records that a password proved at this client address no longer admits anybody: it skips no more waits. The
    /// address stays known.
    pub(super) fn disprove(&self, account: &str, source: Option<ClientSource>, fingerprint: u64) {
        self.known.with(account, |known| {
            let of_source = known.iter_mut().filter(|sighting| Some(sighting.source) == source);
            of_source.for_each(|sighting| {
                sighting.password.take_if(|password| password.fingerprint == fingerprint);
            });
        });
    }

    /// Records that the same password of an account is now stored as another hash.
    pub(super) fn rehashed(&self, account: &str, old: u64, new: u64) {
        self.known.with(account, |known| {
            let passwords = known.iter_mut().filter_map(|sighting| sighting.password.as_mut());
            passwords.filter(|password| password.stored == old).for_each(|password| password.stored = new);
        });
    }
}

/// The number of an account among those that an address failed on.
fn number(account: &str) -> u64 {
    short_hash(&[account.as_bytes()])
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
