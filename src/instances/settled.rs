//! The reports of the running gateways about one account, none older than the account's last change.
//!
//! The one rule: a wait that the last change has ended is not told as one that lasts. `fedgate account show` calls it,
//! perhaps right after `fedgate account unlock`, when the last reports are still of the moment before.

use std::time::{Duration, Instant};

use super::{GatewayInstance, listed};
use crate::accounts::{AccountStore, AccountsError, ChangedAccounts};

/// The interval between looks at the reports.
const LOOK: Duration = Duration::from_millis(20);
/// The longest wait for a gateway that is behind. A gateway that runs well applies a change, and reports that, at
/// once.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A gateway's report, for one account.
#[derive(Debug, Clone)]
pub struct SettledInstance {
    /// The gateway and its report.
    pub instance: GatewayInstance,
    /// Whether the account changed after the report, so that its waits there end as soon as the gateway knows that.
    pub is_behind: bool,
}

/// Every running instance, once those where the account has to wait have applied its last change. Others are marked
/// after a short time.
///
/// # Errors
/// The database did not answer.
pub async fn settled(accounts: &AccountStore, account: &str) -> Result<Vec<SettledInstance>, AccountsError> {
    let began = Instant::now();
    loop {
        let mut found = Vec::new();
        for instance in listed(accounts).await? {
            let is_behind = tells_of_waits(&instance, account) && changed_since(accounts, &instance, account).await;
            found.push(SettledInstance { instance, is_behind });
        }
        if began.elapsed() >= PATIENCE || !found.iter().any(|one| one.is_behind) {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the account may have to wait there, as its report says.
fn tells_of_waits(GatewayInstance { report, .. }: &GatewayInstance, account: &str) -> bool {
    let waiting = &report.waiting;
    !waiting.addresses.is_empty() || waiting.named.iter().any(|named| named.account == account)
}

/// Whether the account changed after the report. If the database cannot say so, the report counts as it is.
async fn changed_since(accounts: &AccountStore, instance: &GatewayInstance, account: &str) -> bool {
    let changes = accounts.changes_since(Some(instance.report.epoch)).await;
    instance.is_live()
        && changes.is_ok_and(|changes| match changes.accounts {
            ChangedAccounts::These(changed) => changed.iter().any(|changed| changed == account),
            ChangedAccounts::Everything => true,
        })
}
