//! The hashers: dedicated threads that verify and make password hashes, behind bounded queues.
//!
//! One verification takes tens of milliseconds of a whole core and 46 MiB, so these queues are the lever for denial of
//! service. The one rule: they are bounded, a full one is told at once ([`Busy`]), and a caller who went away costs
//! nothing. Who proved the password from the same source lately waits in a lane of its own, which is served first: a
//! flood of guesses fills the other one. Each thread keeps an arena of its own.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use thiserror::Error;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::password::{self, Arena, Cost};

/// The queue is full, or there are no hashers; the same request may succeed in a moment.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("password verification is busy")]
pub struct Busy;

/// Where a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Served first: the account was signed in to from the same source lately.
    Known,
    /// Everybody else, and new hashes for accounts that are served already.
    Unknown,
}

/// A handle to the hasher threads; they end when the last handle is gone.
#[derive(Clone)]
pub struct Hasher {
    shared: Arc<Handle>,
    cost: Cost,
}

/// What the handles share; dropped with the last of them, which ends the threads.
struct Handle {
    queues: Arc<Queues>,
    threads: usize,
    capacity: usize,
}

#[derive(Default)]
struct Queues {
    jobs: Mutex<Jobs>,
    news: Condvar,
}

#[derive(Default)]
struct Jobs {
    known: VecDeque<Job>,
    unknown: VecDeque<Job>,
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
    /// Starts `threads` threads with room for `capacity` waiting jobs in each lane.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(threads: usize, capacity: usize, cost: Cost) -> std::io::Result<Self> {
        let queues = Arc::new(Queues::default());
        for number in 0..threads {
            let queues = Arc::clone(&queues);
            thread::Builder::new().name(format!("hasher-{number}")).spawn(move || work(&queues, cost))?;
        }
        Ok(Self { shared: Arc::new(Handle { queues, threads, capacity }), cost })
    }

    /// The cost of the hashes made here.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// How many jobs wait in both lanes.
    pub fn waiting(&self) -> usize {
        let jobs = self.shared.queues.lock();
        jobs.known.len() + jobs.unknown.len()
    }

    /// Whether `password` is the one `stored` was made from. Dropping the future cancels a job that still waits.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn verify(&self, stored: String, password: Zeroizing<Vec<u8>>, lane: Lane) -> Result<bool, Busy> {
        let (answer, receive) = oneshot::channel();
        self.submit(Job::Verify { stored, password, answer }, lane)?;
        receive.await.map_err(|_| Busy)
    }

    /// Makes a new hash; none when the password is too long for one.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn hash(&self, password: Zeroizing<Vec<u8>>) -> Result<Option<String>, Busy> {
        let (answer, receive) = oneshot::channel();
        self.submit(Job::Hash { password, answer }, Lane::Unknown)?;
        receive.await.map_err(|_| Busy)
    }

    fn submit(&self, job: Job, lane: Lane) -> Result<(), Busy> {
        let Handle { queues, threads, capacity } = &*self.shared;
        let mut jobs = queues.lock();
        let queue = match lane {
            Lane::Known => &mut jobs.known,
            Lane::Unknown => &mut jobs.unknown,
        };
        if queue.len() >= *capacity {
            // Who went away makes room for who is there.
            queue.retain(|waiting| !waiting.is_abandoned());
        }
        if queue.len() >= *capacity || *threads == 0 {
            return Err(Busy);
        }
        queue.push_back(job);
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
            if let Some(job) = jobs.known.pop_front().or_else(|| jobs.unknown.pop_front()) {
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
        // A fault of this program costs the job that met it, not the thread that all others wait for.
        if catch_unwind(AssertUnwindSafe(|| job.run(cost, &mut arena))).is_err() {
            tracing::error!("a password could not be hashed, by a fault of this program");
            arena = Arena::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1 };

    fn secret(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn hashes_and_verifies_off_the_callers_thread() {
        let hasher = Hasher::start(2, 8, CHEAP).unwrap();
        let stored = hasher.hash(secret("freedom")).await.unwrap().unwrap();
        assert_eq!(hasher.verify(stored.clone(), secret("freedom"), Lane::Known).await, Ok(true));
        assert_eq!(hasher.verify(stored, secret("Freedom"), Lane::Unknown).await, Ok(false));
    }

    /// A hasher whose one thread is at work on a hash that takes long, and queues of two places each.
    async fn occupied() -> (Hasher, tokio::task::JoinHandle<Result<Option<String>, Busy>>) {
        let hasher = Hasher::start(1, 2, Cost { memory_kib: 65_536, passes: 8 }).unwrap();
        let first = hasher.clone();
        let running = tokio::spawn(async move { first.hash(secret("a")).await });
        tokio::task::yield_now().await;
        while hasher.waiting() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        (hasher, running)
    }

    #[tokio::test]
    async fn a_full_lane_is_told_at_once_and_who_went_away_makes_room() {
        let nobody_hashes = Hasher::start(0, 1, CHEAP).unwrap();
        assert_eq!(nobody_hashes.hash(secret("a")).await, Err(Busy));

        let (hasher, running) = occupied().await;
        let verify = |lane| {
            let hasher = hasher.clone();
            tokio::spawn(async move { hasher.verify(String::new(), secret("a"), lane).await })
        };
        let waiting = [verify(Lane::Unknown), verify(Lane::Unknown)];
        tokio::task::yield_now().await;
        assert_eq!(hasher.verify(String::new(), secret("a"), Lane::Unknown).await, Err(Busy));
        assert_eq!(hasher.waiting(), 2);
        for gone in &waiting {
            gone.abort();
        }
        tokio::task::yield_now().await;
        assert_eq!(hasher.verify(String::new(), secret("a"), Lane::Unknown).await, Ok(false));
        assert!(running.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_is_known_is_served_before_who_came_earlier() {
        let (hasher, running) = occupied().await;
        let order = Arc::new(Mutex::new(vec![]));
        let jobs = [("flood", Lane::Unknown), ("doctor", Lane::Known)].map(|(name, lane)| {
            let (hasher, order) = (hasher.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                let stored = password::hash_with(b"a", CHEAP, &mut Arena::default()).unwrap();
                assert_eq!(hasher.verify(stored, secret("a"), lane).await, Ok(true));
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
    async fn the_threads_end_with_the_last_handle() {
        let hasher = Hasher::start(2, 8, CHEAP).unwrap();
        assert_eq!(hasher.cost(), CHEAP);
        let queues = Arc::downgrade(&hasher.shared.queues);
        let other = hasher.clone();
        drop(hasher);
        assert!(other.hash(secret("freedom")).await.is_ok(), "one handle is left");
        drop(other);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while queues.strong_count() > 0 {
            assert!(std::time::Instant::now() < deadline, "a thread still waits for jobs");
            thread::yield_now();
        }
    }
}
