//! Threads: whether the system provides as many as a program needs.
//!
//! The one rule: a process limit ends a program with a clear sentence. Code that makes threads for the runtimes would
//! panic instead.
//!
//! Both programs call it before they make a runtime.

use std::io;
use std::sync::mpsc::channel;
use std::thread::Builder;

/// Checks that this many threads can run at once.
///
/// # Errors
/// They cannot; the text names the limit.
pub fn can_start(count: usize) -> io::Result<()> {
    // Each thread waits until all have started, and ends with its sender.
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
