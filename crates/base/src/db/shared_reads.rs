//! Reads that share sessions: several statements are on their way on one session at once, and are answered in order.
//!
//! The one rule: only short reads of one table share a session, because each waits for those before it, and a table may be
//! locked. So the server answers several without going to sleep between them, and several leave this process in one write.
//!
//! A read whose caller goes away keeps its turn until the server has answered all that was sent on the session, and no
//! further read joins there. So callers that come and go never load the server beyond their turns.
//!
//! [`session_pool`](super::session_pool) calls it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::{Handle, Id};
use tokio_postgres::Row;

use super::DbError;
use super::session::{PooledSession, SessionParameters};
use super::statement_ledger::RowsLeft;

/// How many reads are on their way on one session at most.
const DEPTH: usize = 4;

/// The sessions that are shared at the moment, each by reads of one table on one runtime.
#[derive(Default)]
pub(super) struct SharedReads(Mutex<Vec<(ReadPlace, Weak<SharedSession>)>>);

#[derive(Clone, Copy, PartialEq, Eq)]
struct ReadPlace {
    runtime: Id,
    table: &'static str,
}

/// A short read: a statement that finds its few rows by a key of one table, and its parameters.
pub struct ShortRead<'a> {
    /// The table.
    pub table: &'static str,
    /// The statement.
    pub sql: &'a str,
    /// Its parameters.
    pub of: &'a SessionParameters<'a>,
}

/// A session that several reads use. It returns to the pool with the last of them.
struct SharedSession {
    session: PooledSession,
    uses: Mutex<SessionUses>,
}

#[derive(Default)]
struct SessionUses {
    count: usize,
    /// No further read joins.
    is_closing: bool,
    /// The turns of reads whose callers have gone.
    left: Vec<Box<dyn Send + Sync>>,
}

/// One read on a shared session.
struct SharedRead {
    shared: Arc<SharedSession>,
    /// None once the server has answered.
    turn: Option<Box<dyn Send + Sync>>,
}

impl SharedReads {
    /// The only row of an answer, if there is one.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`]; and those of opening a session.
    pub(super) async fn query_opt(
        &self,
        opened: impl Future<Output = Result<PooledSession, DbError>>,
        ShortRead { table, sql, of }: ShortRead<'_>,
        turn: impl Send + Sync + 'static,
    ) -> Result<Option<Row>, DbError> {
        let mut read = self.begin(opened, table, turn).await?;
        let session = &read.shared.session;
        let row = session.query_opt(&session.prepare_cached(sql).await?, of).await?;
        read.turn = None;
        Ok(row)
    }

    /// As [`PooledSession::rows`], for a statement of few rows.
    ///
    /// # Errors
    /// As there, and as [`SharedReads::query_opt`].
    pub(super) async fn rows(
        &self,
        opened: impl Future<Output = Result<PooledSession, DbError>>,
        ShortRead { table, sql, of }: ShortRead<'_>,
        most: i32,
        take: impl FnMut(&Row) -> Result<bool, DbError>,
        turn: impl Send + Sync + 'static,
    ) -> Result<RowsLeft, DbError> {
        let mut read = self.begin(opened, table, turn).await?;
        let session = &read.shared.session;
        let left = session.rows(&session.prepare_cached(sql).await?, of, most, take).await?;
        match left {
            RowsLeft::None | RowsLeft::Some => read.turn = None,
            // The server is still at work.
            RowsLeft::Unwanted => {}
        }
        Ok(left)
    }

    async fn begin(
        &self,
        opened: impl Future<Output = Result<PooledSession, DbError>>,
        table: &'static str,
        turn: impl Send + Sync + 'static,
    ) -> Result<SharedRead, DbError> {
        let here = ReadPlace { runtime: Handle::current().id(), table };
        let shared = match self.joined(here) {
            Some(shared) => shared,
            None => self.add(here, opened.await?),
        };
        Ok(SharedRead { shared, turn: Some(Box::new(turn)) })
    }

    fn open(&self) -> MutexGuard<'_, Vec<(ReadPlace, Weak<SharedSession>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A shared session of this place that takes another read, which is counted already.
    fn joined(&self, here: ReadPlace) -> Option<Arc<SharedSession>> {
        let known: Vec<Arc<SharedSession>> = {
            let mut open = self.open();
            open.retain(|(_, shared)| shared.strong_count() > 0);
            open.iter().filter(|(place, _)| *place == here).filter_map(|(_, shared)| shared.upgrade()).collect()
        };
        known.into_iter().find(|shared| shared.joins())
    }

    fn add(&self, here: ReadPlace, session: PooledSession) -> Arc<SharedSession> {
        let uses = Mutex::new(SessionUses { count: 1, ..SessionUses::default() });
        let shared = Arc::new(SharedSession { session, uses });
        self.open().push((here, Arc::downgrade(&shared)));
        shared
    }
}

impl SharedSession {
    fn uses(&self) -> MutexGuard<'_, SessionUses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts another read, if there is room for one.
    fn joins(&self) -> bool {
        let mut uses = self.uses();
        let joins = !uses.is_closing && uses.count < DEPTH && !self.session.is_closed();
        uses.count += usize::from(joins);
        joins
    }
}

impl Drop for SharedRead {
    fn drop(&mut self) {
        let mut uses = self.shared.uses();
        uses.count -= 1;
        // The caller went away, or the session may be broken.
        if let Some(turn) = self.turn.take() {
            uses.is_closing = true;
            uses.left.push(turn);
        }
    }
}

impl Drop for SharedSession {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.uses().left);
        if !left.is_empty() {
            // The session holds them until the server has answered.
            self.session.hold(left);
        }
    }
}
