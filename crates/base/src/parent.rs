//! A process that ends together with the process that started it, however that one ends.
//!
//! `fedgate demo` uses it for the two programs that it starts: it names its own process in their environment.

use std::io;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The variable that holds the process id of the parent to follow.
pub const PARENT: &str = "FEDGATE_PARENT";

/// Whether the parent has asked this process to end together with it.
pub fn is_followed() -> bool {
    std::env::var_os(PARENT).is_some()
}

/// Makes the system stop this process (SIGINT) when its parent ends, if the parent asked for that.
///
/// # Errors
/// The parent has already ended, or the system refuses.
pub fn follow() -> io::Result<()> {
    let Some(parent) = std::env::var_os(PARENT) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::INT))?;
    // The parent may have ended before the call above.
    match getppid().map(Pid::as_raw_pid) {
        Some(pid) if *parent == *pid.to_string() => Ok(()),
        _ => Err(io::Error::other(format!(
            "the process that `{PARENT}` names is not, or no longer, the parent of this one"
        ))),
    }
}
