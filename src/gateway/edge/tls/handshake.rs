//! The TLS handshake of one connection.
//!
//! The one rule: a client that fails it learns why: by a TLS alert, or in plain text if it speaks HTTP without TLS.
//!
//! Called by [`super::super::accept`], which limits the time. [`super::ServedTls`] has the settings.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{ServedTls, noting};
use crate::observe::GatewayMetrics;
use fedgate_core::methods::METHODS;

/// Most bytes that wait to be encrypted and sent.
const TLS_BUFFER: usize = 16 * 1024;
/// How long, and for how many bytes, a connection stays open after a failed handshake, so that the client receives
/// the alert.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;
/// The number of bytes by which an HTTP method is recognized, and the interval between looks until they have arrived.
const METHOD_BYTES: usize = 4;
const LOOK: Duration = Duration::from_millis(50);

/// Why a connection has no TLS.
pub(crate) enum HandshakeFault {
    /// The client speaks HTTP without TLS, and was answered.
    WithoutTls,
    /// The handshake failed.
    Failed(io::Error),
}

/// Does the TLS handshake of a client.
///
/// # Errors
/// See [`HandshakeFault`]. The client has been told.
pub(crate) async fn handshake(
    tls: &ServedTls,
    mut tcp: TcpStream,
    client: SocketAddr,
    metrics: &GatewayMetrics,
) -> Result<TlsStream<TcpStream>, HandshakeFault> {
    if speaks_http(&tcp).await {
        let _ = answer_http(&mut tcp).await;
        return Err(HandshakeFault::WithoutTls);
    }
    let accepting = TlsAcceptor::from(tls.current()).accept(tcp).into_fallible();
    let (accepted, refused) = noting(accepting).await;
    let (error, mut tcp) = match accepted {
        Ok(mut stream) => {
            // Bytes in this buffer count as taken by the client, so the buffer stays small.
            stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
            return Ok(stream);
        }
        Err(failed) => failed,
    };
    if let Some(refused) = refused {
        tls.refuses(client.ip(), &refused, metrics);
    }
    // In TLS 1.3 a client has finished the handshake before its certificate is verified, and may have sent more
    // (over HTTP/2 the preface). Closing a socket with unread bytes resets the connection, and the alert would
    // be lost.
    let _ = tokio::time::timeout(LINGER, linger(&mut tcp)).await;
    Err(HandshakeFault::Failed(error))
}

/// Whether a client begins with a method of HTTP. The first byte of a handshake is no letter, so it is enough to tell
/// them apart.
async fn speaks_http(tcp: &TcpStream) -> bool {
    let mut begun = [0; METHOD_BYTES];
    loop {
        // If the client has gone or failed, the handshake finds out.
        let Ok(count @ 1..) = tcp.peek(&mut begun).await else { return false };
        let begun = begun.get(..count).unwrap_or_default();
        let begins = |name: &str| name.bytes().chain([b' ']).zip(begun).all(|(byte, seen)| byte == *seen);
        if !METHODS.iter().any(|method| begins(method.name)) {
            return false;
        }
        if count == METHOD_BYTES {
            return true;
        }
        // Peeked bytes keep the socket readable, so only another look shows whether more have arrived.
        tokio::time::sleep(LOOK).await;
    }
}

/// Answers a client that speaks HTTP without TLS. Nothing that it sent is interpreted.
async fn answer_http(tcp: &mut TcpStream) -> io::Result<()> {
    const TEXT: &str = "This port speaks HTTPS: write https:// in front of the address\n";
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{TEXT}",
        TEXT.len()
    );
    let sent = async {
        tcp.write_all(answer.as_bytes()).await?;
        linger(tcp).await
    };
    tokio::time::timeout(LINGER, sent).await?
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
