//! Hands the policies that were in force to the history, on a thread that may wait for a disk.
//!
//! The one rule: if a policy could not be kept, this module tries again as long as that policy is in force, and
//! reports it as not kept meanwhile.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::state::FileState;
use crate::history;
use fedgate_core::policy::PolicySet;

/// How many policies may wait while the disk hangs.
const MOST_WAITING: usize = 64;
/// The pause between a failure and the next attempt.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps every policy that was in force, in order. Policies that come while the disk hangs wait.
pub(super) struct KeptPolicies {
    fingerprint: String,
    waiting: SyncSender<Arc<PolicySet>>,
    state: Arc<FileState>,
}

impl KeptPolicies {
    /// Keeps the first policy. The thread ends when the returned value is dropped.
    pub(super) fn begin(directory: PathBuf, first: Arc<PolicySet>, state: Arc<FileState>) -> Self {
        let (waiting, policies) = sync_channel::<Arc<PolicySet>>(MOST_WAITING);
        let noted = Arc::clone(&state);
        spawn_blocking(move || {
            let mut failed = None;
            loop {
                // A policy that waits takes the place of a failed one: the failed one is no longer in force.
                let next = match &failed {
                    None => policies.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(_) => policies.recv_timeout(AGAIN),
                };
                let policy = match (next, failed.take()) {
                    (Ok(next), _) => next,
                    (Err(RecvTimeoutError::Timeout), Some(failed)) => failed,
                    (Err(_), _) => return,
                };
                let kept = history::keep(&directory, &policy);
                let (place, fingerprint) = (directory.display(), policy.fingerprint());
                let is_new = noted.becomes_unkept(kept.is_err());
                match kept {
                    Ok(()) if is_new => tracing::info!(policy = fingerprint, "{place}: the policy is kept for replay"),
                    Ok(()) => {}
                    Err(error) => {
                        if is_new {
                            tracing::error!(
                                policy = fingerprint,
                                "{place}: the policy is not kept for replay ({error}); it is tried again while it is \
                                 in force"
                            );
                        }
                        failed = Some(policy);
                    }
                }
            }
        });
        let mut kept = Self { fingerprint: String::new(), waiting, state };
        kept.keep(first);
        kept
    }

    /// Hands over the policy in force, unless that was done before. If there is no room, the next call tries again.
    pub(super) fn keep(&mut self, policy: Arc<PolicySet>) {
        if self.fingerprint == policy.fingerprint() {
            return;
        }
        let fingerprint = policy.fingerprint().to_owned();
        match self.waiting.try_send(policy) {
            Ok(()) => self.fingerprint = fingerprint,
            Err(error) => {
                if self.state.becomes_unkept(true) {
                    tracing::error!(policy = fingerprint, "the policy is not kept for replay yet ({error})");
                }
            }
        }
    }
}
