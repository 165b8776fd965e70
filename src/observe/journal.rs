//! The file of records. Lines are appended to it, and synchronized to disk if an answer waits for that. After it was
//! moved away, a new file takes its place.
//!
//! The one rule: a record that was accepted is written whole, at least once. Records that cannot be written, or may
//! not be on disk although they were written, are held up to a bound and written again. Records over the bound are
//! refused and counted. A line that broke off is removed, or is ended if another process may have appended after it,
//! and its record is written again.
//!
//! Only a regular file is durable. Where `durable` is set, a pipe or device of that name is a fault at each opening,
//! and is tried again.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use rustix::io::Errno;

use super::line::{HeldLines, count};

/// The most bytes that wait for a file that cannot be written.
const MOST_UNWRITTEN: usize = 8 * 1024 * 1024;
/// The most bytes that are written but not known to be on disk, where durability is required.
const MOST_UNSYNCED: usize = 1024 * 1024;
/// The interval between checks whether the path still names the same file; each synchronization checks it too.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pause between a failure and the next attempt, whatever comes meanwhile.
const AGAIN_AFTER: Duration = Duration::from_millis(150);
/// How long the reader of a pipe may accept nothing.
const PIPE_PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The free room that a disk must have before a file is written.
const LEAST_ROOM: u64 = 4096;

/// A file of lines.
pub(super) struct RecordJournal {
    path: PathBuf,
    /// None while the file is unusable.
    file: Option<File>,
    unwritten: HeldLines,
    /// Bytes written since the last synchronization; held if `durable` is set.
    unsynced: HeldLines,
    /// When and why the last attempt failed.
    failed: Option<(Instant, io::ErrorKind, String)>,
    /// Whether the disk may have lost what it did not confirm.
    is_suspect: bool,
    durable: bool,
    /// The function that synchronizes the disk.
    pub(super) sync: fn(&File) -> io::Result<()>,
    dropped: usize,
    looked: Option<Instant>,
}

impl RecordJournal {
    /// # Errors
    /// The file cannot be opened. A full disk, or a name that is not a regular file, is a fault of the journal
    /// instead, and is tried again.
    pub(super) fn open(path: &Path, durable: bool) -> io::Result<Self> {
        let (file, failed) = match open(path, durable) {
            Ok(file) => (Some(file), None),
            Err(error) if may_pass(&error) => (None, Some((Instant::now(), error.kind(), error.to_string()))),
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            unwritten: HeldLines::default(),
            unsynced: HeldLines::default(),
            failed,
            is_suspect: false,
            durable,
            sync: File::sync_data,
            dropped: 0,
            looked: Some(Instant::now()),
        })
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn fault(&self) -> io::Result<()> {
        let fault = self.failed.as_ref().map(|(_, kind, why)| io::Error::new(*kind, why.clone()));
        fault.map_or(Ok(()), Err)
    }

