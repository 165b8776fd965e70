//! Why accounts could not be read or changed.

use std::path::Path;

use thiserror::Error;

use fedgate_base::config::StoreConfig;
use fedgate_base::db::DbError;
use fedgate_base::db::route::WrongServer;

/// Why the accounts could not be read or changed.
#[derive(Debug, Error)]
pub enum AccountsError {
    /// The database is away or overloaded; the same question may succeed a moment later.
    #[error("accounts are unavailable: {0}")]
    Database(#[source] DbError),
    /// The schema is missing or older than this program.
    #[error("the database lacks the tables or triggers of fedgate; run `fedhis migrate`")]
    NotMigrated,
    /// The triggers that raise the account epoch are missing, disabled, or do not fire for the sessions that they are
    /// for.
    #[error(
        "changes of accounts would go unseen: the triggers of the table `people` are missing, disabled, or enabled for \
         the wrong sessions; run `fedhis migrate`"
    )]
    Untold,
    /// The last attempt to confirm the accounts failed, so another question would only make the caller wait.
    #[error("accounts are unavailable: the database is away")]
    Away,
    /// The role of the gateway may not write its report, so the gateway would never have a lease.
    #[error(
        "the database role of this gateway may not write `fedgate_instances`, where gateways report themselves; grant it \
         SELECT, INSERT, UPDATE and DELETE on that table"
    )]
    NoReports,
    /// Notices sent on one session do not arrive on another.
    #[error(
        "notices of the database do not arrive: a transaction-pooling proxy stands between; `store.uri` must reach the \
         primary itself"
    )]
    NoNotices,
    /// The server is not the primary, so its answers may be outdated.
    #[error(
        "the database is a read-only standby, or was set read-only: its answers may be late; `store.uri` must reach \
         the primary"
    )]
    Standby,
    /// A switchover moved new connections only; the watch's session stayed with the old server.
    #[error("new connections lead to another server than before (a switchover): that server is used from now on")]
    LedElsewhere,
    /// A new session reached another server than the earlier ones.
    #[error(
        "a different server answers (a switchover, or a failover): what was changed before may be lost; look at the \
         account, and change it again"
    )]
    AnotherServer,
    /// A change timed out, because another session has locked the account or the whole store.
    #[error("the account is locked by {by}; nothing was changed: end that, or wait for it, and run this again")]
    Locked {
        /// The holder of the lock.
        by: String,
    },
    /// The database has another history than before, because of a failover that lost commits, or a restore.
    #[error(
        "the account epoch went back from {from} to {to} meanwhile (a failover, or a restore): what was changed before \
         may be lost; look at the account, and change it again"
    )]
    WentBack {
        /// The epoch of the change.
        from: u64,
        /// The epoch now.
        to: u64,
    },
}

impl AccountsError {
    /// Whether the database is available, and only lacked time or a lock: the same statement may succeed a moment
    /// later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Database(error) if error.waited_for().is_some())
    }
}

impl AccountsError {
    /// One line for the operator: the configuration file, the key, the fault and the remedy.
    pub fn located(&self, file: &Path, store: &StoreConfig) -> String {
        match self {
            Self::Database(error) => error.located(file, store),
            other => format!("{}: `{}`: {other}", file.display(), store.key()),
        }
    }

    /// Whether the configuration is at fault, so that waiting does not help.
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
