//! Accepts connections: each is counted, its PROXY header is read, and its TLS handshake
//! ([`super::tls::handshake`]) is done, before its first request is read.
//!
//! The one rule: everything that an unknown client can take is counted and bounded from its first packet:
//! connections in total and per client address, and the time of a PROXY header and a TLS handshake.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use super::client_socket::{ClientSocket, ClientTransport};
use super::connection::{ConnectionHandler, ShutdownCourse};
use super::connection_slots::ConnectionSlot;
use super::pace::ByteRate;
use super::proxy_protocol::{self, ProxyHeaderError};
use super::tls::ServedTls;
use super::tls::handshake::{HandshakeFault, handshake};
use fedgate_base::config::ProxiesConfig;
use fedgate_base::descriptors::{self, SocketShortage};
use fedgate_base::workers::{RequestWorkers, WorkerPlace};

/// Accepts connections for one handler.
#[derive(Clone)]
pub(crate) struct ConnectionAcceptor {
    pub(crate) handler: Arc<ConnectionHandler>,
    /// None on a listener without TLS.
    pub(crate) tls: Option<Arc<ServedTls>>,
    pub(crate) proxies: Arc<ProxiesConfig>,
    /// Time for a PROXY header and a handshake together.
    pub(crate) patience: Duration,
    /// Slowest pace at which a client may take an answer.
    pub(crate) send: ByteRate,
    pub(crate) shortage: Arc<SocketShortage>,
}

/// Why a connection was closed before a request was read.
enum CloseReason {
    /// No slot is free, in total or for the client address.
    NoSlot,
    /// The trusted balancer sent no valid PROXY header.
    ProxyHeader(ProxyHeaderError),
    /// There was no TLS handshake, or it failed.
    Handshake(HandshakeFault),
    /// The PROXY header or the handshake took too long.
    TooSlow,
}

/// Accepts one connection, which no runtime knows yet.
fn accept_one(listener: &TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let (tcp, peer) = acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    // Only listeners of TCP come here, whose peers have addresses.
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((tcp.into(), peer))
}

impl ConnectionAcceptor {
    /// Accepts until the gateway closes its listeners.
    pub(crate) async fn accept(
        self,
        listener: AsyncFd<TcpListener>,
        workers: RequestWorkers,
        mut course: ShutdownCourse,
    ) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = course.closing.wait_for(|closing| *closing) => return,
                accepted = listener.async_io(Interest::READABLE, accept_one) => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    self.shortage.is_not_felt();
                    let peer = proxy_protocol::canonical(peer);
                    // Taken before the connection is handed over: a stop waits for all that have a slot.
                    let client = (!self.is_balancer(peer)).then(|| peer.ip());
                    let Some(slot) = self.handler.slot(client) else {
                        self.closed(&CloseReason::NoSlot, peer.ip());
                        continue;
                    };
                    let (acceptor, course) = (self.clone(), course.clone());
                    workers.place().run(|place| async move {
                        // Registered with the thread that serves it.
                        match TcpStream::from_std(tcp) {
                            Ok(tcp) => acceptor.serve(tcp, peer, (slot, place), course).await,
                            Err(error) => acceptor.shortage.is_felt(&error),
                        }
                    });
                }
                // The client left while its connection was queued.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // The connection stays in the queue when descriptors are lacking; without a pause this loop
                    // would spin.
                    self.shortage.is_felt(&error);
                    tokio::time::sleep(descriptors::RETRY).await;
                }
            }
        }
    }

    async fn serve(
        self,
        tcp: TcpStream,
        peer: SocketAddr,
        (slot, place): (ConnectionSlot, WorkerPlace),
        course: ShutdownCourse,
    ) {
        // Boxed apart: a handshake takes much memory, which is freed before the client is served.
        let entered = Box::pin(self.enter(tcp, peer, slot)).await;
        match entered {
            Ok(socket) => self.handler.serve(socket, place, course).await,
            Err(closed) => self.closed(&closed, peer.ip()),
        }
    }

    /// Whether a PROXY header names the client. Until then, the slot counts only in total.
    fn is_balancer(&self, peer: SocketAddr) -> bool {
        self.proxies.proxy_protocol && self.proxies.trusts(peer.ip())
    }

    /// Finds the client address, and does the TLS handshake.
    async fn enter(
        &self,
        mut tcp: TcpStream,
        peer: SocketAddr,
        mut slot: ConnectionSlot,
    ) -> Result<ClientSocket, CloseReason> {
        let is_balancer = self.is_balancer(peer);
        let _ = tcp.set_nodelay(true);
        let opened = async move {
            let mut client = peer;
            if is_balancer {
                // If the balancer names no address, the connection's own counts (2.1 and 2.2 of the protocol). That
                // makes no header of the request trustworthy: where PROXY headers are read, no request header names
                // a client.
                let named = proxy_protocol::read(&mut tcp).await.map_err(CloseReason::ProxyHeader)?;
                client = named.unwrap_or(peer);
                if !slot.belongs_to(client.ip()) {
                    return Err(CloseReason::NoSlot);
                }
            }
            let transport = match &self.tls {
                None => ClientTransport::Plain(tcp),
                Some(tls) => {
                    let shaken = handshake(tls, tcp, client, self.handler.metrics()).await;
                    ClientTransport::Tls(Box::new(shaken.map_err(CloseReason::Handshake)?))
                }
            };
            Ok(ClientSocket::new(transport, client, self.send, Arc::clone(self.handler.metrics()), slot))
        };
        // One limit for both: a client must not get the time of a head twice before its first request.
        match tokio::time::timeout(self.patience, opened).await {
            Ok(socket) => socket,
            Err(_) => Err(CloseReason::TooSlow),
        }
    }

    /// Counts the closed connection. It gets no answer, which costs least.
    fn closed(&self, why: &CloseReason, peer: IpAddr) {
        let metrics = self.handler.metrics();
        match why {
            CloseReason::NoSlot => metrics.connections.refused.inc(),
            CloseReason::ProxyHeader(error) => {
                metrics.connections.handshakes_failed.inc();
                tracing::warn!(%peer, %error, "a trusted proxy did not begin with a readable PROXY header");
            }
            CloseReason::Handshake(HandshakeFault::Failed(error)) => {
                metrics.connections.handshakes_failed.inc();
                tracing::debug!(%peer, %error, "TLS handshake failed");
            }
            CloseReason::Handshake(HandshakeFault::WithoutTls) | CloseReason::TooSlow => {
                metrics.connections.handshakes_failed.inc()
            }
        }
    }
}
