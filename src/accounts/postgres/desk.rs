//! An operator's statements on PostgreSQL: see [`super::super::desk`].

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::PostgresAccounts;
use crate::accounts::AccountsError;
use crate::accounts::account::AccountRow;
use fedgate_base::db::spelling;

impl PostgresAccounts {
    /// Adds a person. Returns how many were added.
    pub(in crate::accounts) async fn add(&self, id: &str, data: String) -> Result<u64, AccountsError> {
        // The look for a twin is part of the statement: two commands at once must not add two spellings of one id.
        let lower_case = spelling::lower_case(id);
        self.run_named(&add(), &[&id, &data, &lower_case]).await
    }

    /// Replaces one member of a person's document. Returns how many were changed.
    pub(in crate::accounts) async fn change(
        &self,
        id: &str,
        member: &'static str,
        value: &str,
    ) -> Result<u64, AccountsError> {
        self.run_named(CHANGE, &[&id, &value, &member, &id]).await
    }

    /// The ids and accounts that follow `after`; without it, the first ones.
    pub(in crate::accounts) async fn list(
        &self,
        after: Option<&str>,
        most: i64,
    ) -> Result<Vec<(String, AccountRow)>, AccountsError> {
        // No id precedes "", but a row of Thalamus may have this very id.
        let (begin, after) = after.map_or((FROM, ""), |after| (AFTER, after));
        let rows = self.pool.get().await?.query(&LIST.replace(AFTER, begin), &[&after, &most]).await?;
        let of = |row: &Row| {
            let (epoch, password, roles, active) = (row.get(1), row.get(2), row.get(3), row.get(4));
            (row.get(0), AccountRow { epoch, found: true, password, roles, active, same: vec![], links: None })
        };
        Ok(rows.iter().map(of).collect())
    }

    pub(in crate::accounts) async fn unlock(&self, id: &str) -> Result<(), AccountsError> {
        self.run_named("SELECT fedgate_unlock($1)", &[&id]).await?;
        Ok(())
    }

    pub(in crate::accounts) async fn page_wait(&self, id: &str, password: &str) -> Result<Option<i64>, AccountsError> {
        let row = self.pool.get().await?.query_opt(PAGE_WAIT, &[&id, &password]).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Deletes a person who may be deleted. Returns how many were deleted.
    pub(in crate::accounts) async fn delete(&self, id: &str) -> Result<u64, AccountsError> {
        match self.run_locked(Some(LOCK), DELETE, &[&id, &id]).await {
            // A page was added between the check and the deletion.
            Err(AccountsError::Database(error)) if error.is_foreign_key_violation() => Ok(0),
            deleted => deleted,
        }
    }

    /// How many pages and documents a person has.
    pub(in crate::accounts) async fn records(&self, id: &str) -> Result<(i64, i64), AccountsError> {
        let of: [&(dyn ToSql + Sync); 1] = [&id];
        let session = self.pool.get().await?;
        let pages = session.query_one("SELECT count(*) FROM pols WHERE book = $1", &of).await?;
        let documents = session.query_one("SELECT count(*) FROM personal_docs WHERE fedacct = $1", &of).await?;
        Ok((pages.get(0), documents.get(0)))
    }
}

fn add() -> String {
    format!(
        "INSERT INTO people (id, data) SELECT $1::varchar, $2::text::jsonb \
         WHERE NOT EXISTS (SELECT 1 FROM people WHERE {}) ON CONFLICT (id) DO NOTHING",
        spelling::POSTGRES_IS_TWIN.replace("$5", "$3")
    )
}

// Compared by bytes, whatever the column's collation equates: no command may change an account other than the one it
// names. A document that is null is replaced by an object, as PATCH does; a list or a scalar has no members to set.
const CHANGE: &str = "
    UPDATE people SET data = jsonb_set(coalesce(nullif(data, 'null'), '{}'), ARRAY[$3::text], $2::text::jsonb)
    WHERE id = $1 AND id::varchar COLLATE \"C\" = $4::text
        AND coalesce(jsonb_typeof(data), 'null') IN ('object', 'null')";
/// Where a page of the list begins.
const AFTER: &str = "WHERE p.id > ";
const FROM: &str = "WHERE p.id >= ";
// Reads the same columns as `super::READ` does for one account.
const LIST: &str = "
    SELECT p.id::varchar, e.epoch,
           CASE WHEN l.id IS NULL THEN d.password ELSE l.password END,
           CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END,
           CASE WHEN l.id IS NULL THEN d.active ELSE l.active END
    FROM fedgate_epoch e CROSS JOIN people p
    LEFT JOIN fedgate_logins l ON l.id = p.id::varchar COLLATE \"C\" AND l.row_writer = p.xmin AND l.row_place = p.ctid
    LEFT JOIN LATERAL fedgate_login(CASE WHEN l.id IS NULL THEN p.data END) d ON true
    WHERE p.id > $1 ORDER BY p.id LIMIT $2";
const PAGE_WAIT: &str = "
    SELECT (extract(epoch FROM waits_until - now()) * 1000)::bigint
    FROM fedgate_page_waits WHERE account = $1 AND waits_until > now() AND password = $2";
// A merge locks both rows.
const LOCK: &str = "SELECT FROM people WHERE id = $1 AND id::varchar COLLATE \"C\" = $2::text FOR UPDATE";
const DELETE: &str = "
    DELETE FROM people WHERE id = $1 AND id::varchar COLLATE \"C\" = $2::text
    AND NOT coalesce((data -> 'active')::text IN ('null', 'true', '\"True\"', '\"true\"'), true)
    AND NOT EXISTS (SELECT FROM pols WHERE book = people.id)
    AND NOT EXISTS (SELECT FROM personal_docs WHERE fedacct = people.id)
    AND NOT EXISTS (SELECT FROM fedgate_same_persons AS same WHERE same.id = people.id::varchar COLLATE \"C\")";
