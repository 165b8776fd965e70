//! A process that ends with the one that started it, however that one ended.
//!
//! For who starts fedgate's programs as parts of itself (`fedgate demo`): it names itself in the environment.

use std::io;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The variable that holds the process id of the parent to follow.
pub const PARENT: &str = "FEDGATE_PARENT";

/// Whether this process is a part of another, which asked it to end with it.
pub fn is_followed() -> bool {
    std::env::var_os(PARENT).is_some()
}

/// Sees that this process is told to stop (SIGINT) when its parent ends, if the parent asked for that.
///
/// # Errors
/// The parent has ended already, or the system refuses.
pub fn follow() -> io::Result<()> {
    let Some(parent) = std::env::var_os(PARENT) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::INT))?;
    // It may have ended before that was said.
    match getppid().map(Pid::as_raw_pid) {
        Some(pid) if *parent == *pid.to_string() => Ok(()),
        _ => {
            Err(io::Error::other(format!("the process that `{PARENT}` names is not the parent of this one (any more)")))
        }
    }
}
