//! Whether services believe the clock of this gateway: what they have said of its assertions lately.
//!
//! The one rule: the last answer counts, and not for long: a gateway that is sent no requests hears no better.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a refusal counts.
const COUNTS: Duration = Duration::from_secs(15);

/// When an assertion was refused by the clock, if the last one was.
#[derive(Default)]
pub(crate) struct ServiceClocks(Mutex<Option<Instant>>);

impl ServiceClocks {
    /// Notes what became of an assertion.
    pub(crate) fn note(&self, is_refused: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = is_refused.then(Instant::now);
    }

    /// What is wrong, if anything is.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let refused = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused
            .filter(|refused| refused.elapsed() < COUNTS)
            .map(|_| "a service says that assertions have expired or are not valid yet: its clock and this one differ")
    }
}
