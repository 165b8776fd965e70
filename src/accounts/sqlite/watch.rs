//! The changes of accounts in the embedded store. It sends no notices, so the watch polls it.
//!
//! The one rule: the moment of a question is taken before it is asked. See [`mod@super::super::watch`].

use std::time::Duration;

use rusqlite::{Connection, Row};

use super::SqliteAccounts;
use crate::accounts::AccountsError;
use crate::accounts::answers::{NeverComes, WatchAnswers};
use crate::accounts::changes::{AccountChanges, ChangeRow, LastAnswer, MOST_ROWS, changes};
use crate::accounts::limits::{READ_TIMEOUT, within};
use fedgate_base::moment::BootMoment;

/// The longest interval between questions.
const POLL: Duration = Duration::from_millis(25);

impl SqliteAccounts {
    /// The changes since a known answer, and the new answer.
    pub(in crate::accounts) async fn ask(
        &self,
        known: Option<&LastAnswer>,
    ) -> Result<(AccountChanges, LastAnswer), AccountsError> {
        let after = LastAnswer::after(known);
        // Not in the line of requests: a flood of unknown accounts fills it, and would end the lease of all.
        changes(known, self.sqlite.read_apart(move |connection| rows(connection, after)).await?)
    }

    /// Asks again and again what changed, at least once in `poll`.
    pub(in crate::accounts) async fn follow(
        &self,
        poll: Duration,
        answers: &WatchAnswers<'_>,
    ) -> Result<NeverComes, AccountsError> {
        let mut follower = self.sqlite.follower();
        let mut known: Option<LastAnswer> = None;
        loop {
            // Before the question: the lease is counted from here.
            let asked = BootMoment::now();
            let after = LastAnswer::after(known.as_ref());
            let news = async { Ok(follower.read_news(move |connection| rows(connection, after)).await?) };
            match (within(READ_TIMEOUT, news).await?, &known) {
                (Some(rows), _) => {
                    let (changes, now) = changes(known.as_ref(), rows)?;
                    answers.confirmed(asked, &changes);
                    known = Some(now);
                }
                // Nothing was written at all.
                (None, Some(last)) => answers.confirmed(asked, &AccountChanges::none_since(last)),
                // INVARIANT: the first reading is always made.
                (None, None) => return Err(AccountsError::Untold),
            }
            tokio::time::sleep(POLL.min(poll)).await;
        }
    }

    /// An embedded store sends no notices, and needs no session.
    pub(in crate::accounts) async fn check_watch(&self) -> Result<(), AccountsError> {
        Ok(())
    }
}

fn rows(connection: &Connection, after: i64) -> Result<Vec<ChangeRow>, rusqlite::Error> {
    let row = |row: &Row<'_>| {
        Ok(ChangeRow {
            now: row.get(0)?,
            change: row.get(1)?,
            account: row.get(2)?,
            fire: row.get(3)?,
            triggers: row.get(4)?,
        })
    };
    connection.prepare_cached(CHANGES)?.query_map([after, MOST_ROWS], row)?.collect()
}

const CHANGES: &str = "
    SELECT e.epoch, c.epoch, c.account, t.fire, (SELECT CAST(schema_version AS TEXT) FROM pragma_schema_version)
    FROM fedgate_epoch e CROSS JOIN fedgate_triggers t LEFT JOIN fedgate_account_changes c ON c.epoch > ?1
    LIMIT ?2";
