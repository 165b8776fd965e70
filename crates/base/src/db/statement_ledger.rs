//! The statements of a session that are not answered yet, and the limit of each answer.
//!
//! The one rule: a statement counts from the moment when it may be sent until the server has answered all of it, also if
//! its caller goes away meanwhile.
//!
//! [`session`](super::session) calls it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt, pin_mut};
use tokio::time::timeout;
use tokio_postgres::{Error, Row, Statement};

use super::DbError;

/// How long the server may be silent about one statement. The server itself ends statements earlier
/// (`statement_timeout`), so one that is silent for longer does not answer at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(11);

/// The statements of a session that are not answered yet.
pub(super) struct StatementLedger {
    unanswered: AtomicUsize,
    pub(super) preparing: AtomicUsize,
    /// A transaction was begun and not ended. Its ROLLBACK is under way when the session is returned.
    pub(super) is_open: AtomicBool,
    /// The server did not answer in time.
    pub(super) is_silent: AtomicBool,
    pub(super) is_unlimited: AtomicBool,
}

impl StatementLedger {
    pub(super) fn new() -> Self {
        Self {
            unanswered: AtomicUsize::new(0),
            preparing: AtomicUsize::new(0),
            is_open: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
            is_unlimited: AtomicBool::new(false),
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) == 0 && !self.is_open.load(Ordering::Relaxed)
    }

    /// Awaits an answer. If this future is dropped, its statement stays counted as unanswered.
    pub(super) async fn answered<T>(&self, statement: impl Future<Output = Result<T, Error>>) -> Result<T, DbError> {
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

    /// Reads at most `most` rows of a statement while `take` wants another.
    pub(super) async fn taken(
        &self,
        rows: impl Stream<Item = Result<Row, Error>>,
        most: i32,
        mut take: impl FnMut(&Row) -> Result<bool, DbError>,
    ) -> Result<RowsLeft, DbError> {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
        pin_mut!(rows);
        let mut count = 0;
        while let Some(row) = self.next(&mut rows).await? {
            count += 1;
            if !take(&row)? && count < most {
                return Ok(RowsLeft::Unwanted);
            }
        }
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
        Ok(if count < most { RowsLeft::None } else { RowsLeft::Some })
    }

    /// The next row. The statement stays counted as unanswered.
    async fn next(&self, rows: &mut (impl Stream<Item = Result<Row, Error>> + Unpin)) -> Result<Option<Row>, DbError> {
        match timeout(ANSWER_TIMEOUT, rows.next()).await {
            Ok(row) => Ok(row.transpose()?),
            Err(elapsed) => {
                self.is_silent.store(true, Ordering::Relaxed);
                Err(DbError::Unavailable(elapsed.into()))
            }
        }
    }

    pub(super) async fn prepared(
        &self,
        statement: impl Future<Output = Result<Statement, Error>>,
    ) -> Result<Statement, DbError> {
        self.preparing.fetch_add(1, Ordering::Relaxed);
        let prepared = self.answered(statement).await;
        self.preparing.fetch_sub(1, Ordering::Relaxed);
        prepared
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
