//! Copies an embedded store while programs write to it.
//!
//! The one rule: a file with the copy's name is complete. The copy is made under another name from one snapshot
//! (`VACUUM INTO`), read through, synchronized to disk, and only then renamed. It never replaces another file.
//!
//! `fedhis backup` calls it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use thiserror::Error;

use super::DbError;
use super::foreign::require_store;
use super::place::unopened;
use super::sqlite::plain_connection;

/// Why there is no copy.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A file of that name exists.
    #[error(
        "`{0}` is there already, and is not overwritten; name a file that is not there yet{in_it}",
        in_it = if .0.is_dir() { ", such as one in this directory" } else { "" }
    )]
    Exists(PathBuf),
    /// The file system of the copy is full.
    #[error(
        "`{0}` cannot be written, because its file system is full; make room there for some {1} bytes, or name a \
         file elsewhere"
    )]
    Room(PathBuf, u64),
    /// The copy, or its directory, cannot be written.
    #[error("`{0}` cannot be written ({1}); name a file in a directory that exists and that this user may write")]
    File(PathBuf, io::Error),
    /// The copy is damaged, and so perhaps is the store.
    #[error("the copy is damaged, and so perhaps is the store ({0}); none was kept")]
    Damaged(String),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] DbError),
}

/// Copies the store to a file that does not exist yet, and returns the size of the copy in bytes.
///
/// # Errors
/// See [`BackupError`]. In that case nothing of the copy remains.
pub fn copy(store: &Path, target: &Path) -> Result<u64, BackupError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| BackupError::File(path, error)
    };
    if target.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    let unfinished = UnfinishedCopy::beside(target).map_err(at(target))?;
    write(store, &unfinished.0, target)?;
    let file = File::open(&unfinished.0).map_err(at(target))?;
    file.sync_all().map_err(at(target))?;
    publish(&unfinished.0, target).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(target.to_owned()),
        _ => BackupError::File(target.to_owned(), error),
    })?;
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(at(directory))?;
    Ok(file.metadata().map_err(at(target))?.len())
}

/// Writes the copy, and reads it all.
fn write(store: &Path, copy: &Path, target: &Path) -> Result<(), BackupError> {
    let source = plain_connection(store).map_err(|error| unopened(store, error))?;
    require_store(&source, store)?;
    let name =
        copy.to_str().ok_or_else(|| BackupError::File(target.to_owned(), io::ErrorKind::InvalidFilename.into()))?;
    // In one statement: each concurrent commit is in the copy completely or not at all, and writers do not wait.
    source.execute("VACUUM INTO ?1", [name]).map_err(|error| unwritten(error, store, target))?;
    let of_copy = |error: rusqlite::Error| BackupError::File(target.to_owned(), io::Error::other(error));
    let copied = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(of_copy)?;
    // All of it is read now, because a damaged copy would otherwise be noticed only when it is needed.
    let found: String = copied.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(of_copy)?;
    if found == "ok" { Ok(()) } else { Err(BackupError::Damaged(found)) }
}

/// Attributes a failed copy to the store or to the copy. The store is not written meanwhile, and no temporary file is
/// used for sorting. So a full disk, or a failed write, concerns the copy.
fn unwritten(error: rusqlite::Error, store: &Path, target: &Path) -> BackupError {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE};
    if error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
        return BackupError::Room(target.to_owned(), store.metadata().map_or(0, |store| store.len()));
    }
    let of_writing = [SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_TRUNCATE];
    match error.sqlite_error() {
        Some(code) if of_writing.contains(&code.extended_code) => {
            BackupError::File(target.to_owned(), io::Error::other(error))
        }
        _ => BackupError::Store(error.into()),
    }
}

/// Gives the copy its name, unless a file has that name already.
fn publish(unfinished: &Path, target: &Path) -> io::Result<()> {
    // A link fails if the name is taken, so no other file is ever replaced.
    match std::fs::hard_link(unfinished, target) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Not every file system has hard links (a USB stick for backups has none), and not every one supports this
        // renaming.
        Err(_) => Ok(renameat_with(CWD, unfinished, CWD, target, RenameFlags::NOREPLACE)?),
    }
}

/// A copy without its final name, only for its owner. Dropping it removes the file.
struct UnfinishedCopy(PathBuf);

impl UnfinishedCopy {
    fn beside(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut unfinished = OsString::from(".");
        unfinished.push(name);
        unfinished.push(format!(".{:x}.unfinished", rand::random::<u64>()));
        let path = target.with_file_name(unfinished);
        // SQLite treats an empty file like a missing one.
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self(path))
    }
}

impl Drop for UnfinishedCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
