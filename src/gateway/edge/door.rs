//! The door: what every connection passes before pingora reads a byte of it.
//!
//! The one rule: HTTP/1 is read strictly first ([`super::guarded`]), with a bounded time for each head and body; HTTP/2 has
//! its own framing and limits. Each connection has a seat, and seats are counted in total and per source.

use std::net::IpAddr;
use std::sync::Arc;

use pingora_core::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::protocols::{ALPN, Ssl, Stream};
use pingora_core::server::ShutdownWatch;
use tokio::sync::watch;

use super::application::Application;
use super::guarded::{ClientAllowance, StrictStream};
use super::pace::ByteRate;
use super::seats::{ClientSeat, ClientSeats};
use super::socket::ClientSocket;
use crate::observe::{GatewayMetrics, RequestRecorder};
use fedgate_base::config::{AllowedOrigins, CorsConfig, LimitsConfig};
use fedgate_core::host::HostList;

/// How far the gateway has come on its way to the end; each is false until it is true.
#[derive(Clone)]
pub(crate) struct ShutdownCourse {
    /// No connection is accepted any more.
    pub(crate) closing: watch::Receiver<bool>,
    /// Every answer is the last one of its connection.
    pub(crate) stopping: ShutdownWatch,
    /// Who is silent is let go.
    pub(crate) ending: watch::Receiver<bool>,
}

/// Lets connections in.
pub(crate) struct ConnectionDoor {
    inside: Box<dyn Application>,
    allowed: ClientAllowance,
    hosts: Arc<HostList>,
    /// Requests on one connection.
    requests: u32,
    recorder: RequestRecorder,
    seats: ClientSeats,
}

impl ConnectionDoor {
    pub(crate) fn new(
        inside: Box<dyn Application>,
        limits: &LimitsConfig,
        cors: &CorsConfig,
        hosts: Arc<HostList>,
        recorder: RequestRecorder,
        seats: ClientSeats,
    ) -> Self {
        let allowed = ClientAllowance {
            head_bytes: limits.head_bytes,
            head: limits.head,
            body: ByteRate::new(limits.body, limits.bytes_per_second),
            any_origin: cors.allowed == AllowedOrigins::Any,
            idle: limits.idle,
            half_closed: limits.half_closed,
        };
        Self { inside, allowed, hosts, requests: limits.requests_per_connection, recorder, seats }
    }

    /// A place for one more connection, of a source that is known or not yet.
    pub(crate) fn seat(&self, source: Option<IpAddr>) -> Option<ClientSeat> {
        self.seats.take(source)
    }

    pub(crate) fn metrics(&self) -> &Arc<GatewayMetrics> {
        self.recorder.metrics()
    }

    /// Serves one connection to its end, or to that of the course while its client is silent.
    pub(crate) async fn serve(&self, mut socket: ClientSocket, course: ShutdownCourse) {
        let _open = self.recorder.metrics().connection();
        if matches!(socket.selected_alpn_proto(), Some(ALPN::H2)) {
            socket.expect_frames(self.allowed.head);
            self.inside.serve_frames(Box::new(socket), &course.stopping).await;
        } else {
            let guarded = StrictStream::new(socket, self.allowed, Arc::clone(&self.hosts), self.recorder.clone());
            self.serve_http1(Box::new(guarded), course).await;
        }
    }

    /// One request after the other. Nothing of pingora is held while the client is silent: that is most of what a
    /// connection would cost.
    async fn serve_http1(&self, mut stream: Stream, mut course: ShutdownCourse) {
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
            // Which ends the connection with this answer, where the gateway is stopping.
            match self.inside.serve_request(session, &course.stopping).await.map(ReusedHttpStream::consume) {
                Some((next, persistent)) => (stream, settings) = (next, persistent),
                None => return,
            }
        }
    }
}

/// What one HTTP/2 connection may take (the defaults of Envoy's edge practice; RFC 9113, 10.5).
pub(crate) fn h2_options(limits: &LimitsConfig) -> H2Options {
    let mut options = H2Options::default();
    options
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(limits.head_bytes as u32)
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_concurrent_reset_streams(32)
        .max_pending_accept_reset_streams(limits.h2_resets)
        .max_local_error_reset_streams(Some(64))
        .max_send_buffer_size(256 * 1024);
    options
}
