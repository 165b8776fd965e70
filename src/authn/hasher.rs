//! The hashers: dedicated threads that verify and make password hashes, behind bounded queues.
//!
//! One verification takes tens of milliseconds of a whole core and 46 MiB, so these queues are the lever for denial of
//! service. The one rule: they are bounded by the work that waits, a full one is told at once ([`Busy`]), no caller fills
//! one ([`queue`]), and a caller who went away costs nothing. Who proved the password from the same address lately waits in
//! a lane of its own, which is served first: a flood of guesses fills the other one. Each thread keeps an arena of its own.

mod queue;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::password::{self, Arena, Cost, HashWork};
pub(super) use queue::JobOwner;
use queue::JobQueue;
use work::HashingPace;

/// The queue is full, or there are no hashers; the same request may succeed in a moment.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("password verification is busy")]
pub struct Busy;

/// Where a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Served first: the account was signed in to from the same source lately.
    Known,
    /// Everybody else, and new hashes for accounts that are served already.
    Unknown,
}

/// A handle to the hasher threads; they end when the last handle is gone.
#[derive(Clone)]
pub(super) struct Hasher {
    shared: Arc<Handle>,
    cost: Cost,
}

/// What the handles share; dropped with the last of them, which ends the threads.
struct Handle {
    queues: Arc<Queues>,
    threads: usize,
    /// The work that may wait in each lane.
    most: Duration,
}

#[derive(Default)]
struct Queues {
    jobs: Mutex<Jobs>,
    news: Condvar,
    pace: HashingPace,
}

#[derive(Default)]
struct Jobs {
    known: JobQueue,
    unknown: JobQueue,
    is_over: bool,
}

enum Job {
    Verify { stored: String, password: Zeroizing<Vec<u8>>, answer: oneshot::Sender<bool> },
    Hash { password: Zeroizing<Vec<u8>>, answer: oneshot::Sender<Option<String>> },
}

impl Job {
    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Verify { answer, .. } => answer.is_closed(),
            Self::Hash { answer, .. } => answer.is_closed(),
        }
    }

    fn work(&self, cost: Cost) -> HashWork {
        match self {
            Self::Verify { stored, .. } => password::work(stored),
            Self::Hash { .. } => cost.work(),
        }
    }

    fn run(self, cost: Cost, arena: &mut Arena) {
        match self {
            Self::Verify { stored, password, answer } => {
                let _ = answer.send(password::verify_with(&stored, &password, arena));
            }
            Self::Hash { password, answer } => {
                let _ = answer.send(password::hash_with(&password, cost, arena).ok());
            }
        }
    }
}

impl Hasher {
    /// Starts `threads` threads. In each lane waits no more work than they do in `longest`.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start(threads: usize, longest: Duration, cost: Cost) -> std::io::Result<Self> {
        let queues = Arc::new(Queues::default());
        for number in 0..threads {
            let queues = Arc::clone(&queues);
            thread::Builder::new().name(format!("hasher-{number}")).spawn(move || work(&queues, cost))?;
        }
        let most = longest.saturating_mul(u32::try_from(threads).unwrap_or(u32::MAX));
        Ok(Self { shared: Arc::new(Handle { queues, threads, most }), cost })
    }

    /// The cost of the hashes made here.
    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// How long a verification takes here at most, unless the hash is dearer than those of today.
    pub(super) fn dearest_of_today(&self) -> Duration {
        self.shared.queues.pace.dearest_of_today(self.cost)
    }

    /// How many jobs wait in both lanes.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        let jobs = self.shared.queues.lock();
        jobs.known.len() + jobs.unknown.len()
    }

    /// Whether `password` is the one `stored` was made from. Dropping the future cancels a job that still waits.
    ///
    /// # Errors
    /// [`Busy`].
    pub(super) async fn verify(
        &self,
        stored: String,
        password: Zeroizing<Vec<u8>>,
        lane: Lane,
        owner: JobOwner,
    ) -> Result<bool, Busy> {
        let (answer, receive) = oneshot::channel();
        self.submit(Job::Verify { stored, password, answer }, lane, owner)?;
        receive.await.map_err(|_| Busy)
    }

    /// Makes a new hash; none when the password is too long for one.
    ///
    /// # Errors
    /// [`Busy`].
    pub(super) async fn hash(&self, password: Zeroizing<Vec<u8>>, owner: JobOwner) -> Result<Option<String>, Busy> {
        let (answer, receive) = oneshot::channel();
        self.submit(Job::Hash { password, answer }, Lane::Unknown, owner)?;
        receive.await.map_err(|_| Busy)
    }

    fn submit(&self, job: Job, lane: Lane, owner: JobOwner) -> Result<(), Busy> {
        let Handle { queues, threads, most } = &*self.shared;
        let work = queues.pace.estimate(job.work(self.cost));
        let mut jobs = queues.lock();
        let queue = match lane {
            Lane::Known => &mut jobs.known,
            Lane::Unknown => &mut jobs.unknown,
        };
        if *threads == 0 || !queue.push(job, owner, work, *most) {
            return Err(Busy);
        }
        drop(jobs);
        queues.news.notify_one();
        Ok(())
    }
}

