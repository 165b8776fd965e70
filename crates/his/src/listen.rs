//! The listening socket of the service, and its stop.
//!
//! The one rule: a connection is accepted here, and served on one thread until it ends
//! ([`RequestWorkers`]). The requests of HTTP/2 are spread over all of them.

use std::future::Future;
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

use super::connections::{OpenConnection, OpenConnections};
use super::head_timeout::{CountedReads, HeadTimer};
use super::http2::{self, BegunStream, StreamCount};
use fedgate_base::config::{Address, ConnectionsConfig, HeadsConfig};
use fedgate_base::descriptors::{self, SocketShortage};
use fedgate_base::ports;
use fedgate_base::workers::RequestWorkers;

/// How long a stop waits for requests in flight.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Owner and group may connect: the gateway runs in the group of the HIS.
const SOCKET_MODE: u32 = 0o660;

/// Why the service cannot listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("cannot listen on `{address}` (`{key}`): {source}{}", remedy(address, key, source))]
    Bind {
        /// The address.
        address: String,
        /// The key that names it.
        key: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The path is taken by a file that is not a socket, and that must not be removed.
    #[error("`{0}` (`his.listen`) is {1}, not a socket; name another path, or move it away")]
    NoSocket(String, &'static str),
    /// Another service answers on the socket.
    #[error("another service is listening on `{0}` (`his.listen`); stop it first")]
    InUse(String),
}

/// The remedy for a port that needs a privilege; empty for other faults.
fn remedy(address: &str, key: &str, error: &io::Error) -> String {
    match address.parse::<SocketAddr>() {
        Ok(address) if error.kind() == io::ErrorKind::PermissionDenied => {
            format!("; {}", ports::remedy(address.port(), key))
        }
        Ok(_) | Err(_) => String::new(),
    }
}

/// A bound address.
pub enum HisListener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl HisListener {
    /// Binds the address, which the configuration names under `key`. A socket file on which no process listens any more is replaced.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn bind(address: &Address, key: &'static str) -> Result<Self, ListenError> {
        let named = |address: String| move |source| ListenError::Bind { address, key, source };
        match address {
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(named(address.to_string()))?;
                Ok(Self::Tcp(listener))
            }
            Address::Unix(path) => {
                remove_stale(path).await?;
                let bound = UnixListener::bind(path).map_err(named(path.display().to_string()))?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
                    .map_err(named(path.display().to_string()))?;
                Ok(Self::Unix(bound))
            }
        }
    }

    /// The address as text.
    pub fn address(&self) -> String {
        let address = match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Self::Unix(listener) => listener.local_addr().map(|address| format!("{address:?}")),
        };
        address.unwrap_or_default()
    }

    /// Serves on these threads until `stop` completes, then waits up to 10 seconds for requests in flight.
    pub async fn serve(
        self,
        workers: &RequestWorkers,
        router: Router,
        limits: &ConnectionsConfig,
        stop: impl Future<Output = ()>,
    ) {
        match self {
            Self::Tcp(listener) => serve(listener, workers, router, limits, stop).await,
            Self::Unix(listener) => serve(listener, workers, router, limits, stop).await,
        }
    }
}

/// A listening socket.
trait AcceptStream {
    /// A connection that no runtime watches yet.
    type Accepted: Send + 'static;
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Accepted>>;

    /// The connection in the runtime of the caller.
    fn watched(accepted: Self::Accepted) -> io::Result<Self::Stream>;
}

impl AcceptStream for TcpListener {
    type Accepted = net::TcpStream;
    type Stream = TcpStream;

    async fn accept_one(&self) -> io::Result<net::TcpStream> {
        self.accept().await?.0.into_std()
    }

    fn watched(accepted: net::TcpStream) -> io::Result<TcpStream> {
        TcpStream::from_std(accepted)
    }
}

impl AcceptStream for UnixListener {
    type Accepted = unix::net::UnixStream;
    type Stream = UnixStream;

    async fn accept_one(&self) -> io::Result<unix::net::UnixStream> {
        self.accept().await?.0.into_std()
    }

    fn watched(accepted: unix::net::UnixStream) -> io::Result<UnixStream> {
        UnixStream::from_std(accepted)
    }
}

