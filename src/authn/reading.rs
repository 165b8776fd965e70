//! Whether accounts can be read. The watch over the accounts cannot tell: it has its own session and reads no account.
//!
//! The one rule: a read that fails while the watch continues is logged with its cause, and makes this instance not
//! ready, until a read succeeds. So that failure and recovery are noticed without a request, this module reads an
//! account that does not exist again and again.
//!
//! The watch notices none of these: a role that may have no more sessions, a revoked right, a missing table. If a
//! single row cannot be read, other accounts still can: its cause is logged, and this instance stays ready.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::Authenticator;
use super::standing::LeaseStanding;
use crate::accounts::{AccountsError, StoredAccount};
use fedgate_base::db::outage::OutageLog;
use fedgate_core::escape;

/// The interval between reads without a failing request, and after a failed read.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The account that is read. It never exists, because no id is empty.
const NOBODY: &str = "";

/// The outcome of the last reads.
pub(super) struct AccountReading {
    fault: Mutex<Option<String>>,
    /// Notifies that a request could not read an account.
    failed: Notify,
    outage: OutageLog,
    /// The account that a request could not read, and why, until it is known whether all accounts are affected.
    single: Mutex<Option<String>>,
    singles: OutageLog,
}

impl AccountReading {
    pub(super) fn new() -> Self {
        let follows = "callers that are not cached are answered 503, and this gateway is not ready";
        let outage = OutageLog::new("accounts cannot be read", follows, "accounts can be read again");
        let (failed, follows) = ("an account could not be read, others can", "its holder is answered 503");
        let singles = OutageLog::new(failed, follows, "no single account has failed to be read of late");
        Self { fault: Mutex::default(), failed: Notify::new(), outage, single: Mutex::default(), singles }
    }

    /// Why accounts cannot be read; none if they can.
    pub(super) fn fault(&self) -> Option<String> {
        self.lock().clone()
    }

    /// The account that a request could not read since the last call.
    fn take_single(&self) -> Option<String> {
        self.single.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authenticator {
    /// Reads an account for a request.
    pub(super) async fn read_account(&self, id: &str) -> Result<Option<StoredAccount>, AccountsError> {
        let read = self.accounts.read(id).await;
        // A full pool is no fault of the accounts.
        if let Err(error) = &read
            && !error.is_passing()
        {
            let fault = format!("`{}`: {}", escape::name(id), cause(error));
            *self.reading.single.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            self.reading.failed.notify_one();
        }
        read
    }

    /// Reads the nonexistent account for ever; at once when a request could not read an account.
    pub async fn keep_reading(&self) {
        loop {
            let is_well = self.look().await;
            tokio::select! {
                () = sleep(if is_well { LOOK_EVERY } else { LOOK_AGAIN }) => {}
                () = self.reading.failed.notified(), if is_well => {}
            }
        }
    }

    /// Whether accounts can be read, or the watch already reports why they cannot.
    async fn look(&self) -> bool {
        let single = self.reading.take_single();
        if !matches!(*self.standing.borrow(), LeaseStanding::Confirmed) {
            *self.reading.lock() = None;
            return true;
        }
        let read = self.accounts.read(NOBODY).await;
        match read {
            Ok(_) => {
                *self.reading.lock() = None;
                self.reading.outage.answered();
                match single {
                    Some(fault) => self.reading.singles.failed(fault),
                    None => self.reading.singles.answered(),
                }
                true
            }
            Err(error) if error.is_passing() => self.reading.fault().is_none(),
            // Either the whole database is away, and the watch has reported it meanwhile, or another server answers,
            // and the watch, which was notified, leaves for it.
            Err(_) if !matches!(*self.standing.borrow(), LeaseStanding::Confirmed) => true,
            Err(AccountsError::Standby | AccountsError::AnotherServer | AccountsError::WentBack { .. }) => true,
            Err(error) => {
                *self.reading.lock() = Some(format!("accounts cannot be read: {}", cause(&error)));
                self.reading.outage.failed(cause(&error));
                false
            }
        }
    }
}

/// The reason, without a prefix that repeats what the caller says.
fn cause(error: &AccountsError) -> String {
    match error {
        AccountsError::Database(error) => error.in_short(),
        other => other.to_string(),
    }
}
