//! Accounts on the embedded store (SQLite): the statements, and how their rows are read.
//!
//! The one rule: reads use the readers' connections, so they never hold up the writer's. Changes take turns.
//!
//! [`AccountStore`](super::AccountStore) calls it, and bounds the time of each question.

mod desk;
mod events;
mod instances;
mod links;
mod locks;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rusqlite::{Connection, Transaction, params};

use super::AccountsError;
use super::account::{AccountRow, MOST_SAME};
use fedgate_base::config::SqliteConfig;
use fedgate_base::db::SqliteFile;
use fedgate_base::db::actor::ChangeActor;

/// Accounts on the embedded store. Clones share its connections.
#[derive(Clone)]
pub(super) struct SqliteAccounts {
    sqlite: SqliteFile,
    path: PathBuf,
    actor: Option<Arc<ChangeActor>>,
}

impl SqliteAccounts {
    pub(super) async fn open(config: &SqliteConfig) -> Result<Self, AccountsError> {
        let sqlite = SqliteFile::open(&config.path, config.lock_timeout).await?;
        Ok(Self { sqlite, path: config.path.clone(), actor: None })
    }

    pub(super) fn file(&self) -> &SqliteFile {
        &self.sqlite
    }

    pub(super) fn acting_as(self, actor: Arc<ChangeActor>) -> Self {
        Self { actor: Some(actor), ..self }
    }

    /// Reads one account. The caller compares its epoch with `announced`; here is no session to close for a lower one.
    pub(super) async fn read(&self, id: &str, _told: u64) -> Result<AccountRow, AccountsError> {
        let id = id.to_owned();
        let read = move |connection: &Connection| {
            connection.prepare_cached(&READ)?.query_row(params![id, MOST_SAME], |row| {
                let same: Option<String> = row.get(5)?;
                Ok(AccountRow {
                    epoch: row.get(0)?,
                    found: row.get(1)?,
                    password: row.get(2)?,
                    roles: row.get(3)?,
                    active: row.get(4)?,
                    same: same.and_then(|same| serde_json::from_str(&same).ok()).unwrap_or_default(),
                    links: row.get(6)?,
                })
            })
        };
        Ok(self.sqlite.read(read).await?)
    }

    /// Replaces a password hash if it is still `old`. Returns how many were replaced.
    pub(super) async fn replace_hash(&self, id: &str, old: &str, new: &str) -> Result<u64, AccountsError> {
        let (id, old, new) = (id.to_owned(), old.to_owned(), new.to_owned());
        let replace = move |transaction: &Transaction<'_>| {
            let actor = ChangeActor::login(&id);
            ChangeActor::write(Some(&actor), transaction, |transaction| {
                transaction.execute(REPLACE_HASH, [&id, &old, &new])
            })
        };
        Ok(self.sqlite.write(replace).await? as u64)
    }
}

// The same columns as on PostgreSQL, and the same account: the one that its row names byte for byte.
static READ: LazyLock<String> = LazyLock::new(|| OF_ACCOUNT.replace("{LINKS}", links::OF_ACCOUNT));
const OF_ACCOUNT: &str = "
    SELECT e.epoch, p.id IS NOT NULL,
           CASE WHEN l.id IS NULL THEN d.password ELSE l.password END,
           CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END,
           CASE WHEN l.id IS NULL THEN d.active ELSE l.active END,
           CASE WHEN EXISTS (SELECT 1 FROM fedgate_same_persons WHERE id = ?1) THEN (
               SELECT json_group_array(id) FROM (
                   SELECT other.id FROM fedgate_same_persons mine JOIN fedgate_same_persons other ON other.person = mine.person
                   WHERE mine.id = ?1 AND other.id <> mine.id ORDER BY other.id LIMIT ?2)
           ) END,
           {LINKS}
    FROM fedgate_epoch e
    LEFT JOIN people p ON p.id = ?1 AND CAST(p.id AS TEXT) = ?1 COLLATE BINARY
    LEFT JOIN fedgate_logins l ON l.id = p.id COLLATE BINARY
    LEFT JOIN fedgate_logins_due d ON l.id IS NULL AND d.row_id = p.id";
const REPLACE_HASH: &str = "
    UPDATE people SET data = json_set(data, '$.password', ?3)
    WHERE id = ?1 AND CAST(id AS TEXT) = ?1 COLLATE BINARY AND data->>'$.password' = ?2";
