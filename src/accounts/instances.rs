//! The rows of the list of running gateways, and how long a row counts. The reports in them are text here: the module
//! `instances`, above the authenticator, knows what they say.
//!
//! The one rule: an instance has no lease for longer than others count on its last report ([`listed_for`]), so every
//! instance that may admit by a cached right is in the list.

use std::time::Duration;

use super::changes::from_sql;

/// The interval between an instance's reports while nothing changes.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long an instance counts as running after its last report.
pub const LIVE_FOR: Duration = Duration::from_secs(4);
/// How long after its last report an instance may still use cached rights, if `bound` is how long it may use them
/// after a confirmation. It is longer than a lease, so that a late report costs nothing.
pub fn listed_for(bound: Duration) -> Duration {
    LIVE_FOR.max(bound + 2 * REPORT_EVERY)
}

/// A row of the list.
#[derive(Debug)]
pub struct InstanceRow {
    /// The id of the instance.
    pub id: String,
    /// The age of its last report, by the database's clock.
    pub seen: Duration,
    /// The account epoch whose changes it has applied.
    pub epoch: u64,
    /// The report, as it wrote it.
    pub report: String,
}

impl InstanceRow {
    /// A row with the numbers of the database: the age in ms, and the epoch.
    pub(super) fn of(id: String, seen_ms: i64, epoch: i64, report: String) -> Self {
        let seen = Duration::from_millis(u64::try_from(seen_ms).unwrap_or_default());
        Self { id, seen, epoch: from_sql(epoch), report }
    }
}
