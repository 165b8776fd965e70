//! Database faults in an operator's words: the configuration file, the key, the place and the remedy.
//!
//! The one rule: a fault that does not end by waiting is a fault of the configuration ([`DbError::Settings`]). Any
//! other fault keeps its cause, by which callers distinguish an outage from a lock.
//!
//! Everything that opens a database calls it, and so do the commands, which report the result.

use std::path::Path;

use rustix::fs::{Access, access};
use thiserror::Error;

use super::{DbCause, DbError, is_of_server};
use crate::config::StoreConfig;

/// A server that was not reached, with the place that was tried.
#[derive(Debug, Error)]
#[error("`{place}`: {source}")]
pub(super) struct UnreachedServer {
    pub(super) place: String,
    source: DbCause,
}

impl UnreachedServer {
    /// Adds the place to a fault on the way; an answer of the server needs none.
    pub(super) fn at(place: impl std::fmt::Display, error: DbError) -> DbError {
        match error {
            DbError::Unavailable(source) if !is_of_server(source.as_ref()) => {
                DbError::Unavailable(Self { place: place.to_string(), source }.into())
            }
            other => other,
        }
    }
}

impl DbError {
    /// One line for the operator: the configuration file, the key, the fault and the remedy.
    pub fn located(&self, file: &Path, store: &StoreConfig) -> String {
        let file = file.display();
        if let Self::Settings { .. } = self {
            return format!("{file}: {self}");
        }
        let remedy = match store {
            StoreConfig::Postgres(_) if self.is_outage() && !self.is_answer() => "; is the server up?".to_owned(),
            StoreConfig::Postgres(_) => String::new(),
            StoreConfig::Sqlite(sqlite) => self.remedy_of_file(&sqlite.path),
        };
        format!("{file}: `{}`: {self}{remedy}", store.key())
    }

    /// The remedy for the file of an embedded store.
    fn remedy_of_file(&self, path: &Path) -> String {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, ReadOnly, SystemIoFailure,
        };
        let path = path.display();
        match self.find::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code) {
            Some(DatabaseBusy | DatabaseLocked) => {
                format!("; another program holds a lock on `{path}`: end it, or wait for it, and run this again")
            }
            Some(DiskFull) => format!("; make room on the file system of `{path}`"),
            Some(DatabaseCorrupt) => format!("; `{path}` is damaged: restore a copy (docs/BACKUP.md)"),
            Some(CannotOpen | ReadOnly | SystemIoFailure) => {
                format!("; this user must be able to read and write `{path}`, and the directory that it is in")
            }
            _ => String::new(),
        }
    }
}

/// Why the file of an embedded store cannot be opened.
pub(super) fn unopened(path: &Path, error: rusqlite::Error) -> DbError {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, PermissionDenied, ReadOnly};
    let restore = "restore a copy (docs/BACKUP.md)";
    let problem = match error.sqlite_error_code() {
        Some(_) if path.is_dir() => "is a directory; name a file in it".to_owned(),
        Some(NotADatabase) => {
            format!("is no SQLite database, and so no store of fedgate; name a file of its own, or {restore}")
        }
        Some(DatabaseCorrupt) => format!("is damaged ({error}); {restore}"),
        Some(CannotOpen | PermissionDenied | ReadOnly) => match unwritable(path) {
            Some(reason) => {
                format!("this user may not read and write ({reason}); let this user do both, and make files beside it")
            }
            // For example, the limit of open files is reached.
            None => return error.into(),
        },
        _ => return error.into(),
    };
    DbError::Settings { key: "path", problem: format!("names `{}`, which {problem}", path.display()) }
}

/// Why a file cannot be written, or no file created beside it. It is not opened for that: closing it would end this
/// process's locks on it.
fn unwritable(path: &Path) -> Option<std::io::Error> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let of_file = access(path, Access::READ_OK | Access::WRITE_OK);
    of_file.and_then(|()| access(directory, Access::WRITE_OK)).err().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_holds_no_store_is_a_fault_of_the_setting_and_a_lock_is_none() {
        let failure = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        let told = |path: &str, code| unopened(Path::new(path), failure(code)).to_string();
        for (path, code, problem) in [
            ("/", rusqlite::ffi::SQLITE_CANTOPEN, "`store.path` names `/`, which is a directory; name a file in it"),
            ("/nowhere", rusqlite::ffi::SQLITE_NOTADB, "which is no SQLite database"),
            ("/nowhere", rusqlite::ffi::SQLITE_CORRUPT, "which is damaged"),
            ("/nowhere", rusqlite::ffi::SQLITE_CANTOPEN, "which this user may not read and write (No such file"),
        ] {
            let told = told(path, code);
            assert!(told.contains(problem), "{problem}: {told}");
        }
        let locked = unopened(Path::new("/nowhere/his.db"), failure(rusqlite::ffi::SQLITE_BUSY));
        let path = "/nowhere/his.db".into();
        let store = StoreConfig::Sqlite(crate::config::SqliteConfig { path, lock_timeout: std::time::Duration::ZERO });
        let told = locked.located(Path::new("f.toml"), &store);
        assert!(locked.waited_for().is_some() && told.starts_with("f.toml: `store.path`: "), "{told}");
        assert!(told.contains("another program holds a lock on `/nowhere/his.db`: end it"), "{told}");
    }

    #[test]
    fn an_unreached_server_is_reported_with_its_address() {
        let refused = || DbError::Unavailable(std::io::Error::from_raw_os_error(2).into());
        let told = UnreachedServer::at("/run/none/.s.PGSQL.5432", refused());
        assert_eq!(
            told.to_string(),
            "the database is unavailable: `/run/none/.s.PGSQL.5432`: No such file or directory (os error 2)"
        );
        assert!(told.is_outage() && !told.is_answer());
        let standby = UnreachedServer::at("h:1", super::super::route::WrongServer::TakesNoWrites.into());
        assert!(standby.is_answer() && !standby.to_string().contains("h:1"), "{standby}");
    }
}
