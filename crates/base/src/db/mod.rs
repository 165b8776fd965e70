//! Connections and schema: the only way to the database, for accounts and for the HIS.
//!
//! The one rule: an error distinguishes "the database is away" ([`DbError::Unavailable`]: answer 503 and try again)
//! from everything else. `accounts` and `his::store` call it. It knows no documents and no HTTP.

pub mod actor;
pub mod backup;
pub mod connection_room;
pub mod follow;
pub mod foreign;
pub mod hashes;
pub mod members;
pub mod notices;
pub mod outage;
pub mod postgres;
pub mod replicas;
pub mod route;
pub mod schema;
mod session;
mod session_pool;
mod shared_reads;
mod statement_ledger;
pub mod spelling;
pub mod sqlite;

mod gate;
mod hosts;
mod place;
mod pool;
mod trust;

use std::error::Error as StdError;
use std::sync::Arc;

use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::config::StoreConfig;

use self::place::UnreachedServer;
pub use self::session::{PooledSession, SessionTransaction};
pub use self::session_pool::SessionPool;
pub use self::shared_reads::ShortRead;
pub use self::sqlite::{GROUP_WRITES, READERS, SqliteFile, WriteCompany};
pub use self::statement_ledger::RowsLeft;
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
    /// The route to the server; none for an embedded store.
    pub fn route(&self) -> Option<&Arc<route::ServerRoute>> {
        match self {
            Self::Postgres(pool) => Some(pool.route()),
            Self::Sqlite(_) => None,
        }
    }

    /// The role that is signed in; none for an embedded store.
    ///
    /// # Errors
    /// The database is away.
    pub async fn role(&self) -> Result<Option<String>, DbError> {
        match self {
            Self::Postgres(pool) => {
                Ok(Some(pool.get().await?.query_one("SELECT current_user::text", &[]).await?.try_get(0)?))
            }
            Self::Sqlite(_) => Ok(None),
        }
    }

    /// Closes an embedded store at the end of a program, so that its file alone holds everything
    /// ([`SqliteFile::close`]).
    pub fn close(&self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close(),
            Self::Postgres(_) => {}
        }
    }

    /// Opens the configured database.
    ///
    /// PostgreSQL is not contacted yet: a server that is away now may be back when it is needed.
    ///
    /// # Errors
    /// [`DbError::Settings`] for an unusable connection string or certificate file; for SQLite, any reason why the
    /// file cannot be opened.
    pub async fn open(config: &StoreConfig) -> Result<Self, DbError> {
        match config {
            StoreConfig::Postgres(config) => Ok(Self::Postgres(postgres::pool(config)?)),
            StoreConfig::Sqlite(config) => Ok(Self::Sqlite(SqliteFile::open(&config.path, config.lock_timeout).await?)),
        }
    }
}

/// An error of another crate.
pub type DbCause = Box<dyn StdError + Send + Sync>;

/// Why the database did not do what was requested.
#[derive(Debug, Error)]
pub enum DbError {
    /// It cannot be reached, or cannot serve now; the same request may succeed a moment later.
    #[error("the database is unavailable: {}", cause(.0.as_ref()))]
    Unavailable(DbCause),
    /// It was reached and refused; another attempt does not help.
    #[error("the database refused a statement: {}", cause(.0.as_ref()))]
    Failed(DbCause),
    /// The configuration names something unusable.
    #[error("`store.{key}` {problem}")]
    Settings {
        /// The key in the `store` table.
        key: &'static str,
        /// The fault and the remedy.
        problem: String,
    },
}

/// The resource that a request could not get in time, while the database served others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// Its turn: everything that it may use is in use.
    Turn,
    /// Its own statement, which took too long.
    Statement,
    /// A lock of another session.
    Lock,
}

/// Why a request did not get a turn in time.
#[derive(Debug, Error)]
pub enum NoTurn {
    /// Every session of the pool is in use, or every reader or the writer of the embedded store.
    #[error("no connection is free")]
    OfAll,
    /// One caller uses all that one caller may use.
    #[error("one caller waits for more connections than its share")]
    OfCaller,
    /// Writes use all that writes may use.
    #[error("too many writes wait at once")]
    OfWrites,
    /// The program stops, and no longer begins anything.
    #[error("this program stops")]
    Stopping,
}

impl From<NoTurn> for DbError {
    fn from(error: NoTurn) -> Self {
        Self::Unavailable(error.into())
    }
}

impl DbError {
    /// Whether the same request may succeed a moment later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether the database itself is away, rather than busy or read-only.
    pub fn is_outage(&self) -> bool {
        self.is_unavailable() && self.waited_for().is_none() && !self.is_read_only()
    }

    /// Only the reason, in one line.
    pub fn in_short(&self) -> String {
        match self {
            Self::Unavailable(error) | Self::Failed(error) => cause(error.as_ref()),
            Self::Settings { problem, .. } => problem.clone(),
        }
    }

    /// Whether a PostgreSQL server itself answered or presented a certificate, and so is running.
    pub fn is_answer(&self) -> bool {
        let (Self::Unavailable(error) | Self::Failed(error)) = self else { return false };
        is_of_server(error.as_ref())
    }