async fn serve<L: AcceptStream>(
    listener: L,
    workers: &RequestWorkers,
    router: Router,
    limits: &ConnectionsConfig,
    stop: impl Future<Output = ()>,
) {
    let (stopping, is_stopping) = watch::channel(());
    let (mut connections, shortage) = (OpenConnections::new(limits.most), SocketShortage::default());
    let heads = limits.heads;
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = async { connections.room().await; tokio::select! {
                accepted = listener.accept_one() => Some(accepted),
                () = connections.ended() => None,
            } } => accepted,
        };
        match accepted {
            Some(Ok(stream)) => {
                shortage.is_not_felt();
                let served = ServedRouter { router: router.clone(), workers: workers.clone(), heads };
                let is_stopping = is_stopping.clone();
                connections.hold(workers.place(), async move |handle| match L::watched(stream) {
                    Ok(stream) => converse(stream, served, handle, is_stopping).await,
                    Err(error) => tracing::debug!("a connection ended: {error}"),
                });
            }
            // The client closed its connection while it waited to be accepted.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Some(Err(error)) => {
                // Mostly a lack of file descriptors. A silent connection gives one back; a retry at once would only spin.
                shortage.is_felt(&error);
                connections.make_room();
                let _ = tokio::time::timeout(descriptors::RETRY, connections.ended()).await;
            }
            None => {}
        }
    }
    drop((listener, stopping));
    let _ = tokio::time::timeout(STOP_TIMEOUT, connections.all_ended()).await;
}

/// The router, the threads and the limits of heads for a connection.
struct ServedRouter {
    router: Router,
    workers: RequestWorkers,
    heads: HeadsConfig,
}

/// Serves one connection until it ends, in the version that it begins with.
async fn converse<S>(stream: S, served: ServedRouter, handle: OpenConnection, mut is_stopping: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    handle.silence.begins();
    let opened = Instant::now();
    let begun = tokio::select! {
        begun = tokio::time::timeout(served.heads.timeout, http2::begin(stream)) => begun,
        _ = is_stopping.changed() => return,
        () = handle.leave.notified() => return,
    };
    match begun {
        Ok(Ok((stream, true))) => converse_in_frames(stream, served, handle, is_stopping).await,
        Ok(Ok((stream, false))) => {
            let ServedRouter { router, heads, .. } = served;
            let (stream, timer) = CountedReads::new(stream, heads, opened, &handle.silence);
            converse_in_turns(stream, router, (heads, timer), handle, is_stopping).await;
        }
        Ok(Err(error)) => tracing::debug!("a connection ended: {error}"),
        Err(_) => tracing::debug!("a connection ended: no byte of a head came in time"),
    }
}

/// Serves an HTTP/2 connection. When the service stops, the requests in flight are still answered.
async fn converse_in_frames<S>(
    stream: BegunStream<S>,
    ServedRouter { router, workers, heads: limits }: ServedRouter,
    handle: OpenConnection,
    mut is_stopping: watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = StreamCount::new(handle.silence.clone());
    let service = TowerToHyperService::new(streams.around(router));
    let mut connection = pin!(http2::builder(&workers).serve_connection(TokioIo::new(stream), service));
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            _ = is_stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
            () = handle.leave.notified() => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
            () = tokio::time::sleep(limits.idle) => {
                if handle.silence.since().is_some_and(|since| since.elapsed() >= limits.idle) {
                    connection.as_mut().graceful_shutdown();
                    break connection.await;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

/// Serves an HTTP/1 connection. When the service stops, the request in flight is still answered.
async fn converse_in_turns<S>(
    stream: CountedReads<BegunStream<S>>,
    router: Router,
    (limits, timer): (HeadsConfig, HeadTimer),
    handle: OpenConnection,
    mut is_stopping: watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    // hyper only needs to know that there is a limit; the timer decides how long it is.
    builder.timer(timer).header_read_timeout(limits.timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = is_stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        // A silent connection closes at once. Otherwise its request is answered first.
        () = handle.leave.notified() => match handle.silence.since() {
            Some(_) => return,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

/// Removes a socket file on which no process listens. Any other file stays.
async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let Ok(file) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let kind = file.file_type();
    if !kind.is_socket() {
        let named = match () {
            () if kind.is_file() => "a regular file",
            () if kind.is_dir() => "a directory",
            () if kind.is_symlink() => "a symbolic link",
            () => "a pipe or a device",
        };
        return Err(ListenError::NoSocket(path.display().to_string(), named));
    }
    // Only a refused connection proves that the file is stale; every other fault might hide a living service.
    match UnixStream::connect(path).await {
        Ok(_) => Err(ListenError::InUse(path.display().to_string())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|source| ListenError::Bind { address: path.display().to_string(), key: "his.listen", source }),
        Err(source) => Err(ListenError::Bind { address: path.display().to_string(), key: "his.listen", source }),
    }
}
