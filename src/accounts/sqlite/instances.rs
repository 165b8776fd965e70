//! The list of running gateways on the embedded store: see [`super::super::instances`].

use rusqlite::{Connection, Transaction, params};

use super::SqliteAccounts;
use crate::accounts::AccountsError;
use crate::accounts::instances::InstanceRow;
use crate::accounts::limits::{READ_TIMEOUT, within};

impl SqliteAccounts {
    /// Writes the report of an instance within the time of a read.
    pub(in crate::accounts) async fn report(&self, id: &str, epoch: i64, text: &str) -> Result<(), AccountsError> {
        let (id, text) = (id.to_owned(), text.to_owned());
        let write = move |transaction: &Transaction<'_>| {
            transaction.execute(FORGET, [&id])?;
            transaction.execute(REPORT, params![id, epoch, text])
        };
        within(READ_TIMEOUT, async { Ok(self.sqlite.write(write).await?) }).await?;
        Ok(())
    }

    /// An embedded store has no grants.
    pub(in crate::accounts) async fn has_report_grants(&self) -> Result<bool, AccountsError> {
        Ok(true)
    }

    pub(in crate::accounts) async fn withdraw(&self, id: &str) -> Result<(), AccountsError> {
        let id = id.to_owned();
        self.sqlite.write(move |tx| tx.execute("DELETE FROM fedgate_instances WHERE id = ?1", [id])).await?;
        Ok(())
    }

    pub(in crate::accounts) async fn instances(&self) -> Result<Vec<InstanceRow>, AccountsError> {
        let read = |connection: &Connection| {
            let row = |row: &rusqlite::Row<'_>| Ok(InstanceRow::of(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            connection.prepare_cached(INSTANCES)?.query_map([], row)?.collect()
        };
        Ok(self.sqlite.read(read).await?)
    }
}

const FORGET: &str = "DELETE FROM fedgate_instances WHERE seen < unixepoch('subsec') * 1000 - 3600000 AND id <> ?1";
const REPORT: &str = "
    INSERT INTO fedgate_instances (id, seen, epoch, report) VALUES (?1, unixepoch('subsec') * 1000, ?2, ?3)
    ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, epoch = excluded.epoch, report = excluded.report";
const INSTANCES: &str = "
    SELECT id, CAST(unixepoch('subsec') * 1000 - seen AS INTEGER), epoch, report FROM fedgate_instances
    WHERE seen > unixepoch('subsec') * 1000 - 3600000 ORDER BY id";
