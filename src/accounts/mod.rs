//! Accounts, the policy information point: which accounts exist, with which password hash and roles, and what changed
//! since.
//!
//! The one rule: every answer carries the account epoch of the same snapshot, so a caller can tell whether the answer
//! is still true. The epoch is a number in the database. A trigger raises it whenever a password, the roles or the
//! `active` mark of any person changes.
//!
//! `authn` and the operator's commands call it. It knows nothing of HTTP, policy or passwords in clear.

mod admin;
mod desk;
mod error;
mod events;
mod instances;
mod locks;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;

pub use admin::{AccountChange, NewAccount};
pub use desk::AccountDeletion;
pub use error::AccountsError;
pub use events::{AccountEvent, MemberChange};
pub use instances::{
    CacheFigures, ChangeSpread, GatewayInstance, InstanceReport, LIVE_FOR, REPORT_EVERY, WaitingAccount,
    WaitingAccounts, listed_for,
};
pub use watch::{EpochWatch, watch};

use fedgate_base::config::StoreConfig;
use fedgate_base::db::actor::ChangeActor;
pub use fedgate_base::db::outage::OutageLog;
use fedgate_base::db::{Database, DbError, postgres};

/// How many epochs of changes the database remembers. A reader further behind drops everything that it holds.
const REMEMBERED_EPOCHS: u64 = 10_000;
/// The most changes in one answer. With one more, any account may have changed.
const TOLD_CHANGES: u32 = 10_000;
/// One row more than the most changes, so that the surplus is noticed.
const MOST_ROWS: i64 = TOLD_CHANGES as i64 + 1;
/// The longest time to read one account.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time for a change.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// One stored account, as of [`StoredAccount::epoch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAccount {
    /// The id of the person.
    pub id: String,
    /// The password hash; none if the person cannot sign in.
    pub password_hash: Option<String>,
    /// The roles, in their order.
    pub roles: Vec<String>,
    /// Whether the account is active.
    pub active: bool,
    /// The account epoch at which this was true.
    pub epoch: u64,
}

/// The accounts that changed after some epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountChanges {
    /// The current epoch.
    pub epoch: u64,
    /// The changed accounts.
    pub accounts: ChangedAccounts,
}

/// The changed accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedAccounts {
    /// Only these, possibly none.
    These(Vec<String>),
    /// Any account may have changed.
    Everything,
}

/// The accounts of one database.
#[derive(Clone)]
pub struct AccountStore {
    database: Database,
    /// The connection for this instance's reports. It is separate, so that no number of requests delays a report.
    reports: Database,
    config: StoreConfig,
    /// The author of changes made here. The gateway itself changes accounts only by logins.
    actor: Option<Arc<ChangeActor>>,
    /// The epoch of the watch's last answer. No read that begins later may return a lower one.
    told: Arc<AtomicU64>,
}

impl AccountStore {
    /// Opens the configured database; PostgreSQL is not contacted yet.
    ///
    /// # Errors
    /// The settings are unusable, or the embedded store cannot be opened.
    pub async fn open(config: &StoreConfig) -> Result<Self, AccountsError> {
        let (database, reports) = match config {
            StoreConfig::Postgres(config) => {
                // One route for all: reads, reports and the watch use the same server.
                let route = postgres::route_to_primary(config)?;
                let pool = |size| postgres::pool_on(Arc::clone(&route), size).map(Database::Postgres);
                (pool(config.pool_size)?, pool(1)?)
            }
            StoreConfig::Sqlite(_) => {
                let database = Database::open(config).await?;
                // Reads use the readers' connections, so they never hold up the writer's.
                (database.clone(), database)
            }
        };
        Ok(Self { database, reports, config: config.clone(), actor: None, told: Arc::default() })
    }

    /// The same accounts with an author, whom every change names.
    pub fn acting_as(self, actor: ChangeActor) -> Self {
        Self { actor: Some(Arc::new(actor)), ..self }
    }

