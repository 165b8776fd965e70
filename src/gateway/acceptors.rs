//! The application behind each kind of listener.
//!
//! The one rule: all listeners of clients share their slots and limits. The admin listener has slots of its own, so
//! that a crowd of clients does not keep the operator out.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora_core::apps::HttpServerOptions;
use pingora_core::apps::http_app::HttpServer;
use pingora_core::connectors::ConnectorOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, http_proxy};

use super::PreparedGateway;
use super::authzen::AuthzenListener;
use super::edge::accept::ConnectionAcceptor;
use super::edge::application::Application;
use super::edge::connection::{self, ConnectionHandler};
use super::edge::connection_slots::ConnectionSlots;
use super::edge::live_traffic::LiveTraffic;
use super::edge::pace::ByteRate;
use super::edge::tls::ServedTls;
use super::exchange::beside::BesideListener;
use super::exchange::https_redirect::HttpsRedirect;
use super::exchange::proxy::GatewayProxy;
use super::exchange::retry;
use super::lifecycle::address_in_use;
use super::lifecycle::admin_listener::AdminListener;
use super::lifecycle::listeners::ConnectionAcceptors;
use crate::observe::RequestRecorder;
use crate::reload::FileState;
use fedgate_base::config::GatewayConfig;
use fedgate_base::descriptors::SocketShortage;
use fedgate_core::host::HostList;
use fedgate_core::origins::OriginRules;

/// The application of one thread.
type SharedProxy = Arc<HttpProxy<GatewayProxy>>;

/// Most connections to the admin listener.
const ADMIN_SLOTS: usize = 64;

impl PreparedGateway {
    /// The acceptor of each kind of listener. `idle` is how many idle connections to servers are kept.
    pub(super) fn acceptors(
        self,
        gateway: &GatewayConfig,
        idle: usize,
        recorder: RequestRecorder,
        file: Arc<FileState>,
        traffic: &Arc<LiveTraffic>,
        workers: usize,
    ) -> ConnectionAcceptors {
        let parts = AcceptorParts {
            gateway,
            cors: self.config.cors.clone(),
            workers,
            hosts: Arc::new(gateway.hosts.clone()),
            recorder: recorder.clone(),
            shortage: Arc::new(SocketShortage::default()),
        };
        let port = gateway.listen.first().map(SocketAddr::port).filter(|port| *port != 443);
        let redirect = HttpServer::new_app(HttpsRedirect { port, hosts: gateway.hosts.clone() });
        let admin = HttpServer::new_app(self.admin_listener(recorder.clone(), file, traffic));
        let (tls, slots) = (self.tls.clone(), traffic.slots.clone());
        let authzen = HttpServer::new_app(AuthzenListener {
            pipeline: Arc::clone(&self.pipeline),
            authenticator: Arc::clone(&self.authenticator),
            recorder: recorder.clone(),
            traffic: Arc::clone(traffic),
            askers: gateway.beside.askers.clone(),
            tls: tls.clone().filter(|_| gateway.beside.has_tls()),
            patience: gateway.limits.body,
        });
        let tls_beside = tls.clone().filter(|_| gateway.beside.has_tls());
        let (proxies, asked) = self.proxies(gateway, idle, recorder, traffic, workers);
        let beside = |proxies: &Vec<_>| ConnectionAcceptor {
            // A proxy tells its clients in headers.
            proxies: Arc::default(),
            ..parts.acceptor(proxies, slots.clone(), tls_beside.clone())
        };
        let authzen = parts.shared(authzen);
        let services = gateway.beside.authzen.iter().map(|_| ConnectionAcceptor {
            proxies: Arc::default(),
            ..parts.acceptor(&authzen, slots.clone(), tls_beside.clone())
        });
        // In the order of the addresses.
        let beside = asked.iter().map(beside).chain(services).collect();
        ConnectionAcceptors {
            beside,
            tls: parts.acceptor(&proxies, slots.clone(), tls),
            plain: parts.acceptor(&proxies, slots.clone(), None),
            redirect: parts.acceptor(&parts.shared(redirect), slots, None),
            admin: ConnectionAcceptor {
                // No trusted proxies: a balancer that asks for readiness asks for itself.
                proxies: Arc::default(),
                ..parts.acceptor(&parts.shared(admin), ConnectionSlots::new(ADMIN_SLOTS, ADMIN_SLOTS), None)
            },
        }
    }

