//! Which names of request headers were not passed on to an upstream: each is told once, for the operator who misses one.
//!
//! The one rule: clients choose these names, so what is kept and written of them is bounded, in number and length.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use fedgate_core::escape;

/// Most names of one upstream that are told.
const MOST_NAMES: usize = 100;

/// The names that were told.
#[derive(Debug, Default)]
pub(super) struct DroppedNames {
    told: Mutex<HashSet<Box<str>>>,
    /// Whether there is room for no further one, so that nobody waits for the lock.
    is_full: AtomicBool,
}

impl DroppedNames {
    /// Notes that a name was dropped, and tells it if it is new.
    pub(super) fn note(&self, upstream: &str, name: &str) {
        if self.is_full.load(Ordering::Relaxed) || !self.is_new(name) {
            return;
        }
        let name = escape::name(name);
        tracing::info!(
            "upstream `{upstream}`: the request header `{name}` is not passed on; where the service needs it, add it to \
             `request_headers` of this [[upstream]]"
        );
        if self.is_full.load(Ordering::Relaxed) {
            tracing::info!(
                "upstream `{upstream}`: {MOST_NAMES} names of request headers were told that are not passed on; no further \
                 one is"
            );
        }
    }

    fn is_new(&self, name: &str) -> bool {
        // Names that begin alike for as long as they are told are one.
        let start = name.get(..escape::NAME_CHARACTERS.min(name.len())).unwrap_or(name);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST_NAMES || !told.insert(start.into()) {
            return false;
        }
        self.is_full.store(told.len() >= MOST_NAMES, Ordering::Relaxed);
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
        assert!(dropped.is_new(&format!("{long}1")) && !dropped.is_new(&format!("{long}2")), "told alike");
        let told = (0..2 * MOST_NAMES).filter(|number| dropped.is_new(&format!("x-{number}"))).count();
        assert_eq!(told + 3, MOST_NAMES);
        assert!(dropped.is_full.load(Ordering::Relaxed));
        assert_eq!(dropped.told.lock().unwrap().len(), MOST_NAMES);
    }
}
