//! Connections to servers, and the time limit of the requests on them.
//!
//! The one rule: every connection has a second handle here. When the time of its request is up, the connection is
//! shut down, whatever pingora is waiting for. pingora only times each read and write by itself, and so never ends
//! a request whose server sends a byte now and then.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::upstreams::peer::{Tracer, Tracing};
use pingora_core::{Error, ErrorType, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};

/// How often connections are checked: a request may be late by this much.
const LOOK: Duration = Duration::from_millis(100);
/// Shards with a lock each, so that workers seldom contend.
const PARTS: usize = 16;

/// Every connection to a server.
pub(super) struct ServerConnections {
    parts: [Mutex<HashMap<RawFd, Arc<ServerConnection>>>; PARTS],
    origin: Instant,
}

struct ServerConnection {
    socket: OwnedFd,
    /// Nanoseconds after the origin; 0 for no end. No two requests on one connection have the same value.
    until: AtomicU64,
    /// Whether an answer on it has named its exchange.
    names: AtomicBool,
}

/// The second handle of a connection, for facts that its requests find out.
#[derive(Clone)]
pub(crate) struct ServerLine {
    connection: Arc<ServerConnection>,
    origin: Instant,
}

/// A connection for the time of one request.
pub(crate) struct ConnectionHold {
    connection: Arc<ServerConnection>,
    origin: Instant,
    until: u64,
}

fn nanoseconds(origin: Instant, until: Instant) -> u64 {
    u64::try_from(until.saturating_duration_since(origin).as_nanos()).unwrap_or(u64::MAX).max(1)
}

impl ServerConnections {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { parts: std::array::from_fn(|_| Mutex::default()), origin: Instant::now() })
    }

    fn part(&self, connection: RawFd) -> MutexGuard<'_, HashMap<RawFd, Arc<ServerConnection>>> {
        // The kernel gives the lowest free number, so that connections spread evenly over the shards.
        let part = usize::try_from(connection).unwrap_or_default() % PARTS;
        let part = self.parts.get(part).unwrap_or(&self.parts[0]);
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The second handle of a connection.
    pub(super) fn line(&self, connection: RawFd) -> Option<ServerLine> {
        let connection = self.part(connection).get(&connection).cloned()?;
        Some(ServerLine { connection, origin: self.origin })
    }

    /// Ends connections of overdue requests, for ever.
    pub(super) async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            for part in &self.parts {
                for connection in part.lock().unwrap_or_else(PoisonError::into_inner).values() {
                    let until = connection.until.load(Ordering::Acquire);
                    // If another request has taken the connection since, its end differs, and `clear` fails.
                    let over = until != 0 && until < now && ConnectionHold::clear(connection, until);
                    if over && let Err(error) = shutdown(&connection.socket, Shutdown::Both) {
                        tracing::debug!(%error, "an overdue connection had already ended");
                    }
                }
            }
        }
    }
}

impl ServerLine {
    /// Sets the end of the request that the connection serves now.
    pub(crate) fn hold(&self, until: Instant) -> ConnectionHold {
        let (connection, until) = (Arc::clone(&self.connection), nanoseconds(self.origin, until));
        // A connection serves one request at a time, so this only replaces an end that has passed.
        connection.until.store(until, Ordering::Release);
        ConnectionHold { connection, origin: self.origin, until }
    }