    /// Whether a table, column or function is missing, because the schema is.
    pub fn lacks_schema(&self) -> bool {
        let by_state = [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN, SqlState::UNDEFINED_FUNCTION];
        let is_missing = |text: &str| text.starts_with("no such table") || text.starts_with("no such column");
        self.state().is_some_and(|state| by_state.contains(state))
            || self.find::<rusqlite::Error>().is_some_and(|error| is_missing(&error.to_string()))
    }

    /// Whether PostgreSQL has no connection left for this role.
    pub(crate) fn is_without_connections(&self) -> bool {
        self.state() == Some(&SqlState::TOO_MANY_CONNECTIONS)
    }

    /// Whether PostgreSQL takes no writes here, as on a standby.
    pub fn is_read_only(&self) -> bool {
        self.state() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Whether PostgreSQL denies this to the role.
    pub fn is_forbidden(&self) -> bool {
        self.state() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
    }

    /// Why a server that answers was not used, if that is the reason.
    pub fn wrong_server(&self) -> Option<route::WrongServer> {
        self.find().copied()
    }

    /// Whether a standby ended a statement, because it could not replay the primary's log otherwise.
    pub(crate) fn is_conflict(&self) -> bool {
        self.state() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
    }

    /// Whether a person was merged between the check of a statement and its write (`fedgate_merges_follow`).
    pub fn is_merged_meanwhile(&self) -> bool {
        self.state().is_some_and(|state| state.code() == "FG001")
    }

    /// Whether a row that another one refers to is missing, or is still referred to.
    pub fn is_foreign_key_violation(&self) -> bool {
        self.state() == Some(&SqlState::FOREIGN_KEY_VIOLATION)
    }

    /// Why an available database did not serve this request now; none if it is not available, or refused.
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

    /// No session was available: the database is away for now, unless the settings are wrong.
    fn no_session(error: tokio_postgres::Error) -> Self {
        // The client library's words when the server asks for a password and the settings have none.
        if error.source().is_some_and(|cause| cause.to_string() == "password missing") {
            let problem =
                "is missing: the server asks for a password; name a file that holds it, or set FEDGATE_STORE_PASSWORD";
            return Self::Settings { key: "password_file", problem: problem.to_owned() };
        }
        match Self::from(error) {
            Self::Failed(error) => Self::Unavailable(untrusted(error.as_ref()).map_or(error, Into::into)),
            Self::Unavailable(error) => Self::Unavailable(untrusted(error.as_ref()).map_or(error, Into::into)),
            other @ Self::Settings { .. } => other,
        }
    }

    fn state(&self) -> Option<&SqlState> {
        self.find::<tokio_postgres::error::DbError>().map(tokio_postgres::error::DbError::code)
    }

    /// The first cause of this type.
    fn find<E: StdError + 'static>(&self) -> Option<&E> {
        let (Self::Unavailable(error) | Self::Failed(error)) = self else { return None };
        found(error.as_ref())
    }
}

/// The first of an error and its causes that has this type.
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

/// Whether a PostgreSQL server answered, or presented a certificate.
fn is_of_server(error: &(dyn StdError + 'static)) -> bool {
    found::<tokio_postgres::error::DbError>(error).is_some()
        || found::<UntrustedServer>(error).is_some()
        || found::<route::WrongServer>(error).is_some()
        || found::<route::NoHostWillDo>(error).is_some_and(|hosts| hosts.is_one_up)
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        // pgbouncer's message. It accepts session settings only if it is told to ignore them.
        if error.as_db_error().is_some_and(|error| error.message().starts_with("unsupported startup parameter")) {
            let problem =
                "leads to a pooling proxy, which has no `options` and loses notices; it must reach the primary itself";
            return Self::Settings { key: "uri", problem: problem.to_owned() };
        }
        let away = match error.code() {
            Some(state) => state_means_away(state),
            // Without SQLSTATE the connection itself failed, unless our own code used a wrong type.
            None => error.is_closed() || error.source().is_none_or(|source| source.is::<std::io::Error>()),
        };
        if away { Self::Unavailable(error.into()) } else { Self::Failed(error.into()) }
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

/// SQLSTATE classes and codes (PostgreSQL manual, appendix A) of conditions that pass by themselves.
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

/// Why a handshake failed, if the server's certificate was the reason.
fn untrusted(error: &(dyn StdError + 'static)) -> Option<UntrustedServer> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An error that `io::Error` wraps is not among its sources.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(fault) = wrapped.and_then(|wrapped| wrapped.downcast_ref::<rustls::Error>()) {
            return UntrustedServer::of(fault);
        }
        // This error has no type of its own.
        if error.to_string() == "server does not support TLS" {
            return Some(UntrustedServer::NoTls);
        }
        cause = error.source();
    }
    None
}

/// The innermost cause of an error in one line, because the outer ones repeat it in other words.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut innermost = error;
    // Beneath SQLite's message there is only the name of its code.
    while let (Some(source), false) = (innermost.source(), innermost.is::<rusqlite::Error>()) {
        innermost = source;
    }
    let text = innermost.to_string().lines().next().unwrap_or_default().to_owned();
    match found::<UnreachedServer>(error) {
        Some(server) => format!("`{}`: {text}", server.place),
        None => text,
    }
}
