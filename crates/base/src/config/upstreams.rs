//! `[[upstream]]`: the upstreams, their servers, and how these are chosen, probed and verified.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::address::Address;
use super::check::ValueCheck;
use super::error::ConfigError;
use super::exposure::SecretExposure;
use super::section::section;
use fedgate_core::escape;
use fedgate_core::request_headers::{AddedHeaders, EntryFault};

/// One upstream: a service that the gateway protects.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// The name that routes use.
    pub name: String,
    /// Its servers; at least one.
    pub servers: Vec<ServerConfig>,
    /// How a server is chosen.
    pub balance: ServerBalance,
    /// Whether requests carry the signed assertion.
    pub assertion: bool,
    /// Whether the client's `Authorization` header is forwarded to it.
    pub forward_authorization: bool,
    /// Request headers that reach it, in addition to those that reach every upstream.
    pub request_headers: Vec<AddedHeaders>,
    /// The value of `Host` in its requests.
    pub host: HostHeader,
    /// The longest time for connecting, including the TLS handshake.
    pub connect_timeout: Duration,
    /// How long the upstream may be silent.
    pub read_timeout: Duration,
    /// How long the upstream may refuse to accept bytes.
    pub write_timeout: Duration,
    /// The longest time for one request, from the choice of a server to the last byte of the answer; none means no
    /// limit.
    pub total_timeout: Option<Duration>,
    /// How long an unused connection is kept open.
    pub idle_timeout: Duration,
    /// Whether many streams share a connection, over HTTP/2.
    pub stream_http2: bool,
    /// The authorities and the gateway's own certificate for TLS.
    pub tls: UpstreamTlsConfig,
    /// How servers are probed, if at all.
    pub health: Option<HealthConfig>,
    /// When a failing server is left out for a while.
    pub ejection: EjectionConfig,
}