    /// From now on every answer comes from one server, the first that answers. For commands that ask several things.
    ///
    /// # Errors
    /// No primary answers.
    pub async fn keep_to_one_server(&self) -> Result<(), AccountsError> {
        match self.database.route() {
            Some(route) => Ok(route.keep_to_the_first().await?),
            None => Ok(()),
        }
    }

    /// If an answer is not the primary's, or belongs to another history, lets the route look for the primary.
    fn heeded<T>(&self, answer: Result<T, AccountsError>) -> Result<T, AccountsError> {
        use AccountsError::{AnotherServer, Standby, WentBack};
        if let (Err(Standby | AnotherServer | WentBack { .. }), Some(route)) = (&answer, self.database.route()) {
            route.doubt();
        }
        answer
    }

    /// The database of these accounts.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Reads one account; none if there is no such person.
    ///
    /// # Errors
    /// The database did not answer within two seconds, is a standby, or has another history than before.
    pub async fn read(&self, id: &str) -> Result<Option<StoredAccount>, AccountsError> {
        // Loaded before the question: the primary has already answered with this epoch, so it cannot return a lower
        // one.
        let told = self.told.load(Ordering::Acquire);
        let read = within(READ_TIMEOUT, self.read_row(id, told)).await;
        Ok(self.heeded(read)?.into_account(id))
    }

    async fn read_row(&self, id: &str, told: u64) -> Result<AccountRow, AccountsError> {
        let row = match &self.database {
            Database::Postgres(pool) => {
                let session = pool.get().await?;
                let statement = session.prepare_cached(POSTGRES_READ).await?;
                let row = session.query_one(&statement, &[&id, &id]).await?;
                let (epoch, found): (i64, bool) = (row.get(0), row.get(1));
                let is_standby: bool = row.get(5);
                if is_standby || from_sql(epoch) < told {
                    // This connection must not answer any other request.
                    session.close();
                }
                if is_standby {
                    return Err(AccountsError::Standby);
                }
                AccountRow { epoch, found, password: row.get(2), roles: row.get(3), active: row.get(4) }
            }
            Database::Sqlite(sqlite) => {
                let id = id.to_owned();
                let read = move |connection: &rusqlite::Connection| {
                    connection.prepare_cached(SQLITE_READ)?.query_row([id], |row| {
                        Ok(AccountRow {
                            epoch: row.get(0)?,
                            found: row.get(1)?,
                            password: row.get(2)?,
                            roles: row.get(3)?,
                            active: row.get(4)?,
                        })
                    })
                };
                sqlite.read(read).await?
            }
        };
        match from_sql(row.epoch) {
            // Another history, of which nothing is known: a restore, or a server that a switchover left behind.
            epoch if epoch < told => Err(AccountsError::WentBack { from: told, to: epoch }),
            _ => Ok(row),
        }
    }

