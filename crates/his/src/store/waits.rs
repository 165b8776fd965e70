//! The table of waits on the page of passwords, by which operators see and end them.
//!
//! The one rule: these rows decide only one thing: a count of guesses ends once the account was unlocked. The counts
//! themselves are in memory. `fedgate account` unlocks accounts and shows their waits.

use std::time::Duration;

use rusqlite::OptionalExtension;

use super::postgres::PostgresStore;
use super::sqlite::SqliteStore;
use fedgate_base::db::DbError;

impl PostgresStore {
    pub(super) async fn page_unlocks(&self, account: &str) -> Result<i64, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached("SELECT unlocks FROM fedgate_page_waits WHERE account = $1").await?;
        let row = session.query_opt(&statement, &[&account]).await?;
        row.map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    pub(super) async fn note_page_wait(&self, account: &str, seconds: i64, password: &str) -> Result<(), DbError> {
        let session = self.writer().await?;
        let statement = session.prepare_cached("SELECT fedgate_note_page_wait($1, $2, $3)").await?;
        session.execute(&statement, &[&account, &seconds, &password]).await?;
        Ok(())
    }
}

impl SqliteStore {
    pub(super) async fn page_unlocks(&self, account: &str) -> Result<i64, DbError> {
        let account = account.to_owned();
        let sql = "SELECT unlocks FROM fedgate_page_waits WHERE account = ?1";
        let unlocks = self.read(move |db| db.query_row(sql, [account], |row| row.get(0)).optional()).await?;
        Ok(unlocks.unwrap_or(0))
    }

    pub(super) async fn note_page_wait(&self, account: &str, seconds: i64, password: &str) -> Result<(), DbError> {
        let (account, password) = (account.to_owned(), password.to_owned());
        self.write(0, move |tx| tx.execute(SQLITE_NOTE, rusqlite::params![account, seconds, password])).await?;
        Ok(())
    }
}

/// A wait as it is stored.
pub(super) fn whole_seconds(wait: Duration) -> i64 {
    i64::try_from(wait.as_secs()).unwrap_or(i64::MAX)
}

// The same as PostgreSQL's `fedgate_note_page_wait`. Each instance counts for itself, so the row keeps the longest
// wait.
const SQLITE_NOTE: &str = "
    INSERT INTO fedgate_page_waits (account, waits_until, password) VALUES (?1, unixepoch() + ?2, ?3)
    ON CONFLICT (account) DO UPDATE SET
        waits_until = CASE WHEN password IS excluded.password
                      THEN max(coalesce(waits_until, 0), excluded.waits_until) ELSE excluded.waits_until END,
        password = excluded.password";
