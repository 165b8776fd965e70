//! The configuration: `fedgate.toml` and the environment, parsed once into a [`Config`] that is already true.
//!
//! One file serves both programs. The one rule: every value is checked here, and every error names file, key and
//! remedy, so that nothing behind this module looks at raw configuration again.
//!
//! Called by the binaries at start. Knows nothing of HTTP, policy or databases beyond their addresses.

mod authentication;
mod changed;
mod connection;
mod cors;
mod environment;
mod error;
mod exposure;
mod faults;
mod fields;
mod gateway;
mod his;
mod origins;
mod raw;
mod route;
mod tls;
mod upstreams;
mod warnings;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use authentication::{AuthenticationConfig, FreeFailures, HashesConfig, LONGEST_BOUND_MS};
pub use changed::ChangedDefault;
pub use connection::{CertificateTrust, ConnectionString, socket_directory};
pub use cors::{AllowedOrigins, CorsConfig};
pub use error::ConfigError;
pub use exposure::SecretExposure;
pub use faults::Examined;
pub use fields::GuardConfig;
pub use gateway::{ForwardedHeader, GatewayConfig, LimitsConfig, ProxiesConfig};
pub use his::{ConnectionsConfig, HeadsConfig, HisConfig, HisListen, SharesConfig};
pub use origins::Origins;
pub use route::RouteConfig;
pub use tls::{
    CertificateConfig, ClientCertificates, ClientsConfig, TlsConfig, TlsVersion, UnknownIssuer, WhenExpired,
};

use environment::Environment;

use crate::regular;
use crate::request_headers::AddedHeaders;
use crate::secret::Secret;

/// Largest configuration file.
const MOST_BYTES: u64 = 8 << 20;

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// Files that hold secrets of the program that reads this, each with the key that names it.
    secret_files: Vec<(&'static str, PathBuf)>,
    /// Whether the kernel may write what the process holds to a file when it crashes.
    pub core_dumps: bool,
    /// Defaults that have changed, and that neither the file nor the environment settles.
    pub changed_defaults: Vec<ChangedDefault>,
    /// Which keys the environment has set.
    pub origins: Origins,
    /// Variables that begin as those of fedgate do, and mean nothing.
    unknown_variables: Vec<String>,
    /// The gateway's listeners and limits.
    pub gateway: GatewayConfig,
    /// Certificate and protocol versions.
    pub tls: TlsConfig,
    /// Where the policy lies.
    pub policy: PolicyConfig,
    /// Where records go besides stdout.
    pub records: RecordsConfig,
    /// Who may call from a browser.
    pub cors: CorsConfig,
    /// Passwords and caches.
    pub authentication: AuthenticationConfig,
    /// Where accounts and documents are kept.
    pub store: StoreConfig,
    /// The signed identity between gateway and HIS.
    pub assertion: AssertionConfig,
    /// The HIS's listener and limits.
    pub his: HisConfig,
    /// The protected services; the first is where the built-in routes lead.
    pub upstreams: Vec<UpstreamConfig>,
    /// The operator's own routes.
    pub routes: Vec<RouteConfig>,
}

/// Where the policy lies.
#[derive(Debug, Clone)]
pub struct PolicyConfig {
    /// The `roles.cfg` file.
    pub roles: PathBuf,
    /// Where the last policies are kept, by fingerprint.
    pub history: Option<PathBuf>,
}

/// Where records go besides stdout.
#[derive(Debug, Clone)]
pub struct RecordsConfig {
    /// A file they are appended to.
    pub file: Option<PathBuf>,
    /// Whether stdout has a copy of each, beside the file.
    pub stdout: bool,
    /// Whether those of refusals and of writes are on disk before the client is answered.
    pub durable: bool,
    /// How many requests of anonymous callers at one address have records of their own, in a minute; 0 is no limit.
    pub anonymous_of_source_per_minute: u32,
    /// The same of all addresses together.
    pub anonymous_per_minute: u32,
    /// Free bytes on the disk of the file under which anonymous callers have one record for all of them.
    pub reserve_bytes: u64,
}

