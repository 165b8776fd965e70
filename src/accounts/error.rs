//! Why accounts could not be asked, or changed.

use std::path::Path;

use thiserror::Error;

use fedgate_base::config::StoreConfig;
use fedgate_base::db::DbError;
use fedgate_base::db::route::WrongServer;

/// Why the accounts could not be asked.
#[derive(Debug, Error)]
pub enum AccountsError {
    /// The database is away or overloaded; the same question may be answered in a moment.
    #[error("accounts are unavailable: {0}")]
    Database(#[source] DbError),
    /// The schema is missing or older than this program.
    #[error("the database lacks what fedgate adds to it; run `fedhis migrate`")]
    NotMigrated,
    /// The triggers that raise the account epoch are not there, are switched off, or do not fire for whom they are meant.
    #[error(
        "changes of accounts would go unseen: the triggers of the table `people` are missing, disabled, or enabled for the \
         wrong sessions; run `fedhis migrate`"
    )]
    Untold,
    /// The last attempt to confirm the accounts failed, so that asking again would only make the caller wait.
    #[error("accounts are unavailable: the database is away")]
    Away,
    /// The role of the gateway may not write down that it runs, so that it would never have a lease.
    #[error(
        "the role that is signed in as may not write `fedgate_instances`, where gateways report themselves; grant it SELECT, \
         INSERT, UPDATE and DELETE on that table"
    )]
    NoReports,
    /// Notices sent on one session do not arrive on another.
    #[error(
        "notices of the database do not arrive: a transaction-pooling proxy stands between; `store.uri` must reach the \
         primary itself"
    )]
    NoNotices,
    /// The server is not the primary: its answers may be behind those of the primary.
    #[error(
        "the database is a read-only standby, or was set read-only: its answers may be late; `store.uri` must reach the \
         primary"
    )]
    Standby,
    /// A switchover that moved new connections alone: the session of the watch stayed behind.
    #[error("new connections lead to another server than before (a switchover): it is asked from now on")]
    LedElsewhere,
    /// A new session is with another server than those before.
    #[error(
        "another server answers than before (a switchover, or a failover): what was changed before may be lost; look at \
         the account, and change it again"
    )]
    AnotherServer,
    /// A change waited in vain for somebody who keeps the account, or the whole store, locked.
    #[error("the account is locked by {by}; nothing was changed: end that, or wait for it, and run this again")]
    Locked {
        /// Who that is.
        by: String,
    },
    /// The database is another than it was, by a failover that lost commits, or by a restore.
    #[error(
        "the account epoch went back from {from} to {to} meanwhile (a failover, or a restore): what was changed before may \
         be lost; look at the account, and change it again"
    )]
    WentBack {
        /// The epoch of the change.
        from: u64,
        /// The epoch now.
        to: u64,
    },
}

impl AccountsError {
    /// Whether the database is well, and merely had no time or lock for this: the same is done in a moment.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Database(error) if error.waited_for().is_some())
    }
}

impl AccountsError {
    /// As one line for the operator: the file of the configuration, the key, what is wrong, and what to do.
    pub fn located(&self, file: &Path, store: &StoreConfig) -> String {
        match self {
            Self::Database(error) => error.located(file, store),
            other => format!("{}: `{}`: {other}", file.display(), store.key()),
        }
    }

    /// Whether the configuration is at fault, and no time mends it.
    pub fn is_of_settings(&self) -> bool {
        matches!(self, Self::Database(DbError::Settings { .. }))
    }
}

impl From<DbError> for AccountsError {
    fn from(error: DbError) -> Self {
        match error.wrong_server() {
            Some(WrongServer::TakesNoWrites) => return Self::Standby,
            Some(WrongServer::Another) => return Self::AnotherServer,
            Some(WrongServer::TakesWrites) | None => {}
        }
        match &error {
            error if error.lacks_schema() => Self::NotMigrated,
            error if error.is_read_only() => Self::Standby,
            _ => Self::Database(error),
        }
    }
}
