//! One replica: whether it may answer, and how far it has replayed the primary's log.
//!
//! The one rule: what is known of a replica is known of one server, and is forgotten when its watch ends. So a replica that
//! is silent, fails, is promoted, begins again or is another server than before is left out at once. Its open sessions end
//! at that moment, and whatever was asked on them is asked again on the primary.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, Statement};

use super::PrimaryPosition;
use super::figures::ReplicaFigures;
use super::marks::{ReplicaMarks, WrittenMark};
use super::question::{SharedQuestion, WaitingRequests};
use crate::db::outage::OutageLog;
use crate::db::route::{ReachedServer, ServerRoute, WrongServer};
use crate::db::{DbError, SessionPool};

/// How often a replica is asked although nobody wants to know, and the longest time for its answer.
const ASK_EVERY: Duration = Duration::from_millis(250);
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The pause before a replica that failed is tried again: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// A replica that has shown no mark for so long is told.
const FOREIGN: Duration = Duration::from_secs(10);
/// How long a read waits until a replica has caught up, and the pause between two looks. A replica nearby needs a
/// millisecond or two.
const CATCH_UP: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(1);

/// A replica.
pub(super) struct Replica {
    /// Its place in `store.read_uris`, from 1.
    place: usize,
    pool: SessionPool,
    position: SharedQuestion<()>,
    state: Mutex<ReplicaState>,
    outage: OutageLog,
}

#[derive(Default)]
struct ReplicaState {
    /// Counts the watches, so that what one has found is not taken for what another would.
    term: u64,
    /// None while it is left out.
    seen: Option<SeenReplica>,
    /// How many reads have failed one after another, and until when it rests because of that.
    failures: u32,
    rests_until: Option<Instant>,
    /// Since when it has shown no mark that counts.
    unproven_since: Option<Instant>,
    /// A position that it did not reach in time. Until it has, nobody waits for it.
    behind: Option<PgLsn>,
}

/// What a replica has last answered.
struct SeenReplica {
    replayed: PgLsn,
    mark: WrittenMark,
}

/// Whether a replica shows what was acknowledged up to a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// It does, if this is still its term after the read.
    Fresh(u64),
    /// It may by now.
    Unknown,
    /// It was too late a moment ago.
    Behind,
    /// It is left out.
    Out,
}

impl Replica {
    pub(super) fn new(place: usize, pool: SessionPool) -> Self {
        let (away, back) = ("a replica is left out", "a replica is read again");
        let outage = OutageLog::new(away, "the primary answers its reads until it is back", back);
        Self { place, pool, position: SharedQuestion::default(), state: Mutex::default(), outage }
    }

    pub(super) fn pool(&self) -> &SessionPool {
        &self.pool
    }

    /// Its place in `store.read_uris`, from 1.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// A turn of the caller, given the place from 0, if a session is free, too.
    pub(super) fn turn<T>(&self, take: impl Fn(usize) -> Option<T>) -> Option<T> {
        if self.pool.has_room() { take(self.place - 1) } else { None }
    }

    fn state(&self) -> MutexGuard<'_, ReplicaState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it cannot answer, whatever is asked.
    pub(super) fn is_out(&self) -> bool {
        let state = self.state();
        state.seen.is_none() || state.rests()
    }

    /// Whether it shows everything up to a position of the primary, as far as is known.
    pub(super) fn freshness(&self, asked: &PrimaryPosition) -> Freshness {
        let state = self.state();
        match &state.seen {
            Some(seen) if !state.rests() && seen.mark.proves(&asked.server) => match seen.replayed >= asked.at {
                true => Freshness::Fresh(state.term),
                false if state.behind.is_some() => Freshness::Behind,
                false => Freshness::Unknown,
            },
            Some(_) | None => Freshness::Out,
        }
    }

    /// Asks it whether it shows everything up to a position, and waits a moment until it does.
    pub(super) async fn catches_up(&self, asked: &PrimaryPosition) -> Freshness {
        let deadline = Instant::now() + CATCH_UP;
        loop {
            if self.position.ask(ANSWER_LIMIT).await.is_none() {
                return Freshness::Out;
            }
            match self.freshness(asked) {
                Freshness::Unknown if Instant::now() < deadline => sleep(LOOK).await,
                Freshness::Unknown => {
                    self.state().behind = Some(asked.at);
                    return Freshness::Behind;
                }
                known @ (Freshness::Fresh(_) | Freshness::Behind | Freshness::Out) => return known,
            }
        }
    }

    /// Takes note of the outcome of a read. False if it does not count, because another watch has begun since `term`.
    pub(super) fn heeds(&self, term: u64, error: Option<&DbError>) -> bool {
        let mut state = self.state();
        match error {
            None => state.failures = 0,
            // It serves others, or ended one statement because it could not replay otherwise.
            Some(error) if error.waited_for().is_some() || error.is_conflict() => {}
            Some(_) => {
                let pause = RETRY.0.saturating_mul(1 << state.failures.min(8)).min(RETRY.1);
                state.failures = state.failures.saturating_add(1);
                state.rests_until = Some(Instant::now() + pause);
            }
        }
        state.term == term && state.seen.is_some()
    }

