//! Sessions of the pool: the only way to run a statement on PostgreSQL, also when its caller goes away.
//!
//! The one rule: a session serves the next caller only after the server has answered everything sent on it. A dropped
//! future (a client that went away, a limit that was reached) leaves the server at work. The session then keeps its
//! place in the pool until the server has answered, so callers that come and go never load the server beyond the pool.
//!
//! A cancel request is a race: it travels on a separate connection, and hits whatever the session is doing when it
//! arrives (PostgreSQL manual, "Canceling Requests in Progress"). So a cancelled session is closed and never used
//! again.
//!
//! `accounts`, `his::store` and `schema` call it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::Object;
use deadpool_postgres::Transaction;
use futures_util::{Stream, StreamExt, pin_mut};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Portal, Row, Statement, ToStatement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::DbError;
use super::postgres::{PooledClient, PostgresPool};
use super::route::ServerRoute;

/// How long the server may be silent about one statement. The server itself ends statements earlier
/// (`statement_timeout`), so one that is silent for longer does not answer at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(11);
/// How long an unused session is kept.
const IDLE: Duration = Duration::from_secs(60);
/// How long an abandoned statement may continue before it is cancelled. Most are answered by then, and keep their
/// session.
const GRACE: Duration = Duration::from_millis(50);
/// The longest time for a cancel request.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time for a cancelled statement to end.
const END_TIMEOUT: Duration = Duration::from_secs(3);

type SessionParameters<'a> = [&'a (dyn ToSql + Sync)];

/// The sessions with one database; clones share them.
#[derive(Clone)]
pub struct SessionPool {
    pool: PostgresPool,
}

impl SessionPool {
    pub(super) fn new(pool: PostgresPool) -> Self {
        Self { pool }
    }

    /// The route to the server of all sessions.
    pub fn route(&self) -> &Arc<ServerRoute> {
        self.pool.manager().route()
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
        let client = Some(self.pool.get().await?);
        let (turn, tls) = (Some(Box::new(turn) as Box<_>), self.route().tls());
        Ok(PooledSession { client, turn, tls, ledger: Arc::new(StatementLedger::new()) })
    }

    /// Closes the sessions that nobody has used for so long.
    pub fn give_back(&self, idle: Duration) {
        self.pool.retain(|_, metrics| metrics.last_used() < idle);
    }

    /// Gives idle sessions back for as long as it is polled, so that a peak does not hold the server's connections.
    pub async fn give_idle_back(&self) -> Infallible {
        loop {
            tokio::time::sleep(IDLE / 4).await;
            self.give_back(IDLE);
        }
    }

    /// The most sessions.
    pub fn most(&self) -> usize {
        self.pool.status().max_size
    }
}

/// A session with the server. Dropping it returns it to the pool.
pub struct PooledSession {
    /// INVARIANT: present until this is dropped or closed.
    client: Option<PooledClient>,
    turn: Option<Box<dyn Send + Sync>>,
    tls: MakeRustlsConnect,
    ledger: Arc<StatementLedger>,
}

impl PooledSession {
    fn client(&self) -> Result<&PooledClient, DbError> {
        self.client.as_ref().ok_or_else(|| DbError::Unavailable("the session was closed".into()))
    }

    /// Removes the time limit for statements, for a migration or an import that no request waits for.
    pub fn without_limit(self) -> Self {
        self.ledger.is_unlimited.store(true, Ordering::Relaxed);
        self
    }

    /// Closes the session at once, whatever the server is doing.
    pub fn close(mut self) {
        drop(self.client.take().map(Object::take));
    }

    /// Prepares a statement once for this session.
    ///
    /// # Errors
    /// The server refused it or is away; the same for every method here.
    pub async fn prepare_cached(&self, sql: &str) -> Result<Statement, DbError> {
        self.ledger.prepared(self.client()?.prepare_cached(sql)).await
    }

    /// All rows of an answer.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`].
    pub async fn query<S: ?Sized + ToStatement>(
        &self,
        sql: &S,
        of: &SessionParameters<'_>,
    ) -> Result<Vec<Row>, DbError> {
        self.ledger.answered(self.client()?.query(sql, of)).await
    }

    /// The only row of an answer.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`]; also if there is no row, or more than one.
    pub async fn query_one<S: ?Sized + ToStatement>(
        &self,
        sql: &S,
        of: &SessionParameters<'_>,
    ) -> Result<Row, DbError> {
        self.ledger.answered(self.client()?.query_one(sql, of)).await
    }

    /// The only row of an answer, if there is one.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`].
    pub async fn query_opt<S: ?Sized + ToStatement>(
        &self,
        sql: &S,
        of: &SessionParameters<'_>,
    ) -> Result<Option<Row>, DbError> {
        self.ledger.answered(self.client()?.query_opt(sql, of)).await
    }