/// Where accounts and documents are kept.
#[derive(Debug, Clone)]
pub enum StoreConfig {
    /// The embedded store.
    Sqlite(SqliteConfig),
    /// A PostgreSQL database, of Thalamus or new.
    Postgres(PostgresConfig),
}

impl StoreConfig {
    /// The key that says where the store is.
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
    /// How long a write waits for a lock that somebody else holds.
    pub lock_timeout: Duration,
}

/// A PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    /// Connection string: a `postgres://` URI or `key=value` pairs.
    pub uri: String,
    /// The password, where the connection string holds none.
    pub password: Option<Secret>,
    /// PEM file of the authority that signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// Connections at most.
    pub pool_size: usize,
    /// How long a statement waits for a lock that somebody else holds; zero for as long as it may run.
    pub lock_timeout: Duration,
    /// What sessions are called (`application_name`), where the connection string does not say it.
    pub application: &'static str,
}

/// The signed identity between gateway and HIS.
#[derive(Debug, Clone)]
pub struct AssertionConfig {
    /// Algorithm and keys.
    pub keys: AssertionKeys,
    /// `iss` of the assertions.
    pub issuer: String,
    /// `aud` of the assertions.
    pub audience: String,
    /// How long one is valid.
    pub lifetime: Duration,
}

/// Algorithm and keys of the assertion.
#[derive(Debug, Clone)]
pub enum AssertionKeys {
    /// One secret that both sides hold.
    Hs256 {
        /// At least 32 bytes.
        secret: Secret,
    },
    /// A private key with the gateway, a public key with the HIS.
    Ed25519 {
        /// PKCS#8 in PEM; the gateway's.
        private_key: Option<Secret>,
        /// SubjectPublicKeyInfo in PEM; the HIS's.
        public_key: Option<Vec<u8>>,
    },
    /// They were left unread, so that nothing can be signed or believed.
    Unread,
}

/// Where a service listens or is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// One protected service.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// The name routes call it by.
    pub name: String,
    /// The servers it runs on; at least one.
    pub servers: Vec<ServerConfig>,
    /// Which of them takes a request.
    pub balance: Balance,
    /// Whether requests carry the signed assertion.
    pub assertion: bool,
    /// Whether the client's `Authorization` header goes on to it.
    pub forward_authorization: bool,
    /// Headers of requests that reach it besides those that reach every upstream.
    pub request_headers: Vec<AddedHeaders>,
    /// What stands in `Host` of its requests.
    pub host: HostHeader,
    /// How long connecting may take, the TLS handshake included.
    pub connect_timeout: Duration,
    /// How long the service may be silent.
    pub read_timeout: Duration,
    /// How long it may refuse to take bytes.
    pub write_timeout: Duration,
    /// How long one request may take, from the choice of a server to the last byte of the answer; none is for ever.
    pub total_timeout: Option<Duration>,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Whom to believe, and as whom to appear, where a server speaks TLS.
    pub tls: UpstreamTlsConfig,
    /// How servers are probed, if they are.
    pub health: Option<HealthConfig>,
    /// When a server that fails is left out for a while.
    pub ejection: EjectionConfig,
}

/// What stands in `Host` of the requests to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client asked for, where the hosts that are served are listed; otherwise the server's own name.
    Listed,
    /// What the client asked for, whatever that is.
    Clients,
    /// The server's own name.
    Own,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// As it stands in the configuration; logs and metrics call it so.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At an address.
    Address(Address),
    /// At every address that a name has.
    Name {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Which server takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// The same one for the same person's record.
    Consistent,
}

/// Whom to believe, and as whom to appear, in TLS with a server.
#[derive(Debug, Clone)]
pub struct UpstreamTlsConfig {
    /// PEM file of the authorities that may sign the server's certificate; the system's where there is none.
    pub ca_file: Option<PathBuf>,
    /// The name that the certificate must be for, where it is not the server's host.
    pub server_name: Option<String>,
    /// The certificate that the gateway shows.
    pub identity: Option<Identity>,
}

/// A client certificate.
#[derive(Debug, Clone)]
pub struct Identity {
    /// PEM file: the certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key.
    pub key: PathBuf,
    /// What becomes of a key that everybody can read.
    pub exposure: SecretExposure,
}

