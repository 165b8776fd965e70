//! The gateways that run on these accounts. Each reports itself, so that an operator sees them all, and a revocation
//! can wait until every one of them has applied it.
//!
//! The one rule: nothing is decided by these rows. They inform; only the lease protects. An instance has no lease for
//! longer than others count on its last report ([`listed_for`]), so every instance that may admit by a cached right is
//! in this list.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::timeout_at;

use super::{AccountStore, AccountsError, READ_TIMEOUT, from_sql, to_sql, within};
use fedgate_base::config::LONGEST_BOUND_MS;
use fedgate_base::db::{Database, DbError};

/// The interval between an instance's reports while nothing changes.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long an instance counts as running after its last report.
pub const LIVE_FOR: Duration = Duration::from_secs(4);
/// How long after its last report an instance may still use cached rights, if `bound` is how long it may use them
/// after a confirmation. It is longer than a lease, so that a late report costs nothing.
pub fn listed_for(bound: Duration) -> Duration {
    LIVE_FOR.max(bound + 2 * REPORT_EVERY)
}

/// The interval between looks at the instances while a change spreads.
const LOOK: Duration = Duration::from_millis(2);
/// After this time, a waiting caller learns which instance it waits for.
const SAID_AFTER: Duration = Duration::from_secs(1);

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
}

impl AccountStore {
    /// Writes an instance's report.
    ///
    /// # Errors
    /// The database did not answer within two seconds, or takes no writes and so is not the primary.
    pub async fn report(&self, report: &InstanceReport) -> Result<(), AccountsError> {
        self.heeded(self.write_report(report).await)
    }

    async fn write_report(&self, report: &InstanceReport) -> Result<(), AccountsError> {
        let deadline = tokio::time::Instant::now() + READ_TIMEOUT;
        let late = |elapsed: tokio::time::error::Elapsed| DbError::Unavailable(elapsed.into());
        let text = serde_json::to_string(report).unwrap_or_default();
        let (id, epoch) = (report.id.clone(), to_sql(report.epoch));
        match &self.reports {
            Database::Postgres(pool) => {
                let session = timeout_at(deadline, pool.get()).await.map_err(late)??;
                let write = async {
                    let statement = session.prepare_cached(POSTGRES_REPORT).await?;
                    session.execute(&statement, &[&id, &epoch, &text]).await
                };
                match timeout_at(deadline, write).await {
                    Ok(written) => _ = written?,
                    Err(elapsed) => {
                        // The next report must not wait behind this one on a connection that may be dead.
                        session.close();
                        return Err(late(elapsed).into());
                    }
                }
            }
            Database::Sqlite(sqlite) => {
                let write = move |transaction: &rusqlite::Transaction<'_>| {
                    transaction.execute(SQLITE_FORGET, [&id])?;
                    transaction.execute(SQLITE_REPORT, rusqlite::params![id, epoch, text])
                };
                timeout_at(deadline, sqlite.write(write)).await.map_err(late)??;
            }
        }
        Ok(())
    }

    /// Checks whether an instance could report itself, without writing anything.
    ///
    /// # Errors
    /// The database did not answer, takes no writes, or has granted too few rights.
    pub async fn may_report(&self) -> Result<(), AccountsError> {
        if let Database::Postgres(pool) = &self.reports {
            let row = pool.get().await?.query_one(POSTGRES_MAY_REPORT, &[]).await?;
            if !row.try_get::<_, bool>(0).map_err(DbError::from)? {
                return Err(AccountsError::NoReports);
            }
        }
        // The id of no instance: this tries the statement and deletes nothing.
        self.withdraw("").await
    }

    /// Removes an instance from the list, because it stops.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn withdraw(&self, id: &str) -> Result<(), AccountsError> {
        match &self.reports {
            Database::Postgres(pool) => {
                pool.get().await?.execute("DELETE FROM fedgate_instances WHERE id = $1", &[&id]).await?;
            }
            Database::Sqlite(sqlite) => {
                let id = id.to_owned();
                sqlite.write(move |tx| tx.execute("DELETE FROM fedgate_instances WHERE id = ?1", [id])).await?;
            }
        }
        Ok(())
    }

    /// Every instance that reported within the last hour, ordered by id.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn instances(&self) -> Result<Vec<GatewayInstance>, AccountsError> {
        within(READ_TIMEOUT, self.instances_unbounded()).await
    }

    async fn instances_unbounded(&self) -> Result<Vec<GatewayInstance>, AccountsError> {
        let rows: Vec<(String, i64, i64, String)> = match &self.database {
            Database::Postgres(pool) => {
                let rows = pool.get().await?.query(POSTGRES_INSTANCES, &[]).await?;
                rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
            }
            Database::Sqlite(sqlite) => {
                let read = |connection: &rusqlite::Connection| {
                    let mut statement = connection.prepare_cached(SQLITE_INSTANCES)?;
                    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
                };
                sqlite.read(read).await?
            }
        };
        let instance = |(id, seen, epoch, text): (String, i64, i64, String)| {
            // INVARIANT: every row is listed, also if its report cannot be read.
            let report: InstanceReport = serde_json::from_str(&text).unwrap_or_default();
            let bound_ms = report.bound_ms.min(LONGEST_BOUND_MS);
            let report = InstanceReport { id, epoch: from_sql(epoch), bound_ms, ..report };
            GatewayInstance { report, seen: Duration::from_millis(u64::try_from(seen).unwrap_or_default()) }
        };
        Ok(rows.into_iter().map(instance).collect())
    }
}

