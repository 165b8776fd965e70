//! How far PostgreSQL is with an index, in words for the operator.
//!
//! The one rule: it reads what the server tells of a build (`pg_stat_progress_create_index`), and takes part in nothing.

use std::fmt;
use std::time::Duration;

use tokio::time::interval;
use tokio_postgres::Row;

use super::super::{DbError, PooledSession, SessionPool};

/// How often a build is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Takes a line about a migration that takes long.
pub type MigrationReport<'a> = &'a (dyn Fn(&str) + Sync);

/// How far a build is.
pub(super) struct BuildProgress {
    phase: String,
    /// Done and total of what the phase counts: blocks, rows, or sessions that it waits for.
    counted: Option<(i64, i64)>,
    /// The session for which it waits, what that is, and since when its transaction runs.
    awaited: Option<(i32, Option<String>, Option<String>)>,
}

impl BuildProgress {
    /// A statement that finds the build of a session (`$1`).
    pub(super) fn of_session() -> String {
        format!("{BUILD} WHERE build.pid = $1::int")
    }

    /// A statement that finds the build of the session that holds an advisory lock (`$1`).
    pub(super) fn of_holder() -> String {
        format!(
            "{BUILD} WHERE build.pid IN (
                SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND classid::bigint = $1::bigint >> 32 AND objid::bigint = $1::bigint & 4294967295
            ) LIMIT 1"
        )
    }

    /// Reads a row of these statements.
    pub(super) fn read(row: &Row) -> Result<Self, DbError> {
        let pair = |at| -> Result<Option<(i64, i64)>, DbError> {
            let (done, total): (Option<i64>, Option<i64>) = (row.try_get(at)?, row.try_get(at + 1)?);
            Ok(done.zip(total).filter(|(_, total)| *total > 0))
        };
        let (blocks, tuples, lockers) = (pair(1)?, pair(3)?, pair(5)?);
        let awaited: Option<i32> = row.try_get(7)?;
        Ok(Self {
            phase: row.try_get::<_, Option<String>>(0)?.unwrap_or_else(|| "at work".to_owned()),
            counted: lockers.or(blocks).or(tuples),
            awaited: match awaited.filter(|pid| *pid > 0) {
                Some(pid) => Some((pid, row.try_get(8)?, row.try_get(9)?)),
                None => None,
            },
        })
    }
}

impl fmt::Display for BuildProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.phase)?;
        if let Some((done, total)) = self.counted {
            write!(f, ", {} %", done.saturating_mul(100) / total)?;
        }
        let Some((pid, program, since)) = &self.awaited else { return Ok(()) };
        write!(f, "; it waits for the transaction of session {pid}")?;
        if let Some(program) = program.as_deref().filter(|name| !name.is_empty()) {
            write!(f, " (`{}`)", fedgate_core::escape::name(program))?;
        }
        match since {
            Some(since) => write!(f, ", open since {since}"),
            None => Ok(()),
        }
    }
}

/// Awaits the build of an index of a table, and reports how far it is.
pub(super) async fn reported(
    build: impl Future<Output = Result<(), DbError>>,
    session: &PooledSession,
    pool: &SessionPool,
    (index, table): (&str, &str),
    report: MigrationReport<'_>,
) -> Result<(), DbError> {
    let by: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
    let mut build = std::pin::pin!(build);
    let mut looks = interval(LOOK);
    looks.tick().await;
    loop {
        tokio::select! {
            built = &mut build => return built,
            _ = looks.tick() => {}
        }
        let look = async {
            let row = pool.get().await?.query_opt(&BuildProgress::of_session(), &[&by]).await?;
            row.map(|row| BuildProgress::read(&row)).transpose()
        };
        // A look that fails changes nothing: the build goes on, and its own end decides.
        tokio::select! {
            built = &mut build => return built,
            Ok(Some(progress)) = look => report(&format!("building index `{index}` of `{table}`: {progress}")),
        }
    }
}

const BUILD: &str = "
    SELECT phase, blocks_done, blocks_total, tuples_done, tuples_total, lockers_done, lockers_total,
        current_locker_pid::int, application_name, to_char(xact_start, 'HH24:MI:SS')
    FROM pg_stat_progress_create_index AS build LEFT JOIN pg_stat_activity AS awaited ON awaited.pid = current_locker_pid";
