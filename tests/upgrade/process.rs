//! The end of a process that is no child of the test.

use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::fixture::PATIENCE;

/// Whether a process runs. One that has ended but was not waited for does not; one of whose threads still ends does,
/// because it still holds its files.
pub(super) fn is_alive(pid: Pid) -> bool {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
}

/// Waits for the end of a process.
pub(super) fn wait_for_end(pid: Pid) {
    let deadline = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid:?} does not end");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills a process, and waits for its end.
pub(super) fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
    wait_for_end(pid);
}
