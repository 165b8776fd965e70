//! Dumps of memory, which hold every secret of the process: passwords, keys, records.
//!
//! The one rule: unless an operator wants them, none is written, and no other process of the same user looks into this one's
//! memory (PR_SET_DUMPABLE(2const), ptrace(2)). It is forbidden before anything secret is read. The process reads its own
//! `/proc/self` as before. An `execve` begins anew, so each program forbids it for itself.
//!
//! Called by both programs.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// The limit of dumps before they were forbidden.
#[must_use = "an operator may want dumps"]
pub struct ForbiddenDumps(Rlimit);

/// Forbids dumps. The soft limit is lowered as well, for the sake of what this process starts.
///
/// # Errors
/// The system refuses.
pub fn forbid() -> io::Result<ForbiddenDumps> {
    let before = getrlimit(Resource::Core);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: before.maximum })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(ForbiddenDumps(before))
}

impl ForbiddenDumps {
    /// Allows them again, where the configuration does (`gateway.core_dumps`), as far as the system has.
    ///
    /// # Errors
    /// The system refuses.
    pub fn follow(self, is_allowed: bool) -> io::Result<()> {
        if is_allowed {
            setrlimit(Resource::Core, self.0)?;
            set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        }
        Ok(())
    }
}
