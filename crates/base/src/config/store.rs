//! The section `[store]`: the store of accounts and documents.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::check::{ValueCheck, WantedSecrets};
use super::connection::ConnectionString;
use super::error::ConfigError;
use super::section::section;
use fedgate_core::secret::Secret;

/// The store of accounts and documents.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// The embedded store.
    Sqlite(SqliteConfig),
    /// A PostgreSQL database, Thalamus's or a new one.
    Postgres(PostgresConfig),
}

impl StoreConfig {
    /// The key that locates the store.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "store.path",
            Self::Postgres(_) => "store.uri",
        }
    }
}

/// The embedded store.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The database file.
    pub path: PathBuf,
    /// How long a write waits for a lock of another session.
    pub lock_timeout: Duration,
}

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// Connection string: a `postgres://` URI or `key=value` pairs.
    pub uri: String,
    /// The password, if the connection string has none.
    pub password: Option<Secret>,
    /// The PEM file of the authority that signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// The most connections.
    pub pool_size: usize,
    /// How long a statement waits for a lock of another session; zero means as long as it may run.
    pub lock_timeout: Duration,
    /// The name of the sessions (`application_name`), if the connection string has none.
    pub application: &'static str,
}

section!(StoreSection {
    kind: String = "sqlite".into(),
    path: PathBuf = "fedgate.db".into(),
    uri: String = String::new(),
    password: Option<String> = None,
    password_file: Option<PathBuf> = None,
    ca_file: Option<PathBuf> = None,
    pool_size: usize = 16,
    lock_timeout_ms: u64 = 2000,
});

impl StoreSection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<StoreConfig, ConfigError> {
        // No longer than a gateway waits for an answer: PostgreSQL ends the statement itself after 10 s.
        let lock_timeout = check.within("store.lock_timeout_ms", self.lock_timeout_ms, 0, 10_000)?;
        let lock_timeout = Duration::from_millis(lock_timeout);
        match self.kind.as_str() {
            "sqlite" => Ok(StoreConfig::Sqlite(SqliteConfig { path: check.path(self.path), lock_timeout })),
            "postgres" => {
                let remedy = "write postgres://user@host:5432/database";
                if self.uri.is_empty() {
                    return Err(check.fault("store.uri", "is missing", remedy));
                }
                let uri = ConnectionString::parse(&self.uri);
                let uri = uri.map_err(|problem| check.fault("store.uri", problem, remedy))?;
                let ca_file = match (self.ca_file, uri.authorities) {
                    // With two files it would be unclear which of them is trusted.
                    (Some(file), Some(other)) if file != other => {
                        let problem = format!("names `{}`, and `store.uri` has another `sslrootcert`", file.display());
                        return Err(check.fault("store.ca_file", problem, "name the file of authorities once"));
                    }
                    (file, other) => file.or(other),
                };
                let (given, file) = match check.secrets {
                    WantedSecrets::OfGateway | WantedSecrets::OfHis | WantedSecrets::OfStore => {
                        (self.password, self.password_file)
                    }
                    WantedSecrets::LeaveUnread => (None, None),
                };
                let file = file.map(|path| check.secret("store.password_file", path)).transpose()?;
                if file.as_ref().is_some_and(|password| password.expose().is_empty()) {
                    let remedy = "write the password of the database into the file it names, or leave the key out";
                    return Err(check.fault("store.password_file", "names a file that is empty", remedy));
                }
                Ok(StoreConfig::Postgres(PostgresConfig {
                    uri: self.uri,
                    password: given.map(|password| Secret::new(password.into_bytes())).or(file),
                    ca_file: ca_file.map(|path| check.path(path)),
                    pool_size: usize::try_from(check.at_least("store.pool_size", self.pool_size as u64, 1)?)
                        .unwrap_or(1),
                    lock_timeout,
                    application: "fedgate",
                }))
            }
            other => Err(check.fault("store.kind", format!("is `{other}`"), "write \"sqlite\" or \"postgres\"")),
        }
    }

    /// A secret written in this section: its key, the fault and the remedy.
    pub(super) fn written_secret(&self) -> Option<(&'static str, &'static str, &'static str)> {
        let remedy = "put it into a file of mode 0600 and name that with `store.password_file`";
        if self.password.is_some() {
            return Some(("store.password", "is a secret in the configuration file", remedy));
        }
        let has_one = ConnectionString::parse(&self.uri).is_ok_and(|uri| uri.settings.get_password().is_some());
        has_one.then_some(("store.uri", "holds a password", remedy))
    }
}
