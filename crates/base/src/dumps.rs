//! Memory dumps, which would hold every secret of the process: passwords, keys, records.
//!
//! The one rule: unless an operator wants them, no dump is written, and no other process of the same user can look
//! into this one's memory (PR_SET_DUMPABLE(2const), ptrace(2)). This is forbidden before any secret is read. The
//! process still reads its own `/proc/self`. An `execve` resets this, so each program forbids it for itself.
//!
//! Both programs call it.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// The limit of dumps before they were forbidden.
#[must_use = "an operator may want dumps"]
pub struct ForbiddenDumps(Rlimit);

/// Forbids dumps. The soft limit is lowered too, for the processes that this one starts.
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
    /// Allows dumps again if the configuration does (`gateway.core_dumps`), up to the system's limit.
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
