//! The connections of the HIS, and the choice of one to close when there are too many.
//!
//! The one rule: a request in service is never interrupted. When the bound is reached, the connection that has
//! been silent for longest is closed, as its idle limit would do later. Until one has ended, no connection is
//! accepted: newcomers wait in the queue of the operating system. A silent connection has no request to lose,
//! and its gateway opens another.
//!
//! Called by `listen`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::head_timeout::HeadSilence;
use fedgate_base::workers::WorkerPlace;

/// A connection may be closed for room after this much silence. Shorter gaps are normal between two requests.
const SILENT: Duration = Duration::from_millis(200);
/// How often silent connections are looked for while there is no room.
const LOOK: Duration = Duration::from_millis(50);

/// All open connections.
pub(super) struct OpenConnections {
    /// `None`: no bound.
    most: Option<usize>,
    /// Owns the connections: dropping it ends them.
    connections: JoinSet<u64>,
    open: HashMap<u64, OpenConnection>,
    next: u64,
    is_full: bool,
}

/// One open connection.
#[derive(Clone, Default)]
pub(super) struct OpenConnection {
    /// Since when it has been silent.
    pub(super) silence: Arc<HeadSilence>,
    /// Notified when the connection has to close.
    pub(super) leave: Arc<Notify>,
}

impl OpenConnections {
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { most, connections: JoinSet::new(), open: HashMap::new(), next: 0, is_full: false }
    }

    /// Holds a connection until it has ended. It is served at its place, which it keeps.
    pub(super) fn hold<F>(&mut self, place: WorkerPlace, converse: impl FnOnce(OpenConnection) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(runtime) = place.runtime().cloned() else { return };
        let (id, connection) = (self.next, OpenConnection::default());
        self.next += 1;
        let conversation = converse(connection.clone());
        self.open.insert(id, connection);
        let serve = async move {
            conversation.await;
            drop(place);
            id
        };
        self.connections.spawn_on(serve, &runtime);
    }

    /// Waits until a connection has ended; for ever if there is none.
    pub(super) async fn ended(&mut self) {
        match self.connections.join_next().await {
            Some(Ok(id)) => drop(self.open.remove(&id)),
            // A panicked task returns no id, but it has dropped its handle of the connection.
            Some(Err(_)) => self.open.retain(|_, connection| Arc::strong_count(&connection.leave) > 1),
            None => std::future::pending().await,
        }
    }

    /// Waits until there is room for another connection, and makes room where it can.
    pub(super) async fn room(&mut self) {
        while self.most.is_some_and(|most| self.open.len() >= most) {
            if !self.is_full {
                self.is_full = true;
                tracing::warn!(
                    connections = self.open.len(),
                    "there is no room for more connections (`his.connections`, or the limit of open files): silent \
                     ones are ended, and further ones wait"
                );
            }
            self.make_room();
            let _ = tokio::time::timeout(LOOK, self.ended()).await;
        }
        // A quarter must be free first, so that a number near the bound does not log with each connection.
        if self.is_full && self.most.is_none_or(|most| self.open.len() < most - most / 4) {
            self.is_full = false;
            tracing::info!("there is room for connections again");
        }
    }

    /// Closes the connection that has been silent for longest.
    pub(super) fn make_room(&mut self) {
        let silent = |connection: &OpenConnection| connection.silence.since().filter(|since| since.elapsed() > SILENT);
        let longest: Option<(Instant, &OpenConnection)> = self
            .open
            .values()
            .filter_map(|connection| Some((silent(connection)?, connection)))
            .min_by_key(|(since, _)| *since);
        if let Some((_, connection)) = longest {
            connection.leave.notify_one();
        }
    }

    /// Waits until all connections have ended.
    pub(super) async fn all_ended(mut self) {
        while self.connections.join_next().await.is_some() {}
    }
}
