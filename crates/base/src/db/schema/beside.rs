//! Traces of a Thalamus that still uses the database that it made.
//!
//! The one rule: a trace is reported as what it is. A password that neither our programs nor psql have set was set by a
//! Thalamus or another program; Thalamus opens sessions without a name. If there is no trace, nothing is claimed,
//! because a Thalamus that only reads leaves none.
//!
//! The migration and the check call it, and report to the operator.

use std::fmt;
use std::time::Duration;

use super::super::{Database, DbError, WaitReason};
use fedgate_core::escape;

/// Traces of a Thalamus, or of another program that writes accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramBeside {
    /// How many passwords neither our programs nor psql have set since the migration, if one was set within the last 30
    /// days.
    passwords: i64,
    /// When the last of them was set (UTC), and by which database user.
    last: Option<(String, String)>,
    /// How many sessions on this database have no name.
    sessions: i64,
}

impl fmt::Display for ProgramBeside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passwords, last, sessions } = self;
        if let Some((day, user)) = last {
            let were = if *passwords == 1 { "password was" } else { "passwords were" };
            let user = escape::name(user);
            write!(
                f,
                "{passwords} {were} set past fedgate, and not by psql, since the migration, the last on {day} by \
                 database user `{user}`"
            )?;
        }
        if *sessions > 0 {
            let are = if *sessions == 1 { "session without a name is" } else { "sessions without a name are" };
            let before = if last.is_some() { ", and " } else { "" };
            write!(f, "{before}{sessions} {are} open on this database")?;
        }
        f.write_str(": a Thalamus that is still in use does that")
    }
}

/// Looks for traces, for at most `patience`; none if nothing is found, or the role may not look.
///
/// # Errors
/// The database is away, or refuses.
pub async fn program_beside(database: &Database, patience: Duration) -> Result<Option<ProgramBeside>, DbError> {
    // Thalamus has no embedded store.
    let Database::Postgres(pool) = database else { return Ok(None) };
    let mut session = pool.get().await?.without_limit();
    let transaction = session.transaction().await?;
    transaction.batch_execute(&format!("SET LOCAL statement_timeout = {}", patience.as_millis())).await?;
    let row = match transaction.query_one(TRACES, &[]).await {
        Ok(row) => row,
        Err(error) if error.is_forbidden() || error.waited_for() == Some(WaitReason::Statement) => return Ok(None),
        Err(error) => return Err(error),
    };
    let (day, user): (Option<String>, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
    let found = ProgramBeside { passwords: row.try_get(0)?, last: day.zip(user), sessions: row.try_get(3)? };
    Ok((found.last.is_some() || found.sessions > 0).then_some(found))
}

// psql is an operator at work. psycopg2, as Thalamus uses it, gives its sessions no name.
const TRACES: &str = "
    WITH outside AS (
        SELECT at, database_user FROM fedgate_account_events
        WHERE via = 'outside' AND password IN ('set', 'changed') AND application <> 'psql'
    ), last AS (
        SELECT at, database_user FROM outside WHERE at > now() - interval '30 days' ORDER BY at DESC LIMIT 1
    )
    SELECT (SELECT count(*) FROM outside),
        (SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM last), (SELECT database_user::text FROM last),
        (SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = '' AND pid <> pg_backend_pid()
           AND coalesce(backend_type, 'client backend') = 'client backend')";
