//! Accounts on PostgreSQL: the statements, and how their rows are read.
//!
//! The one rule: no answer of a server that takes no writes counts, because it may be old. The epoch of an answer comes
//! from the same snapshot as the answer.
//!
//! [`AccountStore`](super::AccountStore) calls it, and bounds the time of each question.

mod desk;
mod events;
mod instances;
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
        let row = session.query_one(&statement, &[&id, &id, &MOST_SAME]).await?;
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
        Ok(AccountRow { epoch, found, password: row.get(2), roles: row.get(3), active: row.get(4), same })
    }

    /// Replaces a password hash if it is still `old`. Returns how many were replaced.
    pub(super) async fn replace_hash(&self, id: &str, old: &str, new: &str) -> Result<u64, AccountsError> {
        let (sql, acts) = (ChangeActor::told_by(REPLACE_HASH, 5), ChangeActor::login(id).setting());
        Ok(self.pool.get().await?.execute(&sql, &[&id, &old, &new, &id, &acts]).await?)
    }
}

// The epoch comes from the same snapshot as the account, even if there is no such account. The snapshot of a standby
// may be old, and so may that of a primary that was set read-only when another server took its place.
//
// An account is the one that its row names, byte for byte, whatever the column's collation equates: `$1` has the
// column's type and finds the row by its index, and `$2` is the same id as text. A login reads its fields from beside
// the document. The document is read only if those fields do not belong to this very version of the row
// (`crates/base/src/db/schema/postgres.sql`).
const READ: &str = "
    SELECT e.epoch, p.id IS NOT NULL,
           CASE WHEN l.id IS NULL THEN d.password ELSE l.password END,
           CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END,
           CASE WHEN l.id IS NULL THEN d.active ELSE l.active END,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
           (SELECT array_agg(id) FROM (
                SELECT other.id FROM fedgate_same_persons mine JOIN fedgate_same_persons other ON other.person = mine.person
                WHERE mine.id = $2::text AND other.id <> mine.id ORDER BY other.id LIMIT $3) same)
    FROM fedgate_epoch e
    LEFT JOIN people p ON p.id = $1 AND p.id::varchar COLLATE \"C\" = $2::text
    LEFT JOIN fedgate_logins l ON l.id = $2::text AND l.row_writer = p.xmin AND l.row_place = p.ctid
    LEFT JOIN LATERAL fedgate_login(CASE WHEN l.id IS NULL THEN p.data END) d ON true";
const REPLACE_HASH: &str = "
    UPDATE people SET data = jsonb_set(data, '{password}', to_jsonb($3::text))
    WHERE id = $1 AND id::varchar COLLATE \"C\" = $4::text AND data->>'password' = $2";
