//! Whether accounts can be read. The watch over them does not tell: it has a session of its own, and reads none.
//!
//! The one rule: a read that fails while the watch goes on is told with its cause and makes this instance not ready, until one
//! succeeds. So that it is found out without a request, and its end without one too, nobody's account is read again and again.
//!
//! A role that may have no more sessions, a right that was revoked, a table that is gone: the watch sees none of these. A single
//! row that cannot be read makes nobody else's unreadable: it is told with its cause, and this instance stays ready.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::Authenticator;
use super::standing::LeaseStanding;
use crate::accounts::{AccountsError, StoredAccount};
use fedgate_base::db::outage::OutageLog;
use fedgate_core::escape;

/// How often an account is read when no request fails, and when the last read did.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Whose account is read: nobody's, as no id is empty.
const NOBODY: &str = "";

/// What became of the last reads.
pub(super) struct AccountReading {
    fault: Mutex<Option<String>>,
    /// That a request could not read an account.
    failed: Notify,
    outage: OutageLog,
    /// Whose account a request could not read, and why, until it is known whether that holds for every account.
    single: Mutex<Option<String>>,
    singles: OutageLog,
}

impl AccountReading {
    pub(super) fn new() -> Self {
        let follows = "whoever is not cached is answered 503, and this gateway is not ready";
        let outage = OutageLog::new("accounts cannot be read", follows, "accounts can be read again");
        let (failed, follows) = ("an account could not be read, others can", "its holder is answered 503");
        let singles = OutageLog::new(failed, follows, "no single account has failed to be read of late");
        Self { fault: Mutex::default(), failed: Notify::new(), outage, single: Mutex::default(), singles }
    }

    /// Why accounts cannot be read, if that is so.
    pub(super) fn fault(&self) -> Option<String> {
        self.lock().clone()
    }

    /// What a request could not read since this was asked last.
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
        // That all are busy is no fault of the accounts.
        if let Err(error) = &read
            && !error.is_passing()
        {
            let told = format!("`{}`: {}", escape::name(id), cause(error));
            *self.reading.single.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
            self.reading.failed.notify_one();
        }
        read
    }

    /// Reads nobody's account for ever, at once when a request could not read its own.
    pub async fn keep_reading(&self) {
        loop {
            let is_well = self.look().await;
            tokio::select! {
                () = sleep(if is_well { LOOK_EVERY } else { LOOK_AGAIN }) => {}
                () = self.reading.failed.notified(), if is_well => {}
            }
        }
    }

    /// Whether accounts can be read, or the watch tells why they cannot.
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
                    Some(told) => self.reading.singles.failed(told),
                    None => self.reading.singles.answered(),
                }
                true
            }
            Err(error) if error.is_passing() => self.reading.fault().is_none(),
            // The whole database went away, and the watch has told it meanwhile; or another server answers, and the watch, which
            // was told to look, leaves for it.
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

/// The reason, without saying once more that there is one.
fn cause(error: &AccountsError) -> String {
    match error {
        AccountsError::Database(error) => error.in_short(),
        other => other.to_string(),
    }
}
