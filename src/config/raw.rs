//! The file as it is written, its defaults, and the check that turns it into a [`Config`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::authentication::Authentication;
use super::connection::ConnectionString;
use super::cors::Cors;
use super::error::ConfigError;
use super::exposure::SecretExposure;
use super::gateway::{Gateway, Limits};
use super::route::Route;
use super::tls::Tls;
use super::{
    Address, AssertionConfig, AssertionKeys, Config, ConnectionsConfig, HeadsConfig, HisConfig, Origins, PolicyConfig,
    PostgresConfig, RecordsConfig, Secrets, SharesConfig, SqliteConfig, StoreConfig, UpstreamConfig,
    upstreams::Upstream,
};
use crate::regular;
use crate::secret::Secret;

/// How large a file with a secret may be.
const MOST_SECRET_BYTES: u64 = 64 * 1024;

/// The file, section by section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    gateway: Gateway,
    limits: Limits,
    tls: Tls,
    policy: Policy,
    records: Records,
    cors: Cors,
    authentication: Authentication,
    store: Store,
    assertion: Assertion,
    his: His,
    upstream: Vec<Upstream>,
    route: Vec<Route>,
}

macro_rules! section {
    ($name:ident { $($key:ident: $type:ty = $default:expr),* $(,)? }) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name { $($key: $type,)* }
        impl Default for $name {
            fn default() -> Self { Self { $($key: $default,)* } }
        }
        #[cfg(test)]
        impl $name {
            pub(super) const KEYS: &[&str] = &[$(stringify!($key)),*];
        }
    };
}
pub(super) use section;

section!(Policy { roles: PathBuf = "policies/roles.cfg".into(), history: String = "policy-history".into() });
section!(Records {
    file: String = String::new(),
    stdout: bool = true,
    durable: bool = true,
    anonymous_of_source_per_minute: u32 = 60,
    anonymous_per_minute: u32 = 600,
    reserve_mib: u64 = 64,
});
section!(Store {
    kind: String = "sqlite".into(),
    path: PathBuf = "fedgate.db".into(),
    uri: String = String::new(),
    password: Option<String> = None,
    password_file: Option<PathBuf> = None,
    ca_file: Option<PathBuf> = None,
    pool_size: usize = 16,
    lock_timeout_ms: u64 = 2000,
});
section!(Assertion {
    algorithm: String = "HS256".into(),
    secret: Option<String> = None,
    secret_file: Option<PathBuf> = None,
    private_key_file: Option<PathBuf> = None,
    public_key_file: Option<PathBuf> = None,
    issuer: String = "fedgate".into(),
    audience: String = "fedhis".into(),
    lifetime_seconds: u64 = 30,
});
section!(His {
    listen: String = "127.0.0.1:8081".into(),
    max_body_bytes: usize = 1024 * 1024,
    max_document_bytes: usize = 16 * 1024 * 1024,
    max_record_bytes: usize = 4 * 1024 * 1024,
    max_bytes_in_flight: usize = 32 * 1024 * 1024,
    max_pages_per_person: usize = 100_000,
    max_documents_per_person: usize = 10_000,
    ask_current_password: bool = true,
    refuse_common_passwords: bool = true,
    stop_delay_seconds: u64 = 0,
    connections: usize = 4096,
    head_timeout_seconds: u64 = 10,
    idle_timeout_seconds: u64 = 600,
    caller_share_percent: u64 = 50,
    write_share_percent: u64 = 75,
});

/// Every key of every section, for the test that holds the example against them.
#[cfg(test)]
pub(super) fn keys() -> Vec<&'static str> {
    let sections = [
        Gateway::KEYS,
        Limits::KEYS,
        Tls::KEYS,
        Policy::KEYS,
        Records::KEYS,
        Cors::KEYS,
        Authentication::KEYS,
        Store::KEYS,
        Assertion::KEYS,
        His::KEYS,
        &super::upstreams::keys(),
    ];
    sections.concat()
}

/// Parses the text of the file.
pub(super) fn parse(text: &str, file: &Path) -> Result<Raw, ConfigError> {
    let raw: Raw = toml::from_str(text).map_err(|e| ConfigError::toml(file, text, &e))?;
    written_secret(&raw, file).map_or(Ok(raw), Err)
}

