//! The times at which verifications would end if each took as long as the most expensive kind of today.
//!
//! The one rule: these times depend on when verifications were requested and which passwords were right, never on the
//! kind of a hash. Verifications wait for each other, across accounts and client addresses. Otherwise guesses from
//! many addresses at once would be answered as soon as the hashes allow, and reveal which kind an account has.
//!
//! The schedule runs a little behind the hashers, so a verification has really ended by its time. A hash that costs
//! more than those of today may end later. Jobs of the known lane overtake others; in that lane, a
//! guesser can have no more jobs than free failures.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::{HasherBusy, HasherLane};

/// How much longer a verification is scheduled than estimated, because an estimate is a mean.
const MARGIN: (u32, u32) = (3, 2);
/// The most verifications that are scheduled at a time.
const MOST: usize = 2048;

/// A scheduled verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::authn) struct HashBooking(u64);

/// The verifications whose time has not come.
pub(super) struct HashingSchedule {
    pending: VecDeque<BookedHash>,
    /// When the work before the pending verifications is done.
    behind: Option<Instant>,
    booked: u64,
    threads: u32,
    /// The longest time between a request and its scheduled end.
    longest: Duration,
}

struct BookedHash {
    number: u64,
    account: Box<str>,
    lane: HasherLane,
    came: Instant,
    takes: Duration,
    /// How many verifications of today's cost it counts for.
    counts: u32,
}

impl HashingSchedule {
    pub(super) fn new(threads: usize, longest: Duration) -> Self {
        let threads = u32::try_from(threads.max(1)).unwrap_or(u32::MAX);
        Self { pending: VecDeque::new(), behind: None, booked: 0, threads, longest }
    }

    /// Schedules a verification that is requested now, by an estimate of its duration.
    ///
    /// # Errors
    /// Too many verifications are scheduled.
    pub(super) fn book(
        &mut self,
        account: &str,
        lane: HasherLane,
        (takes, counts): (Duration, u32),
        now: Instant,
    ) -> Result<HashBooking, HasherBusy> {
        self.let_go(now);
        // Bounded, because each lookup walks over all of them.
        if self.pending.len() >= MOST {
            return Err(HasherBusy);
        }
        let done = self.times().last().map(|(_, _, done)| done).or(self.behind);
        // Beyond the longest wait, work does not accumulate: a flood would delay rejections long after its end.
        let takes = if done.is_some_and(|done| done >= now + self.longest) { Duration::ZERO } else { takes };
        self.booked += 1;
        let takes = takes * MARGIN.0 / MARGIN.1;
        self.pending.push_back(BookedHash {
            number: self.booked,
            account: account.into(),
            lane,
            came: now,
            takes,
            counts,
        });
        Ok(HashBooking(self.booked))
    }

    /// A password was right, with this estimated duration. Later verifications wait no longer than that for it.
    pub(super) fn was_right(&mut self, booking: HashBooking, takes: Duration) {
        if let Some(booked) = self.pending.iter_mut().find(|booked| booked.number == booking.0) {
            booked.takes = takes.min(booked.takes);
            // A right password is no guess, so it does not count against the account's share.
            booked.counts = 0;
        }
    }

    /// Removes a verification.
    pub(super) fn release(&mut self, booking: HashBooking) {
        self.pending.retain(|booked| booked.number != booking.0);
    }

    /// When a verification ends; none if that has passed.
    pub(super) fn end(&self, booking: HashBooking) -> Option<Instant> {
        self.times().find(|(booked, ..)| booked.number == booking.0).map(|(_, end, _)| end)
    }

    /// How many verifications of today's cost an account has in a lane.
    pub(super) fn of_account(&self, account: &str, lane: HasherLane, now: Instant) -> u32 {
        let pending = self.times().filter(|(booked, end, _)| *end > now && booked.lane == lane);
        pending.filter(|(booked, ..)| *booked.account == *account).map(|(booked, ..)| booked.counts).sum()
    }

