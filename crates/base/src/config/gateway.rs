//! The sections `[gateway]` and `[limits]`: listeners, the proxies in front of them, and the limits for clients.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::beside::BesideConfig;
use super::check::{ValueCheck, cores};
use super::error::ConfigError;
use super::section::section;
use fedgate_core::escape;
use fedgate_core::host::HostList;

/// The gateway's listeners and limits.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// HTTPS listeners.
    pub listen: Vec<SocketAddr>,
    /// Listeners without TLS, for a balancer on the same machine that ends TLS.
    pub listen_plain: Vec<SocketAddr>,
    /// The admin listeners; none if empty.
    pub admin: Vec<SocketAddr>,
    /// Worker threads.
    pub threads: usize,
    /// The largest request body, in bytes, for routes without their own limit.
    pub max_body_bytes: u64,
    /// Whether the built-in routes of Thalamus are served.
    pub thalamus_routes: bool,
    /// Whether the built-in routes are guarded, for an upstream without a guard of its own.
    pub thalamus_field_guard: bool,
    /// How long a stop waits for requests in flight, and for clients that keep connections open.
    pub stop_timeout: Duration,
    /// The shortest time for which a stop still accepts connections.
    pub stop_delay: Duration,
    /// Listeners without TLS that redirect to HTTPS.
    pub redirect: Vec<SocketAddr>,
    /// The listeners for proxies that ask about the requests that they hold.
    pub beside: BesideConfig,
    /// The proxies that are trusted to tell the client address.
    pub proxies: ProxiesConfig,
    /// The hosts that clients may ask for.
    pub hosts: HostList,
    /// The file in which the process writes its id, for `fedgate upgrade`.
    pub pid_file: Option<PathBuf>,
    /// The limits for clients.
    pub limits: LimitsConfig,
}

/// The proxies in front of this gateway.
#[derive(Debug, Clone, Default)]
pub struct ProxiesConfig {
    /// The networks of trusted proxies; statements of others are ignored.
    pub trusted: Vec<ipnet::IpNet>,
    /// The header in which they tell the client address.
    pub header: ForwardedHeader,
    /// Whether their connections begin with a PROXY header.
    pub proxy_protocol: bool,
}

impl ProxiesConfig {
    /// Whether an address belongs to a trusted proxy.
    pub fn trusts(&self, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// The header in which proxies tell the client address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, and `X-Forwarded-Proto` beside it.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The limits for clients before and while they are served.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// Connections in total.
    pub connections: usize,
    /// Connections of one client address (an IPv4 address or an IPv6 network of 64 bits).
    pub connections_per_source: usize,
    /// Requests on one connection.
    pub requests_per_connection: u32,
    /// Streams at a time on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Streams on one HTTP/2 connection that a client may have reset before they were handled.
    pub h2_resets: usize,
    /// The size of a head, in bytes.
    pub head_bytes: usize,
    /// The time for a whole head, from its first byte.
    pub head: Duration,
    /// The longest wait for a body: within each such period, as many bytes must arrive as it has seconds times
    /// [`LimitsConfig::bytes_per_second`].
    pub body: Duration,
    /// The same for sending an answer.
    pub send: Duration,
    /// The lowest pace of bodies and answers, in bytes per second.
    pub bytes_per_second: u64,
    /// How long a connection may be silent between requests.
    pub idle: Duration,
    /// How long the gateway still serves a client that has closed its sending half.
    pub half_closed: Duration,
    /// The limits of streams.
    pub streams: StreamLimits,
}

/// The limits of streams: answers of routes with `stream = true`, while they run.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Streams in total. At most half of [`LimitsConfig::connections`] serve one stream each.
    pub most: usize,
    /// Streams of one client address.
    pub per_source: usize,
    /// Streams of one account.
    pub per_account: usize,
    /// How long one may run; none means no limit.
    pub life: Option<Duration>,
    /// How long the upstream may send nothing.
    pub silence: Duration,
}

/// The largest limit for a head.
const MOST_HEAD_BYTES: u64 = 64 * 1024;
/// The most worker threads: more than any machine has cores.
const MOST_THREADS: u64 = 1024;

