//! Account events: the store keeps one for every change of an account, with its author.
//!
//! The one rule: an event is written in the transaction that makes the change, so neither exists without the other. A
//! gateway takes the events that are in no record yet, writes them, and marks them as recorded. If it dies in between,
//! another gateway takes them. So each event is recorded once, or twice rather than never.

use serde_json::Value;
use tokio_postgres::Row as PostgresRow;

use super::{AccountStore, AccountsError, READ_TIMEOUT, WRITE_TIMEOUT, within};
use fedgate_base::db::Database;

/// One change of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEvent {
    /// Its number. Later events have higher numbers, except for transactions that run at the same time.
    pub id: i64,
    /// The time in UTC (RFC 3339).
    pub at: String,
    /// `created`, `changed`, `deleted`; `all_deleted` if the whole table was emptied at once; `unwatched` if the
    /// changes up to this event are unknown.
    pub what: String,
    /// The account; none if all are concerned.
    pub account: Option<String>,
    /// The roles, if they changed.
    pub roles: MemberChange,
    /// The `active` mark, if it changed.
    pub active: MemberChange,
    /// `set`, `changed`, `removed`, or `rehashed` by a login.
    pub password: Option<String>,
    /// `http`, `command`, `import` or `login`; `replication`, `migration`; and `outside` for any other program.
    pub via: String,
    /// The account that sent the request, or the user of the machine who ran the command.
    pub actor: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The user of the database; none on an embedded store.
    pub database_user: Option<String>,
    /// The application name of the program in the database.
    pub application: Option<String>,
}

/// A member of a person's document before and after a change; both are none if it did not change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// Before, as JSON; none if there was no such member.
    pub before: Option<Value>,
    /// After.
    pub after: Option<Value>,
}

impl MemberChange {
    /// Whether it changed.
    pub fn is_change(&self) -> bool {
        self.before.is_some() || self.after.is_some()
    }

    fn of(before: Option<&str>, after: Option<&str>) -> Self {
        // A text that is not JSON was cut off.
        let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        Self { before: before.map(value), after: after.map(value) }
    }
}

impl AccountStore {
    /// The events of one account or of all, the latest first: those before `before`, or the last ones.
    ///
    /// # Errors
    /// The database did not answer within two seconds.
    pub async fn history(
        &self,
        account: Option<&str>,
        before: Option<i64>,
        most: u32,
    ) -> Result<Vec<AccountEvent>, AccountsError> {
        let (before, most) = (before.unwrap_or(i64::MAX), i64::from(most));
        let read = async {
            match &self.database {
                Database::Postgres(pool) => {
                    let session = pool.get().await?;
                    let sql = history(POSTGRES_COLUMNS, account.is_some()).replace('?', "$");
                    let rows = match &account {
                        Some(account) => session.query(&sql, &[&before, &most, account]).await?,
                        None => session.query(&sql, &[&before, &most]).await?,
                    };
                    Ok(rows.iter().map(of_postgres).collect())
                }
                Database::Sqlite(sqlite) => {
                    let (sql, account) = (history(SQLITE_COLUMNS, account.is_some()), account.map(str::to_owned));
                    let read = move |connection: &rusqlite::Connection| {
                        let mut statement = connection.prepare_cached(&sql)?;
                        let rows = match account {
                            Some(account) => {
                                statement.query_map(rusqlite::params![before, most, account], of_sqlite)?
                            }
                            None => statement.query_map(rusqlite::params![before, most], of_sqlite)?,
                        };
                        rows.collect()
                    };
                    Ok(sqlite.read(read).await?)
                }
            }
        };
        within(READ_TIMEOUT, read).await
    }

