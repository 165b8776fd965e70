//! Waiting until a change has spread to every running gateway.
//!
//! The one rule: an instance is waited for until it has applied the change, or until its lease has ended. So afterwards
//! no instance admits by the old right. `fedgate account … --wait` calls it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{GatewayInstance, InstanceReport, listed};
use crate::accounts::{AccountStore, AccountsError};

/// The interval between looks at the instances while a change spreads.
const LOOK: Duration = Duration::from_millis(2);
/// After this time, a waiting caller learns which instance it waits for.
const SAID_AFTER: Duration = Duration::from_secs(1);

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

/// Waits until every instance that may admit has applied all changes committed so far, or has no lease any more.
///
/// `committed` is a moment at or after the last of those commits. After one second, `waits_for` is called once for
/// each instance that the caller waits for.
///
/// # Errors
/// The database did not answer, or its history is no longer the one in which the changes were made.
pub async fn wait_until_applied(
    accounts: &AccountStore,
    committed: Instant,
    mut waits_for: impl FnMut(&InstanceReport),
) -> Result<ChangeSpread, AccountsError> {
    let epoch = accounts.changes_since(None).await?.epoch;
    let (mut concerned, mut seen) = (HashSet::new(), HashSet::new());
    loop {
        let now = accounts.changes_since(None).await?.epoch;
        // An epoch that went back means another history: the change itself may be lost, so success must not be
        // reported.
        if now < epoch {
            return Err(AccountsError::WentBack { from: epoch, to: now });
        }
        let mut instances = listed(accounts).await?;
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
                if seen.insert(report.id.clone()) {
                    waits_for(report);
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
