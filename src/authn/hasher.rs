//! The hashers: dedicated threads that verify and make password hashes, behind bounded queues.
//!
//! One verification takes tens of milliseconds of a whole core and 46 MiB, so an attacker would use these queues for
//! denial of service. The one rule: the queues are bounded by the waiting work, a full queue fails at once
//! ([`HasherBusy`]), no caller fills one ([`queue`]), and a caller that went away costs nothing.
//!
//! Callers that recently proved the password from the same address wait in a separate lane, which is served first; a
//! flood of guesses fills the other lane. One account has at most half of a lane. Each thread keeps its own arena.
//! [`schedule`] says when a wrong password may be answered.

mod job;
mod queue;
mod schedule;
mod work;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::spacing::LONGEST;
use fedgate_core::password::{self, HashCost};
use job::HasherJob;
pub(super) use queue::JobOwner;
use queue::JobQueue;
pub(super) use schedule::HashBooking;
use schedule::HashingSchedule;
use work::HashingPace;

/// The share of a lane that one account may have: one part in so many.
const ACCOUNT_SHARE: u32 = 2;
/// How often a waiting caller looks up its verification in the schedule.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The queue is full, or there are no hashers. The same request may succeed a moment later.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("password verification is busy")]
pub struct HasherBusy;

/// The lane in which a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HasherLane {
    /// Served first: this client address recently signed in to the account.
    Known,
    /// All other sign-ins, and new hashes for accounts that have signed in already.
    Unknown,
}

/// A handle to the hasher threads. The threads end with the last handle.
#[derive(Clone)]
pub(super) struct PasswordHasher {
    shared: Arc<HasherHandle>,
    cost: HashCost,
}

/// State shared by the handles. Dropping it ends the threads.
struct HasherHandle {
    queues: Arc<HasherQueues>,
    threads: usize,
    /// The most work that may wait in each lane.
    most: Duration,
    /// How many verifications at today's cost one account may have in each lane.
    most_of_account: u32,
}

struct HasherQueues {
    jobs: Mutex<HasherJobs>,
    news: Condvar,
    /// The longest time that a job waits.
    longest: Duration,
    pace: HashingPace,
    schedule: Mutex<HashingSchedule>,
}

#[derive(Default)]
struct HasherJobs {
    known: JobQueue,
    unknown: JobQueue,
    is_over: bool,
}

impl PasswordHasher {
    /// Starts `threads` threads. Each lane holds at most the work that they do in `longest`, and no job waits for
    /// longer than that and [`LONGEST`].
    ///
    /// # Errors
    /// The operating system provides no thread.
    pub(super) fn start(threads: usize, longest: Duration, cost: HashCost) -> std::io::Result<Self> {
        let queues = Arc::new(HasherQueues::new(threads, longest));
        for number in 0..threads {
            let queues = Arc::clone(&queues);
            thread::Builder::new().name(format!("hasher-{number}")).spawn(move || job::run_all(&queues, cost))?;
        }
        let most = longest.saturating_mul(u32::try_from(threads).unwrap_or(u32::MAX));
        let most_of_account = HashingPace::verifications_in(most / ACCOUNT_SHARE);
        Ok(Self { shared: Arc::new(HasherHandle { queues, threads, most, most_of_account }), cost })
    }

    /// The cost of new hashes.
    pub(super) fn cost(&self) -> HashCost {
        self.cost
    }

    /// The longest time that a verification takes on this machine, except for hashes that cost more than today's.
    pub(super) fn dearest_of_today(&self) -> Duration {
        self.shared.queues.pace.dearest_of_today(self.cost)
    }

    /// Schedules a verification that is requested now. It counts as the most expensive hash of today, whatever is
    /// stored, also against the account's share. Otherwise the number of refused verifications would reveal the kind
    /// of hash.
    ///
    /// # Errors
    /// [`HasherBusy`] if the account has its share of the lane.
    pub(super) fn book(&self, stored: &str, lane: HasherLane, owner: &JobOwner) -> Result<HashBooking, HasherBusy> {
        let (dearest, own) = (self.dearest_of_today(), self.shared.queues.pace.estimate(password::work(stored)));
        let counts = u32::try_from(own.as_nanos().div_ceil(dearest.as_nanos().max(1))).unwrap_or(u32::MAX).max(1);
        let now = tokio::time::Instant::now();
        let mut schedule = self.shared.queues.schedule();
        let has = schedule.of_account(&owner.account, lane, now);
        // The first one is always accepted, however expensive, or its account could never sign in.
        if has > 0 && has.saturating_add(counts) > self.shared.most_of_account {
            return Err(HasherBusy);
        }
        schedule.book(&owner.account, lane, (dearest.max(own), counts), now)
    }

    /// A scheduled password was right: see [`schedule`].
    pub(super) fn was_right(&self, booking: HashBooking, stored: &str) {
        let takes = self.shared.queues.pace.estimate(password::work(stored));
        self.shared.queues.schedule().was_right(booking, takes);
    }