/// The value of `Host` in requests to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostHeader {
    /// The host that the client asked for, if `gateway.hosts` lists the served hosts; otherwise the server's own name.
    Listed,
    /// The host that the client asked for, whatever it is.
    Clients,
    /// The server's own name.
    Own,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The server as written in the configuration; logs and metrics use this name.
    pub name: String,
    /// Its address.
    pub place: ServerPlace,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPlace {
    /// At an address.
    Address(Address),
    /// At every address of a host name.
    Name {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerBalance {
    /// Each in turn.
    RoundRobin,
    /// The same server for the same person's record.
    Consistent,
}

/// The authorities and the gateway's own certificate for TLS with a server.
#[derive(Debug, Clone)]
pub struct UpstreamTlsConfig {
    /// The PEM file of the authorities that may sign the server's certificate; none means the system's.
    pub ca_file: Option<PathBuf>,
    /// The name that the certificate must have, if it is not the server's host.
    pub server_name: Option<String>,
    /// The certificate that the gateway presents.
    pub identity: Option<ClientIdentity>,
}

/// A client certificate.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// PEM file: the certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key.
    pub key: PathBuf,
    /// How to treat a key that everybody can read.
    pub exposure: SecretExposure,
}

/// How servers are probed.
#[derive(Debug, Clone)]
pub struct HealthConfig {
    /// The path to request; without one, a connection suffices.
    pub path: Option<String>,
    /// The interval between two probes of one server.
    pub interval: Duration,
    /// The longest time for a probe.
    pub timeout: Duration,
    /// Consecutive failures after which a server is left out.
    pub unhealthy_after: u32,
    /// Consecutive successes after which it is used again.
    pub healthy_after: u32,
}

/// When a server that fails requests is left out for a while.
#[derive(Debug, Clone)]
pub struct EjectionConfig {
    /// Consecutive failures that eject a server; 0 never ejects.
    pub failures: u32,
    /// The first ejection's duration; it doubles each further time.
    pub time: Duration,
    /// The longest ejection.
    pub max_time: Duration,
    /// The largest percentage of servers that may be ejected at once.
    pub max_percent: u32,
}

/// Checks all upstreams. Without any, the HIS of this configuration is the only one.
pub(super) fn check(
    written: Vec<UpstreamSection>,
    his: &str,
    check: &ValueCheck<'_>,
) -> Result<Vec<UpstreamConfig>, ConfigError> {
    let mut upstreams: Vec<UpstreamConfig> = Vec::new();
    for upstream in if written.is_empty() { vec![UpstreamSection::his(his)] } else { written } {
        if upstreams.iter().any(|known| known.name == upstream.name()) {
            return Err(check.fault(
                "upstream.name",
                format!("`{}` occurs twice", upstream.name()),
                "give each a name of its own",
            ));
        }
        upstreams.push(upstream.check(check)?);
    }
    Ok(upstreams)
}

/// The most servers of one upstream, because a choice walks over all of them.
const MAX_SERVERS: usize = 64;
/// The most entries of `request_headers`.
const MAX_ADDED_HEADERS: usize = 256;

section!(UpstreamSection {
    name: String = String::new(),
    address: Option<String> = None,
    servers: Vec<String> = vec![],
    balance: String = "round-robin".into(),
    assertion: bool = true,
    forward_authorization: bool = false,
    request_headers: Vec<String> = vec![],
    host: String = "listed".into(),
    connect_timeout_ms: u64 = 2_000,
    read_timeout_ms: u64 = 30_000,
    write_timeout_ms: u64 = 30_000,
    total_timeout_ms: u64 = 300_000,
    idle_timeout_ms: u64 = 55_000,
    stream_http2: Option<bool> = None,
    tls: Option<UpstreamTlsSection> = None,
    health: Option<HealthSection> = None,
    ejection: EjectionSection = EjectionSection::default(),
});
section!(UpstreamTlsSection {
    ca_file: Option<PathBuf> = None,
    server_name: Option<String> = None,
    certificate: Option<PathBuf> = None,
    key: Option<PathBuf> = None,
});
section!(HealthSection {
    path: String = String::new(),
    interval_ms: u64 = 5_000,
    timeout_ms: u64 = 2_000,
    unhealthy_after: u32 = 3,
    healthy_after: u32 = 2,
});
section!(EjectionSection { failures: u32 = 5, seconds: u64 = 10, max_seconds: u64 = 300, max_percent: u32 = 50 });

impl UpstreamSection {
    /// The HIS of the same configuration, if no upstream is named.
    pub(super) fn his(listen: &str) -> Self {
        Self { name: "his".into(), address: Some(listen.into()), ..Self::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<UpstreamConfig, ConfigError> {
        if self.name.is_empty() {
            return Err(check.fault("upstream.name", "is missing", "give each a name that routes call it by"));
        }
        let key = |key: &str| format!("upstream.{}.{key}", self.name);
        let servers = self.servers(check)?;
        let request_headers = self.request_headers(check)?;
        let balance = match self.balance.as_str() {
            "round-robin" => ServerBalance::RoundRobin,
            "consistent" => ServerBalance::Consistent,
            other => {
                let remedy = "write \"round-robin\" or \"consistent\"";
                return Err(check.fault(&key("balance"), format!("is `{other}`"), remedy));
            }
        };
        let host = match self.host.as_str() {
            "listed" => HostHeader::Listed,
            "pass" => HostHeader::Clients,
            "own" => HostHeader::Own,
            other => {
                let remedy =
                    "write \"listed\", \"pass\" or \"own\"; `upstream.tls.server_name` gives a server another name";
                return Err(check.fault(&key("host"), format!("is `{}`", escape::name(other)), remedy));
            }
        };
        let tls = self.tls.unwrap_or_default();
        let secure = servers.iter().any(|server| server.tls);
        let ms = |name: &str, value: u64, least: u64| check.milliseconds(&key(name), value, least);
        let total = ms("total_timeout_ms", self.total_timeout_ms, 0)?;
        Ok(UpstreamConfig {
            servers,
            balance,
            assertion: self.assertion,
            forward_authorization: self.forward_authorization,
            request_headers,
            host,
            connect_timeout: ms("connect_timeout_ms", self.connect_timeout_ms, 1)?,
            read_timeout: ms("read_timeout_ms", self.read_timeout_ms, 1)?,
            write_timeout: ms("write_timeout_ms", self.write_timeout_ms, 1)?,
            total_timeout: (!total.is_zero()).then_some(total),
            idle_timeout: ms("idle_timeout_ms", self.idle_timeout_ms, 0)?,
            // fedhis speaks it without TLS; of another service this is not known.
            stream_http2: self.stream_http2.unwrap_or(self.assertion),
            tls: tls.check(check, &key("tls"), secure)?,
            health: self.health.map(|health| health.check(check, &key("health"))).transpose()?,
            ejection: self.ejection.check(check, &key("ejection"))?,
            name: self.name,
        })
    }

    /// The headers that pass in addition to the common list.
    fn request_headers(&self, check: &ValueCheck<'_>) -> Result<Vec<AddedHeaders>, ConfigError> {
        let key = format!("upstream.{}.request_headers", self.name);
        if self.request_headers.len() > MAX_ADDED_HEADERS {
            let problem = format!("holds {} entries", self.request_headers.len());
            return Err(check.fault(&key, problem, format!("write at most {MAX_ADDED_HEADERS}")));
        }
        let parse = |entry: &String| {
            AddedHeaders::parse(entry).map_err(|fault| {
                let remedy = match fault {
                    EntryFault::NoName => {
                        "write names of letters, digits and `-`, or the beginning of names with a `*` at its end"
                    }
                    EntryFault::Own if entry.eq_ignore_ascii_case("authorization") => {
                        "write forward_authorization = true instead"
                    }
                    EntryFault::Own => "leave it out: the gateway sets this header itself, or keeps it on this side",
                };
                check.fault(&key, format!("holds `{}`", escape::name(entry)), remedy)
            })
        };
        self.request_headers.iter().map(parse).collect()
    }

    fn servers(&self, check: &ValueCheck<'_>) -> Result<Vec<ServerConfig>, ConfigError> {
        let key = |key: &str| format!("upstream.{}.{key}", self.name);
        let remedy = "write servers = [\"127.0.0.1:8081\"], or address = \"127.0.0.1:8081\" for a single one";
        let (key, texts) = match (&self.address, self.servers.as_slice()) {
            (Some(address), []) => (key("address"), std::slice::from_ref(address)),
            (None, servers @ [_, ..]) => (key("servers"), servers),
            (None, []) => return Err(check.fault(&key("servers"), "is missing", remedy)),
            (Some(_), _) => return Err(check.fault(&key("servers"), "is set beside `address`", remedy)),
        };
        if texts.len() > MAX_SERVERS {
            let problem = format!("names {} servers", texts.len());
            return Err(check.fault(&key, problem, format!("name at most {MAX_SERVERS}")));
        }
        let mut servers: Vec<ServerConfig> = Vec::new();
        for text in texts {
            let server = server(check, &key, text)?;
            // A server that is named twice would take two turns.
            if servers.iter().any(|known| known.place == server.place) {
                return Err(check.fault(&key, format!("names `{text}` twice"), "name each server once"));
            }
            servers.push(server);
        }
        Ok(servers)
    }
}

/// Parses one server: an address, or a name with a port; `https://` in front for TLS; or `unix:` and a path.
fn server(check: &ValueCheck<'_>, key: &str, text: &str) -> Result<ServerConfig, ConfigError> {
    let (tls, plain) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://").unwrap_or(text)),
    };
    let place = match plain.rsplit_once(':') {
        Some((host, port)) if is_host(host) && !plain.starts_with("unix:") => {
            Some(host.to_ascii_lowercase()).zip(port.parse().ok().filter(|port| *port != 0))
        }
        _ => None,
    };
    let place = match (place, tls) {
        (Some((host, port)), _) => ServerPlace::Name { host, port },
        (None, false) => ServerPlace::Address(check.address(key, text)?),
        (None, true) => plain.parse().map(|address| ServerPlace::Address(Address::Tcp(address))).map_err(|_| {
            check.fault(key, format!("holds `{text}`"), "write https://host:port, or https://[::1]:8443 for IPv6")
        })?,
    };
    Ok(ServerConfig { name: text.to_owned(), place, tls })
}

/// Whether a text is a host name (RFC 1123). It must contain a letter, or it would be an address.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        matches!(label.len(), 1..=63)
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 253 && text.bytes().any(|byte| byte.is_ascii_alphabetic()) && text.split('.').all(label)
}

impl UpstreamTlsSection {
    fn check(self, check: &ValueCheck<'_>, key: &str, secure: bool) -> Result<UpstreamTlsConfig, ConfigError> {
        let named = self.ca_file.is_some() || self.server_name.is_some() || self.certificate.is_some();
        if named && !secure {
            return Err(check.fault(key, "has no effect", "write https:// before the servers that speak TLS"));
        }
        if let Some(name) = &self.server_name
            && !is_host(name)
            && name.parse::<std::net::IpAddr>().is_err()
        {
            let remedy = "write the name or address in the server's certificate";
            return Err(check.fault(&format!("{key}.server_name"), format!("is `{name}`"), remedy));
        }
        let identity = match (self.certificate, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let exposure = check.exposure;
                Some(ClientIdentity { certificate: check.path(certificate), key: check.path(key), exposure })
            }
            _ => return Err(check.fault(key, "names one of `certificate` and `key`", "name both, or neither")),
        };
        Ok(UpstreamTlsConfig {
            ca_file: self.ca_file.map(|path| check.path(path)),
            server_name: self.server_name,
            identity,
        })
    }
}