    /// Takes the oldest events that are in no record yet, for half a minute, during which no other gateway takes them.
    ///
    /// # Errors
    /// The database did not answer, or its role may not report as a gateway.
    pub async fn take_events(&self, most: u32) -> Result<Vec<AccountEvent>, AccountsError> {
        let take = async {
            match &self.database {
                Database::Postgres(pool) => {
                    let session = pool.get().await?;
                    // Usually there are none, and this read costs neither a write nor a transaction id.
                    if session.query_opt(POSTGRES_UNRECORDED, &[]).await?.is_none() {
                        return Ok(vec![]);
                    }
                    let sql = format!("SELECT {POSTGRES_COLUMNS} FROM fedgate_take_events($1) ORDER BY id");
                    Ok(session.query(&sql, &[&i64::from(most)]).await?.iter().map(of_postgres).collect())
                }
                Database::Sqlite(sqlite) => {
                    let is_there =
                        |connection: &rusqlite::Connection| connection.prepare_cached(SQLITE_UNRECORDED)?.exists([]);
                    // Without this look, every call would take the writer's lock.
                    if !sqlite.read(is_there).await? {
                        return Ok(vec![]);
                    }
                    let take = move |transaction: &rusqlite::Transaction<'_>| {
                        let mut statement = transaction.prepare_cached(&sqlite_take())?;
                        statement.query_map([most], of_sqlite)?.collect()
                    };
                    let mut taken: Vec<AccountEvent> = sqlite.write(take).await?;
                    taken.sort_by_key(|event| event.id);
                    Ok(taken)
                }
            }
        };
        within(WRITE_TIMEOUT, take).await
    }

    /// Marks events as recorded.
    ///
    /// # Errors
    /// The database did not answer; the events will be recorded again.
    pub async fn events_are_recorded(&self, ids: Vec<i64>) -> Result<(), AccountsError> {
        let note = async {
            match &self.database {
                Database::Postgres(pool) => {
                    pool.get().await?.execute("SELECT fedgate_events_recorded($1)", &[&ids]).await?;
                }
                Database::Sqlite(sqlite) => {
                    let note = move |transaction: &rusqlite::Transaction<'_>| {
                        let mut statement = transaction.prepare_cached(SQLITE_RECORDED)?;
                        ids.iter().try_for_each(|id| statement.execute([id]).map(drop))
                    };
                    sqlite.write(note).await?;
                }
            }
            Ok(())
        };
        within(WRITE_TIMEOUT, note).await
    }
}

fn of_postgres(row: &PostgresRow) -> AccountEvent {
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
    }
}

fn of_sqlite(row: &rusqlite::Row<'_>) -> Result<AccountEvent, rusqlite::Error> {
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
    })
}

fn history(columns: &str, is_of_account: bool) -> String {
    let of = if is_of_account { "AND account = ?3" } else { "" };
    format!("SELECT {columns} FROM fedgate_account_events WHERE id < ?1 {of} ORDER BY id DESC LIMIT ?2")
}

fn sqlite_take() -> String {
    format!(
        "UPDATE fedgate_account_events SET taken_until = unixepoch() + 30 WHERE id IN ( \
             SELECT id FROM fedgate_account_events \
             WHERE NOT recorded AND (taken_until IS NULL OR taken_until < unixepoch()) ORDER BY id LIMIT ?1 \
         ) RETURNING {SQLITE_COLUMNS}"
    )
}

const POSTGRES_COLUMNS: &str = "id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), what, account, \
    roles_before, roles_after, active_before, active_after, password, via, actor, request_id, database_user, application";
const SQLITE_COLUMNS: &str = "id, at, what, account, roles_before, roles_after, active_before, active_after, password, via, \
    actor, request_id";
const POSTGRES_UNRECORDED: &str = "SELECT 1 FROM fedgate_account_events \
    WHERE NOT recorded AND (taken_until IS NULL OR taken_until < clock_timestamp()) LIMIT 1";
const SQLITE_UNRECORDED: &str = "SELECT 1 FROM fedgate_account_events \
    WHERE NOT recorded AND (taken_until IS NULL OR taken_until < unixepoch())";
const SQLITE_RECORDED: &str = "UPDATE fedgate_account_events SET recorded = 1 WHERE id = ?1";