    /// Removes a scheduled verification, where rejections are answered at once and nobody waits for the schedule.
    pub(super) fn release(&self, booking: HashBooking) {
        self.shared.queues.schedule().release(booking);
    }

    /// Waits until the verification would have ended with the most expensive kind of hash.
    pub(super) async fn end(&self, booking: HashBooking) {
        loop {
            // The end moves forward when earlier passwords turn out to be right, so it is looked up again at each
            // step.
            let Some(end) = self.shared.queues.schedule().end(booking) else { return };
            let now = tokio::time::Instant::now();
            if end <= now {
                return;
            }
            tokio::time::sleep_until(end.min(now + LOOK_AGAIN)).await;
        }
    }

    /// A hasher without threads, which the test itself drives: see [`work_through`](Self::work_through).
    #[cfg(test)]
    pub(super) fn without_threads(longest: Duration, cost: HashCost) -> Self {
        let most_of_account = HashingPace::verifications_in(longest / ACCOUNT_SHARE);
        let shared = HasherHandle {
            queues: Arc::new(HasherQueues::new(1, longest)),
            threads: 1,
            most: longest,
            most_of_account,
        };
        Self { shared: Arc::new(shared), cost }
    }

    /// Answers all waiting jobs one after the other. Each takes as long on the runtime's clock as its kind of hash
    /// takes. No password is right.
    #[cfg(test)]
    pub(super) async fn work_through(&self) {
        loop {
            let job = {
                let mut jobs = self.shared.queues.lock();
                jobs.known.pop(Duration::MAX).or_else(|| jobs.unknown.pop(Duration::MAX))
            };
            let Some(job) = job else { return };
            tokio::time::sleep(self.shared.queues.pace.estimate(job.work(self.cost))).await;
            match job {
                HasherJob::Verify { answer, .. } => drop(answer.send(false)),
                HasherJob::Hash { answer, .. } => drop(answer.send(None)),
            }
        }
    }

    /// How many jobs wait in both lanes.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let jobs = self.shared.queues.lock();
        jobs.known.len() + jobs.unknown.len()
    }

    /// Whether `stored` was made from `password`. Dropping the future cancels a job that still waits.
    ///
    /// # Errors
    /// [`HasherBusy`].
    pub(super) async fn verify(
        &self,
        stored: String,
        password: Zeroizing<Vec<u8>>,
        lane: HasherLane,
        owner: JobOwner,
    ) -> Result<bool, HasherBusy> {
        let (answer, receive) = oneshot::channel();
        self.submit(HasherJob::Verify { stored, password, answer }, lane, owner)?;
        receive.await.map_err(|_| HasherBusy)
    }

    /// Makes a new hash; none if the password is too long.
    ///
    /// # Errors
    /// [`HasherBusy`].
    pub(super) async fn hash(
        &self,
        password: Zeroizing<Vec<u8>>,
        owner: JobOwner,
    ) -> Result<Option<String>, HasherBusy> {
        let (answer, receive) = oneshot::channel();
        self.submit(HasherJob::Hash { password, answer }, HasherLane::Unknown, owner)?;
        receive.await.map_err(|_| HasherBusy)
    }

    fn submit(&self, job: HasherJob, lane: HasherLane, owner: JobOwner) -> Result<(), HasherBusy> {
        let HasherHandle { queues, threads, most, .. } = &*self.shared;
        let work = queues.pace.estimate(job.work(self.cost));
        let mut jobs = queues.lock();
        let queue = match lane {
            HasherLane::Known => &mut jobs.known,
            HasherLane::Unknown => &mut jobs.unknown,
        };
        if *threads == 0 || !queue.push(job, owner, work, *most) {
            return Err(HasherBusy);
        }
        drop(jobs);
        queues.news.notify_one();
        Ok(())
    }
}

impl HasherQueues {
    fn new(threads: usize, longest: Duration) -> Self {
        // A verification may wait for both lanes, and must have ended by its scheduled time.
        let scheduled = LONGEST.max(2 * longest);
        Self {
            jobs: Mutex::default(),
            news: Condvar::new(),
            // No shorter, even in a short lane: one hash may cost seconds, and those behind it are not at fault.
            longest: longest.max(LONGEST),
            pace: HashingPace::default(),
            schedule: Mutex::new(HashingSchedule::new(threads, scheduled)),
        }
    }

    fn schedule(&self) -> MutexGuard<'_, HashingSchedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HasherJobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a job; none when the threads must end.
    fn take(&self) -> Option<HasherJob> {
        let mut jobs = self.lock();
        loop {
            if jobs.is_over {
                return None;
            }
            // The known lane first: a flood of guesses must not delay people who signed in from their address before.
            if let Some(job) = jobs.known.pop(self.longest).or_else(|| jobs.unknown.pop(self.longest)) {
                return Some(job);
            }
            jobs = self.news.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for HasherHandle {
    fn drop(&mut self) {
        self.queues.lock().is_over = true;
        self.queues.news.notify_all();
    }
}

#[cfg(test)]
mod tests;
