//! The configuration: `fedgate.toml` and the environment, parsed once into a checked [`Config`].
//!
//! One file serves both programs. The one rule: every value is checked here, and every error names file, key and
//! remedy. So no other module looks at raw configuration.
//!
//! The programs call it at their start. It knows nothing of HTTP or policy, and of databases only their addresses.

mod address;
mod assertion;
mod authentication;
mod beside;
mod changed;
mod check;
mod connection;
mod cors;
mod environment;
mod error;
mod exposure;
mod faults;
mod fhir;
mod fields;
mod gateway;
mod his;
mod index;
mod origins;
mod overrides;
mod policy;
mod records;
mod route;
mod section;
mod store;
mod subject;
mod tls;
mod upstreams;
mod warnings;
mod webhooks;
mod written;

use std::path::{Path, PathBuf};

pub use address::Address;
pub use authentication::{AuthenticationConfig, FreeFailures, HashesConfig, LONGEST_BOUND_MS};
pub use beside::{BesideConfig, BesideListen, ProxyAskers};
pub use changed::ChangedDefault;
pub use connection::{CertificateTrust, ConnectionString, socket_directory};
pub use error::ConfigError;
pub use exposure::SecretExposure;
pub use faults::ExaminedConfig;
pub use fhir::FhirConfig;
pub use fields::GuardConfig;
pub use gateway::{ForwardedHeader, GatewayConfig, LimitsConfig, ProxiesConfig, StreamLimits};
pub use his::{ConnectionsConfig, HeadsConfig, HisConfig, HisListen, MessagesConfig, SharesConfig};
pub use index::{IndexConfig, IndexFields};
pub use origins::ValueOrigins;
pub use policy::PolicyConfig;
pub use records::RecordsConfig;
pub use route::RouteConfig;
pub use store::{PostgresConfig, ReplicaConfig, SqliteConfig, StoreConfig};
pub use subject::SubjectConfig;
pub use tls::{
    CertificateConfig, ClientCertificates, ClientsConfig, TlsConfig, TlsVersion, UnknownIssuer, WhenExpired,
};

pub use webhooks::WebhooksConfig;

use check::WantedSecrets;
use environment::Environment;
pub use upstreams::{
    ClientIdentity, EjectionConfig, HealthConfig, HostHeader, ServerBalance, ServerConfig, ServerPlace, UpstreamConfig,
    UpstreamTlsConfig,
};

use crate::regular;
pub use fedgate_core::assertion::{AssertionConfig, AssertionKeys};
use fedgate_core::origins::OriginRules;

/// The largest configuration file.
const MOST_BYTES: u64 = 8 << 20;

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file from which it was read.
    pub file: PathBuf,
    /// The files with this program's secrets, each with the key that names it.
    secret_files: Vec<(&'static str, PathBuf)>,
    /// Whether the kernel may write the memory of a crashed process to a file.
    pub core_dumps: bool,
    /// Changed defaults that neither the file nor the environment settles.
    pub changed_defaults: Vec<ChangedDefault>,
    /// The keys that the environment has set.
    pub origins: ValueOrigins,
    /// Variables with the prefix of fedgate and without a meaning.
    unknown_variables: Vec<String>,
    /// The gateway's listeners and limits.
    pub gateway: GatewayConfig,
    /// Certificates and protocol versions.
    pub tls: TlsConfig,
    /// The place of the policy.
    pub policy: PolicyConfig,
    /// The output of records besides stdout.
    pub records: RecordsConfig,
    /// The rights of pages of other origins.
    pub cors: OriginRules,
    /// Passwords and caches.
    pub authentication: AuthenticationConfig,
    /// The store of accounts and documents.
    pub store: StoreConfig,
    /// The signed identity between gateway and HIS.
    pub assertion: AssertionConfig,
    /// The HIS's listener and limits.
    pub his: HisConfig,
    /// The protected services. The built-in routes lead to the first.
    pub upstreams: Vec<UpstreamConfig>,
    /// The operator's own routes.
    pub routes: Vec<RouteConfig>,
}

impl Config {
    /// Reads and checks a configuration file and the `FEDGATE_*` environment variables, for the gateway and its
    /// commands. Secrets that only the HIS needs are not read.
    ///
    /// Relative paths start at the directory of the file.
    ///
    /// # Errors
    /// The first fault, as one line with file, key and remedy.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::read(file, Environment::new(std::env::vars_os()), WantedSecrets::OfGateway)
    }

    /// As [`Config::load`], for the HIS. None of the gateway's secrets is read: neither the key that mints assertions
    /// nor the keys of certificates.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_for_his(file: &Path) -> Result<Self, ConfigError> {
        Self::read(file, Environment::new(std::env::vars_os()), WantedSecrets::OfHis)
    }

    /// As [`Config::load`], without reading any secret, to examine policies and routes where the secrets are absent.
    ///
    /// It cannot be used for serving, because it has no keys and no password.
    ///
    /// # Errors
    /// As [`Config::load`], except for the contents of secrets.
    pub fn load_without_secrets(file: &Path) -> Result<Self, ConfigError> {
        Self::read(file, Environment::new(std::env::vars_os()), WantedSecrets::LeaveUnread)
    }

    /// As [`Config::load`], with a given environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(file: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let environment = environment.map(|(variable, value)| (variable.into(), value.into()));
        Self::read(file, Environment::new(environment), WantedSecrets::OfGateway)
    }

    fn read(file: &Path, environment: Environment, secrets: WantedSecrets) -> Result<Self, ConfigError> {
        let text =
            regular::read_to_string(file, MOST_BYTES).map_err(|source| ConfigError::unreadable(file, &source))?;
        // First only the file, so that its faults are reported with their lines.
        let plain = written::parse(&text, file)?;
        let overrides = &environment.overrides;
        if let Some(fault) = environment.faults.first() {
            return Err(fault.clone());
        }
        let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigError::toml(file, &text, &error))?;
        let settled = match overrides.is_empty() {
            true => plain,
            false => {
                let table = environment::apply(table.clone(), overrides)?;
                written::from_table(table).map_err(|error| ConfigError::toml(file, "", &error))?
            }
        };
        let mut config = written::check(settled, file, secrets).map_err(|fault| fault.by(overrides))?;
        config.changed_defaults = changed::unsettled(&table, overrides);
        if let StoreConfig::Postgres(store) = &config.store {
            config.changed_defaults.extend(changed::unsettled_parameters(&store.uri));
        }
        Ok(config.with_environment(&environment))
    }

    /// Names the program, for its sessions at the database.
    #[must_use]
    pub fn called(mut self, program: &'static str) -> Self {
        match &mut self.store {
            StoreConfig::Postgres(store) => store.application = program,
            StoreConfig::Sqlite(_) => {}
        }
        self
    }

    /// Adds what the environment has besides values.
    fn with_environment(mut self, environment: &Environment) -> Self {
        self.origins = ValueOrigins::of(environment, &self.secret_files);
        self.unknown_variables.clone_from(&environment.unknown);
        self
    }
}

#[cfg(test)]
mod tests;