impl Queues {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a job; none when there will be no more.
    fn take(&self) -> Option<Job> {
        let mut jobs = self.lock();
        loop {
            if jobs.is_over {
                return None;
            }
            if let Some(job) = jobs.known.pop().or_else(|| jobs.unknown.pop()) {
                return Some(job);
            }
            jobs = self.news.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queues.lock().is_over = true;
        self.queues.news.notify_all();
    }
}

fn work(queues: &Queues, cost: Cost) {
    let mut arena = Arena::default();
    while let Some(job) = queues.take() {
        if job.is_abandoned() {
            continue;
        }
        let (work, began) = (job.work(cost), Instant::now());
        // A fault of this program costs the job that met it, not the thread that all others wait for.
        if catch_unwind(AssertUnwindSafe(|| job.run(cost, &mut arena))).is_err() {
            tracing::error!("a password could not be hashed, by a fault of this program");
            arena = Arena::default();
            continue;
        }
        queues.pace.learn(work, began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    const LONGEST: Duration = Duration::from_millis(2000);

    fn owner(account: &str) -> JobOwner {
        JobOwner { account: account.into(), source: None }
    }

    fn secret(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn hashes_and_verifies_off_the_callers_thread() {
        let hasher = Hasher::start(2, LONGEST, CHEAP).unwrap();
        let stored = hasher.hash(secret("freedom"), owner("ANA")).await.unwrap().unwrap();
        assert_eq!(hasher.verify(stored.clone(), secret("freedom"), Lane::Known, owner("ANA")).await, Ok(true));
        assert_eq!(hasher.verify(stored, secret("Freedom"), Lane::Unknown, owner("ANA")).await, Ok(false));
    }

    /// Lanes in which two jobs of the least work have room.
    const SHORTEST: Duration = Duration::from_millis(2);

    /// A hasher whose one thread is at work on a hash that takes long.
    async fn occupied(longest: Duration) -> (Hasher, tokio::task::JoinHandle<Result<Option<String>, Busy>>) {
        let hasher = Hasher::start(1, longest, Cost { memory_kib: 65_536, passes: 8 }).unwrap();
        let first = hasher.clone();
        let running = tokio::spawn(async move { first.hash(secret("a"), owner("ANA")).await });
        tokio::task::yield_now().await;
        while hasher.waiting() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        (hasher, running)
    }

    #[tokio::test]
    async fn a_full_lane_is_told_at_once_and_who_went_away_makes_room() {
        let nobody_hashes = Hasher::start(0, LONGEST, CHEAP).unwrap();
        assert_eq!(nobody_hashes.hash(secret("a"), owner("ANA")).await, Err(Busy));

        let (hasher, running) = occupied(SHORTEST).await;
        let verify = |account| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.verify(String::new(), secret("a"), Lane::Unknown, owner(account)).await })
        };
        let waiting = [verify("BOB"), verify("CAT")];
        tokio::task::yield_now().await;
        assert_eq!(hasher.verify(String::new(), secret("a"), Lane::Unknown, owner("DOC")).await, Err(Busy));
        assert_eq!(hasher.waiting(), 2);
        for gone in &waiting {
            gone.abort();
        }
        tokio::task::yield_now().await;
        assert_eq!(hasher.verify(String::new(), secret("a"), Lane::Unknown, owner("DOC")).await, Ok(false));
        assert!(running.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_is_known_is_served_before_who_came_earlier() {
        let (hasher, running) = occupied(SHORTEST).await;
        let order = Arc::new(Mutex::new(vec![]));
        let jobs = [("flood", Lane::Unknown), ("doctor", Lane::Known)].map(|(name, lane)| {
            let (hasher, order) = (hasher.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                let stored = password::hash_with(b"a", CHEAP, &mut Arena::default()).unwrap();
                assert_eq!(hasher.verify(stored, secret("a"), lane, owner(name)).await, Ok(true));
                order.lock().unwrap().push(name);
            })
        });
        for job in jobs {
            job.await.unwrap();
        }
        assert!(running.await.unwrap().is_ok());
        assert_eq!(*order.lock().unwrap(), ["doctor", "flood"]);
    }

    #[tokio::test]
    async fn dear_hashes_of_ten_accounts_are_refused_at_once_and_keep_no_known_caller_out() {
        let (hasher, running) = occupied(LONGEST).await;
        let dear = format!("$2b$15${}", "a".repeat(53));
        let first = tokio::spawn({
            let (hasher, dear) = (hasher.clone(), dear.clone());
            async move { hasher.verify(dear, secret("a"), Lane::Unknown, owner("A0")).await }
        });
        tokio::task::yield_now().await;
        for n in 1..10 {
            let account = format!("A{n}");
            assert_eq!(hasher.verify(dear.clone(), secret("a"), Lane::Unknown, owner(&account)).await, Err(Busy));
        }
        assert_eq!(hasher.waiting(), 1);
        let stored = password::hash_with(b"a", CHEAP, &mut Arena::default()).unwrap();
        let known = tokio::spawn({
            let hasher = hasher.clone();
            async move { hasher.verify(stored, secret("a"), Lane::Known, owner("DOC")).await }
        });
        assert_eq!(known.await.unwrap(), Ok(true), "before the dear one");
        first.abort();
        assert!(running.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn the_threads_end_with_the_last_handle() {
        let hasher = Hasher::start(2, LONGEST, CHEAP).unwrap();
        assert_eq!(hasher.cost(), CHEAP);
        let queues = Arc::downgrade(&hasher.shared.queues);
        let other = hasher.clone();
        drop(hasher);
        assert!(other.hash(secret("freedom"), owner("ANA")).await.is_ok(), "one handle is left");
        drop(other);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while queues.strong_count() > 0 {
            assert!(std::time::Instant::now() < deadline, "a thread still waits for jobs");
            thread::yield_now();
        }
    }
}
