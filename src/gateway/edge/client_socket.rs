//! A client's connection for pingora to read and write: TCP, or TLS over TCP.
//!
//! The one rule: a client that reads an answer too slowly is disconnected, so that no buffer is held for ever. The
//! facts that pingora asks of a stream (addresses, TLS, the certificate) are those that the listener found.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::l4::socket;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

use super::connection_slots::ConnectionSlot;
use super::h2_frames::FrameTracker;
use super::pace::{ByteRate, ClientPace};
use super::tls::ClientCertificate;
use super::tunnel_door::TunnelDoor;
use super::write_buffer::WriteBuffer;
use crate::authn::ClientLine;
use crate::observe::GatewayMetrics;

/// How long closing a connection may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The transport of the bytes.
pub(crate) enum ClientTransport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Handed over to a WebSocket.
    Gone,
}

/// A client's connection.
pub(crate) struct ClientSocket {
    stream: WriteBuffer<ClientTransport>,
    fd: UniqueIDType,
    addresses: Arc<SocketDigest>,
    tls: Option<Arc<SslDigest>>,
    alpn: Option<ALPN>,
    learned: Option<Arc<ProxyDigest>>,
    tempo: ByteRate,
    /// Set while the client has not taken all that was sent.
    pace: Option<ClientPace>,
    heads: Option<HeadClock>,
    metrics: Arc<GatewayMetrics>,
}

/// The facts of a connection. Each of its requests holds them: over HTTP/2 a request may outlive the connection.
#[derive(Debug)]
pub(crate) struct ConnectionFacts {
    /// The verified certificate of the client.
    pub(crate) certificate: Option<ClientCertificate>,
    /// The answers that are held back on this connection, and the passwords that it has proved.
    pub(crate) line: ClientLine,
    /// Where it leaves HTTP.
    pub(crate) door: TunnelDoor<ClientSocket>,
    /// Its slot. A client that closes the connection while answers are held back gets no further slot until they
    /// are over.
    _slot: ConnectionSlot,
}