    /// Each verification, when it ends, and when all threads together have done the work up to it.
    fn times(&self) -> impl Iterator<Item = (&BookedHash, Instant, Instant)> {
        self.pending.iter().scan(self.behind, |behind, booked| {
            let start = behind.map_or(booked.came, |behind| behind.max(booked.came));
            let done = start + booked.takes / self.threads;
            *behind = Some(done);
            Some((booked, (start + booked.takes).min(booked.came + self.longest), done))
        })
    }

    /// Forgets the verifications that have ended.
    fn let_go(&mut self, now: Instant) {
        loop {
            let Some(done) = self.times().next().filter(|(_, end, _)| *end <= now).map(|(.., done)| done) else {
                return;
            };
            self.behind = Some(done);
            self.pending.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKES: (Duration, u32) = (Duration::from_millis(200), 1);
    const LONGEST: Duration = Duration::from_secs(10);

    fn ends(schedule: &HashingSchedule, bookings: &[HashBooking], began: Instant) -> Vec<u128> {
        let ends = bookings.iter().map(|booking| schedule.end(*booking).map_or(0, |end| (end - began).as_millis()));
        ends.collect()
    }

    #[test]
    fn each_ends_after_the_work_that_came_before_it_whatever_account_it_is_of() {
        let now = Instant::now();
        for (threads, expected) in [(1, [300, 600, 900, 1200]), (2, [300, 450, 600, 750])] {
            let mut schedule = HashingSchedule::new(threads, LONGEST);
            let book = |account| schedule.book(account, HasherLane::Unknown, TAKES, now).unwrap();
            let bookings = ["A", "B", "A", "C"].map(book);
            assert_eq!(ends(&schedule, &bookings, now), expected, "{threads}");
        }
    }

    #[test]
    fn a_right_password_takes_what_its_hash_takes_and_counts_no_more() {
        let now = Instant::now();
        let mut schedule = HashingSchedule::new(1, LONGEST);
        let bookings = ["A", "A", "B"].map(|account| schedule.book(account, HasherLane::Unknown, TAKES, now).unwrap());
        assert_eq!(
            (schedule.of_account("A", HasherLane::Unknown, now), schedule.of_account("A", HasherLane::Known, now)),
            (2, 0)
        );
        schedule.was_right(bookings[0], Duration::from_millis(40));
        assert_eq!(ends(&schedule, &bookings, now), [40, 340, 640]);
        assert_eq!(schedule.of_account("A", HasherLane::Unknown, now), 1);
        // Ended verifications are forgotten, and the others keep their times.
        let later = now + Duration::from_millis(400);
        assert_eq!(schedule.of_account("A", HasherLane::Unknown, later), 0);
        let last = schedule.book("C", HasherLane::Unknown, TAKES, later).unwrap();
        assert_eq!(schedule.pending.len(), 2);
        assert_eq!(ends(&schedule, &[bookings[0], bookings[2], last], now), [0, 640, 940]);
    }

    #[test]
    fn nothing_is_scheduled_later_than_the_longest_and_a_flood_is_forgotten_as_soon() {
        let now = Instant::now();
        let mut schedule = HashingSchedule::new(1, LONGEST);
        let bookings: Vec<_> =
            (0..MOST).map(|_| schedule.book("A", HasherLane::Unknown, TAKES, now).unwrap()).collect();
        assert_eq!(schedule.book("A", HasherLane::Unknown, TAKES, now), Err(HasherBusy));
        assert_eq!(schedule.end(*bookings.last().unwrap()), Some(now + LONGEST));
        let later = now + 2 * LONGEST;
        let after = schedule.book("A", HasherLane::Unknown, TAKES, later).unwrap();
        assert_eq!((schedule.pending.len(), schedule.end(after)), (1, Some(later + TAKES.0 * 3 / 2)));
    }
}
