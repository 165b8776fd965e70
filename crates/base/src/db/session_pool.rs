//! The sessions of one database, as callers get them: one for themselves, or a part of one for a short read.
//!
//! The one rule: whatever a caller holds to be served in turns is given back only when the server no longer works for it.
//!
//! `accounts`, `his::store` and `schema` call it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Row;

use super::DbError;
use super::pool::ClientPool;
use super::route::ServerRoute;
use super::session::PooledSession;
use super::shared_reads::{SharedReads, ShortRead};
use super::statement_ledger::RowsLeft;

/// How long an unused session is kept.
const IDLE: Duration = Duration::from_secs(60);

/// The sessions with one database; clones share them.
#[derive(Clone)]
pub struct SessionPool {
    pool: ClientPool,
    shared: Arc<SharedReads>,
}

impl SessionPool {
    pub(super) fn new(pool: ClientPool) -> Self {
        Self { pool, shared: Arc::default() }
    }

    /// The route to the server of all sessions.
    pub fn route(&self) -> &Arc<ServerRoute> {
        self.pool.route()
    }

    /// A session, as soon as one is free.
    ///
    /// # Errors
    /// [`DbError::Unavailable`]: none became free in time, or the server cannot be reached.
    pub async fn get(&self) -> Result<PooledSession, DbError> {
        self.get_with(()).await
    }

    /// As [`SessionPool::get`]. `turn` is dropped when the server no longer works for this session.
    ///
    /// # Errors
    /// See [`SessionPool::get`].
    pub async fn get_with(&self, turn: impl Send + Sync + 'static) -> Result<PooledSession, DbError> {
        Ok(PooledSession::new(self.pool.get().await?, self.route().tls(), turn))
    }

    /// Closes the sessions that nobody has used for so long.
    pub fn give_back(&self, idle: Duration) {
        self.pool.give_back(idle);
    }

    /// Gives idle sessions back for as long as it is polled, so that a peak does not hold the server's connections.
    pub async fn give_idle_back(&self) -> Infallible {
        loop {
            tokio::time::sleep(IDLE / 4).await;
            self.give_back(IDLE);
        }
    }

    /// The only row of a short read, if there is one. The read shares its session with others. `turn` is dropped when the
    /// server no longer works for this read.
    ///
    /// # Errors
    /// See [`SessionPool::get`] and [`PooledSession::prepare_cached`].
    pub async fn read_one(
        &self,
        read: ShortRead<'_>,
        turn: impl Send + Sync + 'static,
    ) -> Result<Option<Row>, DbError> {
        self.shared.query_opt(self.get(), read, turn).await
    }

    /// As [`SessionPool::read_one`], for the rows of a statement that returns at most `most`, which is a few. They are read
    /// one by one, while `take` wants another.
    ///
    /// # Errors
    /// As there; and the errors of `take`.
    pub async fn read_few(
        &self,
        read: ShortRead<'_>,
        most: i32,
        take: impl FnMut(&Row) -> Result<bool, DbError>,
        turn: impl Send + Sync + 'static,
    ) -> Result<RowsLeft, DbError> {
        self.shared.rows(self.get(), read, most, take, turn).await
    }

    /// Whether a session is free, or may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.pool.has_room()
    }

    /// The most sessions.
    pub fn most(&self) -> usize {
        self.pool.most()
    }
}
