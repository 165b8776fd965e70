//! The gateways that run on one set of accounts. Each reports itself, so that an operator sees them all, and a
//! revocation can wait until every one of them has applied it.
//!
//! The one rule: nothing is decided by these reports. They inform; only the lease protects.
//!
//! The report has parts of several modules, such as the authenticator's figures, so this module lies above them. The
//! gateway writes reports, and the operator's commands read them.

mod settled;
mod spread;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use settled::{SettledInstance, settled};
pub use spread::{ChangeSpread, wait_until_applied};

use crate::accounts::{AccountStore, AccountsError, InstanceRow, LIVE_FOR, listed_for};
use crate::authn::{CacheFigures, WaitingAccounts};
use fedgate_base::config::LONGEST_BOUND_MS;

/// The report of an instance. A member that another version omits, or writes differently, takes its safe default.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceReport {
    /// Random, one for each process.
    pub id: String,
    /// Host name and first listening address.
    pub place: String,
    /// Version of the program.
    pub version: String,
    /// Fingerprint of the policy in force.
    pub policy: String,
    /// Why its policy file is unusable now, while the last good policy stays in force.
    pub policy_fault: Option<String>,
    /// The account epoch whose changes it has applied.
    pub epoch: u64,
    /// The longest time, in ms, for which it may use a cached right after the last confirmation.
    pub bound_ms: u64,
    /// Whether its lease was valid when it reported.
    pub lease_valid: bool,
    /// The figures of its caches.
    pub caches: CacheFigures,
    /// The accounts whose passwords must wait there.
    pub waiting: WaitingAccounts,
}

impl Default for InstanceReport {
    /// An instance of which only the existence is known may admit for as long as any instance may.
    fn default() -> Self {
        let unknown = || "unknown".to_owned();
        Self {
            id: unknown(),
            place: unknown(),
            version: unknown(),
            policy: unknown(),
            policy_fault: None,
            epoch: 0,
            bound_ms: LONGEST_BOUND_MS,
            lease_valid: true,
            caches: CacheFigures::default(),
            waiting: WaitingAccounts::default(),
        }
    }
}

impl InstanceReport {
    /// Writes the report into the list.
    ///
    /// # Errors
    /// See [`AccountStore::report`].
    pub async fn write(&self, accounts: &AccountStore) -> Result<(), AccountsError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        accounts.report(&self.id, self.epoch, &text).await
    }
}

/// An instance as the database knows it.
#[derive(Debug, Clone)]
pub struct GatewayInstance {
    /// Its last report.
    pub report: InstanceReport,
    /// The age of the report, by the database's clock.
    pub seen: Duration,
}

impl GatewayInstance {
    /// Whether it reported recently enough to count as running.
    pub fn is_live(&self) -> bool {
        self.seen < LIVE_FOR
    }

    /// Whether it may still use cached rights, as far as is known.
    pub fn may_admit(&self) -> bool {
        self.seen < listed_for(Duration::from_millis(self.report.bound_ms))
    }

    /// The state in a row of the list.
    fn of(row: InstanceRow) -> Self {
        let InstanceRow { id, seen, epoch, report } = row;
        // INVARIANT: every row is listed, also if its report cannot be read.
        let report: InstanceReport = serde_json::from_str(&report).unwrap_or_default();
        let bound_ms = report.bound_ms.min(LONGEST_BOUND_MS);
        Self { report: InstanceReport { id, epoch, bound_ms, ..report }, seen }
    }
}

/// Every instance that reported within the last hour, ordered by id.
///
/// # Errors
/// The database did not answer.
pub async fn listed(accounts: &AccountStore) -> Result<Vec<GatewayInstance>, AccountsError> {
    Ok(accounts.instances().await?.into_iter().map(GatewayInstance::of).collect())
}
