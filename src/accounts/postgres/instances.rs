//! The list of running gateways on PostgreSQL: see [`super::super::instances`].

use tokio::time::{Instant, timeout_at};

use super::PostgresAccounts;
use crate::accounts::AccountsError;
use crate::accounts::instances::InstanceRow;
use crate::accounts::limits::READ_TIMEOUT;
use fedgate_base::db::DbError;

impl PostgresAccounts {
    /// Writes the report of an instance within the time of a read.
    pub(in crate::accounts) async fn report(&self, id: &str, epoch: i64, text: &str) -> Result<(), AccountsError> {
        let deadline = Instant::now() + READ_TIMEOUT;
        let late = |elapsed: tokio::time::error::Elapsed| DbError::Unavailable(elapsed.into());
        let session = timeout_at(deadline, self.reports.get()).await.map_err(late)??;
        let write = async {
            let statement = session.prepare_cached(REPORT).await?;
            session.execute(&statement, &[&id, &epoch, &text]).await
        };
        match timeout_at(deadline, write).await {
            Ok(written) => _ = written?,
            Err(elapsed) => {
                // The next report must not wait behind this one on a connection that may be dead.
                session.close();
                return Err(late(elapsed).into());
            }
        }
        Ok(())
    }

    /// Whether the role may write reports.
    pub(in crate::accounts) async fn has_report_grants(&self) -> Result<bool, AccountsError> {
        let row = self.reports.get().await?.query_one(MAY_REPORT, &[]).await?;
        Ok(row.try_get(0).map_err(DbError::from)?)
    }

    pub(in crate::accounts) async fn withdraw(&self, id: &str) -> Result<(), AccountsError> {
        self.reports.get().await?.execute("DELETE FROM fedgate_instances WHERE id = $1", &[&id]).await?;
        Ok(())
    }

    pub(in crate::accounts) async fn instances(&self) -> Result<Vec<InstanceRow>, AccountsError> {
        let rows = self.pool.get().await?.query(INSTANCES, &[]).await?;
        let row = |row: &tokio_postgres::Row| InstanceRow::of(row.get(0), row.get(1), row.get(2), row.get(3));
        Ok(rows.iter().map(row).collect())
    }
}

const MAY_REPORT: &str = "SELECT has_table_privilege('fedgate_instances', 'SELECT')
    AND has_table_privilege('fedgate_instances', 'INSERT') AND has_table_privilege('fedgate_instances', 'UPDATE')
    AND has_table_privilege('fedgate_instances', 'DELETE')";
const REPORT: &str = "
    WITH gone AS (DELETE FROM fedgate_instances WHERE seen < clock_timestamp() - interval '1 hour' AND id <> $1)
    INSERT INTO fedgate_instances (id, seen, epoch, report) VALUES ($1, clock_timestamp(), $2, $3)
    ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, epoch = excluded.epoch, report = excluded.report";
const INSTANCES: &str = "
    SELECT id, (extract(epoch FROM clock_timestamp() - seen) * 1000)::bigint, epoch, report FROM fedgate_instances
    WHERE seen > clock_timestamp() - interval '1 hour' ORDER BY id";
