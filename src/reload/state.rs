//! How the policy file fares: what of it is told, when, and for how long a fault may be one of a write under way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use fedgate_base::disk::FileSignature;
use fedgate_core::policy::{PolicySet, PolicyWarning};

/// How long a file must be left alone before its fault is told.
const QUIET: Duration = Duration::from_millis(250);
/// How long a fault is not told because somebody writes.
const MOST_DOUBT: Duration = Duration::from_millis(700);
/// How many warnings of one policy stand in the log.
const MOST_WARNINGS: usize = 20;

/// A policy that was read, and what is valid in it and hardly meant.
pub(super) type NewPolicy = (PolicySet, Vec<PolicyWarning>);

/// How the policy file fares, for who asks.
#[derive(Debug, Default)]
pub struct FileState {
    fault: Mutex<String>,
    faults: AtomicU64,
    unkept: AtomicBool,
}

impl FileState {
    /// Why the file cannot be used now; nothing when it can.
    pub fn fault(&self) -> Option<String> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(fault).filter(|fault| !fault.is_empty())
    }

    /// How often a file was refused since the start.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Whether the policy in force could not be kept for replay.
    pub fn is_unkept(&self) -> bool {
        self.unkept.load(Ordering::Relaxed)
    }

    /// Notes whether a policy could be kept; true where that is new.
    pub(super) fn becomes_unkept(&self, unkept: bool) -> bool {
        self.unkept.swap(unkept, Ordering::Relaxed) != unkept
    }

    /// The file was read: it holds `new`, or what is in force. Whoever asked is told that, too.
    pub(super) fn succeeds(&self, new: Option<NewPolicy>, is_asked: bool, path: &Path, current: &ArcSwap<PolicySet>) {
        let was = std::mem::take(&mut *self.fault.lock().unwrap_or_else(PoisonError::into_inner));
        let old = current.load();
        match new {
            Some((new, warnings)) => {
                let new = Arc::new(new);
                // First of all: nothing of it waits for a log.
                current.store(Arc::clone(&new));
                tell_warnings(path, &warnings);
                let (policy, roles) = (new.fingerprint(), new.roles().len());
                tracing::info!(policy, replaced = old.fingerprint(), roles, "policy reloaded");
            }
            None if !was.is_empty() => tracing::info!(policy = old.fingerprint(), "the policy file is good again"),
            None if is_asked => tracing::info!(policy = old.fingerprint(), "the policy file holds the policy in force"),
            None => {}
        }
    }

    /// The file cannot be used; a new fault is told, and to whoever asked also an old one.
    pub(super) fn fails(&self, found: &str, is_asked: bool, path: &Path, current: &ArcSwap<PolicySet>) {
        let was = std::mem::replace(&mut *self.fault.lock().unwrap_or_else(PoisonError::into_inner), found.to_owned());
        if was != found {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        if was != found || is_asked {
            let in_force = current.load();
            tracing::error!(
                "{}: {found}; the last good policy {} stays in force",
                path.display(),
                in_force.fingerprint()
            );
        }
    }
}

/// A fault of which nobody knows yet whether it is one, or a write under way: a file that is written in place is empty
/// first, and then incomplete.
#[derive(Default)]
pub(super) struct FileDoubt(Option<DoubtedFault>);

struct DoubtedFault {
    fault: String,
    file: Option<FileSignature>,
    /// Since when the file has this fault and is left alone.
    quiet_since: Instant,
    /// Since when the file has had one fault or another.
    since: Instant,
}

impl FileDoubt {
    pub(super) fn is_any(&self) -> bool {
        self.0.is_some()
    }

    /// The file is good.
    pub(super) fn ends(&mut self) {
        self.0 = None;
    }

    /// Whether a fault that is found now is one beyond doubt; then the doubt ends.
    pub(super) fn is_settled(&mut self, fault: &str, file: Option<FileSignature>, now: Instant) -> bool {
        let (since, quiet_since) = match &self.0 {
            Some(doubted) if doubted.fault == fault && doubted.file == file => (doubted.since, doubted.quiet_since),
            Some(doubted) => (doubted.since, now),
            None => (now, now),
        };
        let is_settled = now - quiet_since >= QUIET || now - since >= MOST_DOUBT;
        self.0 = (!is_settled).then(|| DoubtedFault { fault: fault.to_owned(), file, quiet_since, since });
        is_settled
    }
}

/// Tells what is valid in a policy and hardly meant, such as a misspelt endpoint; not all of it where that is much.
pub fn tell_warnings(path: &Path, warnings: &[PolicyWarning]) {
    for PolicyWarning { line, text } in warnings.iter().take(MOST_WARNINGS) {
        tracing::warn!("{}:{line}: {text}", path.display());
    }
    if let Some(more) = warnings.len().checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
        tracing::warn!("{}: warnings beyond these: {more}; `fedgate policy check` tells them all", path.display());
    }
}
