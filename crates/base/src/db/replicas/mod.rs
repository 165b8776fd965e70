//! Replicas: standbys that answer reads as the primary would.
//!
//! The one rule: everybody reads what was acknowledged to anybody. After a read has arrived, the primary is asked how far
//! its write-ahead log is on the disk. Whatever was acknowledged before is no later than that, because an acknowledged
//! commit is on the disk. A replica that has replayed its log so far shows all of it, and may answer. Otherwise, and
//! whenever there is a doubt, the primary answers.
//!
//! Positions in the log are comparable only within one history: after a promotion two servers count on from the same
//! position, each for itself. So a replica counts only while it shows a mark (`marks`) that this process has written lately
//! on the very server that was asked.
//!
//! `his::store` calls it. Knows no records.

mod figures;
mod inspect;
mod marks;
mod question;
mod replica;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::PgLsn;

use self::figures::ReadOutcome;
pub use self::figures::ReplicaFigures;
pub use self::inspect::{ReplicaFound, inspect};
use self::marks::ReplicaMarks;
use self::question::{SharedQuestion, WaitingRequests};
use self::replica::{Freshness, Replica};
use super::{DbError, SessionPool, postgres};
use crate::config::PostgresConfig;

/// The longest time for an answer of the primary. Beyond it the primary is asked for the data itself.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How often the primary is asked although nobody reads, so that the figures show how far behind each replica is.
const COMPARE_EVERY: Duration = Duration::from_secs(3);
/// The pause after a failed question.
const RETRY: Duration = Duration::from_millis(250);

/// The replicas of a database.
pub struct Replicas {
    replicas: Vec<Arc<Replica>>,
    /// The pool of requests, which writes the marks.
    primary: SessionPool,
    /// The only session for questions, so that none waits behind requests.
    asking: SessionPool,
    position: SharedQuestion<PrimaryPosition>,
    marks: ReplicaMarks,
    /// Counts reads, which take the replicas in turn.
    turn: AtomicUsize,
    figures: ReplicaFigures,
}

/// How far a server's write-ahead log was on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PrimaryPosition {
    at: PgLsn,
    /// The server, by the moment of its start.
    server: Arc<str>,
}

/// A replica that shows everything that was acknowledged before the read arrived.
pub struct FreshReplica {
    replicas: Arc<Replicas>,
    replica: Arc<Replica>,
    term: u64,
}

impl Replicas {
    /// The replicas that are configured; none if there are none. Nothing is contacted yet.
    ///
    /// # Errors
    /// [`DbError::Settings`]: a connection string or a certificate file is unusable.
    pub fn of(config: &PostgresConfig, primary: &SessionPool) -> Result<Option<Arc<Self>>, DbError> {
        if config.replicas.is_empty() {
            return Ok(None);
        }
        let pools = config.replicas.iter().map(|replica| postgres::replica_pool(&config.of_replica(replica)));
        let replicas = pools.enumerate().map(|(at, pool)| Ok(Arc::new(Replica::new(at + 1, pool?))));
        Ok(Some(Arc::new(Self {
            replicas: replicas.collect::<Result<_, DbError>>()?,
            primary: primary.clone(),
            asking: postgres::pool_on(Arc::clone(primary.route()), 1),
            position: SharedQuestion::default(),
            marks: ReplicaMarks::new(),
            turn: AtomicUsize::new(0),
            figures: ReplicaFigures::default(),
        })))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.replicas.len()
    }

    /// What is counted.
    pub fn figures(&self) -> &ReplicaFigures {
        &self.figures
    }

    /// Follows the replicas for as long as it is polled. Without it, no replica is ever fresh.
    pub async fn watch_over(&self) -> Infallible {
        let watches = self.replicas.iter().map(|replica| replica.watch(&self.marks, &self.figures));
        tokio::join!(self.marks.keep(&self.primary), self.answer_questions(), join_all(watches)).0
    }

