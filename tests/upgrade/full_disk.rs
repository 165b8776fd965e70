//! An upgrade when nothing more can be written: a limit on the size of files represents the full disk.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::fixture::PATIENCE;
use crate::upgrade::Replaceable;

/// Less than `fedgate upgrade` waits for a silent successor.
const AT_ONCE: Duration = Duration::from_secs(50);

fn limit(pid: Pid, bytes: Option<u64>) {
    let before = rustix::process::getrlimit(Resource::Fsize);
    let limit = Rlimit { current: bytes, maximum: before.maximum };
    prlimit(Some(pid), Resource::Fsize, limit).unwrap();
}

#[test]
fn an_upgrade_learns_at_once_of_a_successor_that_failed_on_a_full_disk() {
    let running = Replaceable::start(5);
    let pid = running.read_pid().unwrap();
    limit(pid, Some(0));
    for attempt in 1..=2 {
        let began = Instant::now();
        let out = running.upgrade();
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && told.contains("the successor did not take over"), "{attempt}: {told}");
        assert!(began.elapsed() < AT_ONCE, "{attempt}: {:?}", began.elapsed());
        running.gateway.logged("the successor did not take over", began, PATIENCE).expect("its log says so");
        assert_eq!(running.read_pid(), Some(pid));
        assert_eq!(running.gateway.get("/people/ANA", "ANA").status, 200);
    }
    // Once there is room again, the next takes over.
    limit(pid, None);
    let out = running.upgrade();
    assert!(out.status.success(), "{out:?}");
    assert_ne!(running.read_pid(), Some(pid));
}

#[test]
fn a_full_disk_is_found_before_an_upgrade_touches_anything() {
    let running = Replaceable::start(5);
    let (pid, began) = (running.read_pid().unwrap(), Instant::now());
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_fedgate"), "upgrade"]);
    let out = command.arg("--config").arg(running.gateway.dir.join("fedgate.toml")).output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.code() == Some(2) && told.contains("could not write its process id"), "{told}");
    assert_eq!(running.gateway.log_lines("starting a successor", began), 0);
    assert_eq!(running.read_pid(), Some(pid));
    let left = std::fs::read_dir(running.dir()).unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert_eq!(left.filter(|name| name.starts_with("pid.")).collect::<Vec<_>>(), Vec::<String>::new());
}
