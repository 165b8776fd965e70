//! Faults of the certificate files, present and coming: logged when they begin, again after a time, and when they
//! are over.
//!
//! The one rule: a fault stays visible for as long as it lasts, in `/readyz` as well as in the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a lasting fault is logged again, and a coming one.
const AGAIN: Duration = Duration::from_secs(3600);
const AGAIN_AHEAD: Duration = Duration::from_secs(24 * 3600);

/// The urgency of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AlarmTone {
    /// Something is wrong now.
    Fault,
    /// Something will be wrong unless the operator acts.
    Ahead,
}

/// The faults of each part, with the time of their last log line.
pub(crate) struct AlarmBoard<K> {
    tone: AlarmTone,
    sounding: Mutex<BTreeMap<(K, String), Instant>>,
}

impl<K: Copy + Ord> AlarmBoard<K> {
    pub(crate) fn new(tone: AlarmTone) -> Self {
        Self { tone, sounding: Mutex::default() }
    }

    /// Notes all faults of a part; returns those to log, and those that are over.
    fn note(&self, part: K, wrong: Vec<String>, now: Instant) -> (Vec<String>, Vec<String>) {
        let mut sounding = self.lock();
        let mut over = vec![];
        sounding.retain(|(of, text), _| {
            let stays = *of != part || wrong.contains(text);
            if !stays {
                over.push(text.clone());
            }
            stays
        });
        let again = match self.tone {
            AlarmTone::Fault => AGAIN,
            AlarmTone::Ahead => AGAIN_AHEAD,
        };
        let mut due = vec![];
        for text in wrong {
            let told_last = sounding.entry((part, text.clone()));
            let is_new = matches!(told_last, std::collections::btree_map::Entry::Vacant(_));
            let told_last = told_last.or_insert(now);
            if is_new || now.saturating_duration_since(*told_last) >= again {
                *told_last = now;
                due.push(text);
            }
        }
        (due, over)
    }

    /// Notes all faults of a part, and logs those that are due.
    pub(crate) fn sound(&self, part: K, wrong: Vec<String>) {
        let (due, over) = self.note(part, wrong, Instant::now());
        for text in &due {
            match self.tone {
                AlarmTone::Fault => tracing::error!("{text}"),
                AlarmTone::Ahead => tracing::warn!("{text}"),
            }
        }
        over.iter().for_each(|text| tracing::info!("resolved: {text}"));
    }

    /// All faults of all parts.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().keys().map(|(_, text)| text.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(K, String), Instant>> {
        self.sounding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::TlsPart;
    use super::*;

    #[test]
    fn a_fault_is_logged_at_once_every_hour_and_when_it_ends() {
        let (alarms, began) = (AlarmBoard::new(AlarmTone::Fault), Instant::now());
        let wrong = |text: &str| vec![text.to_owned()];
        let nothing = Vec::<String>::new();
        assert_eq!(alarms.note(TlsPart::Lists, wrong("a"), began), (wrong("a"), nothing.clone()));
        assert_eq!(alarms.note(TlsPart::Pair(0), wrong("b"), began), (wrong("b"), nothing.clone()));
        assert_eq!(alarms.note(TlsPart::Lists, wrong("a"), began + AGAIN / 2), (nothing.clone(), nothing.clone()));
        assert_eq!(alarms.note(TlsPart::Lists, wrong("a"), began + AGAIN), (wrong("a"), nothing.clone()));
        assert_eq!(alarms.note(TlsPart::Lists, wrong("a"), began + AGAIN * 3 / 2), (nothing.clone(), nothing.clone()));
        assert_eq!(alarms.all(), ["b", "a"]);
        assert_eq!(alarms.note(TlsPart::Lists, vec![], began + AGAIN * 2), (nothing, wrong("a")));
        assert_eq!(alarms.all(), ["b"]);
    }
}
