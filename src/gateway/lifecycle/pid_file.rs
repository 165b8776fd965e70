//! The process id file: an operator's command finds the serving process by it, and learns the outcome of a
//! handover.
//!
//! The one rule: the process that has locked the file (flock(2)) is the one that it names, for as long as it lives;
//! a number alone may belong to any process. Each write makes a new file, or on a full disk gives the existing one
//! a new time. A newer file that names the same process means that a handover failed. A gateway replaces a locked
//! file only if its holder has handed over to it. For a deleted file, its name counts ([`super::pid_socket`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use thiserror::Error;

use super::address_in_use::{self, AddressHolder};
use super::pid_socket::{self, PidSocket, PidSocketClaim};
use fedgate_core::escape;

/// The file of this process. Removed on drop, unless a successor has written its own.
pub(crate) struct PidFile {
    place: Option<(PathBuf, File)>,
    /// None while the predecessor still holds it.
    name: Option<PidSocket>,
    /// Whether the last write failed, which was logged.
    is_failing: bool,
}

impl PidFile {
    /// Writes the file, whole and locked, or not at all.
    ///
    /// # Errors
    /// It cannot be written, or another gateway holds it ([`PidFileError::Held`]).
    pub(crate) fn write(path: Option<&Path>, origin: StartOrigin) -> Result<Self, PidFileError> {
        let Some(path) = path else { return Ok(Self { place: None, name: None, is_failing: false }) };
        let name = match (PidSocket::claim(path), origin) {
            (PidSocketClaim::Held(name), _) => Some(name),
            (PidSocketClaim::Taken(pid), StartOrigin::First) => return Err(PidFileError::Held(pid.to_string())),
            (PidSocketClaim::Taken(_), StartOrigin::Successor) | (PidSocketClaim::Unknown, _) => None,
        };
        let file = match origin {
            StartOrigin::Successor => write(path)?,
            StartOrigin::First => claim(path, &beside(path))?,
        };
        Ok(Self { place: Some((path.to_owned(), file)), name, is_failing: false })
    }

    /// Writes the file again if it was deleted, and takes its name.
    pub(crate) fn restore(&mut self) {
        if let Some((path, _)) = &self.place
            && !self.name.as_ref().is_some_and(|name| name.is_of(path))
            && let PidSocketClaim::Held(name) = PidSocket::claim(path)
        {
            self.name = Some(name);
        }
        let is_gone = |path: &Path| path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if self.place.as_ref().is_some_and(|(path, _)| is_gone(path)) {
            self.renew();
        }
    }

    /// Leaves the file to a successor.
    pub(super) fn leave(&mut self) {
        self.name = None;
    }

    /// Writes the file again, even over that of a successor, which may have failed after it wrote.
    pub(crate) fn renew(&mut self) {
        let Some((path, file)) = &mut self.place else { return };
        // The old file stays open until the new one is there, so that the two have different inode numbers.
        match write(path) {
            Ok(new) => (*file, self.is_failing) = (new, false),
            Err(error) => {
                // A full disk takes no new file, but a new time, which tells a waiting `fedgate upgrade` that the
                // handover failed.
                let is_touched = file.set_modified(SystemTime::now());
                if !std::mem::replace(&mut self.is_failing, true) {
                    let touched = is_touched.err().map_or_else(String::new, |error| format!("; nor its time: {error}"));
                    tracing::error!("{}: the process id cannot be written: {error}{touched}", path.display());
                }
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let Some((path, _)) = &self.place else { return };
        // A successor's file names another process and stays.
        if std::fs::read_to_string(path).is_ok_and(|text| text.trim() == std::process::id().to_string()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// How a gateway was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartOrigin {
    /// By a predecessor that hands over, and holds the file.
    Successor,
    /// Without a running predecessor.
    First,
}

/// Why a gateway has no file.
#[derive(Debug, Error)]
pub(crate) enum PidFileError {
    /// Another gateway runs and holds it; its process id, as the file names it.
    #[error("the gateway of process {0} runs and holds this file")]
    Held(String),
    /// It cannot be written.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Writes the file in the place of any existing one.
fn write(path: &Path) -> io::Result<File> {
    let beside = beside(path);
    write_by(&beside, || std::fs::rename(&beside, path))
}

/// Writes the file if no gateway holds it. Of several that try at once, one succeeds.
fn claim(path: &Path, beside: &Path) -> Result<File, PidFileError> {
    loop {
        // The old file stays locked until the new one is in its place: another starting gateway finds one of the
        // two locked.
        let before = match free(path)? {
            FormerFile::Nothing => None,
            FormerFile::Left(file) => Some(file),
            FormerFile::Replaced => continue,
        };
        let placed = match before {
            Some(_) => write_by(beside, || std::fs::rename(beside, path)),
            // Unlike a rename, a link fails if another gateway has placed its file in the meantime.
            None => write_by(beside, || std::fs::hard_link(beside, path).and_then(|()| std::fs::remove_file(beside))),
        };
        match placed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            placed => return Ok(placed?),
        }
    }
}

/// The content of the place, not locked by another process.
enum FormerFile {
    Nothing,
    /// The file of a gateway that has ended, or any other file; locked now.
    Left(File),
    /// Another file took the place after it was opened.
    Replaced,
}

/// Checks that no gateway holds the file.
fn free(path: &Path) -> Result<FormerFile, PidFileError> {
    // Without blocking: a named pipe in its place must not stop a start.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FormerFile::Nothing),
        Err(error) => return Err(error.into()),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut text);
            return Err(PidFileError::Held(escape::shown(text.trim()).into_owned()));
        }
        Err(error) => return Err(io::Error::from(error).into()),
    }
    // The file may have been replaced between opening and locking; the lock is then on the wrong one.
    let is_same = path.metadata().is_ok_and(|now| file.metadata().is_ok_and(|then| now.ino() == then.ino()));
    Ok(if is_same { FormerFile::Left(file) } else { FormerFile::Replaced })
}

/// Checks that no other gateway holds the file, before anything else is started.
///
/// # Errors
/// See [`PidFileError`].
pub(crate) fn is_free(path: &Path) -> Result<(), PidFileError> {
    free(path)?;
    pid_socket::holder(path).map_or(Ok(()), |pid| Err(PidFileError::Held(pid.to_string())))
}

fn write_by(beside: &Path, place: impl FnOnce() -> io::Result<()>) -> io::Result<File> {
    let mut file = File::create(beside)?;
    let written = flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .and_then(|()| place());
    if written.is_err() {
        let _ = std::fs::remove_file(beside);
    }
    written.map(|()| file)
}

/// The name under which a process writes its file before moving it to its place.
fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    beside.into()
}

