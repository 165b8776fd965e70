//! Connections and schema: the one way to the database, for accounts and for the HIS.
//!
//! The one rule: an error tells "the database is away" ([`DbError::Unavailable`], to be answered with 503 and tried
//! again) from everything else. Called by `accounts` and by `his::store`. Knows no documents and no HTTP.

pub mod actor;
pub mod backup;
pub mod follow;
pub mod foreign;
pub mod hashes;
pub mod outage;
pub mod postgres;
pub mod route;
pub mod schema;
mod session;
pub mod spelling;
pub mod sqlite;

mod gate;
mod hosts;
mod place;
mod trust;

use std::error::Error as StdError;
use std::sync::Arc;

use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::config::StoreConfig;

use self::place::UnreachedServer;
pub use self::session::{PooledSession, RowsLeft, SessionPool, SessionTransaction};
pub use self::sqlite::{READERS, SqliteFile};
use self::trust::UntrustedServer;

/// The opened database.
#[derive(Clone)]
pub enum Database {
    /// A pool of sessions with PostgreSQL.
    Postgres(SessionPool),
    /// The embedded store.
    Sqlite(SqliteFile),
}

impl Database {
    /// The way to the server; none to an embedded store.
    pub fn route(&self) -> Option<&Arc<route::ServerRoute>> {
        match self {
            Self::Postgres(pool) => Some(pool.route()),
            Self::Sqlite(_) => None,
        }
    }

    /// Closes an embedded store, so that its file alone holds what was written ([`SqliteFile::close`]); at the end of a program.
    pub fn close(&self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close(),
            Self::Postgres(_) => {}
        }
    }

    /// Opens the database that the configuration names.
    ///
    /// PostgreSQL is not contacted yet: a server that is away now may be there when it is needed.
    ///
    /// # Errors
    /// [`DbError::Settings`] for a connection string or certificate file that cannot be used; for SQLite, whatever
    /// keeps the file from being opened.
    pub async fn open(config: &StoreConfig) -> Result<Self, DbError> {
        match config {
            StoreConfig::Postgres(config) => Ok(Self::Postgres(postgres::pool(config)?)),
            StoreConfig::Sqlite(config) => Ok(Self::Sqlite(SqliteFile::open(&config.path, config.lock_timeout).await?)),
        }
    }
}

/// What another crate reported.
pub type DbCause = Box<dyn StdError + Send + Sync>;

/// Why the database did not do what it was asked.
#[derive(Debug, Error)]
pub enum DbError {
    /// It cannot be reached, or cannot serve now; the same request may succeed in a moment.
    #[error("the database is unavailable: {}", cause(.0.as_ref()))]
    Unavailable(DbCause),
    /// It was reached and refused; trying again does not help.
    #[error("the database refused a statement: {}", cause(.0.as_ref()))]
    Failed(DbCause),
    /// The configuration names something that cannot be used.
    #[error("`store.{key}` {problem}")]
    Settings {
        /// The key in the `store` table.
        key: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
}

/// What a request waited for in vain, while the database serves others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// Its turn: all that it may use is in use.
    Turn,
    /// Its own statement, which took too long.
    Statement,
    /// A lock that somebody else holds.
    Lock,
}

/// No turn came in time.
#[derive(Debug, Error)]
pub enum NoTurn {
    /// Every session of the pool is in use, or every reader or the writer of the embedded store.
    #[error("no connection is free")]
    OfAll,
    /// One caller uses all that one caller may.
    #[error("one caller waits for more connections than its share")]
    OfCaller,
    /// Writes use all that they may.
    #[error("too many writes wait at once")]
    OfWrites,
    /// The program ends, and what was not begun is begun no more.
    #[error("this program stops")]
    Stopping,
}

impl From<NoTurn> for DbError {
    fn from(error: NoTurn) -> Self {
        Self::Unavailable(error.into())
    }
}

impl DbError {
    /// Whether the same request may succeed in a moment.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether the database itself is away, not merely busy for this request or read-only.
    pub fn is_outage(&self) -> bool {
        self.is_unavailable() && self.waited_for().is_none() && !self.is_read_only()
    }

    /// The reason alone, in one line.
    pub fn in_short(&self) -> String {
        match self {
            Self::Unavailable(error) | Self::Failed(error) => cause(error.as_ref()),
            Self::Settings { problem, .. } => problem.clone(),
        }
    }

    /// Whether a server of PostgreSQL itself said so, or showed a certificate: then it is up.
    pub fn is_answer(&self) -> bool {
        let (Self::Unavailable(error) | Self::Failed(error)) = self else { return false };
        is_of_server(error.as_ref())
    }

