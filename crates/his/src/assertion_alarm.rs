//! Reports assertions that fail for all requests: because two clocks differ, or because the keys do.
//!
//! The HIS logs this itself, because its operator may see no other log. The one rule: the fault is logged when
//! it begins, every minute while it lasts, and when it is over; never once per request. With two gateways only
//! one may be wrong, so the fault is over only after a while without a refusal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a lasting fault is logged.
const EVERY: Duration = Duration::from_secs(60);
/// The fault is over after this long without a refusal.
const QUIET: Duration = Duration::from_secs(5);

/// The state of one kind of fault, and of its log lines.
pub(super) struct AssertionAlarm {
    fault: &'static str,
    end: &'static str,
    sounds: AtomicBool,
    heard: Mutex<HeardFault>,
}

#[derive(Default)]
struct HeardFault {
    last_refused: Option<Instant>,
    last_told: Option<Instant>,
}

impl AssertionAlarm {
    /// For assertions that have expired or are not valid yet.
    pub(super) fn of_clocks() -> Self {
        Self::new(
            "assertions of the gateway have expired or are not valid yet by the clock of this machine; requests are \
             answered 401 until both clocks agree (NTP)",
            "assertions of the gateway are valid by the clock of this machine again",
        )
    }

    /// For assertions that another key has signed, or that are for another audience.
    pub(super) fn of_keys() -> Self {
        Self::new(
            "requests come with assertions that do not fit this configuration and are answered 401: the gateway signs \
             with another key or for another audience (section `assertion`; both programs read it when they start), or \
             another program sends requests here",
            "assertions fit this configuration again",
        )
    }

    fn new(fault: &'static str, end: &'static str) -> Self {
        Self { fault, end, sounds: AtomicBool::new(false), heard: Mutex::default() }
    }

    /// Reports an assertion that was refused for this fault.
    pub(super) fn refused(&self) {
        if self.is_to_be_told(Instant::now()) {
            tracing::error!("{}", self.fault);
        }
    }

    /// Reports an assertion that was accepted.
    pub(super) fn accepted(&self) {
        // The flag comes first: nearly every request ends here, without the lock.
        if self.sounds.load(Ordering::Relaxed) && self.is_over(Instant::now()) {
            tracing::info!("{}", self.end);
        }
    }

    fn is_to_be_told(&self, now: Instant) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.last_refused = Some(now);
        // A fault that returns is logged when it begins, however recent the last line is.
        let has_begun = !self.sounds.swap(true, Ordering::Relaxed);
        let is_due = has_begun || heard.last_told.is_none_or(|told| now.duration_since(told) >= EVERY);
        if is_due {
            heard.last_told = Some(now);
        }
        is_due
    }

    fn is_over(&self, now: Instant) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = heard.last_refused.is_none_or(|refused| now.duration_since(refused) >= QUIET);
        is_quiet && self.sounds.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_differing_clock_is_logged_at_its_begin_every_minute_and_at_its_end() {
        let alarm = AssertionAlarm::of_clocks();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!alarm.is_over(start), "nothing has begun");
        let told = |seconds: std::ops::Range<u64>| {
            seconds.filter(|second| alarm.is_to_be_told(after(*second))).collect::<Vec<_>>()
        };
        assert_eq!(told(0..200), [0, 60, 120, 180]);
        // Another gateway's clock agrees meanwhile.
        assert!(!alarm.is_over(after(201)));
        assert!(alarm.is_over(after(204)));
        assert!(!alarm.is_over(after(205)), "its end is told once");
        assert_eq!(told(206..300), [206, 266]);
    }
}
