//! Shares of the connections: no caller, and no number of waiting writes, can keep others from being served.
//!
//! The one rule: each use of a connection holds a [`StoreTurn`] for as long as the database works, also after its
//! request has gone. A caller has a share of the connections, and all writes together have one. A caller's writes
//! have the same fraction of that caller's share. So a locked row that collects writes leaves connections for
//! reads, also for reads of the same account: a node sends the requests of all its patients with one account.
//!
//! Writes to a file use no connection of reads: they wait in a queue, and are committed together. There the shares of
//! writes are of the queue. On PostgreSQL, new pages wait together for a connection. Their places are shared in the same way,
//! and a connection that stores several is one of those of all writes, but of no caller.
//!
//! Called by the stores of both databases. Knows no SQL.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use fedgate_base::config::SharesConfig;
use fedgate_base::db::{DbError, NoTurn};

/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// With this many callers, unused shares are dropped from time to time.
const FEW_CALLERS: usize = 64;

/// The shares of all callers.
pub(super) struct ConnectionShares {
    writes: Arc<Semaphore>,
    /// The places of pages that wait to be stored together.
    places: Arc<Semaphore>,
    of_caller: usize,
    places_of_caller: usize,
    writes_of_caller: usize,
    /// Whether a write takes a connection that reads could use.
    writes_connect: bool,
    /// How many replicas there are. Each has as many connections, and a caller the same part of them.
    replicas: usize,
    callers: Mutex<CallerShares>,
    lanes: AtomicU64,
}

#[derive(Default)]
struct CallerShares {
    known: HashMap<String, Weak<CallerShare>>,
    /// The number of known callers at which unused ones are next dropped.
    look_at: usize,
}

/// The share of one caller.
struct CallerShare {
    /// What tells the caller's writes from those of others; not 0.
    lane: u64,
    all: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    places: Arc<Semaphore>,
    /// The share of the connections of each replica.
    replicas: Box<[Arc<Semaphore>]>,
}

/// The source of a store's turns: from one caller's share, or without a limit, as an import does.
#[derive(Clone, Default)]
pub(super) struct StoreTurns(Option<(Arc<ConnectionShares>, Arc<CallerShare>)>);

/// The right to one connection. Dropping it returns the right.
#[derive(Default)]
pub(super) struct StoreTurn {
    _permits: Vec<OwnedSemaphorePermit>,
    /// INVARIANT: a held turn keeps its caller's share alive, so that no caller gets a second share.
    _share: Option<Arc<CallerShare>>,
}

impl ConnectionShares {
    /// Shares of `connections`, of the places for pages that wait to be stored together, and of as many connections with
    /// each replica.
    pub(super) fn new(connections: usize, places: usize, replicas: usize, config: &SharesConfig) -> Arc<Self> {
        let of_caller = of_caller(connections, config);
        let writes = part(connections, config.write_percent);
        let places = (places, part(places, config.caller_percent));
        Self::with(of_caller, (writes, part(of_caller, config.write_percent)), places, true, replicas)
    }

    /// Shares of the connections of a file, which are for reads, and of the places for writes that wait.
    pub(super) fn of_file(connections: usize, places: usize, config: &SharesConfig) -> Arc<Self> {
        let places = (places, part(places, config.caller_percent));
        Self::with(of_caller(connections, config), places, places, false, 0)
    }

    /// The second number of each pair is the share of one caller.
    fn with(
        of_caller: usize,
        writes: (usize, usize),
        places: (usize, usize),
        writes_connect: bool,
        replicas: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            writes: Arc::new(Semaphore::new(writes.0)),
            places: Arc::new(Semaphore::new(places.0)),
            of_caller,
            writes_of_caller: writes.1,
            places_of_caller: places.1,
            writes_connect,
            replicas,
            callers: Mutex::default(),
            lanes: AtomicU64::new(1),
        })
    }

    /// The turns of one caller.
    pub(super) fn of(self: &Arc<Self>, account: &str) -> StoreTurns {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = callers.known.get(account).and_then(Weak::upgrade);
        let share = known.unwrap_or_else(|| {
            let share = Arc::new(CallerShare {
                lane: self.lanes.fetch_add(1, Ordering::Relaxed),
                all: Arc::new(Semaphore::new(self.of_caller)),
                writes: Arc::new(Semaphore::new(self.writes_of_caller)),
                places: Arc::new(Semaphore::new(self.places_of_caller)),
                replicas: (0..self.replicas).map(|_| Arc::new(Semaphore::new(self.of_caller))).collect(),
            });
            callers.remember(account, &share);
            share
        });
        StoreTurns(Some((Arc::clone(self), share)))
    }
}

