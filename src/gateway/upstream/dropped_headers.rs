//! Names of dropped request headers, each logged once, for an operator who misses one.
//!
//! The one rule: clients choose these names, so their number and length are bounded.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use fedgate_core::escape;

/// Most names that are logged for one upstream.
const MOST_NAMES: usize = 100;

/// The names that were logged.
#[derive(Debug, Default)]
pub(super) struct DroppedNames {
    logged: Mutex<HashSet<Box<str>>>,
    /// Set when no further name has room, so that requests do not wait for the lock.
    is_full: AtomicBool,
}

impl DroppedNames {
    /// Notes a dropped name, and logs it if it is new.
    pub(super) fn note(&self, upstream: &str, name: &str) {
        if self.is_full.load(Ordering::Relaxed) || !self.is_new(name) {
            return;
        }
        let name = escape::name(name);
        tracing::info!(
            "upstream `{upstream}`: the request header `{name}` is not passed on; where the service needs it, add it \
             to `request_headers` of this [[upstream]]"
        );
        if self.is_full.load(Ordering::Relaxed) {
            tracing::info!(
                "upstream `{upstream}`: {MOST_NAMES} names of dropped request headers were logged; no further \
                 one is"
            );
        }
    }

    fn is_new(&self, name: &str) -> bool {
        // Names that agree in all characters that are logged count as one.
        let start = name.get(..escape::NAME_CHARACTERS.min(name.len())).unwrap_or(name);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= MOST_NAMES || !logged.insert(start.into()) {
            return false;
        }
        self.is_full.store(logged.len() >= MOST_NAMES, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_new_once_and_no_more_are_than_there_is_room_for() {
        let dropped = DroppedNames::default();
        assert!(dropped.is_new("x-a") && !dropped.is_new("x-a") && dropped.is_new("x-b"));
        let long = "x".repeat(escape::NAME_CHARACTERS);
        assert!(dropped.is_new(&format!("{long}1")) && !dropped.is_new(&format!("{long}2")), "logged alike");
        let logged = (0..2 * MOST_NAMES).filter(|number| dropped.is_new(&format!("x-{number}"))).count();
        assert_eq!(logged + 3, MOST_NAMES);
        assert!(dropped.is_full.load(Ordering::Relaxed));
        assert_eq!(dropped.logged.lock().unwrap().len(), MOST_NAMES);
    }
}