    /// Notes how far it is behind the primary.
    pub(super) fn compare(&self, primary: PgLsn, figures: &ReplicaFigures) {
        if let Some(seen) = &self.state().seen {
            figures.lag(self.place, u64::from(primary).saturating_sub(u64::from(seen.replayed)));
        }
    }

    /// Follows it for as long as it is polled.
    pub(super) async fn watch(&self, marks: &ReplicaMarks, figures: &ReplicaFigures) -> Infallible {
        tokio::join!(self.follow(marks, figures), self.pool.give_idle_back()).0
    }

    async fn follow(&self, marks: &ReplicaMarks, figures: &ReplicaFigures) -> Infallible {
        let mut pause = RETRY.0;
        loop {
            let reason = match self.pool.route().reach().await {
                Ok(reached) => {
                    let reason = self.stay(reached, marks, figures).await;
                    // It has answered before.
                    if self.state().seen.is_some() {
                        pause = RETRY.0;
                    }
                    reason
                }
                Err(error) => match error.wrong_server() {
                    Some(WrongServer::TakesWrites) => "it is no standby".to_owned(),
                    Some(_) | None => error.in_short(),
                },
            };
            self.leave(&reason, figures);
            sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Follows one server until it is silent, is no standby any more, or is no longer the one that new sessions reach.
    /// Returns the reason.
    async fn stay(&self, reached: ReachedServer, marks: &ReplicaMarks, figures: &ReplicaFigures) -> String {
        let route: &ServerRoute = self.pool.route();
        let (identity, at) = (reached.identity.clone(), reached.at());
        route.keep_to(&identity);
        let ReachedServer { client, connection, .. } = reached;
        let asked = async {
            let statement = match timeout(ANSWER_LIMIT, client.prepare(REPLAYED)).await {
                Ok(Ok(statement)) => statement,
                Ok(Err(error)) => return DbError::from(error).in_short(),
                Err(_) => return "it does not answer".to_owned(),
            };
            loop {
                let waiting = tokio::select! {
                    waiting = self.position.next() => waiting,
                    () = sleep(ASK_EVERY) => WaitingRequests::none(),
                };
                match timeout(ANSWER_LIMIT, self.measure(&client, &statement, marks, figures)).await {
                    Ok(Ok(())) => waiting.answer(&()),
                    Ok(Err(reason)) => return reason,
                    Err(_) => {
                        route.was_silent(at);
                        return "it does not answer".to_owned();
                    }
                }
            }
        };
        tokio::select! {
            reason = asked => reason,
            ended = connection => ended.map_or_else(|error| DbError::from(error).in_short(), |()| "it has closed the session".to_owned()),
            () = route.leads_elsewhere(&identity) => "new connections lead to another server".to_owned(),
        }
    }

    /// Asks it how far it is, and which mark it shows.
    async fn measure(
        &self,
        client: &Client,
        statement: &Statement,
        marks: &ReplicaMarks,
        figures: &ReplicaFigures,
    ) -> Result<(), String> {
        let row = client.query_one(statement, &[&marks.process()]).await;
        let row = row.map_err(|error| DbError::from(error).in_short())?;
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        let read: Result<(bool, Option<PgLsn>, Option<i64>), tokio_postgres::Error> = read();
        let (is_standby, replayed, mark) = read.map_err(|error| DbError::from(error).in_short())?;
        if !is_standby {
            return Err("it is no standby any more".to_owned());
        }
        let mark = mark.and_then(|number| marks.of(number));
        let is_proven = mark.is_some();
        let is_foreign;
        let seen = mark.zip(replayed).map(|(mark, replayed)| SeenReplica { replayed, mark });
        {
            let mut state = self.state();
            if state.behind.is_some_and(|behind| seen.as_ref().is_none_or(|seen| seen.replayed >= behind)) {
                state.behind = None;
            }
            state.seen = seen;
            match is_proven {
                true => state.unproven_since = None,
                false => _ = state.unproven_since.get_or_insert_with(Instant::now),
            }
            is_foreign = state.unproven_since.is_some_and(|since| since.elapsed() > FOREIGN);
        }
        figures.up(self.place, is_proven);
        match is_proven {
            true => self.outage.answered(),
            false if is_foreign => {
                self.told("it shows nothing that was just written: it is far behind, or follows another server")
            }
            false => {}
        }
        Ok(())
    }

    /// Leaves it out, and ends all sessions with it.
    fn leave(&self, reason: &str, figures: &ReplicaFigures) {
        {
            let mut state = self.state();
            let (failures, rests_until) = (state.failures, state.rests_until);
            *state = ReplicaState { term: state.term + 1, failures, rests_until, ..ReplicaState::default() };
        }
        self.pool.route().end_sessions();
        self.position.refuse();
        figures.up(self.place, false);
        self.told(reason);
    }

    fn told(&self, reason: &str) {
        self.outage.failed(format!("number {} of `store.read_uris`: {reason}", self.place));
    }
}

impl ReplicaState {
    fn rests(&self) -> bool {
        self.rests_until.is_some_and(|until| Instant::now() < until)
    }
}

/// How far a standby has replayed the log, and the mark of this process that it shows. What was replayed before is visible
/// to every later statement.
const REPLAYED: &str = "
    SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), (SELECT mark FROM fedgate_replica_marks WHERE process = $1)";