impl CallerShares {
    fn remember(&mut self, account: &str, share: &Arc<CallerShare>) {
        if self.known.len() >= self.look_at {
            // Doubling the mark keeps the cost of this scan constant for each new caller.
            self.known.retain(|_, share| share.strong_count() > 0);
            self.look_at = (self.known.len() * 2).max(FEW_CALLERS);
        }
        self.known.insert(account.to_owned(), Arc::downgrade(share));
    }
}

/// The connections of one caller. At least 2: with one, a write that waits for a lock would also stop that caller's
/// reads.
fn of_caller(connections: usize, config: &SharesConfig) -> usize {
    part(connections, config.caller_percent).max(2).min(connections)
}

/// A part of `whole`, at least 1.
fn part(whole: usize, percent: u8) -> usize {
    (whole * usize::from(percent) / 100).max(1)
}

impl StoreTurns {
    /// A turn to read.
    ///
    /// # Errors
    /// [`NoTurn`]: the caller's share is in use.
    pub(super) async fn read(&self) -> Result<StoreTurn, DbError> {
        let Some((_, caller)) = &self.0 else { return Ok(StoreTurn::default()) };
        let all = permit(&caller.all, NoTurn::OfCaller).await?;
        Ok(StoreTurn { _permits: vec![all], _share: Some(Arc::clone(caller)) })
    }

    /// A turn to read from a replica, by its number from 0, if one is free. Nobody waits for one: the primary answers.
    pub(super) fn replica(&self, number: usize) -> Option<StoreTurn> {
        let Some((_, caller)) = &self.0 else { return Some(StoreTurn::default()) };
        let permit = Arc::clone(caller.replicas.get(number)?).try_acquire_owned().ok()?;
        Some(StoreTurn { _permits: vec![permit], _share: Some(Arc::clone(caller)) })
    }

    /// The lane of the caller's writes; 0 without a caller.
    pub(super) fn lane(&self) -> u64 {
        self.0.as_ref().map_or(0, |(_, caller)| caller.lane)
    }

    /// A place among the pages that are stored together; none for a command, which has no callers beside it.
    ///
    /// # Errors
    /// [`NoTurn`]: the caller's places or those of all are in use.
    pub(super) async fn place(&self) -> Result<Option<StoreTurn>, DbError> {
        let Some((shares, caller)) = &self.0 else { return Ok(None) };
        let of_caller = permit(&caller.places, NoTurn::OfCaller).await?;
        let of_all = permit(&shares.places, NoTurn::OfWrites).await?;
        Ok(Some(StoreTurn { _permits: vec![of_caller, of_all], _share: Some(Arc::clone(caller)) }))
    }

    /// A turn to write for several callers together.
    ///
    /// # Errors
    /// [`NoTurn`]: the share of writes is in use.
    pub(super) async fn write_together(&self) -> Result<StoreTurn, DbError> {
        let Some((shares, _)) = &self.0 else { return Ok(StoreTurn::default()) };
        Ok(StoreTurn { _permits: vec![permit(&shares.writes, NoTurn::OfWrites).await?], _share: None })
    }

    /// A turn to write.
    ///
    /// # Errors
    /// [`NoTurn`]: the caller's share or the share of writes is in use.
    pub(super) async fn write(&self) -> Result<StoreTurn, DbError> {
        let Some((shares, caller)) = &self.0 else { return Ok(StoreTurn::default()) };
        // The order matters. While a caller waits for its own share, it holds nothing of others. While it waits for
        // the share of writes, its own writes are bounded, so its reads continue.
        let mut permits = vec![permit(&caller.writes, NoTurn::OfCaller).await?];
        if shares.writes_connect {
            permits.push(permit(&caller.all, NoTurn::OfCaller).await?);
        }
        permits.push(permit(&shares.writes, NoTurn::OfWrites).await?);
        Ok(StoreTurn { _permits: permits, _share: Some(Arc::clone(caller)) })
    }
}

