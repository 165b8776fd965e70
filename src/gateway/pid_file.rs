//! The file that names the process that serves: how an operator's command finds it, and learns what became of a hand-over.
//!
//! The one rule: who has locked the file (flock(2)) is the process that it names, as long as it lives; a number alone may be
//! anybody's. Each writing makes a new file: one that names the same process as before tells that a hand-over failed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The file of this process, removed by it, unless a successor has written its own.
pub(super) struct PidFile {
    place: Option<(PathBuf, File)>,
    /// Whether it could not be written again, which was told.
    is_failing: bool,
}

impl PidFile {
    /// Writes it, whole and locked, or not at all.
    pub(super) fn write(path: Option<&Path>) -> io::Result<Self> {
        let place = path.map(|path| Ok::<_, io::Error>((path.to_owned(), write(path)?))).transpose()?;
        Ok(Self { place, is_failing: false })
    }

    /// Writes it again where it was deleted.
    pub(super) fn restore(&mut self) {
        let is_gone = |path: &Path| path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if self.place.as_ref().is_some_and(|(path, _)| is_gone(path)) {
            self.renew();
        }
    }

    /// Writes it again whoever has written one: a successor that failed may have.
    pub(super) fn renew(&mut self) {
        let Some((path, file)) = &mut self.place else { return };
        // The file before is open until the new one is there, so that no two have the same number.
        match write(path) {
            Ok(new) => (*file, self.is_failing) = (new, false),
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                tracing::error!("{}: the process id cannot be written: {error}", path.display());
            }
            Err(_) => {}
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let Some((path, _)) = &self.place else { return };
        if std::fs::read_to_string(path).is_ok_and(|text| text.trim() == std::process::id().to_string()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn write(path: &Path) -> io::Result<File> {
    let beside = beside(path);
    let mut file = File::create(&beside)?;
    let written = flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map(|()| file)
}

/// The name under which a process writes its file, before it is moved to its place.
fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    beside.into()
}

/// A gateway that serves, found by the file that names it.
pub struct Running {
    pid: Pid,
    process: OwnedFd,
    /// The number of the file that names it (inode(7)).
    file: u64,
}

impl Running {
    /// The process that a file names, if it is the one that has locked the file; the number alone may be anybody's by now.
    ///
    /// # Errors
    /// The file cannot be read, or the system cannot tell.
    pub fn find(pid_file: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(pid_file)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(None) };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // INVARIANT: who holds the lock has written the number before it was read, and lives still, so that what was opened
        // in between is it.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => Ok(Some(Self { pid, process, file: file.metadata()?.ino() })),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a successor could write the file, as far as this user can tell.
    ///
    /// # Errors
    /// It could not.
    pub fn may_be_followed(pid_file: &Path) -> io::Result<()> {
        let beside = beside(pid_file);
        File::create(&beside)?;
        std::fs::remove_file(beside)
    }

    /// Whether this is the same process, which has written its file anew: its successor failed.
    pub fn has_failed_since(&self, before: &Self) -> bool {
        self.pid == before.pid && self.file != before.file
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Tells it to hand over to a successor.
    ///
    /// # Errors
    /// It has ended, or is another user's.
    pub fn hand_over(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.process, Signal::USR2)?)
    }

    /// Whether it ends within a time, which is waited for, blocking.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn ends_within(&self, time: Duration) -> io::Result<bool> {
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        Ok(poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&time))? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_hold_the_file_is_nobody() {
        let path = std::env::temp_dir().join(format!("fedgate-pid-{:x}", rand::random::<u128>()));
        assert!(Running::find(&path).is_err(), "no file");
        // One that lives, none that can, none at all.
        for text in [format!("{}\n", std::process::id()), format!("{}\n", i32::MAX), "0\n".into(), "x".into()] {
            std::fs::write(&path, &text).unwrap();
            assert!(Running::find(&path).unwrap().is_none(), "{text}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_process_id_is_removed_by_its_own_process_alone() {
        let path = std::env::temp_dir().join(format!("fedgate-pid-{:x}", rand::random::<u128>()));
        drop(PidFile::write(Some(&path)).unwrap());
        assert!(!path.exists());
        let file = PidFile::write(Some(&path)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(
            Running::find(&path).unwrap().map(|running| running.pid().cast_unsigned()),
            Some(std::process::id())
        );
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n", "the successor's");
        std::fs::remove_file(path).unwrap();
    }
}
