//! Serves one connection after the handshake: HTTP/1 or HTTP/2, one request after the other.
//!
//! The one rule: HTTP/1 is read strictly first ([`super::strict_http1`]), with a bounded time for each head and body.
//! HTTP/2 has its own framing and limits. Each connection has a slot, counted in total and per client address.

use std::net::IpAddr;
use std::sync::Arc;

use pingora_core::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::protocols::{ALPN, Ssl, Stream};
use pingora_core::server::ShutdownWatch;
use tokio::sync::watch;

use super::application::Application;
use super::client_socket::ClientSocket;
use super::connection_slots::{ConnectionSlot, ConnectionSlots};
use super::pace::ByteRate;
use super::strict_http1::{ClientLimits, StrictStream};
use crate::observe::{GatewayMetrics, RequestRecorder};
use fedgate_base::config::LimitsConfig;
use fedgate_base::workers::WorkerPlace;
use fedgate_core::host::HostList;
use fedgate_core::origins::{AllowedOrigins, OriginRules};

/// The phases of a shutdown; each is false until it begins, and then stays true.
#[derive(Clone)]
pub(crate) struct ShutdownCourse {
    /// No further connection is accepted.
    pub(crate) closing: watch::Receiver<bool>,
    /// Every answer is the last of its connection.
    pub(crate) stopping: ShutdownWatch,
    /// Silent connections are closed.
    pub(crate) ending: watch::Receiver<bool>,
}

/// Serves the connections of one kind of listener.
pub(crate) struct ConnectionHandler {
    /// The application of each thread.
    inside: Box<[Box<dyn Application>]>,
    allowed: ClientLimits,
    hosts: Arc<HostList>,
    /// Most requests on one connection.
    requests: u32,
    recorder: RequestRecorder,
    slots: ConnectionSlots,
}

impl ConnectionHandler {
    pub(crate) fn new(
        inside: Box<[Box<dyn Application>]>,
        limits: &LimitsConfig,
        cors: &OriginRules,
        hosts: Arc<HostList>,
        recorder: RequestRecorder,
        slots: ConnectionSlots,
    ) -> Self {
        let allowed = ClientLimits {
            head_bytes: limits.head_bytes,
            head: limits.head,
            body: ByteRate::new(limits.body, limits.bytes_per_second),
            any_origin: cors.allowed == AllowedOrigins::Any,
            idle: limits.idle,
            half_closed: limits.half_closed,
        };
        Self { inside, allowed, hosts, requests: limits.requests_per_connection, recorder, slots }
    }

    /// A slot for one more connection; its client address may not be known yet.
    pub(crate) fn slot(&self, client: Option<IpAddr>) -> Option<ConnectionSlot> {
        self.slots.take(client)
    }

    pub(crate) fn metrics(&self) -> &Arc<GatewayMetrics> {
        self.recorder.metrics()
    }

    /// Serves one connection until it ends, or until the shutdown closes silent connections.
    pub(crate) async fn serve(&self, mut socket: ClientSocket, place: WorkerPlace, course: ShutdownCourse) {
        // INVARIANT: there is one for each thread. `acceptors.rs` makes them.
        let Some(inside) = self.inside.get(place.number()) else { return };
        let _open = self.recorder.metrics().connections.connection();
        if matches!(socket.selected_alpn_proto(), Some(ALPN::H2)) {
            socket.expect_frames(self.allowed.head);
            inside.serve_frames(Box::new(socket), &course.stopping).await;
        } else {
            let stream = StrictStream::new(socket, self.allowed, Arc::clone(&self.hosts), self.recorder.clone());
            self.serve_http1(inside.as_ref(), Box::new(stream), course).await;
        }
    }

    /// Serves one request after the other. No state of pingora's is held while the client is silent; it would be
    /// most of the memory of a connection.
    async fn serve_http1(&self, inside: &dyn Application, mut stream: Stream, mut course: ShutdownCourse) {
        let mut settings = None::<HttpPersistentSettings>;
        loop {
            let has_request = tokio::select! {
                biased;
                has_request = stream.try_peek(&mut []) => has_request.unwrap_or(false),
                _ = course.ending.wait_for(|ending| *ending) => false,
            };
            if !has_request {
                return stream.shutdown().await;
            }
            let mut session = ServerSession::new_http1(stream);
            match settings {
                Some(settings) => settings.apply_to_session(&mut session),
                None => {
                    session.set_keepalive_reuses_remaining(Some(self.requests.saturating_sub(1)));
                    session.set_keepalive(Some(self.allowed.idle.as_secs()));
                }
            }
            // During a stop, the gateway makes this answer the last of its connection.
            match inside.serve_request(session, &course.stopping).await.map(ReusedHttpStream::consume) {
                Some((next, persistent)) => (stream, settings) = (next, persistent),
                None => return,
            }
        }
    }
}

/// The limits of one HTTP/2 connection (the defaults of Envoy's edge practice; RFC 9113, 10.5).
pub(crate) fn h2_options(limits: &LimitsConfig) -> H2Options {
    let mut options = H2Options::default();
    options
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(limits.head_bytes as u32)
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_concurrent_reset_streams(32)
        // Rapid reset (CVE-2023-44487): streams that a client resets before they are accepted.
        .max_pending_accept_reset_streams(limits.h2_resets)
        // MadeYouReset (CVE-2025-8671): streams that a client makes this side reset.
        .max_local_error_reset_streams(Some(64))
        .max_send_buffer_size(256 * 1024);
    options
}
