//! Brute-force protection that cannot be used to lock a doctor out.
//!
//! The one rule: no number of failures of others keeps away who proved the password from the same source lately. What
//! slows down is a *pair* of account and source after its own failures, an account's *unknown* sources while it is under
//! attack from many, and a source that fails on many accounts. Waits begin at one second, double, and end at an hour.
//!
//! Asked on a miss alone: a cached principal passes by it. Memory is bounded, and time is monotonic. A source is an IPv4
//! address or an IPv6 network of 64 bits (NIST SP 800-63B, 5.2.2, asks for such limits).

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::config::FreeFailures;

/// First and longest wait.
const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// How long a success makes a source known to an account.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long failures are remembered after the last one.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);
/// Pairs, accounts and sources remembered, each.
const CAPACITY: u64 = 100_000;

/// How long a caller must wait before a password of his is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub(super) Duration);

/// What has failed lately, and who has succeeded.
pub(super) struct Throttle {
    pairs: Cache<(Box<str>, IpAddr), Arc<Mutex<Failures>>>,
    accounts: Cache<Box<str>, Arc<Mutex<Failures>>>,
    sources: Cache<IpAddr, Arc<Mutex<Failures>>>,
    known: Cache<(Box<str>, IpAddr), Instant>,
    free: FreeFailures,
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
        if self.seen.len() >= remembered {
            self.seen.remove(0);
        }
        self.seen.push(what);
        self.count = self.count.saturating_add(1);
        if let Some(beyond) = self.count.checked_sub(free + 1) {
            let wait = WAIT.0.saturating_mul(1u32.checked_shl(beyond.min(20)).unwrap_or(u32::MAX)).min(WAIT.1);
            self.not_before = Some(now + wait);
        }
    }

    fn wait(&self, now: Instant) -> Option<Duration> {
        self.not_before.and_then(|until| until.checked_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}

impl Throttle {
    pub(super) fn new(free: FreeFailures) -> Self {
        fn failures<K: std::hash::Hash + Eq + Send + Sync + 'static>() -> Cache<K, Arc<Mutex<Failures>>> {
            Cache::builder().max_capacity(CAPACITY).time_to_idle(REMEMBERED_FOR).build()
        }
        Self {
            pairs: failures(),
            accounts: failures(),
            sources: failures(),
            known: Cache::builder().max_capacity(CAPACITY).time_to_live(KNOWN_FOR).build(),
            free,
        }
    }

    /// Whether this source has proved a password of the account lately.
    pub(super) fn knows(&self, account: &str, client: Option<IpAddr>) -> bool {
        client.is_some_and(|client| self.known.contains_key(&(Box::from(account), network(client))))
    }

    /// Whether a password for `account` from `client` may be looked at now.
    pub(super) fn check(&self, account: &str, client: Option<IpAddr>, now: Instant) -> Result<(), Wait> {
        let Some(source) = client.map(network) else { return Ok(()) };
        let pair = (Box::from(account), source);
        let of = |failures: Option<Arc<Mutex<Failures>>>| {
            failures.and_then(|failures| failures.lock().unwrap_or_else(PoisonError::into_inner).wait(now))
        };
        let mut longest = of(self.pairs.get(&pair));
        if !self.known.contains_key(&pair) {
            longest = longest.max(of(self.accounts.get(account))).max(of(self.sources.get(&source)));
        }
        longest.map_or(Ok(()), |wait| Err(Wait(wait)))
    }

    /// The password, of which `fingerprint` is a keyed hash, was wrong.
    pub(super) fn failed(&self, account: &str, client: Option<IpAddr>, fingerprint: u64, now: Instant) {
        let Some(source) = client.map(network) else { return };
        let pair = (Box::from(account), source);
        let known = self.known.contains_key(&pair);
        let add = |failures: Arc<Mutex<Failures>>, what, free, remembered| {
            failures.lock().unwrap_or_else(PoisonError::into_inner).add(what, free, remembered, now);
        };
        add(self.pairs.get_with(pair, Arc::default), fingerprint, self.free.of_pair, 1);
        if !known {
            add(self.accounts.get_with(Box::from(account), Arc::default), fingerprint, self.free.of_account, 1);
            let account = u64::from_le_bytes(
                blake3::hash(account.as_bytes()).as_bytes().first_chunk().copied().unwrap_or_default(),
            );
            let free = self.free.accounts_of_source;
            add(self.sources.get_with(source, Arc::default), account, free, free as usize);
        }
    }

    /// The password was right: this source is known to the account from now on.
    pub(super) fn succeeded(&self, account: &str, client: Option<IpAddr>, now: Instant) {
        let Some(source) = client.map(network) else { return };
        let pair = (Box::from(account), source);
        self.pairs.invalidate(&pair);
        self.known.insert(pair, now);
    }
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
mod tests {
    use super::*;

    const FREE: FreeFailures = FreeFailures { of_pair: 5, of_account: 20, accounts_of_source: 20 };

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn mistyping_is_free_and_then_waits_double_up_to_an_hour() {
        let (throttle, now) = (Throttle::new(FREE), Instant::now());
        for attempt in 0..u64::from(FREE.of_pair) {
            assert_eq!(throttle.check("ANA", ip("192.0.2.1"), now), Ok(()));
            throttle.failed("ANA", ip("192.0.2.1"), attempt, now);
        }
        assert_eq!(throttle.check("ANA", ip("192.0.2.1"), now), Ok(()));
        for (attempt, seconds) in [1, 2, 4, 8].into_iter().enumerate() {
            throttle.failed("ANA", ip("192.0.2.1"), 100 + attempt as u64, now);
            assert_eq!(throttle.check("ANA", ip("192.0.2.1"), now), Err(Wait(Duration::from_secs(seconds))));
            assert_eq!(throttle.check("ANA", ip("192.0.2.1"), now + Duration::from_secs(seconds)), Ok(()));
        }
        (0..50).for_each(|attempt| throttle.failed("ANA", ip("192.0.2.1"), 200 + attempt, now));
        assert_eq!(throttle.check("ANA", ip("192.0.2.1"), now), Err(Wait(WAIT.1)));
        assert_eq!(throttle.check("BOB", ip("192.0.2.1"), now), Ok(()), "another account of that source");
        throttle.succeeded("ANA", ip("192.0.2.1"), now);
        assert_eq!(throttle.check("ANA", ip("192.0.2.1"), now), Ok(()));
    }

    #[test]
    fn a_device_that_repeats_an_old_password_is_one_failure() {
        let (throttle, now) = (Throttle::new(FREE), Instant::now());
        (0..1000).for_each(|_| throttle.failed("ANA", ip("192.0.2.1"), 7, now));
        assert_eq!(throttle.check("ANA", ip("192.0.2.1"), now), Ok(()));
    }

    #[test]
    fn an_attack_from_everywhere_does_not_lock_out_who_was_here_before() {
        let (throttle, now) = (Throttle::new(FREE), Instant::now());
        throttle.succeeded("DOC", ip("2001:db8::1"), now);
        for attacker in 0..200u64 {
            let source = Some(IpAddr::from([198, 51, 100, attacker as u8]));
            throttle.failed("DOC", source, attacker, now);
        }
        assert_eq!(throttle.check("DOC", ip("2001:db8::2"), now), Ok(()), "the same network of 64 bits");
        assert!(throttle.check("DOC", ip("203.0.113.9"), now).is_err(), "unknown sources wait");
        assert_eq!(throttle.check("ANA", ip("203.0.113.9"), now), Ok(()), "for this account alone");
        // The doctor mistypes: that costs the doctor what it costs anyone, and no more.
        throttle.failed("DOC", ip("2001:db8::1"), 1, now);
        assert_eq!(throttle.check("DOC", ip("2001:db8::1"), now), Ok(()));
    }

    #[test]
    fn a_source_that_fails_on_many_accounts_waits_but_not_for_accounts_that_know_it() {
        let (throttle, now) = (Throttle::new(FREE), Instant::now());
        throttle.succeeded("DOC", ip("192.0.2.1"), now);
        for account in 0..=FREE.accounts_of_source {
            throttle.failed(&format!("A{account}"), ip("192.0.2.1"), 1, now);
        }
        assert!(throttle.check("NEW", ip("192.0.2.1"), now).is_err());
        assert_eq!(throttle.check("DOC", ip("192.0.2.1"), now), Ok(()));
        assert_eq!(throttle.check("NEW", ip("192.0.2.2"), now), Ok(()));
    }

    #[test]
    fn a_source_is_known_to_whom_it_proved_a_password_for_thirty_days() {
        let (throttle, now) = (Throttle::new(FREE), Instant::now());
        throttle.succeeded("DOC", ip("192.0.2.1"), now);
        assert!(throttle.knows("DOC", ip("192.0.2.1")));
        assert!(!throttle.knows("ANA", ip("192.0.2.1")) && !throttle.knows("DOC", ip("192.0.2.2")));
        assert!(!throttle.knows("DOC", None));
        assert_eq!(KNOWN_FOR, Duration::from_secs(2_592_000));
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
        for (address, source) in
            [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")]
        {
            assert_eq!(network(address.parse().unwrap()), source.parse::<IpAddr>().unwrap());
        }
    }
}
