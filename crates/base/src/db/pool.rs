//! The pool: how many sessions there are with one server, and which of them a request gets.
//!
//! The one rule: there are never more sessions than the pool's size, whoever asks. A request gets an idle session that was
//! opened on its own runtime, then a new one, and only then one of another runtime: the task of a session runs where the
//! session was opened, and each answer that it passes to another thread wakes that thread. A session that another runtime
//! has left idle for long makes room for a new one.
//!
//! [`session_pool`](super::session_pool) calls it. Knows no statements.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::ClientWrapper;
use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::route::ServerRoute;
use super::{DbError, NoTurn};

/// How long a request waits for a free session.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a request looks for an idle session while the server gives no further one.
const LOOK: Duration = Duration::from_millis(5);
/// A session that its own runtime has not used for so long is replaced by one of a runtime that lacks one.
const LEFT: Duration = Duration::from_secs(1);

/// The sessions with one server; clones share them.
#[derive(Clone)]
pub(super) struct ClientPool(Arc<PooledClients>);

struct PooledClients {
    route: Arc<ServerRoute>,
    most: usize,
    /// One permit for each session that may be in use.
    turns: Arc<Semaphore>,
    kept: Mutex<KeptClients>,
}

#[derive(Default)]
struct KeptClients {
    /// How many sessions there are: idle, in use, or being opened.
    count: usize,
    /// How many of them are open.
    open: usize,
    /// The last one was used last.
    idle: Vec<IdleClient>,
    /// When the server last refused a further session.
    refused: Option<Instant>,
}

struct IdleClient {
    client: ClientWrapper,
    home: Id,
    since: Instant,
}

/// A session in use, or the place for one that is being opened. Dropping it returns it to the pool.
pub(super) struct PooledClient {
    /// None while it is being opened, and after it was closed.
    client: Option<ClientWrapper>,
    /// Whether it is counted as open.
    is_open: bool,
    home: Id,
    pool: Arc<PooledClients>,
    // Dropped last, so that whoever gets it next finds the session.
    _turn: OwnedSemaphorePermit,
}

impl ClientPool {
    pub(super) fn new(route: Arc<ServerRoute>, most: usize) -> Self {
        let turns = Arc::new(Semaphore::new(most));
        Self(Arc::new(PooledClients { route, most, turns, kept: Mutex::default() }))
    }

    pub(super) fn route(&self) -> &Arc<ServerRoute> {
        &self.0.route
    }

    /// The most sessions.
    pub(super) fn most(&self) -> usize {
        self.0.most
    }

    /// Whether a session is free, or may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.0.turns.available_permits() > 0
    }

    /// Closes the sessions that nobody has used for so long.
    pub(super) fn give_back(&self, idle: Duration) {
        let mut kept = self.0.kept();
        let before = kept.idle.len();
        kept.idle.retain(|client| client.since.elapsed() < idle);
        let closed = before - kept.idle.len();
        kept.count -= closed;
        kept.open -= closed;
    }

    /// A session, as soon as one is free. Must be called within a runtime.
    ///
    /// # Errors
    /// [`NoTurn::OfAll`]: none became free in time. Otherwise no session can be opened.
    pub(super) async fn get(&self) -> Result<PooledClient, DbError> {
        let turns = &self.0.turns;
        let turn = match Arc::clone(turns).try_acquire_owned() {
            Ok(turn) => turn,
            Err(_) => match timeout(WAIT_TIMEOUT, Arc::clone(turns).acquire_owned()).await {
                Ok(Ok(turn)) => turn,
                Ok(Err(_)) | Err(_) => return Err(NoTurn::OfAll.into()),
            },
        };
        let here = Handle::current().id();
        if let Some(IdleClient { client, home, .. }) = self.0.take(here) {
            let pool = Arc::clone(&self.0);
            return Ok(PooledClient { client: Some(client), is_open: true, home, pool, _turn: turn });
        }
        // Holds its place in the count from here on, also if the caller goes away meanwhile.
        let pool = Arc::clone(&self.0);
        let mut place = PooledClient { client: None, is_open: false, home: here, pool, _turn: turn };
        // Boxed: connecting takes much more room than asking, and otherwise every request that may have to connect
        // would carry it.
        match Box::pin(self.0.route.open()).await {
            Ok(client) => {
                place.pool.kept().open += 1;
                (place.client, place.is_open) = (Some(client), true);
            }
            Err(error) if error.is_without_connections() => Box::pin(place.wait_for_idle(error)).await?,
            Err(error) => return Err(error),
        }
        Ok(place)
    }
}

