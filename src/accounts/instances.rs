//! The gateways that run on these accounts. Each reports itself, so that an operator sees them all, and a revocation
//! can wait until every one of them has applied it.
//!
//! The one rule: nothing is decided by these rows. They inform; only the lease protects. An instance has no lease for
//! longer than others count on its last report ([`listed_for`]), so every instance that may admit by a cached right is
//! in this list.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::changes::from_sql;
use fedgate_base::config::LONGEST_BOUND_MS;

/// The interval between an instance's reports while nothing changes.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long an instance counts as running after its last report.
pub const LIVE_FOR: Duration = Duration::from_secs(4);
/// How long after its last report an instance may still use cached rights, if `bound` is how long it may use them
/// after a confirmation. It is longer than a lease, so that a late report costs nothing.
pub fn listed_for(bound: Duration) -> Duration {
    LIVE_FOR.max(bound + 2 * REPORT_EVERY)
}

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

/// The accounts that must wait at an instance after wrong passwords.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitingAccounts {
    /// Those with the longest waits, the longest first. Clients typed these ids, so there may be no such account.
    pub named: Vec<WaitingAccount>,
    /// How many more there are.
    pub left_off: u64,
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

/// The figures of an instance's caches since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheFigures {
    /// Principals in the cache now.
    pub principals: u64,
    /// Requests answered from a cached principal.
    pub hits: u64,
    /// Requests that read the account.
    pub misses: u64,
    /// Passwords that were hashed.
    pub hashed: u64,
    /// Verified passwords remembered, right and wrong.
    pub proofs: u64,
    /// Passwords that were not hashed, because the same comparison was known.
    pub proof_hits: u64,
    /// Verified passwords that were dropped for lack of room, for age or for lack of use.
    pub proofs_evicted: u64,
    /// Their mean age in seconds.
    pub proofs_mean_age_seconds: u64,
    /// Times that rights of a cached principal were compiled again for another policy.
    pub recompiled: u64,
    /// Principals dropped because their account changed.
    pub invalidated: u64,
    /// Principals dropped for lack of room or for age.
    pub evicted: u64,
    /// Mean age in seconds of the principals that were dropped for any reason.
    pub mean_age_seconds: u64,
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

    /// What a row of the list says.
    pub(super) fn of(row: InstanceRow) -> Self {
        let InstanceRow { id, seen_ms, epoch, report } = row;
        // INVARIANT: every row is listed, also if its report cannot be read.
        let report: InstanceReport = serde_json::from_str(&report).unwrap_or_default();
        let bound_ms = report.bound_ms.min(LONGEST_BOUND_MS);
        let report = InstanceReport { id, epoch: from_sql(epoch), bound_ms, ..report };
        Self { report, seen: Duration::from_millis(u64::try_from(seen_ms).unwrap_or_default()) }
    }
}

/// A row of the list.
pub(super) struct InstanceRow {
    pub(super) id: String,
    /// The age of the report in ms, by the database's clock.
    pub(super) seen_ms: i64,
    pub(super) epoch: i64,
    /// The report as text.
    pub(super) report: String,
}
