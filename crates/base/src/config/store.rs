//! The section `[store]`: the store of accounts and documents.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tokio_postgres::config::TargetSessionAttrs;

use super::check::{ValueCheck, WantedSecrets};
use super::connection::ConnectionString;
use super::error::ConfigError;
use super::section::section;
use fedgate_core::secret::Secret;

/// The most replicas: each is asked several times a second.
const MOST_REPLICAS: usize = 8;

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
    /// Standbys that may answer reads of the HIS.
    pub replicas: Vec<ReplicaConfig>,
}

/// A standby that may answer reads.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    /// Connection string, as [`PostgresConfig::uri`].
    pub uri: String,
    /// The PEM file of the authority that signed the server's certificate.
    pub ca_file: Option<PathBuf>,
}

impl PostgresConfig {
    /// The settings of a replica's sessions.
    pub fn of_replica(&self, replica: &ReplicaConfig) -> Self {
        let ReplicaConfig { uri, ca_file } = replica.clone();
        Self { uri, ca_file, replicas: vec![], ..self.clone() }
    }
}

section!(StoreSection {
    kind: String = "sqlite".into(),
    path: PathBuf = "fedgate.db".into(),
    uri: String = String::new(),
    read_uris: Vec<String> = vec![],
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
            "sqlite" if !self.read_uris.is_empty() => {
                let problem = "names replicas, and `store.kind` is `sqlite`, which has none";
                Err(check.fault("store.read_uris", problem, "leave it out, or write `kind = \"postgres\"`"))
            }
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
                let ca_file = ca_file.map(|path| check.path(path));
                let replicas = replicas(&self.read_uris, ca_file.as_ref(), check)?;
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
                    ca_file,
                    pool_size: usize::try_from(check.at_least("store.pool_size", self.pool_size as u64, 1)?)
                        .unwrap_or(1),
                    lock_timeout,
                    application: "fedgate",
                    replicas,
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
        let has_one =
            |text: &String| ConnectionString::parse(text).is_ok_and(|uri| uri.settings.get_password().is_some());
        if self.read_uris.iter().any(has_one) {
            return Some(("store.read_uris", "holds a password", remedy));
        }
        has_one(&self.uri).then_some(("store.uri", "holds a password", remedy))
    }
}

/// The replicas of a list of connection strings. One without a file of authorities has that of the store.
fn replicas(
    uris: &[String],
    ca_file: Option<&PathBuf>,
    check: &ValueCheck<'_>,
) -> Result<Vec<ReplicaConfig>, ConfigError> {
    let key = "store.read_uris";
    if uris.len() > MOST_REPLICAS {
        return Err(check.fault(
            key,
            format!("names {} replicas", uris.len()),
            format!("name {MOST_REPLICAS} at most"),
        ));
    }
    let replica = |(at, uri): (usize, &String)| {
        let problem = |problem: String| {
            let remedy = "write one postgres://user@standby:5432/database for each replica";
            check.fault(key, format!("{problem} (number {})", at + 1), remedy)
        };
        let parsed = ConnectionString::parse(uri).map_err(problem)?;
        if parsed.settings.get_target_session_attrs() == TargetSessionAttrs::ReadWrite {
            return Err(problem("asks for a server that takes writes, by `target_session_attrs`".into()));
        }
        let ca_file = parsed.authorities.map(|path| check.path(path)).or(ca_file.cloned());
        Ok(ReplicaConfig { uri: uri.clone(), ca_file })
    };
    uris.iter().enumerate().map(replica).collect()
}