    /// Whether the server has sent nothing that is unread, and is there. The system is asked, because the runtime may
    /// not have noticed yet.
    pub(super) fn is_silent(&self) -> bool {
        let mut unread = [0; 1];
        let looked = recv(&self.connection.socket, &mut unread[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(looked, Err(Errno::AGAIN))
    }

    /// Waits until the server takes more bytes, has answered, or is gone: until pingora has something to do.
    /// Returns at once if that holds already, without any registration.
    ///
    /// # Errors
    /// The system has no room for one more registration.
    pub(crate) async fn is_taken(&self) -> io::Result<()> {
        if self.has_news()? {
            return Ok(());
        }
        // The handle itself is registered: a copy would be one more descriptor for each upload that waits. pingora
        // gives a connection to one request at a time, so it is registered once.
        let interest = Interest::READABLE | Interest::WRITABLE;
        #[expect(deprecated, reason = "the one that replaces it is unsafe; this descriptor outlives the registration")]
        let registered = AsyncFd::with_interest(self.connection.socket.as_fd(), interest)?;
        registered.ready(interest).await.map(drop)
    }

    fn has_news(&self) -> io::Result<bool> {
        let mut asked = [PollFd::new(&self.connection.socket, PollFlags::IN | PollFlags::OUT)];
        Ok(poll(&mut asked, Some(&Timespec::default()))? > 0)
    }

    /// Whether an answer on this connection has named its exchange.
    pub(crate) fn names(&self) -> bool {
        self.connection.names.load(Ordering::Acquire)
    }

    /// Notes that an answer has named its exchange.
    pub(crate) fn note_names(&self) {
        self.connection.names.store(true, Ordering::Release);
    }

    /// Ends the connection while this request still owns it, so that pingora finds it closed and does not keep it.
    pub(crate) fn retire(&self) {
        // Shut down and not closed: pingora still owns its descriptor.
        if let Err(error) = shutdown(&self.connection.socket, Shutdown::Both) {
            tracing::debug!(%error, "a connection to be closed had already ended");
        }
    }
}

impl ConnectionHold {
    /// Moves the end, unless the connection was ended already.
    pub(crate) fn move_to(&mut self, until: Instant) {
        let until = nanoseconds(self.origin, until);
        let moved = self.connection.until.compare_exchange(self.until, until, Ordering::AcqRel, Ordering::Relaxed);
        if moved.is_ok() {
            self.until = until;
        }
    }

    fn clear(connection: &ServerConnection, until: u64) -> bool {
        // Only the end that the caller knows: another request may have set its own since.
        connection.until.compare_exchange(until, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Drop for ConnectionHold {
    fn drop(&mut self) {
        Self::clear(&self.connection, self.until);
    }
}

/// Connects, and keeps a second handle while the connection lives.
pub(super) struct ServerConnector(pub(super) Arc<ServerConnections>);

#[async_trait]
impl L4Connect for ServerConnector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let failed = |error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => ErrorType::ConnectNoRoute,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, "connecting to a server", error)
        };
        match address {
            SocketAddr::Inet(address) => {
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                self.track(stream).map_err(failed)
            }
            SocketAddr::Unix(address) => {
                let path = address.as_pathname().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                self.track(stream).map_err(failed)
            }
        }
    }
}

impl ServerConnector {
    fn track<S: AsFd + AsRawFd + Into<Stream>>(&self, stream: S) -> io::Result<Stream> {
        let (number, socket) = (stream.as_raw_fd(), stream.as_fd().try_clone_to_owned()?);
        let mut stream: Stream = stream.into();
        let tracked = TrackedSocket { number, connections: Arc::clone(&self.0) };
        let connection = Arc::new(ServerConnection { socket, until: AtomicU64::new(0), names: AtomicBool::new(false) });
        // The number is safe as a key: pingora reports the disconnect before the descriptor is closed.
        self.0.part(number).insert(number, connection);
        stream.tracer = Some(Tracer(Box::new(tracked)));
        Ok(stream)
    }
}

impl fmt::Debug for ServerConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

/// Removes the second handle when pingora drops a connection, just before its descriptor can be reused.
#[derive(Clone)]
struct TrackedSocket {
    number: RawFd,
    connections: Arc<ServerConnections>,
}

impl Tracing for TrackedSocket {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.connections.part(self.number).remove(&self.number);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(self.clone())
    }
}

impl fmt::Debug for TrackedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tracked({})", self.number)
    }
}
