//! The servers of an upstream: their addresses, the choice for a request, and the consequences of failures.
//!
//! The one rule: only requests to the same upstream share a connection. pingora's pool does not tell apart the TLS
//! trust of two upstreams, so each has a key of its own there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pingora_core::Result;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, Peer};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::connections::ServerConnector;
use super::server_name::ServerName;
use super::stream_version::StreamVersion;
use super::tls_trust::{TrustError, UpstreamTrust};
use crate::balance::{ServerPool, UpstreamServer};
use crate::gateway::edge::tls::LoadedCertificates;
use crate::observe::GatewayMetrics;
use crate::pipeline::Permit;
use fedgate_base::config::{Address, ServerBalance, ServerConfig, ServerPlace, UpstreamConfig};

/// How long a name may take to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses of one name.
const MAX_ADDRESSES: usize = 64;
/// Keeps the connections of second attempts apart in pingora's pool.
const SECOND_ATTEMPT: u64 = 1 << 32;

/// One address of a configured server.
pub(crate) struct ServerAddress {
    pub(super) http: HttpPeer,
    /// The key of its idle connections.
    key: u64,
    address: Address,
    /// Its own name, for `Host` if it is asked by that.
    pub(super) authority: String,
    /// The server's index in the configuration.
    number: usize,
}

impl ServerAddress {
    /// Its name, with the port unless it is the usual one.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The peer that a read connects to.
    pub(crate) fn peer(&self) -> &HttpPeer {
        &self.http
    }

    /// The key of connections that reads use again.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// The peer that pingora connects to. A second attempt uses no kept connection, because the first may have failed
    /// for one: it has a pool of its own, which stays empty.
    pub(crate) fn peer_of_attempt(&self, is_second: bool) -> Box<HttpPeer> {
        let mut peer = Box::new(self.http.clone());
        if is_second {
            // A server that cuts kept connections could fail every attempt on them.
            peer.group_key |= SECOND_ATTEMPT;
        }
        peer
    }
}

/// The servers of one upstream.
pub(crate) struct ServerSet {
    pub(super) config: UpstreamConfig,
    pub(super) pool: ServerPool<ServerAddress>,
    trust: UpstreamTrust,
    connector: Arc<ServerConnector>,
    group: u64,
    pub(super) stream_version: StreamVersion,
    /// For each configured server, whether its name is known to lead nowhere.
    unresolved: Vec<AtomicBool>,
}

