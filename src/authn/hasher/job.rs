//! The jobs of the hashers, and the thread that runs them.
//!
//! The one rule: a job that nobody waits for any more is not run, and a job that panics costs nothing but itself. Callers
//! whose passwords are known go first: where cores are short, the hashers leave them to the threads that serve.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rustix::process::setpriority_process;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::HasherQueues;
use fedgate_core::password::{self, HashArena, HashCost, HashWork};

/// A password to verify or to hash, and where the result goes.
pub(super) enum HasherJob {
    Verify { stored: String, password: Zeroizing<Vec<u8>>, answer: oneshot::Sender<bool> },
    Hash { password: Zeroizing<Vec<u8>>, answer: oneshot::Sender<Option<String>> },
}

impl HasherJob {
    /// Whether nobody waits for the result any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Verify { answer, .. } => answer.is_closed(),
            Self::Hash { answer, .. } => answer.is_closed(),
        }
    }

    pub(super) fn work(&self, cost: HashCost) -> HashWork {
        match self {
            Self::Verify { stored, .. } => password::work(stored),
            Self::Hash { .. } => cost.work(),
        }
    }

    fn run(self, cost: HashCost, arena: &mut HashArena) {
        match self {
            Self::Verify { stored, password, answer } => {
                let _ = answer.send(password::verify_with(&stored, &password, arena));
            }
            Self::Hash { password, answer } => {
                let _ = answer.send(password::hash_with(&password, cost, arena).ok());
            }
        }
    }
}

/// The niceness of the hashers (sched(7)): beside a thread that wants the same core, a hasher has a quarter of it. After a
/// restart everybody's password is hashed, and who is served already must hardly notice.
const NICENESS: i32 = 5;

/// Runs the jobs of the queues until the threads must end.
pub(super) fn run_all(queues: &HasherQueues, cost: HashCost) {
    // On Linux this is of the calling thread alone. Anybody may be nicer; a sandbox that refuses it loses no more than that.
    let _ = setpriority_process(None, NICENESS);
    let mut arena = HashArena::default();
    while let Some(job) = queues.take() {
        // Its client has gone: a flood that hangs up must not keep the cores busy.
        if job.is_abandoned() {
            continue;
        }
        let (work, began) = (job.work(cost), Instant::now());
        // A panic costs the job that caused it, not the thread that all others wait for.
        if catch_unwind(AssertUnwindSafe(|| job.run(cost, &mut arena))).is_err() {
            tracing::error!("hashing a password panicked");
            arena = HashArena::default();
            continue;
        }
        queues.pace.learn(work, began.elapsed());
    }
}
