//! The state of the policy file: what is logged about it and when, and how long a fault may still be a write in
//! progress.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use fedgate_base::disk::FileSignature;
use fedgate_core::policy::{PolicySet, PolicyWarning};

/// How long a file must be unchanged before its fault is reported.
const QUIET: Duration = Duration::from_millis(250);
/// The longest time that a fault goes unreported because the file keeps changing.
const MOST_DOUBT: Duration = Duration::from_millis(700);
/// The most warnings that are logged for one policy.
const MOST_WARNINGS: usize = 20;

/// A policy that was read, with its warnings.
pub(super) type NewPolicy = (PolicySet, Vec<PolicyWarning>);

/// The state of the policy file, for reports.
#[derive(Debug, Default)]
pub struct FileState {
    fault: Mutex<String>,
    faults: AtomicU64,
    unkept: AtomicBool,
    /// Notifies that another policy came into force.
    replaced: tokio::sync::Notify,
}

impl FileState {
    /// Why the file is unusable now; none if it is usable.
    pub fn fault(&self) -> Option<String> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(fault).filter(|fault| !fault.is_empty())
    }

    /// How many times a file was refused since the start.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Whether the policy in force is missing from the history for replay.
    pub fn is_unkept(&self) -> bool {
        self.unkept.load(Ordering::Relaxed)
    }

    /// Waits until another policy comes into force. One task waits.
    pub async fn replaced(&self) {
        self.replaced.notified().await;
    }

    /// Records whether a policy could be kept. True if that changed.
    pub(super) fn becomes_unkept(&self, unkept: bool) -> bool {
        self.unkept.swap(unkept, Ordering::Relaxed) != unkept
    }

    /// The file was read and holds `new`, or the policy in force. An operator who asked gets a log line in either
    /// case.
    pub(super) fn succeeds(&self, new: Option<NewPolicy>, is_asked: bool, path: &Path, current: &ArcSwap<PolicySet>) {
        let was = std::mem::take(&mut *self.fault.lock().unwrap_or_else(PoisonError::into_inner));
        let old = current.load();
        match new {
            Some((new, warnings)) => {
                let new = Arc::new(new);
                // The policy comes first: a right that it takes away must not wait for a log that blocks.
                current.store(Arc::clone(&new));
                self.replaced.notify_one();
                tell_warnings(path, &warnings);
                let (policy, roles) = (new.fingerprint(), new.roles().len());
                tracing::info!(policy, replaced = old.fingerprint(), roles, "policy reloaded");
            }
            None if !was.is_empty() => tracing::info!(policy = old.fingerprint(), "the policy file is good again"),
            None if is_asked => tracing::info!(policy = old.fingerprint(), "the policy file holds the policy in force"),
            None => {}
        }
    }

    /// The file is unusable. A new fault is logged; a known one only if an operator asked.
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

/// A fault that may still be a write in progress: a file that is written in place is first empty, then incomplete.
#[derive(Default)]
pub(super) struct FileDoubt(Option<DoubtedFault>);

struct DoubtedFault {
    fault: String,
    file: Option<FileSignature>,
    /// Since when the file has had this fault and has been unchanged.
    quiet_since: Instant,
    /// Since when the file has had any fault.
    since: Instant,
}

impl FileDoubt {
    pub(super) fn is_any(&self) -> bool {
        self.0.is_some()
    }

    /// The file is usable.
    pub(super) fn ends(&mut self) {
        self.0 = None;
    }

    /// Whether a fault found now counts as settled; then the doubt ends.
    pub(super) fn is_settled(&mut self, fault: &str, file: Option<FileSignature>, now: Instant) -> bool {
        let (since, quiet_since) = match &self.0 {
            Some(doubted) if doubted.fault == fault && doubted.file == file => (doubted.since, doubted.quiet_since),
            Some(doubted) => (doubted.since, now),
            None => (now, now),
        };
        // The second bound: a file that is rewritten without end would otherwise hide its fault indefinitely.
        let is_settled = now - quiet_since >= QUIET || now - since >= MOST_DOUBT;
        self.0 = (!is_settled).then(|| DoubtedFault { fault: fault.to_owned(), file, quiet_since, since });
        is_settled
    }
}

/// Logs the warnings of a policy, such as a misspelt endpoint, up to a bound.
pub fn tell_warnings(path: &Path, warnings: &[PolicyWarning]) {
    for PolicyWarning { line, text } in warnings.iter().take(MOST_WARNINGS) {
        tracing::warn!("{}:{line}: {text}", path.display());
    }
    if let Some(more) = warnings.len().checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
        tracing::warn!("{}: {more} more warnings; `fedgate policy check` shows them all", path.display());
    }
}
