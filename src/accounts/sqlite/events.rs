//! Account events on the embedded store: see [`super::super::events`].

use rusqlite::{Connection, Row, Transaction, params};

use super::SqliteAccounts;
use crate::accounts::AccountsError;
use crate::accounts::events::{AccountEvent, MemberChange, detail, history};

impl SqliteAccounts {
    pub(in crate::accounts) async fn history(
        &self,
        account: Option<&str>,
        before: i64,
        most: i64,
    ) -> Result<Vec<AccountEvent>, AccountsError> {
        let (sql, account) = (history(COLUMNS, account.is_some()), account.map(str::to_owned));
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = match account {
                Some(account) => statement.query_map(params![before, most, account], event)?,
                None => statement.query_map(params![before, most], event)?,
            };
            rows.collect()
        };
        Ok(self.sqlite.read(read).await?)
    }

    pub(in crate::accounts) async fn take_events(&self, most: u32) -> Result<Vec<AccountEvent>, AccountsError> {
        let is_there = |connection: &Connection| connection.prepare_cached(UNRECORDED)?.exists([]);
        // Without this look, every call would take the writer's lock.
        if !self.sqlite.read(is_there).await? {
            return Ok(vec![]);
        }
        let take = move |transaction: &Transaction<'_>| {
            let mut statement = transaction.prepare_cached(&take())?;
            statement.query_map([most], event)?.collect()
        };
        let mut taken: Vec<AccountEvent> = self.sqlite.write(take).await?;
        taken.sort_by_key(|event| event.id);
        Ok(taken)
    }

    pub(in crate::accounts) async fn events_are_recorded(&self, ids: Vec<i64>) -> Result<(), AccountsError> {
        let note = move |transaction: &Transaction<'_>| {
            let mut statement = transaction.prepare_cached(RECORDED)?;
            ids.iter().try_for_each(|id| statement.execute([id]).map(drop))
        };
        Ok(self.sqlite.write(note).await?)
    }
}

/// A row of [`COLUMNS`]. An embedded store has no users.
fn event(row: &Row<'_>) -> Result<AccountEvent, rusqlite::Error> {
    let text = |column: usize| row.get_ref(column).map(|value| value.as_str_or_null().ok().flatten());
    Ok(AccountEvent {
        id: row.get(0)?,
        at: row.get(1)?,
        what: row.get(2)?,
        account: row.get(3)?,
        roles: MemberChange::of(text(4)?, text(5)?),
        active: MemberChange::of(text(6)?, text(7)?),
        password: row.get(8)?,
        via: row.get(9)?,
        actor: row.get(10)?,
        request_id: row.get(11)?,
        database_user: None,
        application: None,
        detail: text(12)?.map(detail),
    })
}

fn take() -> String {
    format!(
        "UPDATE fedgate_account_events SET taken_until = unixepoch() + 30 WHERE id IN ( \
             SELECT id FROM fedgate_account_events \
             WHERE NOT recorded AND (taken_until IS NULL OR taken_until < unixepoch()) ORDER BY id LIMIT ?1 \
         ) RETURNING {COLUMNS}"
    )
}

const COLUMNS: &str = "id, at, what, account, roles_before, roles_after, active_before, active_after, password, via, \
    actor, request_id, detail";
const UNRECORDED: &str = "SELECT 1 FROM fedgate_account_events \
    WHERE NOT recorded AND (taken_until IS NULL OR taken_until < unixepoch())";
const RECORDED: &str = "UPDATE fedgate_account_events SET recorded = 1 WHERE id = ?1";
