//! The writes that wait for the next transaction of an embedded store.
//!
//! The one rule: a write leaves the queue once, to run or because its caller no longer waits, and lanes take turns. A
//! lane is one caller's, so a caller with many writes is never more than one write ahead of another.
//!
//! `sqlite.rs` puts writes in; `write_group.rs` takes them out, and runs them.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Transaction;
use tokio::sync::oneshot;

use super::super::{DbError, NoTurn};
use super::unavailable;

/// With this many in the queue, those that nobody waits for are dropped before another is taken.
const MOST_QUEUED: usize = 1024;

/// How a write takes part in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteCompany {
    /// It has a transaction of its own, and stops when its caller goes: an operator's command, or many rows.
    Alone {
        /// The caller; the writes of one take turns with those of others.
        lane: u64,
    },
    /// It shares a transaction with others: a few rows, found by their keys.
    Shared {
        /// The caller.
        lane: u64,
        /// About how many bytes it writes.
        bytes: usize,
    },
}

impl WriteCompany {
    fn lane(self) -> u64 {
        match self {
            Self::Alone { lane } | Self::Shared { lane, .. } => lane,
        }
    }

    /// About how many bytes it writes, as far as a group has to know.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Alone { .. } => 0,
            Self::Shared { bytes, .. } => bytes,
        }
    }

    pub(super) fn is_alone(self) -> bool {
        matches!(self, Self::Alone { .. })
    }
}

/// The result of a write that has run: what it came to, and how its caller is told. Without the second a caller would
/// be told before the commit.
pub(super) struct RanWrite {
    pub(super) outcome: Result<(), DbError>,
    pub(super) tell: Box<dyn FnOnce(Result<(), DbError>) + Send>,
}

/// The work of one caller, whatever its result is.
trait WriteWork: Send {
    fn run(self: Box<Self>, transaction: &Transaction<'_>) -> RanWrite;
    fn refuse(self: Box<Self>, error: DbError);
}

struct TypedWork<T, F, S> {
    work: F,
    /// Dropped when the caller has been told, or has gone before the work began.
    turn: S,
    answer: oneshot::Sender<Result<T, DbError>>,
}

impl<T, F, S> WriteWork for TypedWork<T, F, S>
where
    F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send,
    T: Send + 'static,
    S: Send + 'static,
{
    fn run(self: Box<Self>, transaction: &Transaction<'_>) -> RanWrite {
        let Self { work, turn, answer } = *self;
        // A panic concerns its own caller, and not those who share the transaction.
        let (value, outcome) = match catch_unwind(AssertUnwindSafe(|| work(transaction))) {
            Ok(Ok(value)) => (Some(value), Ok(())),
            Ok(Err(error)) => (None, Err(error.into())),
            Err(_) => (None, Err(DbError::Failed("a write panicked".into()))),
        };
        let tell = Box::new(move |outcome: Result<(), DbError>| {
            let told = outcome.and_then(|()| value.ok_or_else(|| DbError::Failed("a write has no result".into())));
            drop((answer.send(told), turn));
        });
        RanWrite { outcome, tell }
    }

    fn refuse(self: Box<Self>, error: DbError) {
        drop(self.answer.send(Err(error)));
    }
}

/// A write in the queue.
struct QueuedWrite {
    /// Taken by whoever runs it, or by its caller who leaves.
    work: Mutex<Option<Box<dyn WriteWork>>>,
    company: WriteCompany,
    is_abandoned: Arc<AtomicBool>,
}

impl QueuedWrite {
    fn take(&self) -> Option<Box<dyn WriteWork>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_waiting(&self) -> bool {
        self.work.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// A write whose turn has come.
pub(super) struct ClaimedWrite {
    work: Box<dyn WriteWork>,
    pub(super) company: WriteCompany,
    pub(super) is_abandoned: Arc<AtomicBool>,
}

impl ClaimedWrite {
    pub(super) fn run(self, transaction: &Transaction<'_>) -> RanWrite {
        self.work.run(transaction)
    }

    /// Tells the caller that it did not run.
    pub(super) fn refuse(self, error: DbError) {
        self.work.refuse(error);
    }
}

/// The waiting caller. Dropped with its future, it takes a write back that has not begun.
pub(super) struct WaitingCaller<T> {
    queued: Arc<QueuedWrite>,
    pub(super) answer: oneshot::Receiver<Result<T, DbError>>,
}

impl<T> WaitingCaller<T> {
    /// Takes the write back, and returns whether it had not begun.
    pub(super) fn withdraw(&self) -> bool {
        self.queued.take().is_some()
    }
}

impl<T> Drop for WaitingCaller<T> {
    fn drop(&mut self) {
        self.queued.is_abandoned.store(true, Ordering::Relaxed);
        drop(self.queued.take());
    }
}

/// The queue of one store.
#[derive(Default)]
pub(super) struct WriteQueue(Mutex<QueuedLanes>);

/// INVARIANT: a lane is in `order` once if it has writes, and in neither otherwise.
#[derive(Default)]
struct QueuedLanes {
    order: VecDeque<u64>,
    writes: HashMap<u64, VecDeque<Arc<QueuedWrite>>>,
    count: usize,
}

impl WriteQueue {
    /// Puts a write at the end of its lane.
    ///
    /// # Errors
    /// The queue is full.
    pub(super) fn put<T, F, S>(&self, company: WriteCompany, turn: S, work: F) -> Result<WaitingCaller<T>, DbError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
        S: Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let work: Box<dyn WriteWork> = Box::new(TypedWork { work, turn, answer: sender });
        let queued = Arc::new(QueuedWrite { work: Mutex::new(Some(work)), company, is_abandoned: Arc::default() });
        self.lanes().put(Arc::clone(&queued))?;
        Ok(WaitingCaller { queued, answer })
    }

    /// The write whose turn it is.
    pub(super) fn take_first(&self) -> Option<ClaimedWrite> {
        self.lanes().take(|_| true)
    }

    /// The same, if it may share a transaction that has room for so many bytes more.
    pub(super) fn take_next(&self, room: usize) -> Option<ClaimedWrite> {
        self.lanes().take(|company| !company.is_alone() && company.bytes() <= room)
    }

    /// Tells all that wait that the store is closed.
    pub(super) fn refuse_all(&self) {
        while let Some(write) = self.take_first() {
            write.refuse(unavailable("the store is closed"));
        }
    }

    /// How many writes are in it.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lanes().count
    }

