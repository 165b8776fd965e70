//! The door: what every connection passes before pingora reads a byte of it.
//!
//! The one rule: HTTP/1 is read strictly first ([`super::guarded`]), with a bounded time for each head and body; HTTP/2 has
//! its own framing and limits. Each connection has a seat, and seats are counted in total and per source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora_core::apps::http_app::HttpServer;
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::H2Options;
use pingora_core::protocols::{ALPN, Ssl, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use super::admin::Admin;
use super::guarded::Guarded;
use super::listen::Course;
use super::pace::Tempo;
use super::proxy::Gateway;
use super::redirect::Redirect;
use super::socket::Socket;
use crate::authn::network;
use crate::config::{AllowedOrigins, CorsConfig, LimitsConfig};
use crate::host::HostList;
use crate::observe::{Metrics, Recorder};

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    /// Bytes of a head.
    pub(super) head_bytes: usize,
    /// For a whole head, from its first byte.
    pub(super) head: Duration,
    /// For a body.
    pub(super) body: Tempo,
    /// Whether pages of any origin may read the answers.
    pub(super) any_origin: bool,
    /// Without a byte, before a request.
    pub(super) idle: Duration,
    /// For an answer, once the client has closed its sending half.
    pub(super) half_closed: Duration,
}

/// Lets connections in.
pub(super) struct Door {
    inside: Inside,
    allowed: Allowance,
    hosts: Arc<HostList>,
    /// Requests on one connection.
    requests: u32,
    recorder: Recorder,
    seats: Seats,
}

/// What is behind a door.
pub(super) enum Inside {
    Gateway(Arc<HttpProxy<Gateway>>),
    Redirect(Arc<HttpServer<Redirect>>),
    Admin(Arc<HttpServer<Admin>>),
}

impl Door {
    pub(super) fn new(
        inside: Inside,
        limits: &LimitsConfig,
        cors: &CorsConfig,
        hosts: Arc<HostList>,
        recorder: Recorder,
        seats: Seats,
    ) -> Self {
        let allowed = Allowance {
            head_bytes: limits.head_bytes,
            head: limits.head,
            body: Tempo::new(limits.body, limits.bytes_per_second),
            any_origin: cors.allowed == AllowedOrigins::Any,
            idle: limits.idle,
            half_closed: limits.half_closed,
        };
        Self { inside, allowed, hosts, requests: limits.requests_per_connection, recorder, seats }
    }

    /// A place for one more connection, of a source that is known or not yet.
    pub(super) fn seat(&self, source: Option<IpAddr>) -> Option<Seat> {
        self.seats.take(source)
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        self.recorder.metrics()
    }

    /// Serves one connection to its end, or to that of the course while its client is silent.
    pub(super) async fn serve(&self, mut socket: Socket, course: Course) {
        let _open = self.recorder.metrics().connection();
        if matches!(socket.selected_alpn_proto(), Some(ALPN::H2)) {
            socket.expect_frames(self.allowed.head);
            self.inside.serve_http2(Box::new(socket), &course.stopping).await;
        } else {
            let guarded = Guarded::new(socket, self.allowed, Arc::clone(&self.hosts), self.recorder.clone());
            match &self.inside {
                Inside::Gateway(app) => self.serve_http1(app, Box::new(guarded), course).await,
                Inside::Redirect(app) => self.serve_http1(app, Box::new(guarded), course).await,
                Inside::Admin(app) => self.serve_http1(app, Box::new(guarded), course).await,
            }
        }
    }

    /// One request after the other. Nothing of pingora is held while the client is silent: that is most of what a
    /// connection would cost.
    async fn serve_http1(&self, app: &Arc<impl HttpServerApp>, mut stream: Stream, mut course: Course) {
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
            match app.process_new_http(session, &course.stopping).await.map(ReusedHttpStream::consume) {
                Some((next, persistent)) => (stream, settings) = (next, persistent),
                None => return,
            }
        }
    }
}

impl Inside {
    async fn serve_http2(&self, stream: Stream, stopping: &ShutdownWatch) {
        match self {
            Self::Gateway(proxy) => proxy.process_new(stream, stopping).await,
            Self::Redirect(redirect) => redirect.process_new(stream, stopping).await,
            Self::Admin(admin) => admin.process_new(stream, stopping).await,
        };
    }
}

/// What one HTTP/2 connection may take (the defaults of Envoy's edge practice; RFC 9113, 10.5).
pub(super) fn h2_options(limits: &LimitsConfig) -> H2Options {
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

/// The places for connections.
#[derive(Clone)]
pub(super) struct Seats(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    total: usize,
    per_source: usize,
    taken: Mutex<Taken>,
}

/// In total, and per source.
type Taken = (usize, HashMap<IpAddr, usize>);

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    counts: Arc<Counts>,
    source: Option<IpAddr>,
}

impl Seats {
    pub(super) fn new(total: usize, per_source: usize) -> Self {
        Self(Arc::new(Counts { total, per_source, taken: Mutex::default() }))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.0.lock().0
    }

    /// Takes a place, if there is one in total and for this source: an IPv4 address, or an IPv6 network of 64 bits.
    fn take(&self, client: Option<IpAddr>) -> Option<Seat> {
        let mut taken = self.0.lock();
        let mut source = None;
        if taken.0 >= self.0.total || client.is_some_and(|client| !self.0.add(&mut taken, &mut source, client)) {
            return None;
        }
        taken.0 += 1;
        Some(Seat { counts: Arc::clone(&self.0), source })
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more of a source, unless it has as many as it may.
    fn add(&self, taken: &mut Taken, source: &mut Option<IpAddr>, client: IpAddr) -> bool {
        let client = network(client);
        let count = taken.1.entry(client).or_default();
        if *count >= self.per_source {
            return false;
        }
        *count += 1;
        *source = Some(client);
        true
    }
}

impl Seat {
    /// Whose it is, once that is known; false when that source has as many as it may.
    pub(super) fn belongs_to(&mut self, client: IpAddr) -> bool {
        let mut taken = self.counts.lock();
        self.counts.add(&mut taken, &mut self.source, client)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.counts.lock();
        taken.0 = taken.0.saturating_sub(1);
        let Some(source) = self.source else { return };
        match taken.1.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.1.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_total_and_per_source_and_given_back() {
        let seats = Seats::new(3, 2);
        let ip = |text: &str| Some(text.parse().unwrap());
        let first = seats.take(ip("192.0.2.1")).unwrap();
        let _second = seats.take(ip("::ffff:192.0.2.1")).unwrap();
        assert!(seats.take(ip("192.0.2.1")).is_none(), "two of one source");
        let _third = seats.take(ip("2001:db8::1")).unwrap();
        assert!(seats.take(ip("192.0.2.9")).is_none(), "three in total");
        drop(first);
        let _fourth = seats.take(ip("2001:db8::2")).unwrap();
        drop(_second);
        assert!(seats.take(ip("2001:db8::3")).is_none(), "one network of 64 bits is one source");
        let mut behind = seats.take(None).unwrap();
        assert!(behind.belongs_to("192.0.2.7".parse().unwrap()));
        assert_eq!(seats.taken(), 3);
        drop(behind);
        let mut behind = seats.take(None).unwrap();
        assert!(!behind.belongs_to("2001:db8::4".parse().unwrap()), "two of one source behind a balancer");
    }
}
