//! SQLite: one writer and a few readers on one file, on the blocking pool.
//!
//! The one rule: an acknowledged write is on disk (WAL with `synchronous=FULL`). Gateway and HIS are two processes
//! with the same file open; SQLite's locks keep them apart, and a gate (`gate.rs`) lets them take turns. No wait for a
//! turn or a lock is unbounded. Work stops when its caller is gone: each piece of work checks that while it runs, and
//! the check affects no other work. Writes that wait at once share a commit (`write_group.rs`).
//!
//! An open file stays usable when another file takes its name (`mv` and `cp` of a backup), and later writes to it are
//! lost with the process. So the name is checked with every read and write, and nothing is answered from a file that
//! lost its name.

mod follower;
mod wanted_read;
mod write_group;
mod write_queue;

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Transaction};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::timeout;

use follower::FollowedConnection;
pub use follower::SqliteFollower;
use wanted_read::WantedRead;
pub use write_group::GROUP_WRITES;
use write_group::{GROUP_TIME, run_groups};
pub use write_queue::WriteCompany;
use write_queue::{WaitingCaller, WriteQueue};

use super::gate::{WriteGate, private_mode};
use super::place::unopened;
use super::{DbCause, DbError, NoTurn, foreign};

/// The most readers at a time; others wait for their turn.
pub const READERS: usize = 4;
/// How long a reader or writer waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time for a reader, the same as PostgreSQL's for a statement.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How many operations of SQLite's virtual machine pass between two checks whether the work is still wanted.
const OPERATIONS: i32 = 200;
/// How long opening waits for another process that opens the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long closing waits for running work, and its checkpoint for readers of other processes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(500);
/// How many prepared statements a connection keeps.
const CACHED_STATEMENTS: usize = 64;

/// A handle to the embedded store; clones share it.
#[derive(Clone)]
pub struct SqliteFile(Arc<SqliteInner>);

struct SqliteInner {
    path: PathBuf,
    file: FileIdentity,
    gate: WriteGate,
    /// None if the store is closed.
    writer: Arc<AsyncMutex<Option<Connection>>>,
    /// INVARIANT: while a write waits in it, its caller waits for the writer, or a thread runs groups.
    queue: WriteQueue,
    /// A group takes no further write after so long.
    group_time: Duration,
    idle_readers: Mutex<Vec<Connection>>,
    readers: Arc<Semaphore>,
    /// The turn of a watch, which waits for no other reader.
    watch: Arc<Semaphore>,
    followed: Mutex<Option<FollowedConnection>>,
    /// How many connections were opened for followers.
    connections: AtomicU64,
}

impl SqliteFile {
    /// Opens the file, and creates it (mode 0600) if it is missing. A write waits at most `lock_timeout` for the lock
    /// of another process.
    ///
    /// # Errors
    /// The file cannot be created, is not a database, belongs to another program, or stays locked.
    pub async fn open(path: &Path, lock_timeout: Duration) -> Result<Self, DbError> {
        // SQLite would read a relative `file:…` as a URI, and open another file than the one that is checked here.
        let path = std::path::absolute(path).map_err(unavailable)?;
        blocking(move || {
            create_private(&path)?;
            let file = FileIdentity::of(&path).map_err(unavailable)?;
            let writer = plain_connection(&path).map_err(|error| unopened(&path, error))?;
            foreign::refuse_file(&writer, &path)?;
            set_up(&writer).map_err(|error| unopened(&path, error))?;
            // The gate waits for the lock instead.
            writer.busy_timeout(Duration::ZERO)?;
            let gate = WriteGate::beside(&path, lock_timeout);
            let writer = Arc::new(AsyncMutex::new(Some(writer)));
            let [readers, watch] = [READERS, 1].map(|turns| Arc::new(Semaphore::new(turns)));
            let (queue, idle_readers, followed, connections) = Default::default();
            let inner = SqliteInner {
                path,
                file,
                gate,
                writer,
                queue,
                group_time: GROUP_TIME,
                idle_readers,
                readers,
                watch,
                followed,
                connections,
            };
            inner.check_name()?;
            Ok(Self(Arc::new(inner)))
        })
        .await
    }

    /// Runs `work` on a reading connection, while its caller waits.
    ///
    /// # Errors
    /// The error of `work`; or no connection was free; or it took too long.
    pub async fn read<T, F>(&self, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        self.read_with((), work).await
    }