/// The first secret that stands in the file itself.
pub(super) fn written_secret(raw: &Raw, file: &Path) -> Option<ConfigError> {
    // Secrets have no place in a file that is read, copied and shown; the environment may carry them.
    for (key, present) in
        [("store.password", raw.store.password.is_some()), ("assertion.secret", raw.assertion.secret.is_some())]
    {
        if present {
            let remedy = format!("put it into a file of mode 0600 and name that with `{key}_file`");
            return Some(ConfigError::key(file, key, "is a secret in the configuration file", remedy));
        }
    }
    if ConnectionString::parse(&raw.store.uri).is_ok_and(|uri| uri.settings.get_password().is_some()) {
        let remedy = "put it into a file of mode 0600 and name that with `store.password_file`";
        return Some(ConfigError::key(file, "store.uri", "holds a password", remedy));
    }
    None
}

/// Reads an already parsed table.
pub(super) fn from_table(table: toml::Table) -> Result<Raw, toml::de::Error> {
    Raw::deserialize(toml::Value::Table(table))
}

/// Checks every value.
pub(super) fn check(raw: Raw, file: &Path, secrets: Secrets) -> Result<Config, ConfigError> {
    let mut check =
        Check { file, secrets, base: file.parent().unwrap_or(Path::new("")), exposure: SecretExposure::Refused };
    check.exposure = SecretExposure::parse(raw.gateway.exposed_secrets(), &check)?;
    let authentication = raw.authentication.check(&check)?;
    // Before the upstream that it is where none is named.
    let his_listen = check.address("his.listen", &raw.his.listen)?;
    if !raw.records.stdout && raw.records.file.is_empty() {
        let remedy = "name a file in `records.file`, or leave the key out";
        return Err(check.fault("records.stdout", "is false, and nothing else keeps records", remedy));
    }
    let upstreams = check.upstreams(raw.upstream, &raw.his.listen)?;
    let secret_files = check.secret_files(&raw.store, &raw.assertion);
    Ok(Config {
        file: file.to_owned(),
        secret_files,
        core_dumps: raw.gateway.core_dumps(),
        changed_defaults: Vec::new(),
        origins: Origins::default(),
        unknown_variables: Vec::new(),
        gateway: raw.gateway.check(&check, &raw.limits)?,
        tls: raw.tls.check(&check)?,
        policy: PolicyConfig { roles: check.path(raw.policy.roles), history: check.optional_path(&raw.policy.history) },
        records: RecordsConfig {
            file: check.optional_path(&raw.records.file),
            stdout: raw.records.stdout,
            durable: raw.records.durable,
            anonymous_of_source_per_minute: raw.records.anonymous_of_source_per_minute,
            anonymous_per_minute: raw.records.anonymous_per_minute,
            reserve_bytes: raw.records.reserve_mib.saturating_mul(1024 * 1024),
        },
        cors: raw.cors.check(&check)?,
        store: check.store(raw.store)?,
        assertion: check.assertion(raw.assertion)?,
        his: HisConfig {
            listen: his_listen,
            hashes: authentication.hashes,
            max_body_bytes: raw.his.max_body_bytes,
            max_document_bytes: raw.his.max_document_bytes,
            max_record_bytes: raw.his.max_record_bytes,
            max_bytes_in_flight: raw.his.max_bytes_in_flight,
            max_pages_per_person: raw.his.max_pages_per_person,
            max_documents_per_person: raw.his.max_documents_per_person,
            ask_current_password: raw.his.ask_current_password,
            refuse_common_passwords: raw.his.refuse_common_passwords,
            stop_delay: check.seconds("his.stop_delay_seconds", raw.his.stop_delay_seconds, 0)?,
            connections: ConnectionsConfig {
                most: Some(raw.his.connections).filter(|most| *most > 0),
                heads: HeadsConfig {
                    timeout: check.seconds("his.head_timeout_seconds", raw.his.head_timeout_seconds, 1)?,
                    idle: check.seconds("his.idle_timeout_seconds", raw.his.idle_timeout_seconds, 1)?,
                },
            },
            shares: SharesConfig {
                caller_percent: check.percent("his.caller_share_percent", raw.his.caller_share_percent)?,
                write_percent: check.percent("his.write_share_percent", raw.his.write_share_percent)?,
            },
        },
        routes: raw.route.into_iter().map(|route| route.check(&check, &upstreams)).collect::<Result<_, _>>()?,
        authentication,
        upstreams,
    })
}

pub(super) struct Check<'a> {
    file: &'a Path,
    secrets: Secrets,
    base: &'a Path,
    /// What becomes of secrets that everybody can read.
    pub(super) exposure: SecretExposure,
}