    /// A replica that may answer a read which has arrived, with the turn that `take` gives for the replica of this number,
    /// from 0. None if the primary has to answer.
    pub async fn fresh<T>(self: &Arc<Self>, take: impl Fn(usize) -> Option<T>) -> Option<(FreshReplica, T)> {
        match self.choose(take).await {
            Ok((replica, term, turn)) => {
                Some((FreshReplica { replicas: Arc::clone(self), replica: Arc::clone(replica), term }, turn))
            }
            Err(outcome) => {
                self.figures.read(outcome);
                None
            }
        }
    }

    async fn choose<T>(&self, take: impl Fn(usize) -> Option<T>) -> Result<(&Arc<Replica>, u64, T), ReadOutcome> {
        if self.replicas.iter().all(|replica| replica.is_out()) {
            return Err(ReadOutcome::Away);
        }
        let asked = self.position.ask(ANSWER_LIMIT).await.ok_or(ReadOutcome::Unanswered)?;
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.replicas.len();
        let (before, after) = self.replicas.split_at(first);
        let (mut outcome, mut may_have) = (ReadOutcome::Away, None);
        for replica in after.iter().chain(before) {
            match replica.freshness(&asked) {
                Freshness::Fresh(term) => match replica.turn(&take) {
                    Some(turn) => return Ok((replica, term, turn)),
                    None => outcome = ReadOutcome::Busy,
                },
                Freshness::Unknown => _ = may_have.get_or_insert(replica),
                Freshness::Behind => outcome = outcome.or(ReadOutcome::Lag),
                Freshness::Out => {}
            }
        }
        // Only one is asked, so that no read waits for several.
        let replica = may_have.ok_or(outcome)?;
        match replica.catches_up(&asked).await {
            Freshness::Fresh(term) => Ok((replica, term, replica.turn(&take).ok_or(ReadOutcome::Busy)?)),
            Freshness::Unknown | Freshness::Behind => Err(outcome.or(ReadOutcome::Lag)),
            Freshness::Out => Err(outcome),
        }
    }

    /// Answers those who ask for the primary's position.
    async fn answer_questions(&self) -> Infallible {
        loop {
            let waiting = tokio::select! {
                waiting = self.position.next() => waiting,
                () = sleep(COMPARE_EVERY) => WaitingRequests::none(),
            };
            match timeout(ANSWER_LIMIT, self.ask_primary()).await {
                Ok(Ok(answer)) => {
                    if !self.marks.are_of(&answer.server) {
                        self.marks.want();
                    }
                    self.replicas.iter().for_each(|replica| replica.compare(answer.at, &self.figures));
                    self.figures.question(waiting.len());
                    waiting.answer(&answer);
                }
                Ok(Err(_)) | Err(_) => {
                    drop(waiting);
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn ask_primary(&self) -> Result<PrimaryPosition, DbError> {
        let session = self.asking.get().await?;
        let row = session.query_one(&session.prepare_cached(POSITION).await?, &[]).await?;
        Ok(PrimaryPosition { at: row.try_get(0)?, server: row.try_get::<_, &str>(1)?.into() })
    }
}

impl FreshReplica {
    /// The sessions with it.
    pub fn pool(&self) -> &SessionPool {
        self.replica.pool()
    }

    /// The answer of the replica. None if it failed, or may have begun again at an earlier position: then the primary has
    /// to answer.
    pub fn heeded<T>(self, answer: Result<T, DbError>) -> Option<T> {
        let Self { replicas, replica, term } = &self;
        let figures = &replicas.figures;
        let is_heeded = replica.heeds(*term, answer.as_ref().err());
        let answer = answer.ok().filter(|_| is_heeded);
        match &answer {
            Some(_) => {
                figures.read(ReadOutcome::Replica);
                figures.served(replica.place());
            }
            None => figures.read(ReadOutcome::Failed),
        }
        answer
    }
}

/// How far the log of the primary is on the disk, and which server that is.
///
/// A commit is acknowledged when its record is on the disk. With `synchronous_commit = off` it is acknowledged before, so
/// everything that is written counts there. A standby refuses to answer.
const POSITION: &str = "
    SELECT CASE current_setting('synchronous_commit') WHEN 'off' THEN pg_current_wal_insert_lsn()
        ELSE pg_current_wal_flush_lsn() END, extract(epoch FROM pg_postmaster_start_time())::text";