    /// As [`SqliteFile::read`]. `turn` is dropped when the work has ended.
    ///
    /// # Errors
    /// See [`SqliteFile::read`].
    pub async fn read_with<T, F>(&self, turn: impl Send + 'static, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        self.read_in(&self.0.readers, turn, work).await
    }

    /// As [`SqliteFile::read`], for a watch on which rights depend: it waits only for itself, however many readers wait.
    ///
    /// # Errors
    /// See [`SqliteFile::read`].
    pub async fn read_apart<T, F>(&self, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        self.read_in(&self.0.watch, (), work).await
    }

    async fn read_in<T, F>(&self, turns: &Arc<Semaphore>, turn: impl Send + 'static, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let permit = turn_of(turns).await?;
        let (wanted, _waiting) = WantedRead::until(Instant::now() + READ_LIMIT);
        blocking(move || {
            let _held = (permit, turn);
            inner.check_name()?;
            let idle = inner.idle().pop();
            let mut reader = match idle {
                Some(reader) => reader,
                None => reading_connection(&inner.path)?,
            };
            // A connection that fails or is interrupted is closed.
            let answer = wanted.run(&mut reader, |reader| Ok(work(reader)?))?;
            inner.check_name()?;
            inner.idle().push(reader);
            Ok(answer)
        })
        .await
    }

    /// Runs `work` in a write transaction of its own. It is committed if `work` succeeds, and rolled back otherwise.
    ///
    /// # Errors
    /// The error of `work`; or the commit failed; or the next program to open the file would not find the commit.
    pub async fn write<T, F>(&self, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        self.write_with(WriteCompany::Alone { lane: 0 }, (), work).await
    }

    /// As [`SqliteFile::write`], in a transaction that `company` may share. `turn` is dropped when the work has ended.
    ///
    /// # Errors
    /// See [`SqliteFile::write`]; a commit fails for all that share it.
    pub async fn write_with<T, F>(
        &self,
        company: WriteCompany,
        turn: impl Send + 'static,
        work: F,
    ) -> Result<T, DbError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let caller = self.0.queue.put(company, turn, work)?;
        self.wait_for(caller).await
    }

    /// Waits until the write has run. Whoever gets the writer runs all writes that wait.
    async fn wait_for<T>(&self, mut caller: WaitingCaller<T>) -> Result<T, DbError> {
        let (mut leading, mut is_late) = (None, false);
        let mut deadline = std::pin::pin!(tokio::time::sleep(TURN_TIMEOUT));
        loop {
            tokio::select! {
                biased;
                told = &mut caller.answer => return told.unwrap_or_else(|gone| Err(DbError::Failed(gone.into()))),
                ended = ended(&mut leading) => {
                    leading = None;
                    // The runtime ended before it began.
                    if ended.is_err_and(|unfinished| unfinished.is_cancelled()) && caller.withdraw() {
                        return Err(NoTurn::Stopping.into());
                    }
                }
                writer = Arc::clone(&self.0.writer).lock_owned(), if leading.is_none() => {
                    leading = Some(self.lead(writer));
                }
                () = &mut deadline, if !is_late => {
                    is_late = true;
                    if caller.withdraw() {
                        return Err(NoTurn::OfAll.into());
                    }
                }
            }
        }
    }

    /// Runs the writes that wait, also when the caller who leads has gone.
    fn lead(&self, mut writer: OwnedMutexGuard<Option<Connection>>) -> JoinHandle<()> {
        let inner = Arc::clone(&self.0);
        spawn_blocking(move || run_groups(&inner, &mut writer))
    }
}

/// The end of a task; never, if there is none.
async fn ended(task: &mut Option<JoinHandle<()>>) -> Result<(), JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

impl SqliteFile {
    /// Closes the store at the end of a program, for all that share it. Then the file by itself holds everything that
    /// was written, unless another process still has it open; the last process to close ensures it. Waits for running
    /// work, within bounds.
    pub fn close(&self) {
        let (inner, deadline) = (&self.0, Instant::now() + CLOSE_TIMEOUT);
        let readers = u32::try_from(READERS).unwrap_or(u32::MAX);
        let ended = [(&inner.readers, readers), (&inner.watch, 1)]
            .map(|(turns, count)| until(deadline, || turns.try_acquire_many(count).ok()));
        inner.readers.close();
        inner.watch.close();
        inner.idle().clear();
        drop(inner.followed.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(writer) = until(deadline, || inner.writer.try_lock().ok()).and_then(|mut writer| writer.take()) else {
            tracing::warn!(
                "the store is still in use, and is not closed: the last writes are in the `-wal` file beside it"
            );
            return;
        };
        drop(ended);
        let path = inner.path.display();
        match checkpoint(&writer) {
            Ok(WalRest::Nothing) => {}
            Ok(WalRest::Held) => tracing::warn!(
                "another process still reads the store: the last writes stay in `{path}-wal`, which belongs to `{path}`"
            ),
            Err(error) => {
                tracing::warn!("the last writes stay in `{path}-wal`, which belongs to `{path}`: {error}");
            }
        }
    }
}

/// Tries again until there is a result, or until the deadline.
fn until<T>(deadline: Instant, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        match ask() {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            answer => return answer,
        }
    }
}