/// One write of a file: its inode number (inode(7)) and its time.
#[derive(Debug, PartialEq, Eq)]
struct PidFileWriting(u64, Option<SystemTime>);

impl PidFileWriting {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self(metadata.ino(), metadata.modified().ok()))
    }
}

/// A serving gateway, found by its process id file.
pub struct RunningGateway {
    pid: Pid,
    process: OwnedFd,
    writing: PidFileWriting,
}

impl RunningGateway {
    /// The process that a file names, if that has locked it; by now, the number without the lock may belong to
    /// another process.
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
        // INVARIANT: the holder of the lock wrote the number before it was read, and still lives, so the process
        // that was opened in between is the holder. The kernel reuses no number of a living process.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => Ok(Some(Self { pid, process, writing: PidFileWriting::of(&file)? })),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a successor could write the file, as far as this user can tell.
    ///
    /// # Errors
    /// It could not write it.
    pub fn may_be_followed(pid_file: &Path) -> io::Result<()> {
        let beside = beside(pid_file);
        let mut file = File::create(&beside)?;
        // On a full disk, creating a file succeeds and writing to it fails.
        let written = writeln!(file, "{}", std::process::id()).and_then(|()| file.sync_all());
        std::fs::remove_file(beside).and(written)
    }

    /// Whether this is the same process with a newer file: its successor failed.
    pub fn has_failed_since(&self, before: &Self) -> bool {
        self.pid == before.pid && self.writing != before.writing
    }

    /// Whether it listens on an address, as far as this user may see.
    pub fn listens_on(&self, address: SocketAddr) -> AddressHolder {
        address_in_use::holder(self.pid(), address)
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Tells it to hand over to a successor. Through a pidfd, the signal cannot reach another process that got the
    /// number.
    ///
    /// # Errors
    /// It has ended, or belongs to another user.
    pub fn hand_over(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.process, Signal::USR2)?)
    }

    /// Waits, blocking; whether it ends within a time.
    ///
    /// # Errors
    /// The system call fails.
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
        assert!(RunningGateway::find(&path).is_err(), "no file");
        // A living process, an impossible number, no number.
        for text in [format!("{}\n", std::process::id()), format!("{}\n", i32::MAX), "0\n".into(), "x".into()] {
            std::fs::write(&path, &text).unwrap();
            assert!(RunningGateway::find(&path).unwrap().is_none(), "{text}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_a_gateway_holds_is_taken_by_its_successor_alone() {
        let path = std::env::temp_dir().join(format!("fedgate-pid-{:x}", rand::random::<u128>()));
        // The file of an ended gateway, and a file of something else.
        for left in ["4194304\n", "", "x"] {
            std::fs::write(&path, left).unwrap();
            drop(PidFile::write(Some(&path), StartOrigin::First).unwrap());
        }
        let mut first = PidFile::write(Some(&path), StartOrigin::First).unwrap();
        let held = |found: Result<(), PidFileError>| matches!(found, Err(PidFileError::Held(pid)) if pid == std::process::id().to_string());
        assert!(held(PidFile::write(Some(&path), StartOrigin::First).map(drop)) && held(is_free(&path)));
        // A deleted file stays reserved until it is written again.
        std::fs::remove_file(&path).unwrap();
        assert!(held(PidFile::write(Some(&path), StartOrigin::First).map(drop)) && held(is_free(&path)));
        assert!(!path.exists());
        let mut successor = PidFile::write(Some(&path), StartOrigin::Successor).unwrap();
        first.leave();
        successor.restore();
        assert!(successor.name.is_some(), "it holds the name as soon as it may");
        drop(first);
        assert!(!path.exists(), "one process writes for both here, so the first removes it");
        drop(successor);
        // Of many at once, one succeeds and leaves no other file.
        std::fs::write(&path, "4194304\n").unwrap();
        let taken: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|at| path.with_extension(at.to_string()))
                .map(|beside| {
                    scope.spawn({
                        let path = &path;
                        move || claim(path, &beside).ok()
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.len(), 1);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_process_id_is_removed_by_its_own_process_alone() {
        let path = std::env::temp_dir().join(format!("fedgate-pid-{:x}", rand::random::<u128>()));
        drop(PidFile::write(Some(&path), StartOrigin::First).unwrap());
        assert!(!path.exists());
        let file = PidFile::write(Some(&path), StartOrigin::First).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(
            RunningGateway::find(&path).unwrap().map(|running| running.pid().cast_unsigned()),
            Some(std::process::id())
        );
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n", "the successor's");
        std::fs::remove_file(path).unwrap();
    }
}
