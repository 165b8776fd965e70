//! An operator's statements on the embedded store: see [`super::super::desk`].

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::SqliteAccounts;
use crate::accounts::AccountsError;
use crate::accounts::account::AccountRow;
use fedgate_base::db::spelling;

impl SqliteAccounts {
    /// Adds a person. Returns how many were added.
    pub(in crate::accounts) async fn add(&self, id: &str, data: String) -> Result<u64, AccountsError> {
        let id = id.to_owned();
        let add = move |transaction: &Transaction<'_>| match spelling::has_twin(transaction, &id)? {
            true => Ok(0),
            false => transaction.execute(ADD, [id, data]),
        };
        Ok(self.run_named(add).await? as u64)
    }

    /// Replaces one member of a person's document. Returns how many were changed.
    pub(in crate::accounts) async fn change(
        &self,
        id: &str,
        member: &'static str,
        value: &str,
    ) -> Result<u64, AccountsError> {
        let parameters = [id.to_owned(), value.to_owned(), format!("$.{member}")];
        let change = move |transaction: &Transaction<'_>| transaction.execute(CHANGE, parameters);
        Ok(self.run_named(change).await? as u64)
    }

    /// The ids and accounts that follow `after`; without it, the first ones.
    pub(in crate::accounts) async fn list(
        &self,
        after: Option<&str>,
        most: i64,
    ) -> Result<Vec<(String, AccountRow)>, AccountsError> {
        // No id precedes "", but a row of Thalamus may have this very id.
        let (begin, after) = after.map_or((FROM, ""), |after| (AFTER, after));
        let after = after.to_owned();
        let read = move |connection: &Connection| {
            let of = |row: &Row<'_>| {
                let (epoch, password, roles, active) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                Ok((row.get(0)?, AccountRow { epoch, found: true, password, roles, active, same: vec![], links: None }))
            };
            connection.prepare_cached(&LIST.replace(AFTER, begin))?.query_map(params![after, most], of)?.collect()
        };
        Ok(self.sqlite.read(read).await?)
    }

    pub(in crate::accounts) async fn unlock(&self, id: &str) -> Result<(), AccountsError> {
        let id = id.to_owned();
        let write = move |transaction: &Transaction<'_>| {
            transaction.execute("UPDATE fedgate_epoch SET epoch = epoch + 1", [])?;
            transaction.execute(NAME, [&id])?;
            transaction.execute(UNLOCK, [&id])
        };
        self.run_named(write).await?;
        Ok(())
    }

    pub(in crate::accounts) async fn page_wait(&self, id: &str, password: &str) -> Result<Option<i64>, AccountsError> {
        let (id, password) = (id.to_owned(), password.to_owned());
        let read =
            move |connection: &Connection| connection.query_row(PAGE_WAIT, [id, password], |row| row.get(0)).optional();
        Ok(self.sqlite.read(read).await?)
    }

    /// Deletes a person who may be deleted. Returns how many were deleted.
    pub(in crate::accounts) async fn delete(&self, id: &str) -> Result<u64, AccountsError> {
        let id = id.to_owned();
        let delete = move |transaction: &Transaction<'_>| transaction.execute(DELETE, [id]);
        Ok(self.run_named(delete).await? as u64)
    }

    /// How many pages and documents a person has.
    pub(in crate::accounts) async fn records(&self, id: &str) -> Result<(i64, i64), AccountsError> {
        let id = id.to_owned();
        let read = |connection: &Connection| connection.query_row(RECORDS, [id], |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(self.sqlite.read(read).await?)
    }
}

const ADD: &str = "INSERT INTO people (id, data) VALUES (?1, json(?2)) ON CONFLICT (id) DO NOTHING";
// As on PostgreSQL: compared by bytes, and a document that is null is replaced by an object.
const CHANGE: &str = "
    UPDATE people SET data =
        json_set(CASE coalesce(json_type(data), 'null') WHEN 'null' THEN '{}' ELSE data END, ?3, json(?2))
    WHERE id = ?1 AND CAST(id AS TEXT) = ?1 COLLATE BINARY
        AND coalesce(json_type(data), 'null') IN ('object', 'null')";
/// Where a page of the list begins.
const AFTER: &str = "WHERE p.id > ";
const FROM: &str = "WHERE p.id >= ";
// Reads the same columns as `super::READ` does for one account.
const LIST: &str = "
    SELECT CAST(p.id AS TEXT), e.epoch,
           CASE WHEN l.id IS NULL THEN d.password ELSE l.password END,
           CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END,
           CASE WHEN l.id IS NULL THEN d.active ELSE l.active END
    FROM fedgate_epoch e CROSS JOIN people p
    LEFT JOIN fedgate_logins l ON l.id = p.id COLLATE BINARY
    LEFT JOIN fedgate_logins_due d ON l.id IS NULL AND d.row_id = p.id
    WHERE p.id > ?1 ORDER BY p.id LIMIT ?2";
const NAME: &str = "INSERT INTO fedgate_account_changes SELECT epoch, ?1 FROM fedgate_epoch";
const UNLOCK: &str = "
    INSERT INTO fedgate_page_waits (account, unlocks) VALUES (?1, 1)
    ON CONFLICT (account) DO UPDATE SET unlocks = unlocks + 1, waits_until = NULL";
const PAGE_WAIT: &str = "
    SELECT (waits_until - unixepoch()) * 1000
    FROM fedgate_page_waits WHERE account = ?1 AND waits_until > unixepoch() AND password = ?2";
const DELETE: &str = "
    DELETE FROM people WHERE id = ?1 AND CAST(id AS TEXT) = ?1 COLLATE BINARY
    AND NOT coalesce((data -> '$.active') IN ('null', 'true', '\"True\"', '\"true\"'), 1)
    AND NOT EXISTS (SELECT 1 FROM pols WHERE book = people.id)
    AND NOT EXISTS (SELECT 1 FROM personal_docs WHERE fedacct = people.id)
    AND NOT EXISTS (SELECT 1 FROM fedgate_same_persons AS same WHERE same.id = people.id COLLATE BINARY)";
const RECORDS: &str = "
    SELECT (SELECT count(*) FROM pols WHERE book = ?1), (SELECT count(*) FROM personal_docs WHERE fedacct = ?1)";
