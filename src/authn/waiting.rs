//! The accounts that must wait after wrong passwords, as this instance reports them, and how a wait ends.
//!
//! The one rule: a wait ends on every instance when the change log names the account, for example for a new password,
//! whichever program stored it, or for `fedgate account unlock`. The report and the watch over the accounts call it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::Authenticator;
use crate::accounts::{AccountChanges, ChangedAccounts};

/// The most accounts that a report names, the longest waits first. The report is a row of the database that is written
/// each second.
const NAMED: usize = 100;
/// The most client addresses that a report names, the longest waits first.
const NAMED_ADDRESSES: usize = 20;
/// The longest id that is named: a client may have typed something that is no id.
const LONGEST_NAME: usize = 128;
/// The interval between searches: under attack there are many entries to search.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The accounts that must wait at an instance after wrong passwords.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitingAccounts {
    /// Those with the longest waits, the longest first. Clients typed these ids, so there may be no such account.
    pub named: Vec<WaitingAccount>,
    /// How many more there are.
    pub left_off: u64,
    /// The client addresses that must wait at every account that does not know them, because they failed at many. Those
    /// with the longest waits, the longest first.
    pub addresses: Vec<WaitingAddress>,
    /// How many more addresses there are.
    pub addresses_left_off: u64,
    /// The accounts that do not wait for them, because they were unlocked or changed a short time ago. Empty if no
    /// address waits.
    pub let_past: Vec<String>,
}

/// A client address that must wait at an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitingAddress {
    /// An IPv4 address, or an IPv6 network.
    pub address: String,
    /// Its wait, in ms, when the report was made.
    pub wait_ms: u64,
}

/// An account that must wait at an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitingAccount {
    /// Its id.
    pub account: String,
    /// Its longest wait, in ms, when the report was made.
    pub wait_ms: u64,
}

/// The result of the last search.
pub(super) type LastLook = Option<(Instant, WaitingAccounts)>;

impl Authenticator {
    /// The accounts that must wait on this instance.
    pub fn waiting(&self) -> WaitingAccounts {
        let now = Instant::now();
        // Held during the search: an end of waits that comes meanwhile then removes its result.
        let mut last_look = self.last_look();
        if let Some((looked, waiting)) = &*last_look
            && now.duration_since(*looked) < LOOK_EVERY
        {
            return waiting.clone();
        }
        let found = self.throttle.waiting(now).into_iter();
        let mut found: Vec<_> = found.map(|(account, wait)| (wait, String::from(account))).collect();
        // The longest first; equal ones in a fixed order.
        found.sort_unstable_by(|one, other| other.cmp(one));
        let all = found.len();
        let named = found.into_iter().filter(|(_, account)| account.len() <= LONGEST_NAME).take(NAMED);
        let named: Vec<_> = named.map(|(wait, account)| WaitingAccount { account, wait_ms: in_ms(wait) }).collect();
        let left_off = u64::try_from(all - named.len()).unwrap_or(u64::MAX);
        let (addresses, addresses_left_off) = self.waiting_addresses(now);
        let let_past = if addresses.is_empty() { Vec::new() } else { self.throttle.vouched_for(now) };
        let waiting = WaitingAccounts { named, left_off, addresses, addresses_left_off, let_past };
        *last_look = Some((now, waiting.clone()));
        waiting
    }

    /// The client addresses that must wait, and how many more there are.
    fn waiting_addresses(&self, now: Instant) -> (Vec<WaitingAddress>, u64) {
        // Pages of one address count as that address: the longest wait of them is told.
        let mut found: BTreeMap<IpAddr, Duration> = BTreeMap::new();
        for (source, wait) in self.throttle.waiting_sources(now) {
            let longest = found.entry(source.network()).or_default();
            *longest = wait.max(*longest);
        }
        let mut found: Vec<_> = found.into_iter().map(|(address, wait)| (wait, address)).collect();
        found.sort_unstable_by(|one, other| other.cmp(one));
        let left_off = u64::try_from(found.len().saturating_sub(NAMED_ADDRESSES)).unwrap_or(u64::MAX);
        let named = found.into_iter().take(NAMED_ADDRESSES).map(|(wait, network)| {
            let address = if network.is_ipv6() { format!("{network}/64") } else { network.to_string() };
            WaitingAddress { address, wait_ms: in_ms(wait) }
        });
        (named.collect(), left_off)
    }

    fn last_look(&self) -> MutexGuard<'_, LastLook> {
        self.last_look.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the waits of accounts that changed, where `before` is the epoch that was known.
    pub(super) fn end_waits(&self, before: u64, changes: &AccountChanges) {
        match &changes.accounts {
            ChangedAccounts::These(accounts) if accounts.is_empty() => {}
            ChangedAccounts::These(accounts) => {
                self.throttle.forget(accounts.iter().map(String::as_str), Instant::now());
                *self.last_look() = None;
            }
            // After a gap, the log still names the accounts that changed in it, unless this is another history. No
            // right depends on it.
            ChangedAccounts::Everything if before > 0 && before < changes.epoch => {
                let (accounts, throttle) = (self.accounts.clone(), Arc::clone(&self.throttle));
                let Ok(runtime) = Handle::try_current() else { return };
                runtime.spawn(async move {
                    if let Ok(AccountChanges { accounts: ChangedAccounts::These(names), .. }) =
                        accounts.changes_since(Some(before)).await
                    {
                        throttle.forget(names.iter().map(String::as_str), Instant::now());
                    }
                });
            }
            ChangedAccounts::Everything => {}
        }
    }
}

fn in_ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}
