//! The connections of the HIS, and which of them goes when there are too many.
//!
//! The one rule: whoever is served goes on. Where there is no room for another connection, the one that has been silent for
//! the longest is ended, as its caller would be after a while; and until one has ended, none is accepted: those that come wait
//! in the system's queue. Nothing is promised to a silent one, and its caller opens another.
//!
//! Called by `listen`.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::heads::HeadSilence;

/// How long a connection is silent before it has to make room: a caller has just been answered, and asks on.
const SILENT: Duration = Duration::from_millis(200);
/// How often the silent ones are looked at while there is no room.
const LOOK: Duration = Duration::from_millis(50);

/// All connections that are open.
pub(super) struct ConnectionSeats {
    /// None: without a bound.
    most: Option<usize>,
    /// It owns them, and ends them when it is dropped.
    connections: JoinSet<u64>,
    seated: HashMap<u64, SeatedStream>,
    next: u64,
    is_full: bool,
}

/// One connection that is open.
#[derive(Clone, Default)]
pub(super) struct SeatedStream {
    /// Since when it has been silent.
    pub(super) silence: Arc<HeadSilence>,
    /// Told once it is to go.
    pub(super) leave: Arc<Notify>,
}

impl ConnectionSeats {
    pub(super) fn new(most: Option<usize>) -> Self {
        Self { most, connections: JoinSet::new(), seated: HashMap::new(), next: 0, is_full: false }
    }

    /// Holds a connection until it has ended.
    pub(super) fn hold<F>(&mut self, converse: impl FnOnce(SeatedStream) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (id, seated) = (self.next, SeatedStream::default());
        self.next += 1;
        let conversation = converse(seated.clone());
        self.seated.insert(id, seated);
        self.connections.spawn(async move {
            conversation.await;
            id
        });
    }

    /// Waits until one has ended; for ever where there is none.
    pub(super) async fn ended(&mut self) {
        match self.connections.join_next().await {
            Some(Ok(id)) => drop(self.seated.remove(&id)),
            // One that panicked has told no number.
            Some(Err(_)) => self.seated.retain(|_, seated| Arc::strong_count(&seated.leave) > 1),
            None => std::future::pending().await,
        }
    }

    /// Waits until there is room for another one, and sees to it that there is.
    pub(super) async fn room(&mut self) {
        while self.most.is_some_and(|most| self.seated.len() >= most) {
            if !self.is_full {
                self.is_full = true;
                tracing::warn!(
                    connections = self.seated.len(),
                    "there is no room for more connections (`his.connections`, or the limit of open files): silent ones are \
                     ended, and further ones wait"
                );
            }
            self.make_room();
            let _ = tokio::time::timeout(LOOK, self.ended()).await;
        }
        if self.is_full && self.most.is_none_or(|most| self.seated.len() < most - most / 4) {
            self.is_full = false;
            tracing::info!("there is room for connections again");
        }
    }

    /// Lets the one go that has been silent for the longest.
    pub(super) fn make_room(&mut self) {
        let silent = |seated: &SeatedStream| seated.silence.since().filter(|since| since.elapsed() > SILENT);
        let longest: Option<(Instant, &SeatedStream)> =
            self.seated.values().filter_map(|seated| Some((silent(seated)?, seated))).min_by_key(|(since, _)| *since);
        if let Some((_, seated)) = longest {
            seated.leave.notify_one();
        }
    }

    /// Waits until all have ended.
    pub(super) async fn all_ended(mut self) {
        while self.connections.join_next().await.is_some() {}
    }
}