impl PooledClients {
    fn kept(&self) -> MutexGuard<'_, KeptClients> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle session for a caller who has a turn. None if a new one has to be opened, which is counted already.
    fn take(&self, here: Id) -> Option<IdleClient> {
        let mut kept = self.kept();
        loop {
            let near = kept.idle.iter().rposition(|idle| idle.home == here);
            // INVARIANT: who has a turn finds an idle session if there are as many as there may be, because the others
            // who have turns use one session each.
            let found = match near {
                Some(near) => kept.idle.remove(near),
                None if kept.count < self.most && !kept.is_refused() || kept.idle.is_empty() => {
                    kept.count += 1;
                    return None;
                }
                // The one that was used longest ago.
                None => kept.idle.remove(0),
            };
            let is_left = found.home != here && found.since.elapsed() > LEFT;
            if !is_left && !found.client.is_closed() {
                return Some(found);
            }
            // It has ended, such as when its server is no longer the one that is followed, or makes room for one here.
            kept.count -= 1;
            kept.open -= 1;
        }
    }
}

impl KeptClients {
    /// Whether the server gave no further session a moment ago: its limit, or the role's, is lower than the pool's size.
    fn is_refused(&self) -> bool {
        self.refused.is_some_and(|at| at.elapsed() < LEFT)
    }
}

impl PooledClient {
    /// Takes the next session that becomes idle, on whatever runtime, because the server gives no further one.
    ///
    /// # Errors
    /// The server's, if none became idle in time, or there is none.
    async fn wait_for_idle(&mut self, error: DbError) -> Result<(), DbError> {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        self.pool.kept().refused = Some(Instant::now());
        loop {
            {
                let mut kept = self.pool.kept();
                while !kept.idle.is_empty() {
                    let found = kept.idle.remove(0);
                    // This place is counted, and was that session.
                    kept.count -= 1;
                    if !found.client.is_closed() {
                        (self.client, self.is_open, self.home) = (Some(found.client), true, found.home);
                        return Ok(());
                    }
                    kept.open -= 1;
                }
                if kept.open == 0 {
                    return Err(error);
                }
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Closes the session.
    pub(super) fn close(mut self) {
        drop(self.client.take());
    }

    /// The session.
    ///
    /// # Errors
    /// None in practice: a session that callers hold is open, or was.
    pub(super) fn client(&self) -> Result<&ClientWrapper, DbError> {
        self.client.as_ref().ok_or_else(closed)
    }

    /// As [`PooledClient::client`], to begin a transaction.
    ///
    /// # Errors
    /// As there.
    pub(super) fn client_mut(&mut self) -> Result<&mut ClientWrapper, DbError> {
        self.client.as_mut().ok_or_else(closed)
    }

    /// Whether the session has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.client.as_ref().is_none_or(|client| client.is_closed())
    }
}

/// The error of a session that was closed.
pub(super) fn closed() -> DbError {
    DbError::Unavailable("the session was closed".into())
}

impl Drop for PooledClient {
    fn drop(&mut self) {
        let mut kept = self.pool.kept();
        match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => kept.idle.push(IdleClient { client, home: self.home, since: Instant::now() }),
            None => {
                kept.count -= 1;
                kept.open -= usize::from(self.is_open);
            }
        }
    }
}