    /// Replaces a password hash if it is still `old`. True if it was.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn replace_hash(&self, id: &str, old: &str, new: &str) -> Result<bool, AccountsError> {
        self.heeded(within(WRITE_TIMEOUT, self.replace_hash_unbounded(id, old, new)).await)
    }

    async fn replace_hash_unbounded(&self, id: &str, old: &str, new: &str) -> Result<bool, AccountsError> {
        let replaced = match &self.database {
            Database::Postgres(pool) => {
                let (sql, acts) = (ChangeActor::told_by(POSTGRES_REPLACE_HASH, 5), ChangeActor::login(id).setting());
                pool.get().await?.execute(&sql, &[&id, &old, &new, &id, &acts]).await?
            }
            Database::Sqlite(sqlite) => {
                let (id, old, new) = (id.to_owned(), old.to_owned(), new.to_owned());
                let replace = move |transaction: &rusqlite::Transaction<'_>| {
                    let actor = ChangeActor::login(&id);
                    ChangeActor::write(Some(&actor), transaction, |transaction| {
                        transaction.execute(SQLITE_REPLACE_HASH, [&id, &old, &new])
                    })
                };
                sqlite.write(replace).await? as u64
            }
        };
        Ok(replaced == 1)
    }

    /// The changes after `since`. `None` reads only the epoch, and counts as everything.
    ///
    /// # Errors
    /// The database did not answer, or has no epoch.
    pub async fn changes_since(&self, since: Option<u64>) -> Result<AccountChanges, AccountsError> {
        let known = since.map(|epoch| LastAnswer { epoch, triggers: None });
        Ok(within(READ_TIMEOUT, self.ask(known.as_ref())).await?.0)
    }

    /// The changes since a known answer, and the new answer.
    async fn ask(&self, known: Option<&LastAnswer>) -> Result<(AccountChanges, LastAnswer), AccountsError> {
        let after = LastAnswer::after(known);
        let rows = match &self.database {
            Database::Postgres(pool) => {
                watch::told(&pool.get().await?.query(watch::POSTGRES_CHANGES, &[&after, &MOST_ROWS]).await?)?
            }
            Database::Sqlite(sqlite) => sqlite.read(move |connection| sqlite_changes(connection, after)).await?,
        };
        changes(known, rows)
    }
}

/// Bounds a question: a database that hangs counts as away.
async fn within<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, AccountsError>>,
) -> Result<T, AccountsError> {
    tokio::time::timeout(limit, question).await.map_err(|elapsed| DbError::Unavailable(elapsed.into()))?
}

/// One row of [`POSTGRES_READ`] or [`SQLITE_READ`].
struct AccountRow {
    epoch: i64,
    found: bool,
    password: Option<String>,
    roles: Option<String>,
    active: Option<String>,
}

impl AccountRow {
    fn into_account(self, id: &str) -> Option<StoredAccount> {
        self.found.then(|| StoredAccount {
            id: id.to_owned(),
            password_hash: self.password.filter(|hash| !hash.is_empty()),
            // Roles that are not a list of strings count as none: silence denies.
            roles: self
                .roles
                .and_then(|roles| Vec::<String>::deserialize(&mut serde_json::Deserializer::from_str(&roles)).ok())
                .unwrap_or_default(),
            // Thalamus ignores the mark, and few rows have it: an account without one is active.
            active: matches!(self.active.as_deref(), None | Some("null" | "true" | "\"True\"" | "\"true\"")),
            epoch: from_sql(self.epoch),
        })
    }
}

/// The last answer, with which the next one is compared.
struct LastAnswer {
    epoch: u64,
    /// The version of the triggers; none for a caller that does not follow them.
    triggers: Option<String>,
}

impl LastAnswer {
    /// The epoch after which changes are asked for; a caller without a known epoch asks for none.
    fn after(known: Option<&Self>) -> i64 {
        known.map_or(i64::MAX, |known| to_sql(known.epoch))
    }
}

/// One row of the answer to what changed: the current epoch, whether the triggers fire, their version, and the epoch
/// and account of one change.
struct ChangeRow {
    now: i64,
    fire: bool,
    triggers: Option<String>,
    change: Option<i64>,
    account: Option<String>,
}

fn sqlite_changes(connection: &rusqlite::Connection, after: i64) -> Result<Vec<ChangeRow>, rusqlite::Error> {
    let row = |row: &rusqlite::Row<'_>| {
        Ok(ChangeRow {
            now: row.get(0)?,
            change: row.get(1)?,
            account: row.get(2)?,
            fire: row.get(3)?,
            triggers: row.get(4)?,
        })
    };
    connection.prepare_cached(SQLITE_CHANGES)?.query_map([after, MOST_ROWS], row)?.collect()
}

