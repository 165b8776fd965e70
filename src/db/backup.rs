//! A copy of an embedded store, made while programs write to it.
//!
//! The one rule: what has the name of the copy is whole. It is made under another name, from one snapshot (`VACUUM INTO`), read
//! through, brought to the disk, and only then named, never in the place of another file.
//!
//! Called by `fedhis backup`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use thiserror::Error;

use super::DbError;
use super::sqlite::plain_connection;

/// Why there is no copy.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A file of that name is there.
    #[error("`{0}` is there already, and is not overwritten")]
    Exists(PathBuf),
    /// It, or its directory, cannot be written.
    #[error("`{0}` cannot be written ({1})")]
    File(PathBuf, io::Error),
    /// The copy does not read as it should, and so perhaps the store.
    #[error("the copy is damaged, and so perhaps is the store ({0}); none was kept")]
    Damaged(String),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] DbError),
}

/// Copies the store in one file to another, which there is not yet; how many bytes the copy has.
///
/// # Errors
/// See [`BackupError`]; nothing is left of the copy then.
pub fn copy(store: &Path, target: &Path) -> Result<u64, BackupError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| BackupError::File(path, error)
    };
    if target.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(target.to_owned()));
    }
    let unfinished = Unfinished::beside(target).map_err(at(target))?;
    write(store, &unfinished.0)?;
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

/// Writes the copy, and reads all of it.
fn write(store: &Path, copy: &Path) -> Result<(), BackupError> {
    let failed = |error: rusqlite::Error| BackupError::Store(error.into());
    // In one statement: what is committed meanwhile is in it wholly or not at all, and writers do not wait for it.
    let source = plain_connection(store).map_err(failed)?;
    super::foreign::refuse_file(&source, store)?;
    let name =
        copy.to_str().ok_or_else(|| BackupError::File(copy.to_owned(), io::ErrorKind::InvalidFilename.into()))?;
    source.execute("VACUUM INTO ?1", [name]).map_err(failed)?;
    let copied = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    let found: String = copied.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found == "ok" { Ok(()) } else { Err(BackupError::Damaged(found)) }
}

/// Gives the copy its name, unless that is taken.
fn publish(unfinished: &Path, target: &Path) -> io::Result<()> {
    match std::fs::hard_link(unfinished, target) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Not every file system has links (a stick for backups has none), and not every one this way of renaming.
        Err(_) => Ok(renameat_with(CWD, unfinished, CWD, target, RenameFlags::NOREPLACE)?),
    }
}

/// A copy that has no name yet, for its owner alone; gone when it is dropped.
struct Unfinished(PathBuf);

impl Unfinished {
    fn beside(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut unfinished = OsString::from(".");
        unfinished.push(name);
        unfinished.push(format!(".{:x}.unfinished", rand::random::<u64>()));
        let path = target.with_file_name(unfinished);
        // SQLite writes to an empty file as to none.
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
