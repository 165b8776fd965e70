//! A lane of waiting password jobs, bounded by their work.
//!
//! The one rule: no client address fills a lane. If the lane is full, a job from an address with less waiting work
//! replaces the latest jobs of the address with the most. So one address may use a whole lane while nobody else needs
//! it, as a hospital does in the morning. The schedule of verifications bounds what one account may have. The work is an
//! estimate, so a lane is bounded by time as well: a job that has waited too long is refused when its turn comes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::job::HasherJob;
use crate::authn::client::ClientSource;

/// The owner of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::authn) struct JobOwner {
    /// The account.
    pub(in crate::authn) account: Box<str>,
    /// The client address.
    pub(in crate::authn) source: Option<ClientSource>,
}

/// A waiting job.
struct WaitingJob {
    job: HasherJob,
    owner: JobOwner,
    work: Duration,
    since: Instant,
}

/// The part of a lane that belongs to one client address.
#[derive(Default)]
struct LaneShare {
    work: Duration,
    /// The positions of its jobs in order of arrival, and the work of each.
    jobs: Vec<(usize, Duration)>,
}

/// One lane.
#[derive(Default)]
pub(super) struct JobQueue {
    waiting: VecDeque<WaitingJob>,
    work: Duration,
}

impl JobQueue {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The next job in order of arrival that has waited no longer than `longest`. Those before it are refused: their
    /// clients are told to come back, and whoever came later is not delayed by the time that they lost.
    pub(super) fn pop(&mut self, longest: Duration) -> Option<HasherJob> {
        loop {
            let next = self.waiting.pop_front()?;
            self.work = self.work.saturating_sub(next.work);
            if next.since.elapsed() <= longest {
                return Some(next.job);
            }
        }
    }

    /// Adds a job, unless there is too much work before it; `most` is the capacity of the lane. An empty lane accepts
    /// any job, so a hash that costs more than a whole lane is verified too.
    pub(super) fn push(&mut self, job: HasherJob, owner: JobOwner, work: Duration, most: Duration) -> bool {
        if self.work + work > most {
            // Jobs of clients that went away make room first.
            self.retain(|waiting| !waiting.job.is_abandoned());
        }
        if !self.make_room(&owner, work, most) {
            return false;
        }
        self.work += work;
        self.waiting.push_back(WaitingJob { job, owner, work, since: Instant::now() });
        true
    }

    /// Makes room, if necessary, by removing jobs of the address with the most waiting work, if that is another one.
    /// True if there is room.
    fn make_room(&mut self, owner: &JobOwner, work: Duration, most: Duration) -> bool {
        if self.work + work <= most {
            return true;
        }
        let mut shares: HashMap<Option<ClientSource>, LaneShare> = HashMap::new();
        for (place, waiting) in self.waiting.iter().enumerate() {
            let share = shares.entry(waiting.owner.source).or_default();
            share.work += waiting.work;
            share.jobs.push((place, waiting.work));
        }
        // Including the new job: only an address with more than that gives way, so two equal callers never displace
        // each other.
        let own = shares.get(&owner.source).map_or(work, |share| share.work + work);
        let (mut leaving, mut left) = (HashSet::new(), self.work);
        while left + work > most && !left.is_zero() {
            let largest = shares.values_mut().max_by_key(|share| share.work).filter(|share| share.work > own);
            // The latest jobs go first, so that the longest waiting ones are served.
            let Some((share, (place, freed))) = largest.and_then(|share| share.jobs.pop().map(|job| (share, job)))
            else {
                return false;
            };
            share.work = share.work.saturating_sub(freed);
            left = left.saturating_sub(freed);
            leaving.insert(place);
        }
        let mut place = 0;
        self.retain(|_| {
            place += 1;
            !leaving.contains(&(place - 1))
        });
        true
    }

