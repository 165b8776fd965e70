//! The door: every connection passes here before pingora reads a byte of it.
//!
//! The one rule: what a client can take without having said who it is, is counted and bounded: connections in total and
//! per source, and the time of a head and a body ([`super::guarded`]). HTTP/2 has its own framing and limits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use pingora_core::protocols::http::v2::server::H2Options;

use super::guarded::{Guarded, Patience, client_ip};
use super::proxy::Gateway;
use crate::authn::network;
use crate::config::LimitsConfig;
use crate::framing::MAX_HEAD_BYTES;
use crate::observe::Recorder;

/// Lets connections in, to pingora's own loop.
pub(super) struct Door {
    proxy: Arc<HttpProxy<Gateway>>,
    patience: Patience,
    recorder: Recorder,
    seats: Seats,
}

impl Door {
    pub(super) fn new(proxy: HttpProxy<Gateway>, limits: &LimitsConfig, recorder: Recorder) -> Self {
        let patience = Patience { head: limits.head, body: limits.body, idle: limits.idle };
        let seats = Seats::new(limits.connections, limits.connections_per_source);
        Self { proxy: Arc::new(proxy), patience, recorder, seats }
    }
}

/// What one HTTP/2 connection may take (the defaults of Envoy's edge practice; RFC 9113, 10.5).
pub(super) fn h2_options(limits: &LimitsConfig) -> H2Options {
    let mut options = H2Options::default();
    options
        .max_concurrent_streams(limits.h2_streams)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_concurrent_reset_streams(32)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(Some(64))
        .max_send_buffer_size(256 * 1024);
    options
}

#[async_trait]
impl ServerApp for Door {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // Over the limit: closed without a word, which costs least.
        let metrics = self.recorder.metrics();
        let Some(seat) = self.seats.take(client_ip(&stream)) else {
            metrics.connections_refused.inc();
            return None;
        };
        metrics.connections.inc();
        let served = self.serve(stream, seat, shutdown).await;
        metrics.connections.dec();
        served
    }

    async fn cleanup(&self) {
        self.proxy.cleanup().await;
    }
}

impl Door {
    async fn serve(&self, stream: Stream, seat: Seat, shutdown: &ShutdownWatch) -> Option<Stream> {
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            let served = self.proxy.process_new(stream, shutdown).await;
            drop(seat);
            return served;
        }
        let guarded = Guarded::new(stream, self.patience, self.recorder.clone(), seat);
        self.proxy.process_new(Box::new(guarded), shutdown).await
    }
}

/// The places for connections.
#[derive(Clone)]
pub(super) struct Seats(Arc<Counts>);

struct Counts {
    total: usize,
    per_source: usize,
    taken: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// One connection's place; given back when it is dropped.
pub(super) struct Seat {
    counts: Arc<Counts>,
    source: Option<IpAddr>,
}

impl Seats {
    pub(super) fn new(total: usize, per_source: usize) -> Self {
        Self(Arc::new(Counts { total, per_source, taken: Mutex::default() }))
    }

    /// Takes a place, if there is one in total and for this source: an IPv4 address, or an IPv6 network of 64 bits.
    fn take(&self, client: Option<IpAddr>) -> Option<Seat> {
        let source = client.map(network);
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = source.and_then(|source| taken.1.get(&source).copied()).unwrap_or_default();
        if taken.0 >= self.0.total || (source.is_some() && of_source >= self.0.per_source) {
            return None;
        }
        taken.0 += 1;
        if let Some(source) = source {
            taken.1.insert(source, of_source + 1);
        }
        Some(Seat { counts: Arc::clone(&self.0), source })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.counts.taken.lock().unwrap_or_else(PoisonError::into_inner);
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
        assert!(seats.take(None).is_some());
    }
}