impl Check<'_> {
    pub(super) fn fault(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
        ConfigError::key(self.file, key, problem, remedy)
    }

    /// Relative paths start at the configuration file.
    pub(super) fn path(&self, path: PathBuf) -> PathBuf {
        self.base.join(path)
    }

    /// The same; nothing is none.
    pub(super) fn optional_path(&self, path: &str) -> Option<PathBuf> {
        (!path.is_empty()).then(|| self.base.join(path))
    }

    pub(super) fn address(&self, key: &str, text: &str) -> Result<Address, ConfigError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = self.path(PathBuf::from(path));
            return match path.as_os_str().len() {
                ..108 => Ok(Address::Unix(path)),
                length => {
                    Err(self.fault(key, format!("is a socket path of {length} bytes"), "use one of at most 107 bytes"))
                }
            };
        }
        let remedy = "write an address and port such as 127.0.0.1:8081, or unix:/path/to/socket";
        text.strip_prefix("http://")
            .unwrap_or(text)
            .parse()
            .map(Address::Tcp)
            .map_err(|_| self.fault(key, format!("is `{text}`"), remedy))
    }

    pub(super) fn sockets(&self, key: &str, texts: &[String]) -> Result<Vec<SocketAddr>, ConfigError> {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                self.fault(key, format!("holds `{text}`"), "write addresses such as 0.0.0.0:8443 or [::]:8443")
            })
        };
        texts.iter().map(parse).collect()
    }

    pub(super) fn at_least(&self, key: &str, value: u64, least: u64) -> Result<u64, ConfigError> {
        if value < least {
            return Err(self.fault(key, format!("is {value}"), format!("write at least {least}")));
        }
        Ok(value)
    }

    /// A time in seconds: no more than a year, so that no clock overflows.
    pub(super) fn seconds(&self, key: &str, value: u64, least: u64) -> Result<Duration, ConfigError> {
        self.within(key, value, least, YEAR_SECONDS).map(Duration::from_secs)
    }

    /// The same in milliseconds.
    pub(super) fn milliseconds(&self, key: &str, value: u64, least: u64) -> Result<Duration, ConfigError> {
        self.within(key, value, least, YEAR_SECONDS * 1000).map(Duration::from_millis)
    }

    /// A number within bounds.
    pub(super) fn within(&self, key: &str, value: u64, least: u64, most: u64) -> Result<u64, ConfigError> {
        if value > most {
            return Err(self.fault(key, format!("is {value}"), format!("write at most {most}")));
        }
        self.at_least(key, value, least)
    }

    /// A share, of which there is some.
    fn percent(&self, key: &str, value: u64) -> Result<u8, ConfigError> {
        Ok(u8::try_from(self.within(key, value, 1, 100)?).unwrap_or(100))
    }

    fn store(&self, raw: Store) -> Result<StoreConfig, ConfigError> {
        // No more than a gateway waits for an answer: PostgreSQL ends the statement itself after 10 s.
        let lock_timeout = self.within("store.lock_timeout_ms", raw.lock_timeout_ms, 0, 10_000)?;
        let lock_timeout = Duration::from_millis(lock_timeout);
        match raw.kind.as_str() {
            "sqlite" => Ok(StoreConfig::Sqlite(SqliteConfig { path: self.path(raw.path), lock_timeout })),
            "postgres" => {
                let remedy = "write postgres://user@host:5432/database";
                if raw.uri.is_empty() {
                    return Err(self.fault("store.uri", "is missing", remedy));
                }
                let uri = ConnectionString::parse(&raw.uri);
                let uri = uri.map_err(|problem| self.fault("store.uri", problem, remedy))?;
                let ca_file = match (raw.ca_file, uri.authorities) {
                    (Some(file), Some(other)) if file != other => {
                        let problem = format!("names `{}`, and `store.uri` has another `sslrootcert`", file.display());
                        return Err(self.fault("store.ca_file", problem, "name the file of authorities once"));
                    }
                    (file, other) => file.or(other),
                };
                let (given, file) = match self.secrets {
                    Secrets::OfGateway | Secrets::OfHis => (raw.password, raw.password_file),
                    Secrets::LeaveUnread => (None, None),
                };
                let file = file.map(|path| self.secret("store.password_file", path)).transpose()?;
                Ok(StoreConfig::Postgres(PostgresConfig {
                    uri: raw.uri,
                    password: given.map(|password| Secret::new(password.into_bytes())).or(file),
                    ca_file: ca_file.map(|path| self.path(path)),
                    pool_size: usize::try_from(self.at_least("store.pool_size", raw.pool_size as u64, 1)?).unwrap_or(1),
                    lock_timeout,
                    application: "fedgate",
                }))
            }
            other => Err(self.fault("store.kind", format!("is `{other}`"), "write \"sqlite\" or \"postgres\"")),
        }
    }

    fn assertion(&self, raw: Assertion) -> Result<AssertionConfig, ConfigError> {
        let keys = match raw.algorithm.as_str() {
            "HS256" | "EdDSA" if self.secrets == Secrets::LeaveUnread => AssertionKeys::Unread,
            "HS256" => {
                let (key, secret) = match (raw.secret, raw.secret_file) {
                    // The file may not hold it.
                    (Some(secret), _) => ("FEDGATE_ASSERTION_SECRET", Secret::new(secret.into_bytes())),
                    (None, Some(path)) => ("assertion.secret_file", self.secret("assertion.secret_file", path)?),
                    (None, None) => {
                        let remedy = "name a file that holds at least 32 random bytes (umask 077; openssl rand -base64 48 > FILE)";
                        return Err(self.fault("assertion.secret_file", "is missing", remedy));
                    }
                };
                if secret.expose().len() < 32 {
                    let remedy = "use at least 32 random bytes (umask 077; openssl rand -base64 48 > FILE)";
                    return Err(self.fault(key, "holds less than 32 bytes", remedy));
                }
                AssertionKeys::Hs256 { secret }
            }
            // Each side has its own key, and nothing to do with the other's.
            "EdDSA" => AssertionKeys::Ed25519 {
                private_key: (raw.private_key_file)
                    .filter(|_| self.secrets == Secrets::OfGateway)
                    .map(|path| self.secret("assertion.private_key_file", path))
                    .transpose()?,
                public_key: (raw.public_key_file)
                    .filter(|_| self.secrets == Secrets::OfHis)
                    .map(|path| {
                        self.content("assertion.public_key_file", &self.path(path)).map(|key| key.expose().to_vec())
                    })
                    .transpose()?,
            },
            other => {
                return Err(self.fault("assertion.algorithm", format!("is `{other}`"), "write \"HS256\" or \"EdDSA\""));
            }
        };
        Ok(AssertionConfig {
            keys,
            issuer: raw.issuer,
            audience: raw.audience,
            lifetime: self.seconds("assertion.lifetime_seconds", raw.lifetime_seconds, 1)?,
        })
    }

    /// The files of secrets that the program reads, each with its key.
    fn secret_files(&self, store: &Store, assertion: &Assertion) -> Vec<(&'static str, PathBuf)> {
        let mints = self.secrets != Secrets::OfHis;
        let files = [
            ("store.password_file", &store.password_file, true),
            ("assertion.secret_file", &assertion.secret_file, assertion.algorithm == "HS256"),
            ("assertion.private_key_file", &assertion.private_key_file, assertion.algorithm == "EdDSA" && mints),
        ];
        let own = files.into_iter().filter(|(_, _, is_read)| *is_read);
        own.filter_map(|(key, path, _)| Some((key, self.path(path.clone()?)))).collect()
    }

    /// What a file with a secret holds.
    fn secret(&self, key: &str, path: PathBuf) -> Result<Secret, ConfigError> {
        let path = self.path(path);
        if let Some(fault) = self.exposure.fault(&path) {
            let (problem, remedy) = fault.split_once("; ").unwrap_or((&fault, ""));
            return Err(self.fault(key, format!("names `{}`, which {problem}", path.display()), remedy));
        }
        self.content(key, &path)
    }

    /// What a file holds; one line end at its end does not count.
    fn content(&self, key: &str, path: &Path) -> Result<Secret, ConfigError> {
        let mut bytes = regular::read(path, MOST_SECRET_BYTES).map_err(|e| {
            let problem = format!("names `{}`, which cannot be read ({e})", path.display());
            self.fault(key, problem, "name an existing file that this user may read")
        })?;
        for line_end in [b'\n', b'\r'] {
            bytes.pop_if(|last| *last == line_end);
        }
        Ok(Secret::new(bytes))
    }

    /// Without any, the HIS of this configuration is the one upstream.
    fn upstreams(&self, raw: Vec<Upstream>, his: &str) -> Result<Vec<UpstreamConfig>, ConfigError> {
        let mut upstreams: Vec<UpstreamConfig> = Vec::new();
        for upstream in if raw.is_empty() { vec![Upstream::his(his)] } else { raw } {
            if upstreams.iter().any(|known| known.name == upstream.name()) {
                return Err(self.fault(
                    "upstream.name",
                    format!("`{}` stands twice", upstream.name()),
                    "give each a name of its own",
                ));
            }
            upstreams.push(upstream.check(self)?);
        }
        Ok(upstreams)
    }
}

const YEAR_SECONDS: u64 = 365 * 24 * 3600;

pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
