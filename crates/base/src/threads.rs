//! Threads: whether the system gives as many as a program needs.
//!
//! The one rule: a limit of processes ends a program with a sentence. What makes threads for the runtimes panics without them.
//!
//! Called by both programs, before they make a runtime.

use std::io;
use std::sync::mpsc::channel;
use std::thread::Builder;

/// Sees that so many threads can be started at once.
///
/// # Errors
/// They cannot, and the text says what limits them.
pub fn can_start(count: usize) -> io::Result<()> {
    // Each waits until all have been started, and ends with the sender.
    let mut started = Vec::with_capacity(count);
    for _ in 0..count {
        let (hold, held) = channel::<()>();
        let thread = Builder::new().spawn(move || held.recv().is_ok()).map_err(|error| {
            let remedy = "raise the limit of processes (`ulimit -u`, `TasksMax` of systemd, `pids` of a container)";
            io::Error::new(error.kind(), format!("the system gives no more threads: {error}; {remedy}"))
        });
        started.push((hold, thread?));
    }
    for (hold, thread) in started {
        drop(hold);
        let _ = thread.join();
    }
    Ok(())
}
