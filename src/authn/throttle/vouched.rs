//! The accounts that somebody has just unlocked, or given another password: they do not wait for what their client
//! address has failed at other accounts.
//!
//! The one rule: this ends no wait of the account's own, so it allows no more guesses at one account than from an
//! address that has failed nowhere. A change of many accounts at once, such as an import, vouches for none of them:
//! otherwise one address could try a password at each of them.

use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// How long an account is vouched for.
const VOUCHED_FOR: Duration = Duration::from_secs(600);
/// The most accounts of one change that are vouched for.
const MOST_AT_ONCE: usize = 16;
/// The most accounts that are vouched for; the earliest one gives way.
const MOST: u64 = 256;

/// The accounts, each with the time at which it began.
pub(super) struct VouchedAccounts(Cache<Box<str>, Instant>);

impl VouchedAccounts {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST).eviction_policy(EvictionPolicy::lru()).build())
    }

    /// Vouches for the accounts of one change.
    pub(super) fn vouch<'a>(&self, accounts: impl ExactSizeIterator<Item = &'a str>, now: Instant) {
        if accounts.len() <= MOST_AT_ONCE {
            accounts.for_each(|account| self.0.insert(account.into(), now));
        }
    }

    pub(super) fn holds(&self, account: &str, now: Instant) -> bool {
        self.0.get(account).is_some_and(|began| is_recent(began, now))
    }

    /// All of them, in no order.
    pub(super) fn names(&self, now: Instant) -> Vec<String> {
        self.0.iter().filter(|(_, began)| is_recent(*began, now)).map(|(account, _)| account.to_string()).collect()
    }
}

fn is_recent(began: Instant, now: Instant) -> bool {
    now.saturating_duration_since(began) < VOUCHED_FOR
}