/// The time of an HTTP/2 client's preface and heads, for which the HTTP library has no limit.
struct HeadClock {
    frames: FrameTracker,
    patience: Duration,
    /// Set while a part of one is missing.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientSocket {
    /// A connection of `client`, which differs from the transport's peer if a balancer has named it.
    pub(crate) fn new(
        transport: ClientTransport,
        client: SocketAddr,
        tempo: ByteRate,
        metrics: Arc<GatewayMetrics>,
        slot: ConnectionSlot,
    ) -> Self {
        let (fd, alpn, tls, certificate) = match &transport {
            ClientTransport::Plain(tcp) => (tcp.as_raw_fd(), None, None, None),
            ClientTransport::Tls(tls) => {
                let (tcp, session) = tls.get_ref();
                let alpn = session.alpn_protocol().filter(|protocol| *protocol == b"h2").map(|_| ALPN::H2);
                let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
                let version = session.protocol_version().and_then(|version| version.as_str());
                let certificate = session.peer_certificates().and_then(ClientCertificate::new);
                let fingerprint = certificate.as_ref().map_or(vec![], |certificate| certificate.sha256.to_vec());
                let digest =
                    SslDigest::new(suite.unwrap_or_default(), version.unwrap_or_default(), None, None, fingerprint);
                (tcp.as_raw_fd(), alpn, Some(Arc::new(digest)), certificate)
            }
            ClientTransport::Gone => (-1, None, None, None),
        };
        let addresses = SocketDigest::from_raw_fd(fd);
        let _ = addresses.peer_addr.set(Some(socket::SocketAddr::Inet(client)));
        // ProxyDigest is the one place where pingora lets a stream carry its owner's data, in both versions of
        // HTTP.
        let facts =
            ConnectionFacts { certificate, line: ClientLine::default(), door: TunnelDoor::default(), _slot: slot };
        let learned = ResponseHeader::build(200, None).ok();
        let learned = learned.map(|response| Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(facts)))));
        Self {
            stream: WriteBuffer::new(transport),
            fd,
            addresses: Arc::new(addresses),
            tls,
            alpn,
            learned,
            tempo,
            pace: None,
            heads: None,
            metrics,
        }
    }

    /// Limits the time of an HTTP/2 client's preface, and of each head.
    pub(crate) fn expect_frames(&mut self, patience: Duration) {
        let timer = Some(Box::pin(tokio::time::sleep(patience)));
        self.heads = Some(HeadClock { frames: FrameTracker::new(), patience, timer });
    }

    /// Where this connection leaves HTTP.
    pub(super) fn door(&self) -> Option<&TunnelDoor<Self>> {
        let facts = self.learned.as_ref()?.user_data.as_ref()?.downcast_ref::<ConnectionFacts>();
        facts.map(|facts| &facts.door)
    }

    /// Gives the transport away. What is left is a connection that has ended.
    pub(super) fn depart(&mut self) -> Self {
        Self {
            stream: std::mem::replace(&mut self.stream, WriteBuffer::new(ClientTransport::Gone)),
            fd: self.fd,
            addresses: Arc::clone(&self.addresses),
            tls: None,
            alpn: None,
            // The facts own the door through which this leaves: with them, it would own itself.
            learned: None,
            tempo: self.tempo,
            pace: self.pace.take(),
            heads: None,
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Notes the outcome of a write; an error once the client is too slow.
    fn paced(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match poll {
            Poll::Ready(Ok(count)) => {
                if let Some(pace) = &mut self.pace {
                    pace.moved(count as u64);
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                // Slow read attack: a client that never reads its answer would hold the buffer and the upstream's
                // answer.
                let pace = self.pace.get_or_insert_with(|| ClientPace::new(self.tempo));
                ready!(pace.poll_too_slow(cx));
                self.metrics.connections.ended("answer");
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes the answer too slowly")))
            }
        }
    }
}

impl HeadClock {
    /// Follows received bytes.
    fn feed(&mut self, bytes: &[u8]) {
        let completed = self.frames.feed(bytes);
        // A new limit begins with each head. Frames inside an open head (CONTINUATION) do not extend it.
        if completed || !self.frames.is_in_head() {
            self.timer = None;
        }
        if self.timer.is_none() && self.frames.is_in_head() {
            self.timer = Some(Box::pin(tokio::time::sleep(self.patience)));
        }
    }

    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for ClientSocket {
    /// Sends the rest of a broken answer, as far as that needs no waiting, so that the client sees it break off.
    fn drop(&mut self) {
        let _ = Pin::new(&mut self.stream).poll_flush(&mut Context::from_waker(Waker::noop()));
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, out);
        if let Some(heads) = &mut self.heads {
            match out.filled().get(before..) {
                Some(fresh) if !fresh.is_empty() => heads.feed(fresh),
                _ if poll.is_pending() && heads.poll_too_slow(cx).is_ready() => {
                    self.metrics.connections.ended("head");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a head takes too long")));
                }
                _ => {}
            }
        }
        poll
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.paced(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.paced(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = poll {
            self.pace = None;
            return poll;
        }
        self.paced(cx, poll.map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for ClientSocket {
    async fn shutdown(&mut self) {
        // The connection ends whether or not the client receives close_notify.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.stream.shutdown()).await;
    }
}

impl UniqueID for ClientSocket {
    fn id(&self) -> UniqueIDType {
        self.fd
    }
}

impl Ssl for ClientSocket {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.tls.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.alpn.clone()
    }
}

impl Peek for ClientSocket {}

impl GetTimingDigest for ClientSocket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![]
    }
}

impl GetProxyDigest for ClientSocket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.learned.clone()
    }
}

impl GetSocketDigest for ClientSocket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.addresses))
    }
}

impl fmt::Debug for ClientSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSocket").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl AsyncRead for ClientTransport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, out),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, out),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for ClientTransport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
            Self::Gone => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}
