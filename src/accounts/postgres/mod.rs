//! Accounts on PostgreSQL: the statements, and how their rows are read.
//!
//! The one rule: no answer of a server that takes no writes counts, because it may be old. The epoch of an answer comes
//! from the same snapshot as the answer.
//!
//! [`AccountStore`](super::AccountStore) calls it, and bounds the time of each question.

mod desk;
mod events;
mod instances;
mod links;
mod locks;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use super::AccountsError;
use super::account::{AccountRow, MOST_SAME};
use super::changes::from_sql;
use fedgate_base::config::PostgresConfig;
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::{SessionPool, postgres};

/// Accounts on PostgreSQL. Clones share the sessions.
#[derive(Clone)]
pub(super) struct PostgresAccounts {
    pool: SessionPool,
    /// The connection for this instance's reports. It is separate, so that no number of requests delays a report.
    reports: SessionPool,
    /// How long a request's change waits for a lock; zero for as long as it may take.
    lock_timeout: Duration,
    actor: Option<Arc<ChangeActor>>,
}

impl PostgresAccounts {
    /// The database is not contacted yet.
    pub(super) fn open(config: &PostgresConfig) -> Result<Self, AccountsError> {
        // One route for all: reads, reports and the watch use the same server.
        let route = postgres::route_to_primary(config)?;
        let pool = |size| postgres::pool_on(Arc::clone(&route), size);
        let (pool, reports) = (pool(config.pool_size), pool(1));
        Ok(Self { pool, reports, lock_timeout: config.lock_timeout, actor: None })
    }

    pub(super) fn pool(&self) -> &SessionPool {
        &self.pool
    }

    pub(super) fn acting_as(self, actor: Arc<ChangeActor>) -> Self {
        Self { actor: Some(actor), ..self }
    }

    /// Reads one account. `announced` is the epoch below which no answer may be.
    pub(super) async fn read(&self, id: &str, announced: u64) -> Result<AccountRow, AccountsError> {
        let session = self.pool.get().await?;
        let statement = session.prepare_cached(READ).await?;
        let row = session.query_one(&statement, &[&id, &MOST_SAME]).await?;
        let (epoch, found): (i64, bool) = (row.get(0), row.get(1));
        let is_standby: bool = row.get(5);
        if is_standby || from_sql(epoch) < announced {
            // This connection must not answer any other request.
            session.close();
        }
        if is_standby {
            return Err(AccountsError::Standby);
        }
        let same: Option<Vec<String>> = row.get(6);
        let same = same.unwrap_or_default();
        let (password, roles, active) = (row.get(2), row.get(3), row.get(4));
        Ok(AccountRow { epoch, found, password, roles, active, same, links: row.get(7) })
    }

    /// Replaces a password hash if it is still `old`. Returns how many were replaced.
    pub(super) async fn replace_hash(&self, id: &str, old: &str, new: &str) -> Result<u64, AccountsError> {
        let acts = ChangeActor::login(id).setting();
        let row = self.pool.get().await?.query_one(REPLACE_HASH, &[&id, &old, &new, &acts]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }
}

// Both functions read the snapshot of this statement, and so does the epoch
// (`crates/base/src/db/schema/postgres_accounts.sql`, `postgres_links.sql`).
const READ: &str = "
    SELECT epoch, is_there, password, roles, active, may_be_old, same, fedgate_account_links($1)
    FROM fedgate_account($1, $2)";
const REPLACE_HASH: &str = "SELECT fedgate_replace_hash($1, $2, $3, $4)";
