//! Finds the process that blocks an operator's change of the embedded store.
//!
//! The one rule: a change that fails to get the lock names the lock's holder, so that the operator can end it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::Transaction;

use super::SqliteAccounts;
use crate::accounts::AccountsError;
use fedgate_base::db::WaitReason;
use fedgate_base::db::actor::ChangeActor;

impl SqliteAccounts {
    /// Runs an operator's change. If that fails because of a lock, its holder usually still has it.
    pub(super) async fn run_named<T, F>(&self, change: F) -> Result<T, AccountsError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let actor = self.actor.clone();
        let change = self.sqlite.write(move |transaction| ChangeActor::write(actor.as_deref(), transaction, change));
        match change.await {
            Err(error) if error.waited_for() == Some(WaitReason::Lock) => Err(match self.process_before() {
                Some(by) => AccountsError::Locked { by },
                None => error.into(),
            }),
            changed => Ok(changed?),
        }
    }

    /// The process that writes to the store.
    fn process_before(&self) -> Option<String> {
        writer_of(&self.path, &std::fs::read_to_string("/proc/locks").ok()?)
    }
}

/// The process that holds SQLite's write lock on a file in WAL mode. The lock is one byte of the `-shm` file
/// (sqlite.org/walformat.html, "The WAL-Index File Format", 2.3.1), as the kernel lists it (proc_locks(5)).
fn writer_of(path: &Path, locks: &str) -> Option<String> {
    const WRITER: u64 = 120;
    let shm = std::fs::metadata(path.with_file_name({
        let mut name = path.file_name()?.to_owned();
        name.push("-shm");
        name
    }))
    .ok()?;
    let is_writers = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "POSIX", _, "WRITE", _, file, first, last] = fields.as_slice() else { return false };
        let inode = file.rsplit(':').next().and_then(|inode| inode.parse().ok());
        let covers = first.parse().is_ok_and(|first: u64| first <= WRITER)
            && (*last == "EOF" || last.parse().is_ok_and(|last: u64| last >= WRITER));
        inode == Some(shm.ino()) && covers
    };
    let pid = locks.lines().find(is_writers)?.split_whitespace().nth(4)?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("process {pid} (`{}`)", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_of_an_embedded_store_is_found_among_all_locks() {
        let path = std::env::temp_dir().join(format!("fedgate-locks-{:x}", rand::random::<u128>()));
        let shm = path.with_file_name(format!("{}-shm", path.file_name().unwrap().display()));
        std::fs::write(&shm, "").unwrap();
        let inode = std::fs::metadata(&shm).unwrap().ino();
        let me = std::process::id();
        let line = |pid, file: u64, kind, range| format!("7: POSIX  ADVISORY  {kind} {pid} fe:01:{file} {range}\n");
        let others = line(1, inode + 1, "WRITE", "120 120") + &line(1, inode, "READ ", "123 123") + "8: FLOCK x\n";
        assert_eq!(writer_of(&path, &others), None);
        for range in ["120 120", "0 EOF"] {
            let found = writer_of(&path, &(others.clone() + &line(me, inode, "WRITE", range))).unwrap();
            assert!(found.starts_with(&format!("process {me} (`")), "{found}");
        }
        std::fs::remove_file(shm).unwrap();
    }
}
