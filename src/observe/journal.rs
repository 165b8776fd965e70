//! The file of records: appended to, found again after it was moved away, and on disk where that is waited for.
//!
//! The one rule: a record that was taken is written whole. What cannot be written is kept, up to a bound, and tried
//! again; what is over the bound is counted. A line that broke off is ended, and its record written anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most bytes that wait for a file that cannot be written.
const MOST_UNWRITTEN: usize = 8 * 1024 * 1024;
/// How often it is looked whether the file is still the one of that name.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A file of lines.
pub(super) struct Journal {
    path: PathBuf,
    /// None while it cannot be used.
    file: Option<File>,
    unwritten: Vec<u8>,
    dropped: usize,
    looked: Instant,
}

impl Journal {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = Some(open(path)?);
        Ok(Self { path: path.to_owned(), file, unwritten: vec![], dropped: 0, looked: Instant::now() })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many lines were dropped since this was asked last.
    pub(super) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    /// Appends whole lines, behind what is still to be written; to the disk itself, where `sync` says so.
    ///
    /// # Errors
    /// What could not be written is kept for the next time, and the file is opened anew then.
    pub(super) fn append(&mut self, lines: &[u8], sync: bool) -> io::Result<()> {
        if self.unwritten.len() + lines.len() <= MOST_UNWRITTEN {
            self.unwritten.extend_from_slice(lines);
        } else {
            self.dropped += lines.iter().filter(|byte| **byte == b'\n').count();
        }
        let written = self.write(sync);
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn write(&mut self, sync: bool) -> io::Result<()> {
        let file = match self.file.take().filter(|file| self.is_current(file)) {
            Some(file) => self.file.insert(file),
            None => self.file.insert(open(&self.path)?),
        };
        let mut written = 0;
        let outcome = loop {
            match file.write(self.unwritten.get(written..).unwrap_or_default()) {
                Ok(0) => break Ok(()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        // Of a line that broke off nothing counts.
        let whole = self.unwritten.get(..written).unwrap_or_default().iter().rposition(|byte| *byte == b'\n');
        self.unwritten.drain(..whole.map_or(0, |at| at + 1));
        outcome?;
        if sync { file.sync_data() } else { Ok(()) }
    }

    /// Whether the file is still the one of its name; looked at once in a while.
    fn is_current(&mut self, file: &File) -> bool {
        if self.looked.elapsed() < LOOK_EVERY {
            return true;
        }
        self.looked = Instant::now();
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (file.metadata().map(identity), std::fs::metadata(&self.path).map(identity)) {
            (Ok(held), Ok(named)) => held == named,
            _ => false,
        }
    }
}

/// Opens it to append to, behind whole lines.
fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    let mut last = [b'\n'];
    if metadata.is_file() && metadata.len() > 0 {
        file.read_exact_at(&mut last, metadata.len() - 1)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    // A new file is there after a power failure when its directory is written.
    if let Some(directory) = path.parent() {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> PathBuf {
        let path = std::env::temp_dir().join(format!("fedgate-journal-{:x}", rand::random::<u128>()));
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn what_cannot_be_written_is_kept_and_written_once_it_can_be() {
        let dir = directory();
        let path = dir.join("records");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert!(journal.append(b"one\n", true).is_err());
        assert!(journal.append(b"two\n", false).is_err());
        let large = [vec![b'x'; MOST_UNWRITTEN - 20], b"\n".to_vec()].concat();
        assert!(journal.append(&large, false).is_err() && journal.append(b"a\nb\nover the bound\n", false).is_err());
        std::fs::remove_file(&path).unwrap();
        journal.append(b"three\n", true).unwrap();
        let lines = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = lines.lines().map(|line| &line[..line.len().min(5)]).collect();
        assert_eq!((lines, journal.take_dropped()), (vec!["one", "two", "xxxxx", "three"], 3));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_file_that_is_moved_away_is_followed_by_a_new_one_and_a_broken_line_is_ended() {
        let dir = directory();
        let path = dir.join("records");
        std::fs::write(&path, "whole\nbrok").unwrap();
        let mut journal = Journal::open(&path).unwrap();
        journal.append(b"next\n", false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nbrok\nnext\n");
        std::fs::rename(&path, dir.join("old")).unwrap();
        journal.looked -= LOOK_EVERY;
        journal.append(b"new\n", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
