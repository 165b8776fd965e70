//! A session with the primary that receives its notices (`LISTEN`).
//!
//! The one rule: a notice is a hint and never proof. It may be lost with its session, so every receiver also asks.
//!
//! The relay of the HIS calls it.

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, Statement, ToStatement};

use super::DbError;
use super::route::{HostAddress, ReachedServer, ServerIdentity, ServerRoute};

/// Notices that wait to be received. A full queue drops further ones, since one of them is enough to ask.
const QUEUE: usize = 16;

/// A session that listens. It ends when it is dropped.
pub struct NoticeSession {
    client: Client,
    notices: mpsc::Receiver<String>,
    identity: ServerIdentity,
    at: HostAddress,
    driver: AbortHandle,
}

impl NoticeSession {
    /// Opens a session and listens on a channel.
    ///
    /// # Errors
    /// No wanted server answers within `limit`.
    pub async fn open(route: &ServerRoute, channel: &str, limit: Duration) -> Result<Self, DbError> {
        let reached = route.reach().await?;
        let at = reached.at();
        let ReachedServer { client, mut connection, identity, .. } = reached;
        let (notice, notices) = mpsc::channel(QUEUE);
        // A separate task drives the connection. It ends with the connection, or with this session.
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = notice.try_send(notification.payload().to_owned());
                }
            }
        });
        let session = Self { client, notices, identity, at, driver: driver.abort_handle() };
        within(limit, session.client.batch_execute(&format!("LISTEN {channel}"))).await?;
        Ok(session)
    }

    /// The server of this session.
    pub fn identity(&self) -> &ServerIdentity {
        &self.identity
    }

    /// The address that answered.
    pub fn at(&self) -> HostAddress {
        self.at
    }

    /// Prepares a statement that is asked often: a statement as text is planned each time, in a round trip of its own.
    ///
    /// # Errors
    /// The server is silent, or refused the statement.
    pub async fn prepare(&self, limit: Duration, sql: &str) -> Result<Statement, DbError> {
        within(limit, self.client.prepare(sql)).await
    }

    /// The only row of an answer that must come within `limit`.
    ///
    /// # Errors
    /// The server is silent, or refused the statement.
    pub async fn ask(
        &self,
        limit: Duration,
        sql: &(impl ToStatement + ?Sized),
        of: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, DbError> {
        within(limit, self.client.query_one(sql, of)).await
    }

    /// The payload of the next notice. Dropping the future loses none.
    ///
    /// # Errors
    /// The session has ended.
    pub async fn next(&mut self) -> Result<String, DbError> {
        self.notices.recv().await.ok_or_else(|| DbError::Unavailable("the session for notices has ended".into()))
    }
}

impl Drop for NoticeSession {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn within<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, DbError> {
    match timeout(limit, question).await {
        Ok(answer) => answer.map_err(DbError::from),
        Err(elapsed) => Err(DbError::Unavailable(elapsed.into())),
    }
}