/// How far a change has spread among the running instances.
#[derive(Debug)]
pub struct ChangeSpread {
    /// The account epoch of the change.
    pub epoch: u64,
    /// The instances that have applied it.
    pub applied: Vec<InstanceReport>,
    /// Those that may have admitted by the old rights and have not reported the change. Their leases have ended by
    /// now.
    pub silent: Vec<InstanceReport>,
    /// The time from the commit until the last of them had applied it, or had no lease.
    pub after: Duration,
}

impl AccountStore {
    /// Waits until every instance that may admit has applied all changes committed so far, or has no lease any more.
    ///
    /// `committed` is a moment at or after the last of those commits. After one second, `waits_for` is called once for
    /// each instance that the caller waits for.
    ///
    /// # Errors
    /// The database did not answer, or its history is no longer the one in which the changes were made.
    pub async fn wait_until_applied(
        &self,
        committed: Instant,
        mut waits_for: impl FnMut(&InstanceReport),
    ) -> Result<ChangeSpread, AccountsError> {
        let epoch = self.changes_since(None).await?.epoch;
        let (mut concerned, mut told) = (HashSet::new(), HashSet::new());
        loop {
            let now = self.changes_since(None).await?.epoch;
            // An epoch that went back means another history: the change itself may be lost, so success must not be
            // reported.
            if now < epoch {
                return Err(AccountsError::WentBack { from: epoch, to: now });
            }
            let mut instances = self.instances().await?;
            let may_admit = instances.iter().filter(|instance| instance.may_admit());
            concerned.extend(may_admit.map(|instance| instance.report.id.clone()));
            instances.retain(|instance| concerned.contains(&instance.report.id));
            let (applied, pending): (Vec<_>, Vec<_>) =
                instances.into_iter().partition(|instance| (epoch..=now).contains(&instance.report.epoch));
            let after = committed.elapsed();
            // Counted from the commit: a lease confirmed before it ends within the bound, and a later confirmation includes
            // the change.
            let has_ended =
                |GatewayInstance { report, .. }: &GatewayInstance| after > Duration::from_millis(report.bound_ms);
            if pending.iter().all(|instance| has_ended(instance) || !instance.may_admit()) {
                let reports = |of: Vec<GatewayInstance>| of.into_iter().map(|instance| instance.report).collect();
                return Ok(ChangeSpread { epoch, applied: reports(applied), silent: reports(pending), after });
            }
            if after > SAID_AFTER {
                let silent = pending.iter().filter(|instance| instance.may_admit() && !has_ended(instance));
                for GatewayInstance { report, .. } in silent {
                    if told.insert(report.id.clone()) {
                        waits_for(report);
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

const POSTGRES_MAY_REPORT: &str = "SELECT has_table_privilege('fedgate_instances', 'SELECT')
    AND has_table_privilege('fedgate_instances', 'INSERT') AND has_table_privilege('fedgate_instances', 'UPDATE')
    AND has_table_privilege('fedgate_instances', 'DELETE')";
const POSTGRES_REPORT: &str = "
    WITH gone AS (DELETE FROM fedgate_instances WHERE seen < clock_timestamp() - interval '1 hour' AND id <> $1)
    INSERT INTO fedgate_instances (id, seen, epoch, report) VALUES ($1, clock_timestamp(), $2, $3)
    ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, epoch = excluded.epoch, report = excluded.report";
const SQLITE_FORGET: &str =
    "DELETE FROM fedgate_instances WHERE seen < unixepoch('subsec') * 1000 - 3600000 AND id <> ?1";
const SQLITE_REPORT: &str = "
    INSERT INTO fedgate_instances (id, seen, epoch, report) VALUES (?1, unixepoch('subsec') * 1000, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, epoch = excluded.epoch, report = excluded.report";
const POSTGRES_INSTANCES: &str = "
    SELECT id, (extract(epoch FROM clock_timestamp() - seen) * 1000)::bigint, epoch, report FROM fedgate_instances
    WHERE seen > clock_timestamp() - interval '1 hour' ORDER BY id";
const SQLITE_INSTANCES: &str = "
    SELECT id, CAST(unixepoch('subsec') * 1000 - seen AS INTEGER), epoch, report FROM fedgate_instances
    WHERE seen > unixepoch('subsec') * 1000 - 3600000 ORDER BY id";
