//! Whether the accounts can be confirmed, and whether this instance is listed as running. Together they
//! permit the use of cached principals, and let requests proceed without waiting.
//!
//! The one rule: a lease needs both a confirmation within the bound and a report of this instance that arrived.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::Authenticator;
use crate::accounts::{AccountChanges, AccountsError, EpochWatch};
use fedgate_base::moment::BootMoment;

/// How long a request after the start waits for the first confirmation of the accounts.
const FIRST_CONFIRMATION: Duration = Duration::from_secs(2);

/// How often the lease is looked for meanwhile.
const LOOK_FOR_LEASE: Duration = Duration::from_millis(20);

/// Whether the accounts can be confirmed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LeaseStanding {
    /// No confirmation was requested yet.
    Unknown,
    /// The last question was answered.
    Confirmed,
    /// The last attempt failed, for this reason.
    Away(String),
}

/// The state of an instance that is not listed.
#[derive(Debug, Default)]
pub(super) struct UnlistedInstance {
    why: Option<String>,
    /// Whether it was logged.
    pub(super) is_told: bool,
}

impl Authenticator {
    /// Why the accounts cannot be confirmed or read now; none if they can.
    pub fn fault(&self) -> Option<String> {
        match &*self.standing.borrow() {
            LeaseStanding::Unknown => Some("the accounts have not been confirmed yet".to_owned()),
            LeaseStanding::Confirmed => self.reading.fault().or_else(|| self.unlisted().why.clone()),
            LeaseStanding::Away(why) => Some(why.clone()),
        }
    }

    fn unlisted(&self) -> MutexGuard<'_, UnlistedInstance> {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the outcome of a report that was made at `reported`. Without reports there is no lease.
    pub fn reported(&self, reported: BootMoment, outcome: Result<(), AccountsError>) {
        if let Err(error @ AccountsError::Standby) = &outcome {
            // The server is not the primary, whatever it answers to the watch: its account data may be outdated.
            self.principals.refused();
            self.lost(error);
        }
        let why = outcome.err().map(|error| format!("this instance cannot report itself: {error}"));
        if why.is_none() {
            self.principals.listed(reported, BootMoment::now());
        }
        let (was_told, is_told) = {
            let mut unlisted = self.unlisted();
            let was_told = unlisted.is_told;
            // While the accounts are away, that fault is logged instead.
            unlisted.is_told = why.is_some() && (was_told || self.is_confirmed(BootMoment::now()));
            unlisted.why.clone_from(&why);
            (was_told, unlisted.is_told)
        };
        match (why, was_told) {
            (Some(why), false) if is_told => {
                tracing::error!("{why}; until it can, rights are read for each request, not cached");
            }
            (None, true) => tracing::info!("this instance reports again"),
            _ => {}
        }
    }

    /// Whether requests can be answered: accounts can be confirmed and read, or cached principals may be used while
    /// accounts cannot be confirmed.
    pub fn is_ready(&self, now: BootMoment) -> bool {
        match *self.standing.borrow() {
            LeaseStanding::Confirmed => self.reading.fault().is_none(),
            LeaseStanding::Unknown | LeaseStanding::Away(_) => self.lease_is_valid(now),
        }
    }

    /// Whether the last confirmation of the accounts is within the bound.
    pub fn is_confirmed(&self, now: BootMoment) -> bool {
        self.principals.is_confirmed(now)
    }

    /// Whether cached principals may be used at `now`.
    pub fn lease_is_valid(&self, now: BootMoment) -> bool {
        self.principals.lease_is_valid(now)
    }

    /// Waits for the lease, which a stream needs: at the start it comes a moment after the first confirmation. Not
    /// while the accounts are known to be unavailable.
    pub(super) async fn lease_begins(&self) {
        let is_awaited = || !matches!(*self.standing.borrow(), LeaseStanding::Away(_));
        let begins = async {
            while is_awaited() && !self.lease_is_valid(BootMoment::now()) {
                tokio::time::sleep(LOOK_FOR_LEASE).await;
            }
        };
        let _ = tokio::time::timeout(FIRST_CONFIRMATION, begins).await;
    }

    /// Lets a request continue if its account can be read and confirmed.
    ///
    /// If the accounts are known to be unavailable, the request fails at once: waiting would not help, and would delay
    /// other requests. If that is not known yet, the request waits for the first answer, because the answering server
    /// may be a standby, or the session may be dead.
    pub(super) async fn are_confirmed(&self) -> Result<(), AccountsError> {
        let mut standing = self.standing.subscribe();
        let known = standing.wait_for(|standing| !matches!(standing, LeaseStanding::Unknown));
        match tokio::time::timeout(FIRST_CONFIRMATION, known).await {
            Ok(Ok(standing)) if matches!(*standing, LeaseStanding::Confirmed) => Ok(()),
            _ => Err(AccountsError::Away),
        }
    }
}

impl EpochWatch for Authenticator {
    fn confirmed(&self, asked: BootMoment, changes: &AccountChanges) {
        // Before the epoch is published as applied, so that a task waiting for the epoch finds the waits ended.
        self.end_waits(*self.principals.epoch().borrow(), changes);
        if !self.principals.confirm(asked, changes) {
            return self.lost(&AccountsError::Standby);
        }
        let mut was_away = false;
        self.standing.send_if_modified(|standing| {
            let was = std::mem::replace(standing, LeaseStanding::Confirmed);
            was_away = matches!(was, LeaseStanding::Away(_));
            was != LeaseStanding::Confirmed
        });
        if was_away {
            tracing::info!(epoch = changes.epoch, "the accounts are confirmed again");
        }
    }

    fn lost(&self, error: &AccountsError) {
        let now = LeaseStanding::Away(error.to_string());
        let is_new = self.standing.send_if_modified(|standing| {
            let is_new = *standing != now;
            if is_new {
                *standing = now;
            }
            is_new
        });
        if is_new {
            tracing::error!("{error}; cached rights are used no longer than the freshness bound");
        }
    }
}