    /// How many lines wait to be written, or written again.
    pub(super) fn waiting(&self) -> usize {
        self.unwritten.records() + self.unsynced.records()
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes may still be written to its disk, as far as known.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let is_file = std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.is_file());
        let disk = rustix::fs::statvfs(&self.path).ok().filter(|_| is_file)?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Makes the next attempt check whether the path still names the same file.
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }

    /// How many lines were dropped since the last call.
    pub(super) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    /// Appends whole lines after those that wait, and synchronizes them to disk if `sync` is set.
    ///
    /// # Errors
    /// Lines that could not be written are held for the next attempt, which opens the file again. Lines without room
    /// are dropped.
    pub(super) fn append(&mut self, lines: &[u8], sync: bool) -> io::Result<()> {
        // Over the bound, the waiting lines must make room first, or the new ones are refused.
        if self.unwritten.bytes().len() + self.unsynced.bytes().len() + lines.len() > MOST_UNWRITTEN
            && let Err(error) = self.attempt(self.durable)
        {
            self.dropped += count(lines);
            return Err(error);
        }
        self.unwritten.push(lines);
        self.attempt(sync || self.unsynced.bytes().len() > MOST_UNSYNCED)
    }

    fn attempt(&mut self, sync: bool) -> io::Result<()> {
        if self.failed.as_ref().is_some_and(|(at, ..)| at.elapsed() < AGAIN_AFTER) {
            return self.fault();
        }
        let outcome = self.write(sync);
        self.failed = outcome.as_ref().err().map(|error| (Instant::now(), error.kind(), error.to_string()));
        if outcome.is_err() {
            // Nothing unconfirmed is certain any more, whatever a later synchronization of the same file reports: a
            // disk reports a failure once and forgets what it lost. Only writing again makes it certain.
            self.take_back();
            self.is_suspect = self.durable;
            // Closing a pipe would lose what its reader has not read.
            self.file = self.file.take().filter(|_| is_waiting(&outcome));
        }
        outcome
    }

    fn write(&mut self, sync: bool) -> io::Result<()> {
        self.find_file(sync)?;
        if self.is_suspect {
            // One line is tried first, so that a disk that keeps failing is not filled with the same lines.
            let first = self.unwritten.bytes().iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.write_out(first)?;
            self.sync()?;
            self.is_suspect = false;
        }
        self.write_out(self.unwritten.bytes().len())?;
        if sync { self.sync() } else { Ok(()) }
    }

    /// Ensures that a file of that name is open. Bytes that may not survive in the old file are written to the new
    /// one.
    fn find_file(&mut self, look: bool) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            if self.is_current(&file, look) {
                self.file = Some(file);
                return Ok(());
            }
            if !self.unsynced.bytes().is_empty() {
                match (self.sync)(&file) {
                    Ok(()) => self.unsynced.clear(),
                    Err(_) => self.take_back(),
                }
            }
        }
        self.file = Some(open(&self.path, self.durable)?);
        Ok(())
    }

    /// Writes the first `bytes` bytes of the waiting ones, which end with a line.
    fn write_out(&mut self, bytes: usize) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let mut written = 0;
        let outcome = loop {
            match file.write(self.unwritten.bytes().get(written..bytes).unwrap_or_default()) {
                Ok(0) => break Ok(()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match is_taken_again(file) {
                    Ok(()) => {}
                    fault => break fault,
                },
                Err(error) => break Err(error),
            }
        };
        // A line that broke off does not count at all.
        let whole = self.unwritten.bytes().get(..written).unwrap_or_default().iter().rposition(|byte| *byte == b'\n');
        let lines = whole.map_or(0, |at| at + 1);
        if self.durable {
            self.unsynced.push(self.unwritten.bytes().get(..lines).unwrap_or_default());
        }
        self.unwritten.remove(lines);
        if written > lines && !take_off(file, written - lines) {
            self.unwritten.end_before();
        }
        outcome
    }

    /// Waits until everything written is on disk.
    fn sync(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        (self.sync)(file)?;
        self.unsynced.clear();
        Ok(())
    }

    /// Puts bytes that may be lost back before the waiting ones, to be written again.
    fn take_back(&mut self) {
        self.unwritten.put_before(&mut self.unsynced);
    }

    /// Whether the path still names this file; checked at intervals, or now.
    fn is_current(&mut self, file: &File, now: bool) -> bool {
        if !now && self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return true;
        }
        self.looked = Some(Instant::now());
        // Device and inode identify a file (inode(7)).
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (file.metadata().map(identity), std::fs::metadata(&self.path).map(identity)) {
            (Ok(held), Ok(named)) => held == named,
            _ => false,
        }
    }
}

/// Checks whether records can be written to a file of this name, without leaving a new file behind.
pub(super) fn try_out(path: &Path, durable: bool) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return open(path, durable).map(drop);
    }
    // A file with another name: created by another user than the one that serves, the real one could not be opened
    // later.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".check-{}", std::process::id()));
    let tried = open(Path::new(&beside), durable).map(drop);
    let _ = std::fs::remove_file(&beside);
    tried
}

/// Whether an opening that failed like this may succeed later with the same configuration.
fn may_pass(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::Unsupported)
}

/// Opens the file for appending, after ending an unfinished line.
fn open(path: &Path, durable: bool) -> io::Result<File> {
    // Without this flag, opening a pipe waits for a reader, and writing to a full pipe never returns.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    // Appending keeps lines of several processes apart. Records name people, so no other user may read them.
    options.append(true).create(true).mode(0o600).custom_flags(nonblocking);
    // A file that may only be written cannot be checked for an unfinished line.
    let mut file = options.clone().read(true).open(path).or_else(|_| options.open(path))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let remedy = "it is not a regular file, so no disk keeps its content; `records.durable` needs a regular file";
        return if durable { Err(io::Error::new(io::ErrorKind::Unsupported, remedy)) } else { Ok(file) };
    }
    // Held while the file is open: only an exclusive holder may shorten the file.
    let _ = flock(&file, FlockOperation::NonBlockingLockShared);
    has_room(&file, metadata.len())?;
    let mut last = [b'\n'];
    if metadata.len() > 0 {
        let _ = file.read_exact_at(&mut last, metadata.len() - 1);
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    // A new file survives a power failure only once its directory is on disk.
    if let Some(directory) = path.parent() {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
    }
    Ok(file)
}