async fn permit(semaphore: &Arc<Semaphore>, or: NoTurn) -> Result<OwnedSemaphorePermit, DbError> {
    match timeout(TURN_TIMEOUT, Arc::clone(semaphore).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(or.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(connections: usize) -> Arc<ConnectionShares> {
        ConnectionShares::new(connections, 64, 1, &SharesConfig { caller_percent: 50, write_percent: 75 })
    }

    async fn as_many<F: Future<Output = Result<StoreTurn, DbError>>>(mut turn: impl FnMut() -> F) -> Vec<StoreTurn> {
        let mut turns = vec![];
        while let Ok(got) = turn().await {
            turns.push(got);
        }
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_never_has_all_connections_and_writes_never_all_of_a_callers() {
        // connections: one caller's, one caller's writes, all writes
        for (connections, own, own_writes, writes) in [(16, 8, 6, 12), (4, 2, 1, 3), (2, 2, 1, 1), (1, 1, 1, 1)] {
            let shares = shares(connections);
            let (ana, bob) = (shares.of("ANA"), shares.of("BOB"));
            let written = as_many(|| ana.write()).await;
            let read = as_many(|| ana.read()).await;
            assert_eq!((written.len(), read.len()), (own_writes.min(writes), own - own_writes.min(writes)));
            let others = as_many(|| bob.write()).await;
            assert_eq!(others.len(), own_writes.min(writes - written.len()), "{connections} connections");
            drop((written, others));
            assert_eq!(as_many(|| bob.read()).await.len(), own);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn writes_to_a_file_take_no_connection_of_reads_and_one_caller_has_a_part_of_their_places() {
        let shares = ConnectionShares::of_file(4, 64, &SharesConfig { caller_percent: 50, write_percent: 75 });
        let (ana, bob) = (shares.of("ANA"), shares.of("BOB"));
        assert_ne!(ana.lane(), bob.lane());
        assert_eq!(ana.lane(), shares.of("ANA").lane());
        let written = as_many(|| ana.write()).await;
        let read = as_many(|| ana.read()).await;
        assert_eq!((written.len(), read.len()), (32, 2));
        let others = as_many(|| bob.write()).await;
        assert_eq!(others.len(), 32);
        assert!(shares.of("EVA").write().await.is_err(), "the places are taken");
        drop(others);
        shares.of("EVA").write().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn pages_that_wait_take_no_connection_and_those_that_are_stored_together_one_of_all_writes() {
        let shares = shares(16);
        let (ana, bob) = (shares.of("ANA"), shares.of("BOB"));
        let place = async |turns: &StoreTurns| Ok(turns.place().await?.unwrap());
        let waiting = as_many(|| place(&ana)).await;
        let written = as_many(|| ana.write()).await;
        assert_eq!((waiting.len(), written.len()), (32, 6));
        assert_eq!(as_many(|| place(&bob)).await.len(), 32);
        assert_eq!(as_many(|| bob.write_together()).await.len(), 6);
        drop(waiting);
        place(&ana).await.unwrap();
        assert!(StoreTurns::default().place().await.unwrap().is_none(), "a command stores alone");
    }

    #[tokio::test(start_paused = true)]
    async fn one_caller_has_a_part_of_the_connections_of_each_replica_and_waits_for_none() {
        let shares = shares(4);
        let (ana, bob) = (shares.of("ANA"), shares.of("BOB"));
        let turns: Vec<StoreTurn> = std::iter::from_fn(|| ana.replica(0)).collect();
        assert_eq!(turns.len(), 2);
        assert!(bob.replica(0).is_some() && ana.read().await.is_ok(), "others, and the primary, are not concerned");
        assert!(ana.replica(1).is_none(), "there is one replica");
        drop(turns);
        assert!(shares.of("ANA").replica(0).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_is_one_for_all_requests_of_an_account_also_of_those_that_are_gone() {
        let shares = shares(4);
        let turns = as_many(|| async { shares.of("ANA").read().await }).await;
        assert_eq!(turns.len(), 2);
        for number in 0..1000 {
            shares.of(&number.to_string());
        }
        let error = shares.of("ANA").read().await.err().unwrap();
        assert!(error.is_unavailable(), "{error}");
        assert!(shares.callers.lock().unwrap().known.len() <= 2 * FEW_CALLERS, "who asks for nothing is forgotten");
        drop(turns);
        shares.of("ANA").read().await.unwrap();
    }
}
