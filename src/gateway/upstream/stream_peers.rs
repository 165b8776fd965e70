//! Peers of streams: many streams of the gateway share one connection to a server, over HTTP/2.
//!
//! The one rule: a stream whose client is slow holds up no other. What it leaves unread is bounded by its own window,
//! and the window of the connection has room for those of all its streams.

use std::time::Duration;

use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::HttpPeer;

use super::servers::{ServerAddress, ServerSet};
use crate::balance::UpstreamServer;

/// Most streams on one connection.
const STREAMS: usize = 1000;
/// The window of a stream, in bytes.
const WINDOW: u32 = 16 * 1024;
/// How often a server is asked whether it is still there.
const PING: Duration = Duration::from_secs(10);
/// Keeps the connections of streams apart in pingora's pools.
const STREAM: u64 = 1 << 33;
/// Keeps those of WebSockets apart, of which each has its own.
const WEBSOCKET: u64 = 1 << 34;
/// Keeps those of calls apart.
const CALL: u64 = 1 << 35;
/// Most calls on one connection.
const CALLS: usize = 100;
/// The window of a call, in bytes.
const CALL_WINDOW: u32 = 64 * 1024;

impl ServerSet {
    /// Whether streams share connections now.
    pub(crate) fn shares_streams(&self) -> bool {
        self.stream_version.is_http2()
    }

    /// Notes that a server speaks HTTP/1.1 alone.
    pub(crate) fn shares_no_streams(&self) {
        if self.stream_version.becomes_http1() {
            tracing::warn!(
                "upstream `{}`: a server does not speak HTTP/2, so each stream has a connection of its own \
                 (`upstream.stream_http2 = false` does not try)",
                self.config.name
            );
        }
    }

    /// The peer of a WebSocket: HTTP/1.1, on a connection that serves nothing else.
    pub(crate) fn websocket_peer(server: &UpstreamServer<ServerAddress>) -> Box<HttpPeer> {
        let mut peer = Box::new(server.peer.http.clone());
        peer.group_key |= WEBSOCKET;
        peer
    }

    /// The peer of a call: HTTP/2 alone, without TLS by prior knowledge.
    pub(crate) fn call_peer(server: &UpstreamServer<ServerAddress>) -> Box<HttpPeer> {
        let mut peer = Box::new(server.peer.http.clone());
        peer.group_key |= CALL;
        peer.options.read_timeout = None;
        peer.options.alpn = ALPN::H2;
        peer.options.max_h2_streams = CALLS;
        peer.options.h2_stream_window_size = Some(CALL_WINDOW);
        peer.options.h2_connection_window_size = Some(CALL_WINDOW * CALLS as u32);
        peer.options.h2_ping_interval = Some(PING);
        peer
    }

    /// The peer of a stream. How long a server may be silent is up to the stream.
    pub(crate) fn stream_peer(server: &UpstreamServer<ServerAddress>, http2: bool) -> Box<HttpPeer> {
        let mut peer = Box::new(server.peer.http.clone());
        peer.group_key |= STREAM;
        peer.options.read_timeout = None;
        if http2 {
            // Without TLS there is no negotiation; with TLS, the server chooses.
            peer.options.alpn = if peer.is_tls() { ALPN::H2H1 } else { ALPN::H2 };
            peer.options.max_h2_streams = STREAMS;
            peer.options.h2_stream_window_size = Some(WINDOW);
            peer.options.h2_connection_window_size = Some(WINDOW * STREAMS as u32);
            peer.options.h2_ping_interval = Some(PING);
        }
        peer
    }
}