    /// Whether a table, a column or a function is not there, because the schema is not.
    pub fn lacks_schema(&self) -> bool {
        let by_state = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_FUNCTION];
        let is_missing = |text: &str| text.starts_with("no such table") || text.starts_with("no such column");
        self.state().is_some_and(|state| by_state.contains(state))
            || self.find::<rusqlite::Error>().is_some_and(|error| is_missing(&error.to_string()))
    }

    /// Whether PostgreSQL may not write here, as on a standby.
    pub fn is_read_only(&self) -> bool {
        self.state() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Whether PostgreSQL lets the role not do that.
    pub fn is_forbidden(&self) -> bool {
        self.state() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// Why a server that answers was not used, if that is the reason.
    pub fn wrong_server(&self) -> Option<route::WrongServer> {
        self.find().copied()
    }

    /// Whether a row that another one names is not there, or is still named.
    pub fn is_foreign_key_violation(&self) -> bool {
        self.state() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
    }

    /// Why a database that is well did not serve this request now; none where it is not well, or refused.
    pub fn waited_for(&self) -> Option<WaitReason> {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, OperationInterrupted};
        if self.find::<NoTurn>().is_some() {
            return Some(WaitReason::Turn);
        }
        match self.state() {
            Some(state) if *state == SqlState::QUERY_CANCELED => return Some(WaitReason::Statement),
            Some(state) if [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(state) => {
                return Some(WaitReason::Lock);
            }
            _ => {}
        }
        match self.find::<rusqlite::Error>()?.sqlite_error_code()? {
            DatabaseBusy | DatabaseLocked => Some(WaitReason::Lock),
            OperationInterrupted => Some(WaitReason::Statement),
            _ => None,
        }
    }

    /// No session could be had: the database is away for now, unless the settings are wrong.
    fn no_session(error: tokio_postgres::Error) -> Self {
        match Self::from(error) {
            Self::Failed(error) => Self::Unavailable(untrusted(error.as_ref()).map_or(error, Into::into)),
            Self::Unavailable(error) => Self::Unavailable(untrusted(error.as_ref()).map_or(error, Into::into)),
            other @ Self::Settings { .. } => other,
        }
    }

    fn state(&self) -> Option<&SqlState> {
        self.find::<tokio_postgres::error::DbError>().map(tokio_postgres::error::DbError::code)
    }

    /// The first cause of a type.
    fn find<E: StdError + 'static>(&self) -> Option<&E> {
        let (Self::Unavailable(error) | Self::Failed(error)) = self else { return None };
        found(error.as_ref())
    }
}

/// The first of an error and its causes that has a type.
fn found<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// Whether a server of PostgreSQL said so, or showed a certificate.
fn is_of_server(error: &(dyn StdError + 'static)) -> bool {
    found::<tokio_postgres::error::DbError>(error).is_some()
        || found::<UntrustedServer>(error).is_some()
        || found::<route::WrongServer>(error).is_some()
        || found::<route::NoHostWillDo>(error).is_some_and(|hosts| hosts.is_one_up)
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        // pgbouncer's words; it takes what belongs to one session only where it is told to ignore that.
        if error.as_db_error().is_some_and(|error| error.message().starts_with("unsupported startup parameter")) {
            let problem =
                "leads to a pooling proxy, which has no `options` and loses notices; it must reach the primary itself";
            return Self::Settings { key: "uri", problem: problem.to_owned() };
        }
        let away = match error.code() {
            Some(state) => state_means_away(state),
            // No SQLSTATE: the connection itself failed, unless our own code used a wrong type.
            None => error.is_closed() || error.source().is_none_or(|source| source.is::<std::io::Error>()),
        };
        if away { Self::Unavailable(error.into()) } else { Self::Failed(error.into()) }
    }
}

impl From<deadpool::managed::PoolError<Self>> for DbError {
    /// No connection could be had: whatever else the reason, the database is away for this request.
    fn from(error: deadpool::managed::PoolError<Self>) -> Self {
        use deadpool::managed::{PoolError, TimeoutType};
        match error {
            PoolError::Timeout(TimeoutType::Wait) => NoTurn::OfAll.into(),
            PoolError::Timeout(_) => Self::Unavailable("it does not answer in time".into()),
            PoolError::Backend(error) => error,
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Self::Unavailable("its sessions have ended".into())
            }
        }
    }
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OperationInterrupted, OutOfMemory, SystemIoFailure,
        };
        match error.sqlite_error_code() {
            Some(
                DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure | CannotOpen | OutOfMemory
                | OperationInterrupted,
            ) => Self::Unavailable(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

/// SQLSTATE classes and codes (PostgreSQL manual, appendix A) that pass by themselves.
fn state_means_away(state: &SqlState) -> bool {
    /// Connection exception, insufficient resources, operator intervention (shutdown, crash, cancel).
    const CLASSES: [&str; 3] = ["08", "53", "57"];
    CLASSES.iter().any(|class| state.code().starts_with(class))
        || [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
        ]
        .contains(state)
}

/// What a failed handshake says of the server's certificate, if that is why it failed.
fn untrusted(error: &(dyn StdError + 'static)) -> Option<UntrustedServer> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // What an error of input and output wraps is none of its sources.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(fault) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<rustls::Error>()) {
            return UntrustedServer::of(fault);
        }
        // It has no type of its own.
        if error.to_string() == "server does not support TLS" {
            return Some(UntrustedServer::NoTls);
        }
        cause = error.source();
    }
    None
}

/// The innermost cause of an error, in one line: what lies around it says the same in other words.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    // Below SQLite's message there is but the name of its code.
    while let (Some(source), false) = (innermost.source(), innermost.is::<rusqlite::Error>()) {
        innermost = source;
    }
    let text = innermost.to_string().lines().next().unwrap_or_default().to_owned();
    match found::<UnreachedServer>(error) {
        Some(server) => format!("`{}`: {text}", server.place),
        None => text,
    }
}