    /// Runs a statement, and returns how many rows it touched.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`].
    pub async fn execute<S: ?Sized + ToStatement>(&self, sql: &S, of: &SessionParameters<'_>) -> Result<u64, DbError> {
        self.ledger.answered(self.client()?.execute(sql, of)).await
    }

    /// Runs several statements.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`].
    pub async fn batch_execute(&self, sql: &str) -> Result<(), DbError> {
        self.ledger.answered(self.client()?.batch_execute(sql)).await
    }

    /// Begins a transaction, which is rolled back unless it is committed.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`].
    pub async fn transaction(&mut self) -> Result<SessionTransaction<'_>, DbError> {
        self.begin(false).await
    }

    /// As [`PooledSession::transaction`], without the right to write.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`].
    pub async fn read_only(&mut self) -> Result<SessionTransaction<'_>, DbError> {
        self.begin(true).await
    }

    async fn begin(&mut self, is_read_only: bool) -> Result<SessionTransaction<'_>, DbError> {
        let ledger = Arc::clone(&self.ledger);
        let client = self.client.as_mut().ok_or_else(|| DbError::Unavailable("the session was closed".into()))?;
        let begun = match is_read_only {
            true => client.build_transaction().read_only(true).start(),
            // Not `READ WRITE`: that would write on a server that was set read-only, and a standby refuses it as an
            // error.
            false => client.build_transaction().start(),
        };
        // From here on the session is unsettled until a commit: dropping the transaction sends a ROLLBACK that nobody
        // awaits.
        let transaction = ledger.answered(begun).await?;
        ledger.is_open.store(true, Ordering::Relaxed);
        Ok(SessionTransaction { transaction, ledger })
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        if self.ledger.is_settled() || client.is_closed() {
            // Back to the pool, which drops closed sessions.
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            drop(Object::take(client));
            return;
        };
        let (ledger, tls, turn) = (Arc::clone(&self.ledger), self.tls.clone(), self.turn.take());
        // The task ends within the limits above, and holds the session's place in the pool until then.
        runtime.spawn(async move {
            settle(client, &ledger, tls).await;
            drop(turn);
        });
    }
}

/// Waits until the server has answered, and cancels the statement if that takes long.
async fn settle(client: PooledClient, ledger: &StatementLedger, tls: MakeRustlsConnect) {
    let is_silent = ledger.is_silent.load(Ordering::Relaxed);
    // The server answers in order, so this answer comes after all abandoned ones.
    if !is_silent && matches!(timeout(GRACE, client.check_connection()).await, Ok(Ok(()))) {
        if ledger.preparing.load(Ordering::Relaxed) > 0 {
            // The name of the prepared statement is lost; a session that was kept would accumulate such statements.
            drop(Object::take(client));
        }
        return;
    }
    if client.is_closed() {
        // Its server is no longer followed or is gone, so a cancel request has no recipient.
        drop(Object::take(client));
        return;
    }
    let cancel = client.cancel_token();
    if let Ok(Err(error)) = timeout(CANCEL_TIMEOUT, cancel.cancel_query(tls)).await {
        tracing::debug!("an abandoned statement could not be cancelled: {error}");
    }
    if !is_silent {
        let _ = timeout(END_TIMEOUT, client.check_connection()).await;
    }
    drop(Object::take(client));
}

/// The statements of a session that are not answered yet.
struct StatementLedger {
    unanswered: AtomicUsize,
    preparing: AtomicUsize,
    /// A transaction was begun and not ended. Its ROLLBACK is under way when the session is returned.
    is_open: AtomicBool,
    /// The server did not answer in time.
    is_silent: AtomicBool,
    is_unlimited: AtomicBool,
}

impl StatementLedger {
    fn new() -> Self {
        Self {
            unanswered: AtomicUsize::new(0),
            preparing: AtomicUsize::new(0),
            is_open: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            is_unlimited: AtomicBool::new(false),
        }
    }

    fn is_settled(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) == 0 && !self.is_open.load(Ordering::Relaxed)
    }

    /// Awaits an answer. If this future is dropped, its statement stays counted as unanswered.
    async fn answered<T>(&self, statement: impl Future<Output = Result<T, Error>>) -> Result<T, DbError> {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        let answer = match self.is_unlimited.load(Ordering::Relaxed) {
            true => statement.await,
            false => match timeout(ANSWER_TIMEOUT, statement).await {
                Ok(answer) => answer,
                Err(elapsed) => {
                    self.is_silent.store(true, Ordering::Relaxed);
                    return Err(DbError::Unavailable(elapsed.into()));
                }
            },
        };
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        Ok(answer?)
    }

    async fn prepared(&self, statement: impl Future<Output = Result<Statement, Error>>) -> Result<Statement, DbError> {
        self.preparing.fetch_add(1, Ordering::Relaxed);
        let prepared = self.answered(statement).await;
        self.preparing.fetch_sub(1, Ordering::Relaxed);
        prepared
    }
}

