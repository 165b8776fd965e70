//! The listeners: accept and count every connection, read its PROXY header, and do its TLS handshake, before its first
//! request is read.
//!
//! The one rule: everything that an unknown client can take is counted and bounded from its first packet:
//! connections in total and per client address, and the time of a PROXY header and a TLS handshake.

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

/// Most bytes that wait to be encrypted and sent.
const TLS_BUFFER: usize = 16 * 1024;
/// How long, and for how many bytes, a connection stays open after a failed handshake, so that the client receives
/// the alert.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;
/// The number of bytes by which an HTTP method is recognized, and the interval between looks until they have arrived.
const METHOD_BYTES: usize = 4;
const LOOK: Duration = Duration::from_millis(50);

/// Accepts connections for one door.
#[derive(Clone)]
pub(crate) struct ConnectionAcceptor {
    pub(crate) door: Arc<ConnectionDoor>,
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
    /// No seat is free, in total or for the client address.
    NoSeat,
    /// The trusted balancer sent no valid PROXY header.
    Preface(PrefaceError),
    /// The TLS handshake failed.
    Handshake(io::Error),
    /// It speaks HTTP without TLS, and was answered.
    WithoutTls,
    /// One of the two took too long.
    TooSlow,
}

impl ConnectionAcceptor {
    /// Accepts until the gateway closes its listeners.
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

    async fn serve(self, tcp: TcpStream, peer: SocketAddr, course: ShutdownCourse) {
        // Boxed apart: a handshake takes much memory, which is freed before the client is served.
        let entered = Box::pin(self.enter(tcp, peer)).await;
        match entered {
            Ok(socket) => self.door.serve(socket, course).await,
            Err(closed) => self.closed(&closed, peer.ip()),
        }
    }

    /// Takes a seat, finds the client address, and does the TLS handshake.
    async fn enter(&self, mut tcp: TcpStream, peer: SocketAddr) -> Result<ClientSocket, CloseReason> {
        let is_balancer = self.proxies.proxy_protocol && self.proxies.trusts(peer.ip());
        // Behind a balancer the client address comes later; until then, the seat counts only in total.
        let mut seat = self.door.seat((!is_balancer).then(|| peer.ip())).ok_or(CloseReason::NoSeat)?;
        let _ = tcp.set_nodelay(true);
        let opened = async move {
            let mut client = peer;
            if is_balancer {
                // If the balancer names no address, the connection's own counts (2.1 and 2.2 of the protocol). That
                // makes no header of the request trustworthy: where PROXY headers are read, no request header names
                // a client.
                let told = preface::read(&mut tcp).await.map_err(CloseReason::Preface)?;
                client = told.unwrap_or(peer);
                if !seat.belongs_to(client.ip()) {
                    return Err(CloseReason::NoSeat);
                }
            }
            let transport = match &self.tls {
                None => ClientTransport::Plain(tcp),
                Some(tls) => {
                    if speaks_plainly(&tcp).await {
                        let _ = refuse_plain(&mut tcp).await;
                        return Err(CloseReason::WithoutTls);
                    }
                    let mut stream = self.shake_hands(tls, tcp, client).await.map_err(CloseReason::Handshake)?;
                    // Bytes in this buffer count as taken by the client, so the buffer stays small.
                    stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
                    ClientTransport::Tls(Box::new(stream))
                }
            };
            Ok(ClientSocket::new(transport, client, self.send, Arc::clone(self.door.metrics()), seat))
        };
        // One limit for both: a client must not get the time of a head twice before its first request.
        match tokio::time::timeout(self.patience, opened).await {
            Ok(socket) => socket,
            Err(_) => Err(CloseReason::TooSlow),
        }
    }

    /// Does the TLS handshake; a client that fails receives an alert with the reason.
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
        // In TLS 1.3 a client has finished the handshake before its certificate is verified, and may have sent more
        // (over HTTP/2 the preface). Closing a socket with unread bytes resets the connection, and the alert would
        // be lost.
        let _ = tokio::time::timeout(LINGER, linger(&mut tcp)).await;
        Err(error)
    }

    /// Counts the closed connection. It gets no answer, which costs least.
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
            CloseReason::WithoutTls | CloseReason::TooSlow => metrics.handshakes_failed.inc(),
        }
    }
}

/// Whether a client begins with a method of HTTP where TLS is spoken. A handshake begins with a byte that is no letter, and is
/// told by that one alone.
async fn speaks_plainly(tcp: &TcpStream) -> bool {
    const METHODS: [&[u8]; 7] = [b"GET ", b"HEAD", b"POST", b"PUT ", b"PATC", b"DELE", b"OPTI"];
    let mut begun = [0; METHOD_BYTES];
    loop {
        // If the client has gone or failed, the handshake finds out.
        let Ok(count @ 1..) = tcp.peek(&mut begun).await else { return false };
        let begun = begun.get(..count).unwrap_or_default();
        if !METHODS.iter().any(|method| method.starts_with(begun)) {
            return false;
        }
        if count == METHOD_BYTES {
            return true;
        }
        // Peeked bytes keep the socket readable, so only another look shows whether more have arrived.
        tokio::time::sleep(LOOK).await;
    }
}

/// Answers a client that speaks HTTP without TLS; nothing that it sent is interpreted.
async fn refuse_plain(tcp: &mut TcpStream) -> io::Result<()> {
    const TOLD: &str = "This port speaks HTTPS: write https:// in front of the address\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{TOLD}",
        TOLD.len()
    );
    let told = async {
        tcp.write_all(answer.as_bytes()).await?;
        linger(tcp).await
    };
    tokio::time::timeout(LINGER, told).await?
}

/// Closes the sending half, and reads what still arrives until the client closes its own.
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
