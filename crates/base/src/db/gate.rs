//! The gate in front of an embedded store's lock, where writing processes queue.
//!
//! The one rule: a process that asks for the lock holds the gate meanwhile, so a process that has just written cannot
//! take the lock again before one that waits. SQLite grants its lock to whichever process asks at the right moment,
//! and sleeps between two attempts. So beside a process that writes without a pause, another one could wait without
//! end.
//!
//! The gate is an empty file beside the store (`-turn`), locked with `flock`. It orders writers and protects no data:
//! if it is unavailable, a write proceeds without it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

/// The pause between two attempts at the gate or the lock: about the duration of a short write.
const LOOK: Duration = Duration::from_millis(1);

/// The gate of one store for one process.
pub(super) struct WriteGate {
    /// None if it cannot be opened.
    file: Option<File>,
    /// The longest time that a write waits for gate and lock together.
    patience: Duration,
}

impl WriteGate {
    /// Opens the gate of a store, beside its file.
    pub(super) fn beside(path: &Path, patience: Duration) -> Self {
        let mut name = OsString::from(path);
        name.push("-turn");
        let mode = private_mode(path);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let file = options.open(name).inspect_err(|error| {
            tracing::debug!(%error, "the store has no gate: writers do not take turns");
        });
        // If the file belongs to another user, this fails, and nothing is lost.
        let file = file.ok().inspect(|file| drop(file.set_permissions(Permissions::from_mode(mode))));
        Self { file, patience }
    }

    /// Begins a write when it is this process's turn, unless its caller has gone.
    ///
    /// # Errors
    /// The lock was not free in time, or the store failed.
    pub(super) fn begin<'a>(
        &self,
        writer: &'a Connection,
        is_abandoned: impl Fn() -> bool,
    ) -> Result<Transaction<'a>, rusqlite::Error> {
        let deadline = Instant::now() + self.patience;
        let waits = || Instant::now() < deadline && !is_abandoned();
        let _held = self.hold(waits);
        lock(writer, waits)
    }

    /// Holds the gate until dropped; none if it was unavailable.
    fn hold(&self, waits: impl Fn() -> bool) -> Option<HeldGate<'_>> {
        let file = self.file.as_ref()?;
        loop {
            match file.try_lock() {
                Ok(()) => return Some(HeldGate(file)),
                Err(std::fs::TryLockError::WouldBlock) if waits() => sleep(LOOK),
                Err(_) => return None,
            }
        }
    }
}

/// The mode of files that are created beside a path. They are only for their owner, unless the directory is shared by
/// a group (setgid and group-writable): gateway and HIS run there as separate users, and the files are the group's
/// too.
pub(super) fn private_mode(path: &Path) -> u32 {
    const SHARED: u32 = 0o2020;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_shared = std::fs::metadata(directory).is_ok_and(|directory| directory.mode() & SHARED == SHARED);
    if is_shared { 0o660 } else { 0o600 }
}

/// Tries for SQLite's lock until it has it.
fn lock(writer: &Connection, waits: impl Fn() -> bool) -> Result<Transaction<'_>, rusqlite::Error> {
    loop {
        // Immediate: a deferred transaction would take the lock at its first write, and could fail there.
        match Transaction::new_unchecked(writer, TransactionBehavior::Immediate) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && waits() => sleep(LOOK),
            begun => return begun,
        }
    }
}

/// The held gate, while this process tries for the lock.
struct HeldGate<'a>(&'a File);

impl Drop for HeldGate<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(
                "the gate of the store cannot be released ({error}): until it is, other programs on this store may \
                 wait for each write as long as `store.lock_timeout_ms`; if this repeats, restart this program"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::db::SqliteFile;

    const LONG: Duration = Duration::from_secs(60);

    /// A directory that is removed with the test.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            let place = std::env::temp_dir().join(format!("fedgate-gate-{:x}", rand::random::<u128>()));
            std::fs::create_dir(&place).unwrap();
            Self(place)
        }

        /// The store, as a separate process opens it.
        async fn open(&self, lock_timeout: Duration) -> SqliteFile {
            SqliteFile::open(&self.0.join("his.db"), lock_timeout).await.unwrap()
        }

        fn gate(&self) -> WriteGate {
            WriteGate::beside(&self.0.join("his.db"), LONG)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_process_that_writes_without_end_is_one_write_ahead_of_another_at_most() {
        let place = Place::new();
        let (busy, other) = (place.open(LONG).await, place.open(LONG).await);
        let (written, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let (busy, written, is_over) = (busy.clone(), Arc::clone(&written), Arc::clone(&is_over));
                tokio::spawn(async move {
                    while !is_over.load(Ordering::SeqCst) {
                        // It does not touch the disk, so that other users of the disk make no difference.
                        let written = Arc::clone(&written);
                        let work = move |_: &Transaction<'_>| Ok(written.fetch_add(1, Ordering::SeqCst));
                        busy.write(work).await.unwrap();
                    }
                })
            })
            .collect();
        while written.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let (connection, gate) = (Connection::open(place.0.join("his.db")).unwrap(), place.gate());
        connection.busy_timeout(Duration::ZERO).unwrap();
        for _ in 0..50 {
            let held = gate.hold(|| true).unwrap();
            let before = written.load(Ordering::SeqCst);
            let transaction = lock(&connection, || true).unwrap();
            let ahead = written.load(Ordering::SeqCst) - before;
            drop((transaction, held));
            assert!(ahead <= 1, "{ahead} writes went ahead");
            // As a gateway does.
            other.write(|_| Ok(())).await.unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_gate_that_cannot_be_had_keeps_no_write_from_the_store() {
        let place = Place::new();
        let stuck = place.gate();
        let held = stuck.hold(|| true);
        let sqlite = place.open(Duration::from_millis(20)).await;
        sqlite.write(|tx| tx.execute_batch("CREATE TABLE fedgate_t (n)")).await.unwrap();
        drop(held);
        std::fs::remove_file(place.0.join("his.db-turn")).unwrap();
        std::fs::create_dir(place.0.join("his.db-turn")).unwrap();
        let without = place.open(Duration::from_millis(20)).await;
        without.write(|tx| tx.execute("INSERT INTO fedgate_t VALUES (1)", [])).await.unwrap();
    }

    #[tokio::test]
    async fn a_lock_that_comes_too_late_is_reported_and_an_unwanted_one_is_not_awaited() {
        let place = Place::new();
        let (holder, sqlite) = (place.open(LONG).await, place.open(Duration::from_millis(20)).await);
        let path = place.0.join("his.db");
        let waits = holder.write(move |_| {
            let late = tokio::runtime::Handle::current().block_on(sqlite.write(|_| Ok(()))).unwrap_err();
            assert_eq!(late.waited_for(), Some(crate::db::WaitReason::Lock), "{late}");
            let connection = Connection::open(&path)?;
            connection.busy_timeout(Duration::ZERO)?;
            let gate = WriteGate::beside(&path, LONG);
            assert!(gate.begin(&connection, || true).is_err(), "nobody waits for it");
            Ok(())
        });
        waits.await.unwrap();
    }
}