/// The content of a WAL after a checkpoint.
#[derive(Debug, PartialEq, Eq)]
enum WalRest {
    Nothing,
    /// Something, because a reader of another process blocks it.
    Held,
}

/// Moves the content of the WAL into the file, as far as no reader of another process blocks it.
fn checkpoint(writer: &Connection) -> Result<WalRest, rusqlite::Error> {
    writer.busy_timeout(CHECKPOINT_TIMEOUT)?;
    // SQLite reports an incomplete checkpoint in its first column, not as an error.
    let is_held: bool = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(if is_held { WalRest::Held } else { WalRest::Nothing })
}

impl SqliteInner {
    /// Checks that the path still leads to the file that was opened.
    fn check_name(&self) -> Result<(), DbError> {
        let path = self.path.display();
        match FileIdentity::of(&self.path) {
            Ok(file) if file == self.file => Ok(()),
            Ok(_) => Err(unavailable(format!(
                "`{path}` was replaced while it was open; stop all programs that opened it, remove the `-wal` and \
                 `-shm` beside it, and start them"
            ))),
            Err(error) => Err(unavailable(format!("`{path}` can no longer be found ({error})"))),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file that a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// A turn among those that read.
async fn turn_of(turns: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, DbError> {
    let free = timeout(TURN_TIMEOUT, Arc::clone(turns).acquire_owned()).await.map_err(|_| NoTurn::OfAll)?;
    free.map_err(unavailable)
}

fn unavailable(error: impl Into<DbCause>) -> DbError {
    DbError::Unavailable(error.into())
}

async fn blocking<T, F>(work: F) -> Result<T, DbError>
where
    F: FnOnce() -> Result<T, DbError> + Send + 'static,
    T: Send + 'static,
{
    spawn_blocking(work).await.map_err(|unfinished| match unfinished.is_cancelled() {
        // The runtime ended before it began.
        true => DbError::Unavailable(NoTurn::Stopping.into()),
        false => DbError::Failed(unfinished.into()),
    })?
}

/// Creates the file without rights for others; SQLite gives its WAL the same mode.
fn create_private(path: &Path) -> Result<(), DbError> {
    let mode = private_mode(path);
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    // Independent of the umask: a group that shares the directory shares the store.
    match made.and_then(|file| file.set_permissions(Permissions::from_mode(mode))) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(DbError::Settings {
            key: "path",
            problem: format!(
                "names `{}`, which cannot be created ({error}); name a file in a directory that exists and that this \
                 user may write",
                path.display()
            ),
        }),
    }
}

fn reading_connection(path: &Path) -> Result<Connection, rusqlite::Error> {
    let reader = plain_connection(path)?;
    set_up(&reader)?;
    // A reader that tried to write would take the lock without the gate; SQLite refuses it.
    reader.pragma_update(None, "query_only", true)?;
    Ok(reader)
}

/// A connection that changes nothing in the file.
pub(super) fn plain_connection(path: &Path) -> Result<Connection, rusqlite::Error> {
    // Without the flag to create: a file that was removed meanwhile must not be made again.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(connection)
}

fn set_up(connection: &Connection) -> Result<(), rusqlite::Error> {
    into_wal(connection)?;
    // FULL: with NORMAL, which is usual for WAL, a power failure can lose acknowledged commits.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)
}

/// Switches to WAL. Two processes that open a new file at once may collide here, and SQLite does not wait for that.
fn into_wal(connection: &Connection) -> Result<(), rusqlite::Error> {
    const ATTEMPTS: u32 = 50;
    let mut attempt = 0;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())) {
            Err(error)
                if attempt < ATTEMPTS && error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) =>
            {
                attempt += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod group_tests;