    fn lanes(&self) -> MutexGuard<'_, QueuedLanes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuedLanes {
    fn put(&mut self, write: Arc<QueuedWrite>) -> Result<(), DbError> {
        if self.count >= MOST_QUEUED {
            self.drop_abandoned();
        }
        if self.count >= MOST_QUEUED {
            return Err(NoTurn::OfWrites.into());
        }
        let lane = write.company.lane();
        let writes = self.writes.entry(lane).or_default();
        if writes.is_empty() {
            self.order.push_back(lane);
        }
        writes.push_back(write);
        self.count += 1;
        Ok(())
    }

    /// Takes the first write that somebody waits for, if it suits. Those before it that nobody waits for are dropped.
    fn take(&mut self, suits: impl Fn(WriteCompany) -> bool) -> Option<ClaimedWrite> {
        loop {
            let lane = *self.order.front()?;
            let first = Arc::clone(self.writes.get(&lane)?.front()?);
            if first.is_waiting() && !suits(first.company) {
                return None;
            }
            self.remove_first(lane);
            if let Some(work) = first.take() {
                let (company, is_abandoned) = (first.company, Arc::clone(&first.is_abandoned));
                return Some(ClaimedWrite { work, company, is_abandoned });
            }
        }
    }

    fn remove_first(&mut self, lane: u64) {
        self.order.pop_front();
        self.count -= 1;
        let Some(writes) = self.writes.get_mut(&lane) else { return };
        writes.pop_front();
        match writes.is_empty() {
            true => drop(self.writes.remove(&lane)),
            // The next turn is another lane's.
            false => self.order.push_back(lane),
        }
    }

    fn drop_abandoned(&mut self) {
        self.writes.retain(|_, writes| {
            writes.retain(|write| write.is_waiting());
            !writes.is_empty()
        });
        self.order.retain(|lane| self.writes.contains_key(lane));
        self.count = self.writes.values().map(VecDeque::len).sum();
    }
}
