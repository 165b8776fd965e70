//! Reports a database that lacks something that the programs use, although it answers and has the right version.
//!
//! The one rule: this reports and decides nothing. Where accounts cannot be read without the missing object, the
//! watches over the accounts make this gateway not ready. Otherwise it serves on, because every other gateway has the
//! same database, and most requests do not need the object.
//!
//! The admin listener asks for the fault. [`AccountStore::missing_objects`] knows the objects.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::accounts::{AccountStore, OutageLog};

/// The interval between looks while nothing is missing, and while something is.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The result of the last look.
pub(crate) struct SchemaWatch {
    accounts: AccountStore,
    fault: Mutex<Option<String>>,
    log: OutageLog,
}

impl SchemaWatch {
    pub(crate) fn new(accounts: AccountStore) -> Self {
        let follows = "requests that need it are answered 500 or 503";
        let log = OutageLog::new("the schema is incomplete", follows, "the schema is complete again");
        Self { accounts, fault: Mutex::default(), log }
    }

    /// What the database lacks, and the remedy; none if it lacks nothing.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at once, and again and again; runs until dropped.
    pub(crate) async fn keep_watch(self: Arc<Self>) {
        loop {
            match self.accounts.missing_objects().await {
                Ok(missing) => self.found(missing.map(|missing| missing.to_string())),
                // The watches over the accounts report that the database is away.
                Err(error) => tracing::debug!("the schema was not looked at: {error}"),
            }
            tokio::time::sleep(if self.fault().is_none() { LOOK_EVERY } else { LOOK_AGAIN }).await;
        }
    }

    fn found(&self, missing: Option<String>) {
        match &missing {
            Some(missing) => self.log.failed(missing),
            None => self.log.answered(),
        }
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    }
}
