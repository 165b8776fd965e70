//! Account events on PostgreSQL: see [`super::super::events`].

use tokio_postgres::Row;

use super::PostgresAccounts;
use crate::accounts::AccountsError;
use crate::accounts::events::{AccountEvent, MemberChange, detail, history};

impl PostgresAccounts {
    pub(in crate::accounts) async fn history(
        &self,
        account: Option<&str>,
        before: i64,
        most: i64,
    ) -> Result<Vec<AccountEvent>, AccountsError> {
        let session = self.pool.get().await?;
        let sql = history(COLUMNS, account.is_some()).replace('?', "$");
        let rows = match &account {
            Some(account) => session.query(&sql, &[&before, &most, account]).await?,
            None => session.query(&sql, &[&before, &most]).await?,
        };
        Ok(rows.iter().map(event).collect())
    }

    pub(in crate::accounts) async fn take_events(&self, most: u32) -> Result<Vec<AccountEvent>, AccountsError> {
        let session = self.pool.get().await?;
        // Usually there are none, and this read costs neither a write nor a transaction id.
        if session.query_opt(UNRECORDED, &[]).await?.is_none() {
            return Ok(vec![]);
        }
        let sql = format!("SELECT {COLUMNS} FROM fedgate_take_events($1) ORDER BY id");
        Ok(session.query(&sql, &[&i64::from(most)]).await?.iter().map(event).collect())
    }

    pub(in crate::accounts) async fn events_are_recorded(&self, ids: Vec<i64>) -> Result<(), AccountsError> {
        self.pool.get().await?.execute("SELECT fedgate_events_recorded($1)", &[&ids]).await?;
        Ok(())
    }
}

/// A row of [`COLUMNS`].
fn event(row: &Row) -> AccountEvent {
    AccountEvent {
        id: row.get(0),
        at: row.get(1),
        what: row.get(2),
        account: row.get(3),
        roles: MemberChange::of(row.get(4), row.get(5)),
        active: MemberChange::of(row.get(6), row.get(7)),
        password: row.get(8),
        via: row.get(9),
        actor: row.get(10),
        request_id: row.get(11),
        database_user: row.get(12),
        application: row.get(13),
        detail: row.get::<_, Option<&str>>(14).map(detail),
    }
}

const COLUMNS: &str = "id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), what, account, \
                       roles_before, roles_after, active_before, active_after, password, via, actor, request_id, \
                       database_user, application, detail";
const UNRECORDED: &str = "SELECT 1 FROM fedgate_account_events \
    WHERE NOT recorded AND (taken_until IS NULL OR taken_until < clock_timestamp()) LIMIT 1";