impl ServerSet {
    /// Loads the TLS files; names are not resolved yet.
    pub(super) fn new(
        index: usize,
        config: &UpstreamConfig,
        connector: Arc<ServerConnector>,
    ) -> Result<Self, TrustError> {
        Ok(Self {
            config: config.clone(),
            pool: ServerPool::new(config.ejection.clone()),
            trust: UpstreamTrust::load(config)?,
            connector,
            // From 1: 0 is pingora's key for peers without a group.
            stream_version: StreamVersion::new(config.stream_http2),
            group: index as u64 + 1,
            unresolved: config.servers.iter().map(|_| AtomicBool::default()).collect(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// The server for a request; `but` has just failed it.
    pub(crate) fn choose(
        &self,
        permit: &Permit,
        but: Option<&UpstreamServer<ServerAddress>>,
        now: Instant,
    ) -> Option<Arc<UpstreamServer<ServerAddress>>> {
        let key = match self.config.balance {
            ServerBalance::RoundRobin => None,
            ServerBalance::Consistent => {
                // The subject and not the caller: one person's record stays with one server, whoever reads it.
                permit.subject().or_else(|| permit.principal().map(|principal| principal.account()))
            }
        };
        self.pool.choose(key, but, now)
    }

    /// Whether a connection serves more than one request.
    pub(crate) fn keeps_connections(&self) -> bool {
        !self.config.idle_timeout.is_zero()
    }

    /// The time limit of a whole request.
    pub(crate) fn total_timeout(&self) -> Option<Duration> {
        self.config.total_timeout
    }

    /// Notes that a server has answered a request.
    pub(crate) fn succeeded(&self, server: &UpstreamServer<ServerAddress>) {
        self.pool.succeeded(server, Instant::now());
    }

    /// Notes that a server has failed a request.
    pub(crate) fn failed(&self, server: &UpstreamServer<ServerAddress>, metrics: &GatewayMetrics) {
        let label = self.label(server);
        metrics.upstreams.failed(&self.config.name, label);
        if let Some(time) = self.pool.failed(server, Instant::now()) {
            metrics.upstreams.ejected(&self.config.name, label);
            tracing::warn!(
                "upstream `{}`: server `{}` failed {} requests in a row and gets none for {} s",
                self.config.name,
                server.name,
                self.config.ejection.failures,
                time.as_secs()
            );
        }
    }

    /// Notes that a failed request is sent once more.
    pub(crate) fn retried(&self, server: &UpstreamServer<ServerAddress>, metrics: &GatewayMetrics) {
        metrics.upstreams.retried(&self.config.name, self.label(server));
    }

    /// The label of a server in metrics: its text in the configuration, so that a name's addresses are not labels.
    fn label(&self, server: &UpstreamServer<ServerAddress>) -> &str {
        self.config.servers.get(server.peer.number).map_or("", |server| &server.name)
    }

    /// For each configured server, the number of its healthy addresses.
    pub(crate) fn healthy(&self) -> impl Iterator<Item = (&str, usize)> {
        let (servers, now) = (self.pool.servers(), Instant::now());
        self.config.servers.iter().enumerate().map(move |(number, server)| {
            let is_healthy = |known: &&Arc<UpstreamServer<ServerAddress>>| {
                known.peer.number == number && self.pool.is_healthy(known, now)
            };
            (server.name.as_str(), servers.iter().filter(is_healthy).count())
        })
    }

    /// The certificate files of its TLS.
    pub(crate) fn held(&self) -> &[LoadedCertificates] {
        &self.trust.held
    }

    /// Whether some server has a name.
    pub(super) fn has_names(&self) -> bool {
        self.config.servers.iter().any(|server| matches!(server.place, ServerPlace::Name { .. }))
    }

    /// Looks up the addresses of every server. A name that leads nowhere keeps the addresses that it had.
    pub(super) async fn resolve(&self) {
        let before = self.pool.servers();
        let mut peers = Vec::new();
        for (number, server) in self.config.servers.iter().enumerate() {
            let addresses = match &server.place {
                ServerPlace::Address(address) => vec![(server.name.clone(), address.clone())],
                ServerPlace::Name { host, port } => {
                    let found = lookup(host, *port).await;
                    self.tell(number, server, &found);
                    match found {
                        Ok(found) => found
                            .into_iter()
                            .map(|address| (format!("{} ({})", server.name, address.ip()), Address::Tcp(address)))
                            .collect(),
                        Err(_) => before
                            .iter()
                            .filter(|known| known.peer.number == number)
                            .map(|known| (known.name.clone(), known.peer.address.clone()))
                            .collect(),
                    }
                }
            };
            for (name, address) in addresses {
                match self.new_peer(number, server, address) {
                    Ok(peer) => peers.push((name, peer)),
                    Err(error) => tracing::error!(%error, "server `{name}` cannot be used"),
                }
            }
        }
        self.pool.replace(peers);
    }

    fn tell(&self, number: usize, server: &ServerConfig, found: &Result<Vec<SocketAddr>, String>) {
        let Some(unresolved) = self.unresolved.get(number) else { return };
        let (name, server) = (&self.config.name, &server.name);
        match (found, unresolved.swap(found.is_err(), Ordering::Relaxed)) {
            (Err(problem), false) => tracing::warn!("upstream `{name}`: server `{server}` has no address: {problem}"),
            (Ok(_), true) => tracing::info!("upstream `{name}`: server `{server}` has an address again"),
            (Err(_), true) | (Ok(_), false) => {}
        }
    }

    fn new_peer(&self, number: usize, server: &ServerConfig, address: Address) -> Result<ServerAddress> {
        let ServerName { host, authority } = ServerName::of(server, &address, self.config.tls.server_name.as_deref());
        // INVARIANT: the name is never empty where TLS is spoken, or pingora would verify nothing. `ServerName::of`
        // has one for every place.
        let name = if server.tls { host } else { String::new() };
        let mut http = match &address {
            Address::Tcp(address) => HttpPeer::new(address, server.tls, name),
            Address::Unix(path) => HttpPeer::new_uds(&path.display().to_string(), server.tls, name)?,
        };
        http.group_key = self.group;
        if server.tls {
            http.options.ca = self.trust.authorities.clone();
            http.client_cert_key = self.trust.identity.clone();
        }
        http.options.custom_l4 = Some(Arc::clone(&self.connector) as _);
        http.options.connection_timeout = Some(self.config.connect_timeout);
        http.options.total_connection_timeout = Some(self.config.connect_timeout);
        http.options.read_timeout = Some(self.config.read_timeout);
        http.options.write_timeout = Some(self.config.write_timeout);
        http.options.idle_timeout = Some(self.config.idle_timeout);
        // No tunnel: an upgraded connection would carry requests that were never judged.
        http.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::deny_upgrades();
        let key = http.reuse_hash();
        Ok(ServerAddress { http, key, address, authority, number })
    }
}

/// The addresses of a name: the IPv4 ones if it has any. `localhost` has both kinds, and services seldom listen on
/// both.
async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = match timeout(RESOLVE_TIMEOUT, lookup_host((host, port))).await {
        Ok(found) => found.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs())),
    };
    let (v4, v6): (Vec<_>, Vec<_>) = found.partition(SocketAddr::is_ipv4);
    let mut addresses = if v4.is_empty() { v6 } else { v4 };
    addresses.sort_unstable();
    addresses.dedup();
    // A bound: the answer comes from outside.
    addresses.truncate(MAX_ADDRESSES);
    if addresses.is_empty() { Err("the name has none".to_owned()) } else { Ok(addresses) }
}
