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

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Transaction};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Portal, Row, Statement, ToStatement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::DbError;
use super::pool::{PooledClient, closed};
use super::statement_ledger::{RowsLeft, StatementLedger};

/// How long an abandoned statement may continue before it is cancelled. Most are answered by then, and keep their
/// session.
const GRACE: Duration = Duration::from_millis(50);
/// The longest time for a cancel request.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time for a cancelled statement to end.
const END_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) type SessionParameters<'a> = [&'a (dyn ToSql + Sync)];

/// A session with the server. Dropping it returns it to the pool.
pub struct PooledSession {
    /// INVARIANT: present until this is dropped or closed.
    client: Option<PooledClient>,
    turn: Option<Box<dyn Send + Sync>>,
    tls: MakeRustlsConnect,
    ledger: Arc<StatementLedger>,
}

impl PooledSession {
    /// A session of the pool. `turn` is dropped when the server no longer works for it.
    pub(super) fn new(client: PooledClient, tls: MakeRustlsConnect, turn: impl Send + Sync + 'static) -> Self {
        let turn = Some(Box::new(turn) as Box<_>);
        Self { client: Some(client), turn, tls, ledger: Arc::new(StatementLedger::new()) }
    }

    fn client(&self) -> Result<&ClientWrapper, DbError> {
        self.client.as_ref().ok_or_else(closed)?.client()
    }

    /// Keeps this until the server no longer works for this session.
    pub(super) fn hold(&mut self, turns: impl Send + Sync + 'static) {
        self.turn = Some(Box::new((self.turn.take(), turns)));
    }

    /// Whether the session has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.client.as_ref().is_none_or(PooledClient::is_closed)
    }

    /// Removes the time limit for statements, for a migration or an import that no request waits for.
    pub fn without_limit(self) -> Self {
        self.ledger.is_unlimited.store(true, Ordering::Relaxed);
        self
    }

    /// Closes the session at once, whatever the server is doing.
    pub fn close(mut self) {
        if let Some(client) = self.client.take() {
            client.close();
        }
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

    /// Reads the rows of a statement that returns at most `most`, one by one, while `take` wants another. Rows that it
    /// does not want are abandoned, and the session with them.
    ///
    /// # Errors
    /// See [`PooledSession::prepare_cached`]; and the errors of `take`.
    pub(super) async fn rows(
        &self,
        statement: &Statement,
        of: &SessionParameters<'_>,
        most: i32,
        take: impl FnMut(&Row) -> Result<bool, DbError>,
    ) -> Result<RowsLeft, DbError> {
        let rows = self.ledger.answered(self.client()?.query_raw(statement, of.iter().copied())).await?;
        self.ledger.taken(rows, most, take).await
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
        let client = self.client.as_mut().ok_or_else(closed)?.client_mut()?;
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
            client.close();
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
async fn settle(pooled: PooledClient, ledger: &StatementLedger, tls: MakeRustlsConnect) {
    if !is_settled_soon(&pooled, ledger, tls).await {
        pooled.close();
    }
}

/// Whether the session can go on, once the server has answered or its statement was cancelled.
async fn is_settled_soon(pooled: &PooledClient, ledger: &StatementLedger, tls: MakeRustlsConnect) -> bool {
    let Ok(client) = pooled.client() else { return false };
    let is_silent = ledger.is_silent.load(Ordering::Relaxed);
    // The server answers in order, so this answer comes after all abandoned ones.
    if !is_silent && matches!(timeout(GRACE, client.check_connection()).await, Ok(Ok(()))) {
        // The name of a statement that was being prepared is lost; a session that was kept would accumulate such
        // statements.
        return ledger.preparing.load(Ordering::Relaxed) == 0;
    }
    if client.is_closed() {
        // Its server is no longer followed or is gone, so a cancel request has no recipient.
        return false;
    }
    let cancel = client.cancel_token();
    if let Ok(Err(error)) = timeout(CANCEL_TIMEOUT, cancel.cancel_query(tls)).await {
        tracing::debug!("an abandoned statement could not be cancelled: {error}");
    }
    if !is_silent {
        let _ = timeout(END_TIMEOUT, client.check_connection()).await;
    }
    false
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
        take: impl FnMut(&Row) -> Result<bool, DbError>,
    ) -> Result<RowsLeft, DbError> {
        let rows = self.ledger.answered(self.transaction.query_portal_raw(portal, most)).await?;
        self.ledger.taken(rows, most, take).await
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