section!(GatewaySection {
    listen: Vec<String> = vec!["127.0.0.1:8443".into()],
    listen_plain: Vec<String> = vec![],
    admin: Vec<String> = vec!["127.0.0.1:8442".into()],
    threads: usize = 0,
    max_body_bytes: u64 = 1024 * 1024,
    thalamus_routes: bool = true,
    thalamus_field_guard: bool = false,
    stop_timeout_seconds: u64 = 40,
    stop_delay_seconds: u64 = 0,
    redirect: Vec<String> = vec![],
    trusted_proxies: Vec<String> = vec![],
    forwarded_header: String = "x-forwarded-for".into(),
    proxy_protocol: bool = false,
    pid_file: String = String::new(),
    hosts: Vec<String> = vec![],
    exposed_secrets: String = "refuse".into(),
    core_dumps: bool = false,
});
section!(LimitsSection {
    connections: usize = 20_000,
    connections_per_source: usize = 2_000,
    requests_per_connection: u32 = 10_000,
    h2_streams: u32 = 100,
    h2_resets: usize = 20,
    head_bytes: usize = 16 * 1024,
    head_timeout_seconds: u64 = 10,
    body_timeout_seconds: u64 = 30,
    send_timeout_seconds: u64 = 30,
    bytes_per_second: u64 = 1024,
    idle_timeout_seconds: u64 = 60,
    half_closed_seconds: u64 = 10,
    streams: usize = 10_000,
    streams_per_source: usize = 2_000,
    streams_per_account: usize = 100,
    stream_seconds: u64 = 3_600,
    stream_silence_seconds: u64 = 90,
});

impl GatewaySection {
    /// How to treat secrets that everybody can read, for both programs.
    pub(super) fn exposed_secrets(&self) -> &str {
        &self.exposed_secrets
    }

    /// Whether both programs may leave memory dumps.
    pub(super) fn core_dumps(&self) -> bool {
        self.core_dumps
    }

    pub(super) fn check(
        self,
        check: &ValueCheck<'_>,
        limits: &LimitsSection,
        beside: BesideConfig,
    ) -> Result<GatewayConfig, ConfigError> {
        let listen = check.sockets("gateway.listen", &self.listen)?;
        let listen_plain = check.sockets("gateway.listen_plain", &self.listen_plain)?;
        if listen.is_empty() && listen_plain.is_empty() {
            return Err(check.fault("gateway.listen", "is empty", "name at least one address to listen on"));
        }
        let admin = check.sockets("gateway.admin", &self.admin)?;
        let redirect = check.sockets("gateway.redirect", &self.redirect)?;
        each_address_once(
            check,
            &[
                ("gateway.listen", &listen),
                ("gateway.listen_plain", &listen_plain),
                ("gateway.admin", &admin),
                ("gateway.redirect", &redirect),
                ("beside", &beside.addresses()),
            ],
        )?;
        check.within("gateway.threads", self.threads as u64, 0, MOST_THREADS)?;
        Ok(GatewayConfig {
            listen,
            listen_plain,
            admin,
            threads: if self.threads == 0 { cores() } else { self.threads },
            max_body_bytes: check.at_least("gateway.max_body_bytes", self.max_body_bytes, 1024)?,
            thalamus_routes: self.thalamus_routes,
            thalamus_field_guard: self.thalamus_field_guard,
            stop_timeout: check.seconds("gateway.stop_timeout_seconds", self.stop_timeout_seconds, 0)?,
            stop_delay: check.seconds("gateway.stop_delay_seconds", self.stop_delay_seconds, 0)?,
            redirect,
            beside,
            proxies: self.proxies(check)?,
            hosts: self.hosts(check)?,
            pid_file: check.optional_path(&self.pid_file),
            limits: limits.check(check)?,
        })
    }

    fn hosts(&self, check: &ValueCheck<'_>) -> Result<HostList, ConfigError> {
        let mut hosts = HostList::default();
        match self.hosts.iter().find(|host| !hosts.add(host)) {
            None => Ok(hosts),
            Some(host) => Err(check.fault(
                "gateway.hosts",
                format!("holds `{}`", escape::name(host)),
                "write names or addresses as clients ask for them, such as \"hospital.example.org\" or \
                 \"[2001:db8::1]:8443\"",
            )),
        }
    }

