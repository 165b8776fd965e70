//! The listeners: every connection is accepted, counted and unwrapped here, before anybody reads a request of it.
//!
//! The one rule: what a client can take without having said who it is, is counted and bounded from its first packet:
//! connections in total and per source, and the time of a PROXY header and a TLS handshake.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::door::{ConnectionDoor, ShutdownCourse};
use super::pace::ByteRate;
use super::preface::{self, PrefaceError};
use super::socket::{ClientSocket, ClientTransport};
use super::tls::{ServedTls, noting};
use fedgate_base::config::ProxiesConfig;
use fedgate_base::descriptors::{self, SocketShortage};

/// Most bytes that wait to be encrypted, and to be sent then.
const TLS_BUFFER: usize = 16 * 1024;
/// How long, and for how many bytes, a connection is kept whose handshake failed, so that its client hears why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// Accepts connections for one door.
#[derive(Clone)]
pub(crate) struct ConnectionAcceptor {
    pub(crate) door: Arc<ConnectionDoor>,
    /// None on a listener without TLS.
    pub(crate) tls: Option<Arc<ServedTls>>,
    pub(crate) proxies: Arc<ProxiesConfig>,
    /// How long a PROXY header and a handshake may take.
    pub(crate) patience: Duration,
    /// How fast a client must take an answer.
    pub(crate) send: ByteRate,
    pub(crate) shortage: Arc<SocketShortage>,
}

/// Why a connection was closed before anything was read of it.
enum CloseReason {
    /// No place is free, in total or for its source.
    NoSeat,
    /// The balancer did not say whom it speaks for.
    Preface(PrefaceError),
    /// There was no handshake.
    Handshake(io::Error),
    /// One of the two took too long.
    TooSlow,
}

impl ConnectionAcceptor {
    /// Accepts until the course says otherwise.
    pub(crate) async fn accept(self, listener: tokio::net::TcpListener, mut course: ShutdownCourse) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = course.closing.wait_for(|closing| *closing) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    self.shortage.is_not_felt();
                    tokio::spawn(self.clone().serve(tcp, preface::canonical(peer), course.clone()));
                }
                // The client went away while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.shortage.is_felt(&error);
                    tokio::time::sleep(descriptors::RETRY).await;
                }
            }
        }
    }

    async fn serve(self, tcp: TcpStream, peer: SocketAddr, course: ShutdownCourse) {
        // A handshake takes much memory, which is given back before the client is served.
        let entered = Box::pin(self.enter(tcp, peer)).await;
        match entered {
            Ok(socket) => self.door.serve(socket, course).await,
            Err(closed) => self.closed(&closed, peer.ip()),
        }
    }

    /// Takes a seat, learns who the client is, and shakes hands.
    async fn enter(&self, mut tcp: TcpStream, peer: SocketAddr) -> Result<ClientSocket, CloseReason> {
        let is_balancer = self.proxies.proxy_protocol && self.proxies.trusts(peer.ip());
        // Behind a balancer the source is known later; until then, the place counts in total alone.
        let mut seat = self.door.seat((!is_balancer).then(|| peer.ip())).ok_or(CloseReason::NoSeat)?;
        let _ = tcp.set_nodelay(true);
        let opened = async move {
            let mut client = peer;
            if is_balancer {
                // Where a balancer tells no address, the connection's own counts (2.1 and 2.2 of the protocol). It lends no
                // word of the request any weight: where PROXY headers are read, no header of a request tells an origin.
                let told = preface::read(&mut tcp).await.map_err(CloseReason::Preface)?;
                client = told.unwrap_or(peer);
                if !seat.belongs_to(client.ip()) {
                    return Err(CloseReason::NoSeat);
                }
            }
            let transport = match &self.tls {
                None => ClientTransport::Plain(tcp),
                Some(tls) => {
                    let mut stream = self.shake_hands(tls, tcp, client).await.map_err(CloseReason::Handshake)?;
                    // What waits here counts as taken by the client.
                    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
                    ClientTransport::Tls(Box::new(stream))
                }
            };
            Ok(ClientSocket::new(transport, client, self.send, Arc::clone(self.door.metrics()), seat))
        };
        match tokio::time::timeout(self.patience, opened).await {
            Ok(socket) => socket,
            Err(_) => Err(CloseReason::TooSlow),
        }
    }

    /// Shakes hands; a client that fails to hears why.
    async fn shake_hands(
        &self,
        tls: &ServedTls,
        tcp: TcpStream,
        client: SocketAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let accepting = TlsAcceptor::from(tls.current()).accept(tcp).into_fallible();
        let (accepted, refused) = noting(accepting).await;
        let (error, mut tcp) = match accepted {
            Ok(stream) => return Ok(stream),
            Err(failed) => failed,
        };
        if let Some(refused) = refused {
            tls.refuses(client.ip(), &refused, self.door.metrics());
        }
        // With TLS 1.3 a client has finished the handshake before its certificate is verified, and sends what comes next
        // (over HTTP/2 the preface): closing over unread bytes resets the connection, and the alert is lost with it.
        let _ = tokio::time::timeout(LINGER, linger(&mut tcp)).await;
        Err(error)
    }

    /// Counts it; closed without a word, which costs least.
    fn closed(&self, why: &CloseReason, peer: IpAddr) {
        let metrics = self.door.metrics();
        match why {
            CloseReason::NoSeat => metrics.connections_refused.inc(),
            CloseReason::Preface(error) => {
                metrics.handshakes_failed.inc();
                tracing::warn!(%peer, %error, "a trusted proxy did not begin with a PROXY header that can be read");
            }
            CloseReason::Handshake(error) => {
                metrics.handshakes_failed.inc();
                tracing::debug!(%peer, %error, "TLS handshake failed");
            }
            CloseReason::TooSlow => metrics.handshakes_failed.inc(),
        }
    }
}

/// Ends the sending half, and reads what is still under way until the client ends its own.
async fn linger(tcp: &mut TcpStream) -> io::Result<()> {
    tcp.shutdown().await?;
    let mut unread = [0; 1024];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match tcp.read(&mut unread).await? {
            0 => break,
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}
