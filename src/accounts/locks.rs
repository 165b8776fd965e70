//! Finds the session or process that blocks an operator's change.
//!
//! The one rule: a change that fails to get a lock names the lock's holder, so that the operator can end it. The
//! search runs while the change waits, because the lock may be gone afterwards. Only the first word of a session's
//! last statement is reported; the rest may contain personal data.

use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::Transaction;
use tokio::time::{sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{AccountStore, AccountsError};
use fedgate_base::config::StoreConfig;
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::{Database, DbError, SessionPool, SqliteFile, WaitReason};

/// How long an operator's change waits for a lock, as a multiple of a request's time, because it may be urgent. The
/// limits keep it below the time of the whole change ([`super::WRITE_TIMEOUT`]), and long enough to find the holder.
const TIMES: u32 = 2;
const LOCK_TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7));
/// After this time the search for the holder starts, and how long the search may take.
const LOOK_AFTER: Duration = Duration::from_millis(200);
const LOOK_TIMEOUT: Duration = Duration::from_millis(1_000);

impl AccountStore {
    /// Runs an operator's statement, and returns how many rows it changed.
    pub(super) async fn run_named(
        &self,
        pool: &SessionPool,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, AccountsError> {
        let mut session = pool.get().await?;
        let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let transaction = session.transaction().await?;
        transaction.batch_execute(&format!("SET LOCAL lock_timeout = {}", self.lock_timeout().as_millis())).await?;
        if let Some(actor) = &self.actor {
            transaction.execute("SELECT set_config('fedgate.actor', $1, true)", &[&actor.setting()]).await?;
        }
        let written = self.naming(transaction.execute(sql, parameters), pid).await?;
        transaction.commit().await?;
        Ok(written)
    }

    fn lock_timeout(&self) -> Duration {
        let (least, most) = LOCK_TIMEOUT;
        match &self.config {
            StoreConfig::Postgres(config) if !config.lock_timeout.is_zero() => {
                (config.lock_timeout * TIMES).clamp(least, most)
            }
            StoreConfig::Postgres(_) | StoreConfig::Sqlite(_) => most,
        }
    }

    /// Changes the embedded store. If that fails because of a lock, its holder usually still has it.
    pub(super) async fn run_named_embedded<T, F>(&self, sqlite: &SqliteFile, change: F) -> Result<T, AccountsError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let actor = self.actor.clone();
        let change = sqlite.write(move |transaction| ChangeActor::write(actor.as_deref(), transaction, change));
        match change.await {
            Err(error) if error.waited_for() == Some(WaitReason::Lock) => Err(match self.process_before() {
                Some(by) => AccountsError::Locked { by },
                None => error.into(),
            }),
            changed => Ok(changed?),
        }
    }

    /// Awaits a change, and meanwhile searches for the session that blocks it.
    async fn naming<T>(&self, change: impl Future<Output = Result<T, DbError>>, pid: i32) -> Result<T, AccountsError> {
        let mut change = std::pin::pin!(change);
        let look = async {
            sleep(LOOK_AFTER).await;
            timeout(LOOK_TIMEOUT, self.session_before(pid)).await
        };
        // The change continues while the search runs, and a search that fails does not affect it.
        let (held, changed) = tokio::select! {
            changed = &mut change => return Ok(changed?),
            held = look => (held, change.await),
        };
        match (held, changed) {
            (Ok(Ok(Some(by))), Err(error)) if error.waited_for() == Some(WaitReason::Lock) => {
                Err(AccountsError::Locked { by })
            }
            (_, changed) => Ok(changed?),
        }
    }

    /// The sessions that block the one with this process id, those at the head of the line. The session of the reports
    /// asks, because it is free.
    async fn session_before(&self, pid: i32) -> Result<Option<String>, AccountsError> {
        let Database::Postgres(pool) = &self.reports else { return Ok(None) };
        let rows = pool.get().await?.query(POSTGRES_BLOCKING, &[&pid]).await?;
        let holders: Vec<String> = rows.iter().map(holder).collect();
        Ok((!holders.is_empty()).then(|| holders.join(", and by ")))
    }

    /// The process that writes to the embedded store.
    fn process_before(&self) -> Option<String> {
        let StoreConfig::Sqlite(config) = &self.config else { return None };
        writer_of(&config.path, &std::fs::read_to_string("/proc/locks").ok()?)
    }
}

/// A row of [`POSTGRES_BLOCKING`] in words.
fn holder(row: &Row) -> String {
    let text = |column: usize| row.get::<_, Option<&str>>(column).unwrap_or("unknown");
    let pid: i32 = row.get(0);
    if pid == 0 {
        return format!("the prepared transaction `{}`, prepared {}", text(1), text(4));
    }
    format!(
        "session {pid} (user `{}`, application `{}`, from {}, in a transaction since {}, {}, last statement {}); \
         `SELECT pg_terminate_backend({pid})` ends it",
        text(1),
        text(2),
        text(3),
        text(4),
        text(5),
        text(6)
    )
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

/// The sessions at the head of the line in which `$1` waits. Ending a session that waits there itself would not help.
const POSTGRES_BLOCKING: &str = r"
    WITH RECURSIVE line(pid) AS (
        SELECT unnest(pg_blocking_pids($1))
        UNION SELECT unnest(pg_blocking_pids(line.pid)) FROM line WHERE line.pid <> 0
    )
    SELECT a.pid, a.usename::text, a.application_name, coalesce(host(a.client_addr), 'this machine'),
           to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), a.state,
           upper(substring(a.query FROM '^\s*([A-Za-z]+)'))
    FROM pg_stat_activity a WHERE a.pid IN (SELECT pid FROM line) AND cardinality(pg_blocking_pids(a.pid)) = 0
    UNION ALL
    SELECT 0, p.gid, NULL, NULL, to_char(p.prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'), NULL, NULL
    FROM pg_prepared_xacts p WHERE p.database = current_database() AND 0 IN (SELECT pid FROM line)
    LIMIT 3";

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