    fn proxies(&self, check: &ValueCheck<'_>) -> Result<ProxiesConfig, ConfigError> {
        let key = "gateway.trusted_proxies";
        let network = |text: &String| {
            let alone = || text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
            text.parse().or_else(|_| alone()).map_err(|_| {
                check.fault(
                    key,
                    format!("holds `{text}`"),
                    "write networks such as 10.0.0.0/8 or addresses such as ::1",
                )
            })
        };
        let trusted = self.trusted_proxies.iter().map(network).collect::<Result<Vec<_>, _>>()?;
        // Read from anybody, a PROXY header could claim any client address.
        if self.proxy_protocol && trusted.is_empty() {
            let remedy = "name the balancers in `gateway.trusted_proxies`: the PROXY header is read only from them";
            return Err(check.fault("gateway.proxy_protocol", "is true, but no proxy is trusted", remedy));
        }
        let header = match self.forwarded_header.as_str() {
            "x-forwarded-for" => ForwardedHeader::XForwardedFor,
            "forwarded" => ForwardedHeader::Forwarded,
            other => {
                let remedy = "write the one that your balancer sets: \"x-forwarded-for\" or \"forwarded\"";
                return Err(check.fault("gateway.forwarded_header", format!("is `{other}`"), remedy));
            }
        };
        Ok(ProxiesConfig { trusted, header, proxy_protocol: self.proxy_protocol })
    }
}

/// Checks that no two listeners share an address, because the second could not open it.
fn each_address_once(check: &ValueCheck<'_>, listeners: &[(&str, &Vec<SocketAddr>)]) -> Result<(), ConfigError> {
    let all = || listeners.iter().flat_map(|(key, addresses)| addresses.iter().map(move |address| (*key, *address)));
    for (index, (key, address)) in all().enumerate() {
        if let Some((other, known)) = all().take(index).find(|(_, known)| collide(*known, address)) {
            let problem = format!("holds `{address}`, and `{other}` holds `{known}`");
            return Err(check.fault(key, problem, "give each listener an address or port of its own"));
        }
    }
    Ok(())
}

/// Whether two sockets cannot listen at the same time; port 0 is a new port each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let is_everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || (is_everywhere && one.is_ipv4() == other.is_ipv4()))
}

impl LimitsSection {
    fn check(&self, check: &ValueCheck<'_>) -> Result<LimitsConfig, ConfigError> {
        let least = |key: &str, value: u64| check.at_least(&format!("limits.{key}"), value, 1);
        least("connections", self.connections as u64)?;
        least("connections_per_source", self.connections_per_source as u64)?;
        least("requests_per_connection", self.requests_per_connection.into())?;
        least("h2_streams", self.h2_streams.into())?;
        least("h2_resets", self.h2_resets as u64)?;
        check.within("limits.head_bytes", self.head_bytes as u64, 1024, MOST_HEAD_BYTES)?;
        Ok(LimitsConfig {
            h2_resets: self.h2_resets,
            head_bytes: self.head_bytes,
            bytes_per_second: least("bytes_per_second", self.bytes_per_second)?,
            connections: self.connections,
            connections_per_source: self.connections_per_source,
            requests_per_connection: self.requests_per_connection,
            h2_streams: self.h2_streams,
            head: check.seconds("limits.head_timeout_seconds", self.head_timeout_seconds, 1)?,
            body: check.seconds("limits.body_timeout_seconds", self.body_timeout_seconds, 1)?,
            send: check.seconds("limits.send_timeout_seconds", self.send_timeout_seconds, 1)?,
            idle: check.seconds("limits.idle_timeout_seconds", self.idle_timeout_seconds, 1)?,
            half_closed: check.seconds("limits.half_closed_seconds", self.half_closed_seconds, 0)?,
            streams: self.streams(check)?,
        })
    }

    fn streams(&self, check: &ValueCheck<'_>) -> Result<StreamLimits, ConfigError> {
        let least = |key: &str, value: usize| check.at_least(&format!("limits.{key}"), value as u64, 1);
        least("streams", self.streams)?;
        least("streams_per_source", self.streams_per_source)?;
        least("streams_per_account", self.streams_per_account)?;
        let life = check.seconds("limits.stream_seconds", self.stream_seconds, 0)?;
        Ok(StreamLimits {
            most: self.streams,
            per_source: self.streams_per_source,
            per_account: self.streams_per_account,
            life: (!life.is_zero()).then_some(life),
            silence: check.seconds("limits.stream_silence_seconds", self.stream_silence_seconds, 1)?,
        })
    }
}
