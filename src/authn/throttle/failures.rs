//! The failures of one pair, account or client address, and the wait that follows from them.
//!
//! The one rule: waits begin at one second, double with each failure, and end at one hour.

use std::time::{Duration, Instant};

/// The first and the longest wait.
pub(super) const WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// The failures of one pair, account or client address.
#[derive(Default)]
pub(super) struct FailureCount {
    pub(super) count: u32,
    not_before: Option<Instant>,
    /// Hashes of what failed: a repeated one is no new failure. For a client address these are accounts; otherwise the
    /// last password.
    pub(super) seen: Vec<u64>,
}

impl FailureCount {
    /// Counts a failure, unless it repeats a remembered one. Beyond `free` failures, the next attempt must wait.
    // A program that repeats a stale password is no attacker, and must not lengthen the wait without end.
    pub(super) fn add(&mut self, what: u64, free: u32, remembered: usize, now: Instant) {
        if self.seen.contains(&what) {
            return;
        }
        if self.seen.len() >= remembered.max(1) {
            self.seen.remove(0);
        }
        self.seen.push(what);
        self.count = self.count.saturating_add(1);
        if let Some(beyond) = self.count.checked_sub(free + 1) {
            // 1 s doubled with each failure beyond the free ones: at the ceiling, a pair has 24 guesses a day.
            let wait = WAIT.0.saturating_mul(1u32.checked_shl(beyond.min(20)).unwrap_or(u32::MAX)).min(WAIT.1);
            self.not_before = Some(now + wait);
        }
    }

    /// Takes back this many failures, because they were mistyped.
    pub(super) fn take_back(&mut self, failures: u32, free: u32) {
        self.count = self.count.saturating_sub(failures);
        if self.count <= free {
            self.not_before = None;
        }
    }

    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.not_before.and_then(|until| until.checked_duration_since(now)).filter(|wait| !wait.is_zero())
    }
}