/// Reserves some room after the end, or fails if there is none. If the file system cannot tell, the room is assumed.
fn has_room(file: &File, end: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, end, LEAST_ROOM) {
        Err(full @ (Errno::NOSPC | Errno::DQUOT)) => Err(full.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits a limited time until the reader of a pipe accepts more.
fn is_taken_again(pipe: &File) -> io::Result<()> {
    match poll(&mut [PollFd::new(pipe, PollFlags::OUT)], Some(&PIPE_PATIENCE))? {
        0 => Err(io::Error::new(io::ErrorKind::WouldBlock, "nobody reads it")),
        _ => Ok(()),
    }
}

/// Whether the only fault is that nobody reads the pipe.
fn is_waiting(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Removes the start of a line that broke off. True if the next line may follow directly: the part is gone, or the
/// next opening of the file ends it.
fn take_off(mut file: &File, part: usize) -> bool {
    let Ok(metadata) = file.metadata() else { return true };
    if !metadata.is_file() {
        return false;
    }
    // A predecessor or successor may append at the same time; its lines must not be removed as well.
    if flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let end = file.stream_position().unwrap_or_default();
        if file.metadata().is_ok_and(|metadata| metadata.len() == end) {
            let _ = file.set_len(end.saturating_sub(part as u64));
        }
        let _ = flock(file, FlockOperation::NonBlockingLockShared);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> PathBuf {
        let path = std::env::temp_dir().join(format!("fedgate-journal-{:x}", rand::random::<u128>()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// Pretends that enough time has passed for another attempt.
    fn later(journal: &mut RecordJournal) -> &mut RecordJournal {
        journal.failed = None;
        journal
    }

    #[test]
    fn what_cannot_be_written_is_kept_and_written_once_it_can_be() {
        let dir = directory();
        let path = dir.join("records");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut journal = RecordJournal::open(&path, true).unwrap();
        assert!(journal.append(b"one\n", true).is_err());
        assert!(later(&mut journal).append(b"two\n", false).is_err());
        let large = [vec![b'x'; MOST_UNWRITTEN - 20], b"\n".to_vec()].concat();
        assert!(journal.append(&large, false).is_err() && journal.append(b"a\nb\nover the bound\n", false).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(journal.append(b"", true).is_err(), "not tried again at once");
        // Waiting lines make room, so that no line counts as written that is not.
        later(&mut journal).append(&[b'\n'; 100], true).unwrap();
        journal.append(b"three\n", true).unwrap();
        let lines = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> =
            lines.lines().map(|line| &line[..line.len().min(5)]).filter(|line| !line.is_empty()).collect();
        assert_eq!((lines, journal.take_dropped()), (vec!["one", "two", "xxxxx", "three"], 3));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_that_is_moved_away_is_followed_by_a_new_one_and_a_broken_line_is_ended() {
        let dir = directory();
        let path = dir.join("records");
        std::fs::write(&path, "whole\nbrok").unwrap();
        let mut journal = RecordJournal::open(&path, true).unwrap();
        journal.append(b"next\n", false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nbrok\nnext\n");
        std::fs::rename(&path, dir.join("old")).unwrap();
        journal.looked = None;
        journal.append(b"new\n", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_the_disk_may_have_lost_is_written_again() {
        let dir = directory();
        let path = dir.join("records");
        let mut journal = RecordJournal::open(&path, true).unwrap();
        journal.append(b"safe\n", true).unwrap();
        journal.append(b"read\n", false).unwrap();
        journal.sync = |_| Err(io::Error::from_raw_os_error(5));
        assert!(journal.append(b"write\n", true).is_err());
        for _ in 0..10 {
            assert!(later(&mut journal).append(b"", true).is_err());
        }
        assert!(later(&mut journal).append(b"later\n", true).is_err());
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 3 + 11, "a disk that goes on failing is tried with one line at a time: {lines}");
        let line = [vec![b'x'; MOST_UNWRITTEN / 4], b"\n".to_vec()].concat();
        for _ in 0..9 {
            assert!(later(&mut journal).append(&line, true).is_err());
        }
        assert!(journal.unwritten.bytes().len() + journal.unsynced.bytes().len() <= MOST_UNWRITTEN, "bounded");
        assert!(journal.take_dropped() > 0);
        let first = journal.unwritten.bytes().len() % line.len();
        let kept = journal.unwritten.bytes()[..first].to_vec();
        journal.unwritten.clear();
        journal.unwritten.push(&kept);
        assert_eq!(journal.waiting(), count(&kept));
        journal.sync = File::sync_data;
        // In these tests the disk has lost everything that it had not confirmed.
        std::fs::write(&path, "safe\n").unwrap();
        later(&mut journal).append(b"", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "safe\nread\nwrite\nlater\n");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_that_is_deleted_takes_nothing_that_is_waited_for() {
        let dir = directory();
        let path = dir.join("records");
        let mut journal = RecordJournal::open(&path, true).unwrap();
        std::fs::remove_file(&path).unwrap();
        journal.append(b"one\n", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_not_known_to_last_in_a_file_that_was_moved_away_is_in_the_next() {
        let dir = directory();
        let path = dir.join("records");
        let mut journal = RecordJournal::open(&path, true).unwrap();
        journal.append(b"one\n", false).unwrap();
        std::fs::rename(&path, dir.join("old")).unwrap();
        journal.sync = |_| Err(io::Error::from_raw_os_error(5));
        assert!(journal.append(b"two\n", true).is_err());
        journal.sync = File::sync_data;
        later(&mut journal).append(b"three\n", true).unwrap();
        let lines = std::fs::read_to_string(&path).unwrap();
        assert!(lines.ends_with("one\ntwo\nthree\n"), "{lines}");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
