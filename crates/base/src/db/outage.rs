//! Logs an outage of the database: why it is away, and when it is back.
//!
//! The one rule: each reason is logged once, however many requests meet it. While an outage lasts it is logged again,
//! each time after twice the pause, so that log rotation cannot lose it. An outage that returns within a minute is the
//! same outage, logged once a minute at most: if only writes fail, reads succeed in between.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The pause before an outage is logged again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// The most reasons of one outage that are logged as they come; a returning server passes through a few.
const MOST_REASONS: usize = 8;

/// Logs the outages of one thing.
#[derive(Debug)]
pub struct OutageLog {
    /// The beginning of an outage's line, before the reason.
    away: &'static str,
    /// The end of that line: the consequence.
    follows: &'static str,
    /// The line of its end.
    back: &'static str,
    is_away: AtomicBool,
    outage: Mutex<OutageState>,
}

#[derive(Debug)]
enum OutageState {
    None,
    Lasting(DbOutage),
    /// It ended at this moment, but may return.
    Ended(DbOutage, Instant),
}

#[derive(Debug)]
struct DbOutage {
    since: Instant,
    reasons: Vec<String>,
    again: Instant,
    pause: Duration,
    /// Whether a line was logged since it began or returned. If so, its end is logged too.
    is_told: bool,
}

impl OutageLog {
    /// A log with these words: the beginning of an outage's line, its consequence, and the line of its end.
    pub const fn new(away: &'static str, follows: &'static str, back: &'static str) -> Self {
        Self { away, follows, back, is_away: AtomicBool::new(false), outage: Mutex::new(OutageState::None) }
    }

    /// Records a failure with its reason.
    pub fn failed(&self, reason: impl Display) {
        if let Some(line) = self.told(&reason.to_string(), Instant::now()) {
            tracing::error!("{line}");
        }
    }

    /// Whether the last try failed.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Acquire)
    }

    /// Records an answer. Costs nothing while there is no outage.
    pub fn answered(&self) {
        if self.is_away()
            && let Some(line) = self.ended(Instant::now())
        {
            tracing::info!("{line}");
        }
    }

    /// The line of the end, if it is due.
    fn ended(&self, now: Instant) -> Option<String> {
        let mut state = self.state();
        self.is_away.store(false, Ordering::Release);
        match std::mem::replace(&mut *state, OutageState::None) {
            OutageState::Lasting(outage) => {
                let line = outage.is_told.then(|| format!("{}, after {} s", self.back, (now - outage.since).as_secs()));
                *state = OutageState::Ended(outage, now);
                line
            }
            other => {
                *state = other;
                None
            }
        }
    }

    /// The line that is due, if any.
    fn told(&self, reason: &str, now: Instant) -> Option<String> {
        let mut state = self.state();
        self.is_away.store(true, Ordering::Release);
        let mut outage = match std::mem::replace(&mut *state, OutageState::None) {
            OutageState::Lasting(outage) => outage,
            OutageState::Ended(outage, ended) if now - ended < AGAIN.0 => {
                // If the last line says that it is back, the next one must not take long.
                let again = if outage.is_told { outage.again.min(now + AGAIN.0) } else { outage.again };
                DbOutage { is_told: false, again, ..outage }
            }
            OutageState::Ended(..) | OutageState::None => {
                DbOutage { since: now, reasons: Vec::new(), again: now + AGAIN.0, pause: AGAIN.0, is_told: false }
            }
        };
        let lasts = outage.lasts(reason, now);
        outage.is_told |= lasts.is_some();
        *state = OutageState::Lasting(outage);
        let since = match lasts? {
            Duration::ZERO => String::new(),
            lasts => format!(", for {} s", lasts.as_secs()),
        };
        Some(format!("{}: {reason}{since}; {}", self.away, self.follows))
    }

    fn state(&self) -> MutexGuard<'_, OutageState> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DbOutage {
    /// How long it has lasted, if that must be logged; zero for a new reason.
    fn lasts(&mut self, reason: &str, now: Instant) -> Option<Duration> {
        if self.reasons.len() < MOST_REASONS && !self.reasons.iter().any(|told| told == reason) {
            self.reasons.push(reason.to_owned());
            return Some(Duration::ZERO);
        }
        if now < self.again {
            return None;
        }
        self.pause = (self.pause * 2).min(AGAIN.1);
        self.again = now + self.pause;
        Some(now - self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_logged_once_for_each_reason_and_then_ever_more_rarely() {
        let log = OutageLog::new("it is away", "requests wait", "it is back");
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(log.told("refused", start).unwrap(), "it is away: refused; requests wait");
        assert_eq!(log.told("starting up", after(1)).unwrap(), "it is away: starting up; requests wait");
        let lines = |seconds: std::ops::Range<u64>| {
            seconds
                .filter(|second| log.told(["refused", "starting up"][*second as usize % 2], after(*second)).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(2..1000), [60, 180, 420, 900]);
        assert_eq!(lines(1000..15_000), [1860, 3780, 7380, 10_980, 14_580]);
        // Ever new reasons are not logged without end.
        let new = (0..100).filter(|number| log.told(&format!("{number}"), after(15_000)).is_some()).count();
        assert_eq!(new, 6);
    }

    #[test]
    fn an_outage_that_comes_and_goes_is_one_and_each_end_is_logged() {
        let log = OutageLog::new("it is away", "requests wait", "it is back");
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(log.ended(start), None);
        log.told("full", start).unwrap();
        assert_eq!(log.ended(after(3)).unwrap(), "it is back, after 3 s");
        // Writes fail while reads succeed in between.
        let told = |second| (log.told("full", after(second)).is_some(), log.ended(after(second)).is_some());
        let lines: Vec<_> = (4..200).filter(|second| told(*second) != (false, false)).collect();
        assert_eq!(lines, [60, 121, 182]);
        assert!(log.told("another", after(200)).is_some(), "a reason that is new");
        assert_eq!(log.ended(after(201)).unwrap(), "it is back, after 201 s");
        assert_eq!(log.told("full", after(300)).unwrap(), "it is away: full; requests wait", "another outage");
    }
}
