//! The idle connections of one thread to servers.
//!
//! The one rule: a connection serves another request only if nothing has come on it since its last answer. What came
//! would be read as the answer to the next request, so the system itself is asked each time.
//!
//! Reads use it ([`crate::gateway::exchange`]). pingora's own pool watches each idle connection by a task, which is
//! made and woken once for each request.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use pingora_core::Result;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::protocols::Stream;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, ReadBuf};

use super::ServerLine;

/// How often connections that were idle for too long, or that the server has closed, are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Connects to servers, and keeps what can be used again.
pub(crate) struct KeptConnections {
    options: ConnectorOptions,
    /// Opened when first needed: it loads the system's authorities.
    connector: OnceLock<TransportConnector>,
    idle: Mutex<IdleConnections>,
    is_swept: AtomicBool,
}

#[derive(Default)]
struct IdleConnections {
    /// By the key of the peer. The last one was used last, and is used next.
    of_peer: HashMap<u64, Vec<IdleConnection>>,
    count: usize,
}

/// A connection to a server, with its second handle.
pub(crate) struct KeptConnection {
    pub(crate) stream: Stream,
    pub(crate) line: Option<ServerLine>,
}

struct IdleConnection {
    kept: KeptConnection,
    since: Instant,
    until: Option<Instant>,
}

impl KeptConnections {
    /// None yet; at most as many as the options name are kept.
    pub(crate) fn new(options: ConnectorOptions) -> Arc<Self> {
        let (connector, idle, is_swept) = Default::default();
        Arc::new(Self { options, connector, idle, is_swept })
    }

    /// Connects anew.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub(crate) async fn connect(&self, peer: &HttpPeer) -> Result<Stream> {
        let connector = self.connector.get_or_init(|| TransportConnector::new(Some(self.options.clone())));
        // Boxed: requests on a kept connection, which nearly all are, have no room for this.
        Box::pin(connector.new_stream(peer)).await
    }

    /// A connection to this peer that was used before, if one can be used again.
    pub(crate) fn take(&self, key: u64) -> Option<KeptConnection> {
        loop {
            let idle = self.idle().take_last(key)?;
            if let Some(kept) = idle.usable(Instant::now()) {
                return Some(kept);
            }
        }
    }

    /// Keeps a connection after an answer that has ended, for so long; for ever if there is no limit.
    pub(crate) fn put(self: &Arc<Self>, key: u64, kept: KeptConnection, idle_timeout: Option<Duration>) {
        let since = Instant::now();
        let idle = IdleConnection { kept, since, until: idle_timeout.map(|time| since + time) };
        let surplus = {
            let mut all = self.idle();
            all.of_peer.entry(key).or_default().push(idle);
            all.count += 1;
            if all.count > self.options.keepalive_pool_size { all.take_oldest() } else { None }
        };
        // Closed without the lock.
        drop(surplus);
        if !self.is_swept.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleConnections {
    fn take_last(&mut self, key: u64) -> Option<IdleConnection> {
        let taken = self.of_peer.get_mut(&key)?.pop()?;
        self.count -= 1;
        Some(taken)
    }

    /// The one that has been idle for longest.
    fn take_oldest(&mut self) -> Option<IdleConnection> {
        let oldest = self.of_peer.values_mut().filter(|of_peer| !of_peer.is_empty());
        let oldest = oldest.min_by_key(|of_peer| of_peer.first().map(|first| first.since))?;
        self.count -= 1;
        Some(oldest.remove(0))
    }

    /// All connections that cannot be used again.
    fn take_ended(&mut self, now: Instant) -> Vec<IdleConnection> {
        let mut ended = Vec::new();
        for of_peer in self.of_peer.values_mut() {
            ended.extend(of_peer.extract_if(.., |idle| idle.has_ended(now)));
        }
        self.of_peer.retain(|_, of_peer| !of_peer.is_empty());
        self.count -= ended.len();
        ended
    }
}

impl IdleConnection {
    fn has_ended(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until) || !self.kept.line.as_ref().is_some_and(ServerLine::is_silent)
    }

    /// The connection, unless its time is up, or the server has sent anything or closed it.
    fn usable(mut self, now: Instant) -> Option<KeptConnection> {
        if !self.has_ended(now) {
            return Some(self.kept);
        }
        let is_late = self.until.is_some_and(|until| now >= until);
        // TLS servers may send tickets for later sessions, which are not for the application (RFC 8446, 4.6.1).
        let may_be_tickets = !is_late && self.kept.stream.get_ssl_digest().is_some();
        (may_be_tickets && self.kept.is_silent_within() && self.kept.line.as_ref().is_some_and(ServerLine::is_silent))
            .then_some(self.kept)
    }
}

