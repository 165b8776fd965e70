//! Finds the session that blocks an operator's change.
//!
//! The one rule: a change that fails to get a lock names the lock's holder, so that the operator can end it. The
//! search runs while the change waits, because the lock may be gone afterwards. Only the first word of a session's
//! last statement is reported; the rest may contain personal data.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresAccounts;
use crate::accounts::AccountsError;
use fedgate_base::db::{DbError, WaitReason};

/// How long an operator's change waits for a lock, as a multiple of a request's time, because it may be urgent. The
/// limits keep it below the time of the whole change ([`WRITE_TIMEOUT`](crate::accounts::limits::WRITE_TIMEOUT)), and
/// long enough to find the holder.
const TIMES: u32 = 2;
const LOCK_TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7));
/// After this time the search for the holder starts, and how long the search may take.
const LOOK_AFTER: Duration = Duration::from_millis(200);
const LOOK_TIMEOUT: Duration = Duration::from_millis(1_000);

impl PostgresAccounts {
    /// Runs an operator's statement, and returns how many rows it changed.
    pub(super) async fn run_named(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, AccountsError> {
        self.run_locked(None, sql, parameters).await
    }

    /// Runs an operator's statement, after another one of the same parameters that locks rows: the second one sees what
    /// was committed before the locks were had.
    pub(super) async fn run_locked(
        &self,
        lock: Option<&str>,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, AccountsError> {
        let mut session = self.pool.get().await?;
        let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let transaction = session.transaction().await?;
        transaction.batch_execute(&format!("SET LOCAL lock_timeout = {}", self.lock_timeout().as_millis())).await?;
        if let Some(actor) = &self.actor {
            transaction.execute("SELECT set_config('fedgate.actor', $1, true)", &[&actor.setting()]).await?;
        }
        if let Some(lock) = lock {
            self.naming(transaction.execute(lock, parameters), pid).await?;
        }
        let written = self.naming(transaction.execute(sql, parameters), pid).await?;
        transaction.commit().await?;
        Ok(written)
    }

    fn lock_timeout(&self) -> Duration {
        let (least, most) = LOCK_TIMEOUT;
        if self.lock_timeout.is_zero() { most } else { (self.lock_timeout * TIMES).clamp(least, most) }
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
        let rows = self.reports.get().await?.query(BLOCKING, &[&pid]).await?;
        let holders: Vec<String> = rows.iter().map(holder).collect();
        Ok((!holders.is_empty()).then(|| holders.join(", and by ")))
    }
}

/// A row of [`BLOCKING`] in words.
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

/// The sessions at the head of the line in which `$1` waits. Ending a session that waits there itself would not help.
const BLOCKING: &str = r"
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