/// A transaction on a session.
pub struct SessionTransaction<'a> {
    transaction: Transaction<'a>,
    ledger: Arc<StatementLedger>,
}

impl SessionTransaction<'_> {
    /// See [`PooledSession::prepare_cached`].
    ///
    /// # Errors
    /// As there; the same for every method here.
    pub async fn prepare_cached(&self, sql: &str) -> Result<Statement, DbError> {
        self.ledger.prepared(self.transaction.prepare_cached(sql)).await
    }

    /// See [`PooledSession::query_one`].
    ///
    /// # Errors
    /// As there.
    pub async fn query_one<S: ?Sized + ToStatement>(
        &self,
        sql: &S,
        of: &SessionParameters<'_>,
    ) -> Result<Row, DbError> {
        self.ledger.answered(self.transaction.query_one(sql, of)).await
    }

    /// See [`PooledSession::query`].
    ///
    /// # Errors
    /// As there.
    pub async fn query<S: ?Sized + ToStatement>(
        &self,
        sql: &S,
        of: &SessionParameters<'_>,
    ) -> Result<Vec<Row>, DbError> {
        self.ledger.answered(self.transaction.query(sql, of)).await
    }

    /// See [`PooledSession::query_opt`].
    ///
    /// # Errors
    /// As there.
    pub async fn query_opt<S: ?Sized + ToStatement>(
        &self,
        sql: &S,
        of: &SessionParameters<'_>,
    ) -> Result<Option<Row>, DbError> {
        self.ledger.answered(self.transaction.query_opt(sql, of)).await
    }

    /// See [`PooledSession::execute`].
    ///
    /// # Errors
    /// As there.
    pub async fn execute<S: ?Sized + ToStatement>(&self, sql: &S, of: &SessionParameters<'_>) -> Result<u64, DbError> {
        self.ledger.answered(self.transaction.execute(sql, of)).await
    }

    /// See [`PooledSession::batch_execute`].
    ///
    /// # Errors
    /// As there.
    pub async fn batch_execute(&self, sql: &str) -> Result<(), DbError> {
        self.ledger.answered(self.transaction.batch_execute(sql)).await
    }

    /// Binds parameters to a statement, to read its rows in pieces.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`].
    pub async fn bind(&self, statement: &Statement, of: &SessionParameters<'_>) -> Result<Portal, DbError> {
        self.ledger.answered(self.transaction.bind(statement, of)).await
    }

    /// Reads at most `most` further rows, one by one, while `take` wants another. Returns whether there may be more.
    ///
    /// The rows of a piece that `take` does not want are abandoned, and the session with them. So a piece should be
    /// about as large as the wanted part.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`]; and the errors of `take`.
    pub async fn piece(
        &self,
        portal: &Portal,
        most: i32,
        mut take: impl FnMut(&Row) -> Result<bool, DbError>,
    ) -> Result<RowsLeft, DbError> {
        let rows = self.ledger.answered(self.transaction.query_portal_raw(portal, most)).await?;
        self.ledger.unanswered.fetch_add(1, Ordering::Relaxed);
        pin_mut!(rows);
        let mut count = 0;
        while let Some(row) = self.next(&mut rows).await? {
            count += 1;
            if !take(&row)? && count < most {
                return Ok(RowsLeft::Unwanted);
            }
        }
        self.ledger.unanswered.fetch_sub(1, Ordering::Relaxed);
        Ok(if count < most { RowsLeft::None } else { RowsLeft::Some })
    }

    /// The next row. The statement stays counted as unanswered.
    async fn next(&self, rows: &mut (impl Stream<Item = Result<Row, Error>> + Unpin)) -> Result<Option<Row>, DbError> {
        match timeout(ANSWER_TIMEOUT, rows.next()).await {
            Ok(row) => Ok(row.transpose()?),
            Err(elapsed) => {
                self.ledger.is_silent.store(true, Ordering::Relaxed);
                Err(DbError::Unavailable(elapsed.into()))
            }
        }
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`].
    pub async fn commit(self) -> Result<(), DbError> {
        self.ledger.answered(self.transaction.commit()).await?;
        // Only after the answer: a commit that failed, or was abandoned, leaves the session unsettled.
        self.ledger.is_open.store(false, Ordering::Relaxed);
        Ok(())
    }
}

/// The rest after a piece of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsLeft {
    /// There are no more.
    None,
    /// There may be more.
    Some,
    /// The reader stopped within the piece.
    Unwanted,
}