impl KeptConnection {
    /// Whether reading gives neither bytes nor the end.
    fn is_silent_within(&mut self) -> bool {
        let mut unread = [0; 1];
        let read = poll_fn(|cx| {
            let mut unread = ReadBuf::new(&mut unread);
            Poll::Ready(Pin::new(&mut self.stream).poll_read(cx, &mut unread).is_pending())
        });
        read.now_or_never().unwrap_or_default()
    }
}

/// Closes connections that cannot be used again, while the pool is there.
async fn sweep(pool: Weak<KeptConnections>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let ended = pool.idle().take_ended(Instant::now());
        drop(ended);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use pingora_core::connectors::L4Connect;
    use pingora_core::protocols::UniqueID;
    use pingora_core::protocols::l4::socket::SocketAddr;

    use super::super::connections::{ServerConnections, ServerConnector};
    use super::*;

    struct Place {
        pool: Arc<KeptConnections>,
        connections: Arc<ServerConnections>,
        listener: TcpListener,
    }

    impl Place {
        fn new(most: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let pool = KeptConnections::new(ConnectorOptions::new(most));
            Self { pool, connections: ServerConnections::new(), listener }
        }

        /// A connection with its number, and the server's side of it.
        async fn connect(&self) -> (KeptConnection, i32, TcpStream) {
            let address = SocketAddr::Inet(self.listener.local_addr().unwrap());
            let stream = ServerConnector(Arc::clone(&self.connections)).connect(&address).await.unwrap();
            let (number, server) = (stream.id(), self.listener.accept().unwrap().0);
            let line = self.connections.line(number);
            (KeptConnection { stream: Box::new(stream), line }, number, server)
        }

        fn taken(&self, key: u64) -> Option<i32> {
            self.pool.take(key).map(|kept| kept.stream.id())
        }
    }

    #[tokio::test]
    async fn a_connection_is_used_again_if_the_server_has_been_silent_on_it() {
        let place = Place::new(8);
        let (kept, number, server) = place.connect().await;
        place.pool.put(1, kept, None);
        assert_eq!(place.taken(2), None, "another peer has none");
        let kept = place.pool.take(1).unwrap();
        assert_eq!(kept.stream.id(), number);
        assert_eq!(place.taken(1), None, "one at a time");
        // The runtime has had no turn to notice either of these.
        place.pool.put(1, kept, None);
        (&server).write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        assert_eq!(place.taken(1), None, "an answer that nobody asked for");
        let (kept, _, server) = place.connect().await;
        place.pool.put(1, kept, None);
        drop(server);
        assert_eq!(place.taken(1), None, "the server has closed it");
        let (kept, _, _server) = place.connect().await;
        place.pool.put(1, kept, Some(Duration::ZERO));
        assert_eq!(place.taken(1), None, "its time is up");
        assert_eq!(place.pool.idle().count, 0);
    }

    #[tokio::test]
    async fn the_last_one_is_used_next_and_over_the_bound_the_oldest_is_closed() {
        let place = Place::new(2);
        let (first, _, mut server) = place.connect().await;
        let (second, number, _second) = place.connect().await;
        let (third, last, _third) = place.connect().await;
        for (key, kept) in [(1, first), (2, second), (1, third)] {
            place.pool.put(key, kept, None);
        }
        assert_eq!(std::io::Read::read(&mut server, &mut [0; 1]).unwrap(), 0, "closed");
        assert_eq!((place.taken(1), place.taken(1), place.taken(2)), (Some(last), None, Some(number)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_used_again_is_closed_though_nobody_asks() {
        let place = Place::new(8);
        let (kept, _, server) = place.connect().await;
        let (other, number, _other) = place.connect().await;
        place.pool.put(1, kept, None);
        place.pool.put(1, other, None);
        drop(server);
        while place.pool.idle().count > 1 {
            tokio::time::sleep(SWEEP_EVERY).await;
        }
        assert_eq!(place.taken(1), Some(number));
    }
}
