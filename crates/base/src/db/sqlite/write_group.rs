//! Group commit: the writes that wait together are committed together, and share one sync of the disk.
//!
//! The one rule: nobody is told of success before the commit that holds his write has returned, and if it fails,
//! everybody in it is told so. Each write has a savepoint of its own, so its failure undoes nothing of the others.
//!
//! A group is bounded in writes, bytes and time, because other processes wait for the lock meanwhile. It waits for
//! nobody: a write that finds no other has a transaction of its own at once.
//!
//! SQLite undoes a whole transaction when a writing statement of it is interrupted. So only the first write of a group
//! is interrupted when its caller goes; another runs to its end, and is undone there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction};

use super::super::DbError;
use super::write_queue::{ClaimedWrite, RanWrite};
use super::{OPERATIONS, SqliteInner, unavailable};

/// The most writes of a group.
pub const GROUP_WRITES: usize = 64;
/// A group takes no further write beyond so many bytes.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// A group takes no further write after so long. Other processes wait for this, one more write, and the commit.
pub(super) const GROUP_TIME: Duration = Duration::from_millis(20);
/// How many groups one thread runs before it lets another one have the store.
const GROUPS_IN_A_ROW: usize = 64;

/// Runs groups until nothing waits.
pub(super) fn run_groups(inner: &SqliteInner, writer: &mut Option<Connection>) {
    let Some(connection) = writer else { return inner.queue.refuse_all() };
    for _ in 0..GROUPS_IN_A_ROW {
        let Some(first) = inner.queue.take_first() else { return };
        let mut group = WriteGroup { inner, ran: vec![], bytes: 0 };
        let fault = group.run(connection, first).err();
        group.tell(fault);
    }
}

/// The writes of one transaction that have run.
struct WriteGroup<'a> {
    inner: &'a SqliteInner,
    ran: Vec<RanWrite>,
    bytes: usize,
}

impl WriteGroup<'_> {
    /// Runs the first write, and those that wait meanwhile, and commits them.
    ///
    /// # Errors
    /// Nothing is stored for certain, and everybody has to be told so.
    fn run(&mut self, connection: &mut Connection, first: ClaimedWrite) -> Result<(), DbError> {
        if let Err(error) = self.inner.check_name() {
            first.refuse(error);
            return Ok(());
        }
        let first_ended = Arc::new(AtomicBool::new(false));
        let is_over = {
            let (first_ended, is_abandoned) = (Arc::clone(&first_ended), Arc::clone(&first.is_abandoned));
            move || is_abandoned.load(Ordering::Relaxed) && !first_ended.load(Ordering::Relaxed)
        };
        // The check belongs to this write and ends with it. Unlike `sqlite3_interrupt`, it cannot hit what the
        // connection does next.
        let prepared = connection
            .progress_handler(OPERATIONS, Some(is_over))
            .and_then(|()| keep_savepoints_in_memory(connection, !first.company.is_alone()));
        if let Err(error) = prepared {
            first.refuse(error.into());
            return Ok(());
        }
        let done = self.run_in_transaction(connection, first, &first_ended);
        connection.progress_handler(0, None::<fn() -> bool>)?;
        done?;
        // A commit to a file that has lost its name is lost with the process.
        self.inner.check_name()
    }

    fn run_in_transaction(
        &mut self,
        connection: &Connection,
        first: ClaimedWrite,
        first_ended: &AtomicBool,
    ) -> Result<(), DbError> {
        let begun = self.inner.gate.begin(connection, || first.is_abandoned.load(Ordering::Relaxed));
        let transaction = match begun {
            Ok(transaction) => transaction,
            Err(error) => {
                first.refuse(error.into());
                return Ok(());
            }
        };
        let (begun, mut next) = (Instant::now(), Some(first));
        while let Some(write) = next {
            let is_alone = write.company.is_alone();
            self.run_one(&transaction, write)?;
            first_ended.store(true, Ordering::Relaxed);
            let is_full = is_alone || self.ran.len() >= GROUP_WRITES || begun.elapsed() >= self.inner.group_time;
            next = match is_full {
                true => None,
                false => self.inner.queue.take_next(GROUP_BYTES.saturating_sub(self.bytes)),
            };
        }
        match self.ran.iter().any(|ran| ran.outcome.is_ok()) {
            true => Ok(transaction.commit()?),
            false => Ok(transaction.rollback()?),
        }
    }

    /// Runs one write in a savepoint.
    ///
    /// # Errors
    /// The whole transaction is undone, or has to be.
    fn run_one(&mut self, transaction: &Transaction<'_>, write: ClaimedWrite) -> Result<(), DbError> {
        // The bounds of the first write are its own: what it writes counts when it has run.
        let (bytes, is_abandoned) = (write.company.bytes(), Arc::clone(&write.is_abandoned));
        execute(transaction, "SAVEPOINT fedgate_write")?;
        let mut ran = write.run(transaction);
        self.bytes = self.bytes.saturating_add(bytes);
        if ran.outcome.is_ok() && is_abandoned.load(Ordering::Relaxed) {
            ran.outcome = Err(unavailable("its caller no longer waits"));
        }
        let is_kept = ran.outcome.is_ok();
        let fault = ran.outcome.as_ref().err().map(again);
        self.ran.push(ran);
        // SQLite has undone everything: the disk is full or failed, or the first write was interrupted.
        if transaction.is_autocommit() {
            return Err(fault.unwrap_or_else(|| unavailable("the transaction has ended")));
        }
        if !is_kept {
            execute(transaction, "ROLLBACK TO fedgate_write")?;
        }
        execute(transaction, "RELEASE fedgate_write")?;
        Ok(())
    }

    /// Tells everybody what came of it.
    fn tell(self, fault: Option<DbError>) {
        for RanWrite { outcome, tell } in self.ran {
            tell(fault.as_ref().map_or(outcome, |fault| Err(again(fault))));
        }
    }
}

fn execute(transaction: &Transaction<'_>, sql: &str) -> Result<(), rusqlite::Error> {
    transaction.prepare_cached(sql)?.execute([]).map(drop)
}

/// What undoes a savepoint is kept in memory: in a temporary file, a full or missing `/tmp` would fail writes. It is as
/// large as the pages of one write. A write alone may build an index, whose sorting belongs in files.
fn keep_savepoints_in_memory(connection: &Connection, in_memory: bool) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "temp_store", if in_memory { "MEMORY" } else { "DEFAULT" })
}

/// The same error for another caller.
fn again(error: &DbError) -> DbError {
    if let Some(rusqlite::Error::SqliteFailure(code, text)) = error.find() {
        return rusqlite::Error::SqliteFailure(*code, text.clone()).into();
    }
    let text = error.in_short();
    if error.is_unavailable() { unavailable(text) } else { DbError::Failed(text.into()) }
}
