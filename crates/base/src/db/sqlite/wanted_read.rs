//! A read that is wanted only for as long as its caller waits, and for a bounded time.
//!
//! The one rule: a check belongs to one read, and ends with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rusqlite::Connection;

use super::super::DbError;
use super::{OPERATIONS, unavailable};

/// Whether a caller still waits for a read, and how long it may take.
pub(super) struct WantedRead {
    is_abandoned: Arc<AtomicBool>,
    deadline: Instant,
}

/// The waiting caller; dropped with its future.
pub(super) struct WaitingReader(Arc<AtomicBool>);

impl Drop for WaitingReader {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl WantedRead {
    pub(super) fn until(deadline: Instant) -> (Self, WaitingReader) {
        let is_abandoned = Arc::new(AtomicBool::new(false));
        (Self { is_abandoned: Arc::clone(&is_abandoned), deadline }, WaitingReader(is_abandoned))
    }

    /// Runs the work, and interrupts it when it is no longer wanted. The check belongs to this work and ends with it.
    /// Unlike `sqlite3_interrupt`, it cannot hit what the connection does next.
    pub(super) fn run<T>(
        self,
        connection: &mut Connection,
        work: impl FnOnce(&mut Connection) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let Self { is_abandoned, deadline } = self;
        if is_abandoned.load(Ordering::Relaxed) {
            return Err(unavailable("its caller no longer waits"));
        }
        let is_over = move || is_abandoned.load(Ordering::Relaxed) || Instant::now() > deadline;
        connection.progress_handler(OPERATIONS, Some(is_over))?;
        let answer = work(connection);
        connection.progress_handler(0, None::<fn() -> bool>)?;
        answer
    }
}
