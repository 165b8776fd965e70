//! Whether services accept the clock of this gateway, by their answers to its assertions.
//!
//! The one rule: the last answer counts, and only for a while: a gateway without requests would never see a better
//! one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a refusal counts.
const COUNTS: Duration = Duration::from_secs(15);

/// When the last assertion was refused for its times; none if it was not.
#[derive(Default)]
pub(crate) struct ClockSkew(Mutex<Option<Instant>>);

impl ClockSkew {
    /// Notes whether an assertion was refused.
    pub(crate) fn note(&self, is_refused: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = is_refused.then(Instant::now);
    }

    /// The fault, if there is one.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let refused = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused
            .filter(|refused| refused.elapsed() < COUNTS)
            .map(|_| "a service says that assertions have expired or are not valid yet: its clock and this one differ")
    }
}