    fn retain(&mut self, mut stays: impl FnMut(&WaitingJob) -> bool) {
        self.waiting.retain(|waiting| stays(waiting));
        self.work = self.waiting.iter().map(|waiting| waiting.work).sum();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

    use super::*;
    use crate::authn::client::ClientAddress;

    const MOST: Duration = Duration::from_millis(2000);

    fn owner(account: &str, host: u8) -> JobOwner {
        JobOwner { account: account.into(), source: ClientAddress::from(Some([192, 0, 2, host].into())).source() }
    }

    /// A job of this many ms, if the lane accepts it.
    fn push(queue: &mut JobQueue, account: &str, host: u8, milliseconds: u64) -> Option<Receiver<bool>> {
        let (answer, receive) = oneshot::channel();
        let job = HasherJob::Verify { stored: String::new(), password: Default::default(), answer };
        queue.push(job, owner(account, host), Duration::from_millis(milliseconds), MOST).then_some(receive)
    }

    fn is_waiting(receiver: &mut Receiver<bool>) -> bool {
        matches!(receiver.try_recv(), Err(TryRecvError::Empty))
    }

    #[test]
    fn a_lane_is_bounded_by_work_and_takes_one_job_however_dear() {
        let mut queue = JobQueue::default();
        let dear = push(&mut queue, "OLD", 1, 9000);
        assert!(dear.is_some());
        assert!(push(&mut queue, "A0", 1, 1).is_none(), "there is too much before it");
        assert!(queue.pop(MOST).is_some() && queue.pop(MOST).is_none());
        let cheap: Vec<_> = (0..60).filter_map(|n| push(&mut queue, &format!("A{n}"), 1, 50)).collect();
        assert_eq!(cheap.len(), 40, "one address may use all of a lane that nobody else needs");
        drop(cheap);
        assert!(push(&mut queue, "B", 1, 50).is_some(), "who went away makes room");
        assert_eq!((queue.len(), queue.work), (1, Duration::from_millis(50)));
        assert!(queue.pop(MOST).is_some());
        assert_eq!(queue.work, Duration::ZERO);
    }

    #[test]
    fn a_full_lane_takes_a_job_of_a_caller_with_fewer_for_the_latest_of_the_one_with_most() {
        let mut queue = JobQueue::default();
        let mut crowd: Vec<_> = (0..40).map(|n| push(&mut queue, &format!("A{n}"), 1, 50).unwrap()).collect();
        assert!(push(&mut queue, "A40", 1, 50).is_none(), "not for one of its own");
        let mut doctor = push(&mut queue, "DOC", 2, 120).unwrap();
        assert!(crowd[..37].iter_mut().all(is_waiting) && is_waiting(&mut doctor), "and who waited longest stays");
        assert!(crowd[37..].iter_mut().all(|job| !is_waiting(job)), "the latest are told to try again");
        // Until both have the same share.
        let others: Vec<_> = (0..40).filter_map(|n| push(&mut queue, &format!("B{n}"), 2, 50)).collect();
        assert_eq!(others.len(), 17, "some 1000 ms each");
        assert!(queue.work <= MOST);
        // An expensive job makes no room at the cost of addresses with a smaller share.
        assert!(push(&mut queue, "OLD", 3, 1100).is_none());
        assert!(push(&mut queue, "NEW", 3, 400).is_some());
        assert!(queue.work <= MOST);
    }

    #[test]
    fn a_job_that_waited_too_long_is_refused_at_its_turn() {
        let mut queue = JobQueue::default();
        let mut late = push(&mut queue, "A", 1, 50).unwrap();
        let mut last = push(&mut queue, "B", 1, 50).unwrap();
        queue.waiting[0].since -= MOST + Duration::from_millis(1);
        let next = queue.pop(MOST);
        assert!(next.is_some() && is_waiting(&mut last), "the next one has its turn");
        assert!(!is_waiting(&mut late) && queue.work.is_zero(), "the client of the first is told to come back");
    }

    #[test]
    fn what_makes_no_room_puts_nobody_out() {
        let mut queue = JobQueue::default();
        let mut two = [1, 2].map(|host| push(&mut queue, &format!("A{host}"), host, 900).unwrap());
        assert!(push(&mut queue, "DOC", 3, 1950).is_none());
        assert!(two.iter_mut().all(is_waiting));
        assert!(push(&mut queue, "DOC", 3, 800).is_some());
        assert_eq!(two.iter_mut().map(is_waiting).filter(|is_waiting| *is_waiting).count(), 1);
    }
}