/// How servers are probed.
#[derive(Debug, Clone)]
pub struct HealthConfig {
    /// What is asked for; without it a connection is proof enough.
    pub path: Option<String>,
    /// How long between two probes of one server.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Failures in a row that take a server out.
    pub unhealthy_after: u32,
    /// Successes in a row that take it in again.
    pub healthy_after: u32,
}

/// When a server that fails requests is left out for a while.
#[derive(Debug, Clone)]
pub struct EjectionConfig {
    /// Failures in a row that eject; 0 never does.
    pub failures: u32,
    /// How long the first time; each further time is twice as long.
    pub time: Duration,
    /// The longest time.
    pub max_time: Duration,
    /// Largest share of the servers that may be out at once.
    pub max_percent: u32,
}

impl Config {
    /// Reads and checks a configuration file and the `FEDGATE_*` environment variables, as the gateway and its commands need
    /// it: no secret of the HIS alone is read.
    ///
    /// Relative paths are taken from the directory of the file.
    ///
    /// # Errors
    /// The first fault found, as one line naming file, key and remedy.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::read(file, Environment::new(std::env::vars_os()), Secrets::OfGateway)
    }

    /// As [`Config::load`], for the HIS: of the gateway's secrets none is read, neither the key that mints assertions nor those
    /// of certificates.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_for_his(file: &Path) -> Result<Self, ConfigError> {
        Self::read(file, Environment::new(std::env::vars_os()), Secrets::OfHis)
    }

    /// As [`Config::load`], but reads no secret: for looking at policies and routes where the secrets are not.
    ///
    /// Nothing can be served with it: it has no keys and no password.
    ///
    /// # Errors
    /// As [`Config::load`], but for what a secret would have to hold.
    pub fn load_without_secrets(file: &Path) -> Result<Self, ConfigError> {
        Self::read(file, Environment::new(std::env::vars_os()), Secrets::LeaveUnread)
    }

    /// As [`Config::load`], with the environment given.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(file: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let environment = environment.map(|(variable, value)| (variable.into(), value.into()));
        Self::read(file, Environment::new(environment), Secrets::OfGateway)
    }

    fn read(file: &Path, environment: Environment, secrets: Secrets) -> Result<Self, ConfigError> {
        let text =
            regular::read_to_string(file, MOST_BYTES).map_err(|source| ConfigError::unreadable(file, &source))?;
        let plain = raw::parse(&text, file)?;
        let overrides = &environment.overrides;
        if let Some(fault) = environment.faults.first() {
            return Err(fault.clone());
        }
        let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::toml(file, &text, &error))?;
        let settled = match overrides.is_empty() {
            true => plain,
            false => {
                let table = environment::apply(table.clone(), overrides)?;
                raw::from_table(table).map_err(|error| ConfigError::toml(file, "", &error))?
            }
        };
        let mut config = raw::check(settled, file, secrets).map_err(|fault| fault.by(overrides))?;
        config.changed_defaults = changed::unsettled(&table, overrides);
        if let StoreConfig::Postgres(store) = &config.store {
            config.changed_defaults.extend(changed::unsettled_parameters(&store.uri));
        }
        Ok(config.with_environment(&environment))
    }

    /// The same for a program of this name, which its sessions at the database bear.
    #[must_use]
    pub fn called(mut self, program: &'static str) -> Self {
        match &mut self.store {
            StoreConfig::Postgres(store) => store.application = program,
            StoreConfig::Sqlite(_) => {}
        }
        self
    }

    /// The same, with what the environment tells besides values.
    fn with_environment(mut self, environment: &Environment) -> Self {
        self.origins = Origins::of(environment, &self.secret_files);
        self.unknown_variables.clone_from(&environment.unknown);
        self
    }
}

/// What becomes of the secrets that a configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Secrets {
    /// Those that the gateway needs are read, and must be there.
    OfGateway,
    /// Those that the HIS needs.
    OfHis,
    /// They are left where they are, if they are.
    LeaveUnread,
}

#[cfg(test)]
mod tests;
