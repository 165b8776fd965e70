//! Whether assertions of the gateway fail by the clock: told by the service itself, because its operator may see no other log.
//!
//! The one rule: it is told when it begins, again every minute that it lasts, and when it is over; not once a request. Of two
//! gateways one may differ: it is over when none was refused for a while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is told.
const EVERY: Duration = Duration::from_secs(60);
/// How long no assertion may have been refused by the clock, for it to be over.
const QUIET: Duration = Duration::from_secs(5);

/// What was told of the clocks.
#[derive(Default)]
pub(super) struct ClockAlarm {
    sounds: AtomicBool,
    heard: Mutex<HeardClock>,
}

#[derive(Default)]
struct HeardClock {
    last_refused: Option<Instant>,
    last_told: Option<Instant>,
}

impl ClockAlarm {
    /// An assertion had expired, or was not valid yet.
    pub(super) fn differs(&self) {
        if self.is_to_be_told(Instant::now()) {
            tracing::error!(
                "assertions of the gateway have expired or are not valid yet by the clock of this machine; requests are \
                 answered 401 until both clocks agree (NTP)"
            );
        }
    }

    /// One was believed.
    pub(super) fn agrees(&self) {
        // Looked at first, because it is true of nearly every request.
        if self.sounds.load(Ordering::Relaxed) && self.is_over(Instant::now()) {
            tracing::info!("assertions of the gateway are valid by the clock of this machine again");
        }
    }

    fn is_to_be_told(&self, now: Instant) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.last_refused = Some(now);
        // One that comes back is told as it begins, however lately it was told before.
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
    fn a_clock_that_differs_is_told_as_it_begins_every_minute_and_as_it_ends_and_not_once_a_request() {
        let alarm = ClockAlarm::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!alarm.is_over(start), "nothing has begun");
        let told = |seconds: std::ops::Range<u64>| {
            seconds.filter(|second| alarm.is_to_be_told(after(*second))).collect::<Vec<_>>()
        };
        assert_eq!(told(0..200), [0, 60, 120, 180]);
        // Another gateway agrees meanwhile.
        assert!(!alarm.is_over(after(201)));
        assert!(alarm.is_over(after(204)));
        assert!(!alarm.is_over(after(205)), "its end is told once");
        assert_eq!(told(206..300), [206, 266]);
    }
}
