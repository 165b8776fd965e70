//! Whether assertions of the gateway fail by the clock: told by the service itself, because its operator may see no other log.
//!
//! The one rule: it is told when it begins, again every minute that it lasts, and when it is over; not once a request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is told.
const EVERY: Duration = Duration::from_secs(60);

/// What was told of the clocks.
#[derive(Default)]
pub(super) struct ClockAlarm {
    sounds: AtomicBool,
    told: Mutex<Option<Instant>>,
}

impl ClockAlarm {
    /// An assertion had expired, or was not valid yet.
    pub(super) fn differs(&self) {
        self.sounds.store(true, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= EVERY) {
            *told = Some(Instant::now());
            tracing::error!(
                "assertions of the gateway have expired or are not valid yet by the clock of this machine; requests are \
                 answered 401 until both clocks agree (NTP)"
            );
        }
    }

    /// One was believed.
    pub(super) fn agrees(&self) {
        // Looked at first, because it is true of nearly every request.
        if self.sounds.load(Ordering::Relaxed) && self.sounds.swap(false, Ordering::Relaxed) {
            tracing::info!("an assertion of the gateway is valid by the clock of this machine again");
        }
    }
}