impl HealthSection {
    fn check(self, check: &ValueCheck<'_>, key: &str) -> Result<HealthConfig, ConfigError> {
        let key = |name: &str| format!("{key}.{name}");
        let path = (!self.path.is_empty()).then_some(self.path);
        if let Some(path) = &path
            && (!path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic()))
        {
            let remedy = "write a path such as \"/\", or \"\" to only connect";
            return Err(check.fault(&key("path"), format!("is `{}`", path.escape_debug()), remedy));
        }
        check.at_least(&key("unhealthy_after"), self.unhealthy_after.into(), 1)?;
        check.at_least(&key("healthy_after"), self.healthy_after.into(), 1)?;
        Ok(HealthConfig {
            path,
            interval: check.milliseconds(&key("interval_ms"), self.interval_ms, 10)?,
            timeout: check.milliseconds(&key("timeout_ms"), self.timeout_ms, 1)?,
            unhealthy_after: self.unhealthy_after,
            healthy_after: self.healthy_after,
        })
    }
}

impl EjectionSection {
    fn check(&self, check: &ValueCheck<'_>, key: &str) -> Result<EjectionConfig, ConfigError> {
        let key = |name: &str| format!("{key}.{name}");
        if self.max_percent > 100 {
            return Err(check.fault(&key("max_percent"), format!("is {}", self.max_percent), "write at most 100"));
        }
        let time: Duration = check.seconds(&key("seconds"), self.seconds, 1)?;
        let max_time = check.seconds(&key("max_seconds"), self.max_seconds, self.seconds)?;
        Ok(EjectionConfig { failures: self.failures, time, max_time, max_percent: self.max_percent })
    }
}

/// Every key of these sections, for the test that holds the example against them.
#[cfg(test)]
pub(super) fn keys() -> Vec<&'static str> {
    let keys = [UpstreamSection::KEYS, UpstreamTlsSection::KEYS, HealthSection::KEYS, EjectionSection::KEYS].concat();
    // Nested sections are not keys.
    keys.into_iter().filter(|key| !["tls", "health", "ejection"].contains(key)).collect()
}