/// Turns rows into changes, and into the answer to compare the next one with.
fn changes(known: Option<&LastAnswer>, rows: Vec<ChangeRow>) -> Result<(AccountChanges, LastAnswer), AccountsError> {
    let first = rows.first().ok_or(AccountsError::NotMigrated)?;
    // Without triggers the epoch does not move while rights change, so an unchanged epoch would confirm nothing.
    if !first.fire {
        return Err(AccountsError::Untold);
    }
    let now = LastAnswer { epoch: from_sql(first.now), triggers: first.triggers.clone() };
    let follows = known.is_some_and(|known| {
        // An epoch that went back means another history (a failover that lost writes): no cached entry is true of it.
        let is_same_history = known.epoch <= now.epoch && now.epoch - known.epoch < REMEMBERED_EPOCHS;
        // Triggers of another version were absent for a moment, and changes in that moment have no epoch.
        is_same_history && (known.triggers.is_none() || known.triggers == now.triggers)
    });
    let is_told =
        rows.len() <= TOLD_CHANGES as usize && rows.iter().all(|row| row.change.is_none() || row.account.is_some());
    let accounts = match !follows || !is_told {
        true => ChangedAccounts::Everything,
        false => ChangedAccounts::These(rows.into_iter().filter_map(|row| row.account).collect()),
    };
    Ok((AccountChanges { epoch: now.epoch, accounts }, now))
}

fn to_sql(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}

fn from_sql(epoch: i64) -> u64 {
    u64::try_from(epoch).unwrap_or_default()
}

// The epoch comes from the same snapshot as the account, even if there is no such account. The snapshot of a standby
// may be old, and so may that of a primary that was set read-only when another server took its place.
//
// An account is the one that its row names, byte for byte, whatever the column's collation equates: `$1` has the
// column's type and finds the row by its index, and `$2` is the same id as text. A login reads its fields from beside
// the document. The document is read only if those fields do not belong to this very version of the row
// (`crates/base/src/db/schema/postgres.sql`).
const POSTGRES_READ: &str = "
    SELECT e.epoch, p.id IS NOT NULL,
           CASE WHEN l.id IS NULL THEN d.password ELSE l.password END,
           CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END,
           CASE WHEN l.id IS NULL THEN d.active ELSE l.active END,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean
    FROM fedgate_epoch e
    LEFT JOIN people p ON p.id = $1 AND p.id::varchar COLLATE \"C\" = $2::text
    LEFT JOIN fedgate_logins l ON l.id = $2::text AND l.row_writer = p.xmin AND l.row_place = p.ctid
    LEFT JOIN LATERAL fedgate_login(CASE WHEN l.id IS NULL THEN p.data END) d ON true";
const SQLITE_READ: &str = "
    SELECT e.epoch, p.id IS NOT NULL,
           CASE WHEN l.id IS NULL THEN d.password ELSE l.password END,
           CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END,
           CASE WHEN l.id IS NULL THEN d.active ELSE l.active END
    FROM fedgate_epoch e
    LEFT JOIN people p ON p.id = ?1 AND CAST(p.id AS TEXT) = ?1 COLLATE BINARY
    LEFT JOIN fedgate_logins l ON l.id = p.id COLLATE BINARY
    LEFT JOIN fedgate_logins_due d ON l.id IS NULL AND d.row_id = p.id";
const POSTGRES_REPLACE_HASH: &str = "
    UPDATE people SET data = jsonb_set(data, '{password}', to_jsonb($3::text))
    WHERE id = $1 AND id::varchar COLLATE \"C\" = $4::text AND data->>'password' = $2";
const SQLITE_REPLACE_HASH: &str = "
    UPDATE people SET data = json_set(data, '$.password', ?3)
    WHERE id = ?1 AND CAST(id AS TEXT) = ?1 COLLATE BINARY AND data->>'$.password' = ?2";
const SQLITE_CHANGES: &str = "
    SELECT e.epoch, c.epoch, c.account, t.fire, (SELECT CAST(schema_version AS TEXT) FROM pragma_schema_version)
    FROM fedgate_epoch e CROSS JOIN fedgate_triggers t LEFT JOIN fedgate_account_changes c ON c.epoch > ?1
    LIMIT ?2";

#[cfg(test)]
mod tests;