    fn admin_listener(
        &self,
        recorder: RequestRecorder,
        file: Arc<FileState>,
        traffic: &Arc<LiveTraffic>,
    ) -> AdminListener {
        AdminListener {
            recorder,
            authenticator: Arc::clone(&self.authenticator),
            policy: Arc::clone(&self.policy),
            file,
            upstreams: Arc::clone(&self.upstreams),
            traffic: Arc::clone(traffic),
            tls: self.tls.clone(),
            fixed: Arc::clone(&self.fixed),
            schema: Arc::clone(&self.schema),
            configuration: address_in_use::digest(&self.config),
            listens: address_in_use::all_addresses(&self.config.gateway),
        }
    }

    /// The proxies for clients, with pingora's options: one for each thread, as each has its own pool of connections
    /// to servers. A connection of another thread would wake that thread with each answer.
    fn proxies(
        self,
        gateway: &GatewayConfig,
        idle: usize,
        recorder: RequestRecorder,
        traffic: &Arc<LiveTraffic>,
        workers: usize,
    ) -> (Vec<SharedProxy>, Vec<Vec<SharedProxy>>) {
        let limits = &gateway.limits;
        // Two pools for each thread: one for reads, and pingora's own for all other requests, which are fewer.
        let kept = idle / gateway.threads.max(1);
        let kept_for_others = (kept / 5).max(1);
        let conf = Arc::new(ServerConf {
            threads: 1,
            max_retries: retry::MAX_ATTEMPTS,
            upstream_keepalive_pool_size: kept_for_others,
            ..ServerConf::default()
        });
        let traffic = Arc::clone(traffic);
        let mut connecting = ConnectorOptions::from_server_conf(&conf);
        connecting.keepalive_pool_size = kept.saturating_sub(kept_for_others).max(1);
        let tls = self.tls.clone();
        let proxied =
            GatewayProxy::new(&self.config, self.pipeline, self.signer, self.upstreams, recorder, traffic, self.tls);
        let new = |inside: GatewayProxy| {
            let mut proxy = http_proxy(&conf, inside);
            let mut options = HttpServerOptions::default();
            options.keepalive_request_limit = Some(limits.requests_per_connection);
            options.h2_idle_timeout = Some(limits.idle);
            proxy.server_options = Some(options);
            proxy.h2_options = Some(connection::h2_options(limits));
            Arc::new(proxy)
        };
        let beside = gateway.beside.listeners.iter().map(|listener| {
            let tls = tls.clone().filter(|_| gateway.beside.has_tls());
            let inside =
                proxied.beside(BesideListener { style: listener.style, askers: gateway.beside.askers.clone(), tls });
            (0..workers).map(|_| new(inside.clone())).collect()
        });
        let beside = beside.collect();
        ((0..workers).map(|_| new(proxied.of_thread(connecting.clone()))).collect(), beside)
    }
}

/// The parts that all acceptors of one gateway share.
struct AcceptorParts<'a> {
    gateway: &'a GatewayConfig,
    /// How many threads serve.
    workers: usize,
    cors: OriginRules,
    hosts: Arc<HostList>,
    recorder: RequestRecorder,
    shortage: Arc<SocketShortage>,
}

impl AcceptorParts<'_> {
    /// One application for all threads.
    fn shared<A>(&self, inside: A) -> Vec<Arc<A>> {
        let inside = Arc::new(inside);
        (0..self.workers).map(|_| Arc::clone(&inside)).collect()
    }

    /// The acceptor for an application, given for each thread.
    fn acceptor<A: Application + Clone + 'static>(
        &self,
        inside: &[A],
        slots: ConnectionSlots,
        tls: Option<Arc<ServedTls>>,
    ) -> ConnectionAcceptor {
        let (limits, hosts) = (&self.gateway.limits, Arc::clone(&self.hosts));
        let recorder = self.recorder.clone();
        let inside = inside.iter().map(|one| Box::new(one.clone()) as Box<dyn Application>).collect();
        ConnectionAcceptor {
            handler: Arc::new(ConnectionHandler::new(inside, limits, &self.cors, hosts, recorder, slots)),
            tls,
            proxies: Arc::new(self.gateway.proxies.clone()),
            patience: limits.head,
            shortage: Arc::clone(&self.shortage),
            send: ByteRate::new(limits.send, limits.bytes_per_second),
        }
    }
}
