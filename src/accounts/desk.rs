//! A helpdesk's tasks beyond changing an account: listing accounts, unlocking one, deleting one.
//!
//! The one rule: each task is one statement, which the triggers of the account epoch see, as for every change. A
//! command may do no more than the HIS does for its callers: a person who is active, or has pages or documents, is not
//! deleted.

use rusqlite::{OptionalExtension, Transaction};
use tokio_postgres::types::ToSql;

use super::{AccountRow, AccountStore, AccountsError, READ_TIMEOUT, StoredAccount, WRITE_TIMEOUT, within};
use fedgate_base::db::Database;
use fedgate_core::password::guessed_of;

/// The result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountDeletion {
    /// The person was deleted.
    Done,
    /// There is no such person.
    Missing,
    /// The account is active.
    Active,
    /// The person has this many pages and documents.
    InUse {
        /// Pages of the book of life.
        pages: u64,
        /// Personal documents.
        documents: u64,
    },
}

impl AccountStore {
    /// The accounts whose ids follow `after`, ordered by id, at most `most`; without `after`, the first ones.
    ///
    /// # Errors
    /// The database did not answer within two seconds.
    pub async fn list(&self, after: Option<&str>, most: u32) -> Result<Vec<StoredAccount>, AccountsError> {
        within(READ_TIMEOUT, self.list_unbounded(after, i64::from(most))).await
    }

    async fn list_unbounded(&self, after: Option<&str>, most: i64) -> Result<Vec<StoredAccount>, AccountsError> {
        // No id precedes "", but a row of Thalamus may have this very id.
        let (begin, after) = after.map_or((FROM, ""), |after| (AFTER, after));
        let rows: Vec<(String, AccountRow)> = match &self.database {
            Database::Postgres(pool) => {
                let rows = pool.get().await?.query(&POSTGRES_LIST.replace(AFTER, begin), &[&after, &most]).await?;
                let of = |row: &tokio_postgres::Row| {
                    let (epoch, password, roles, active) = (row.get(1), row.get(2), row.get(3), row.get(4));
                    (row.get(0), AccountRow { epoch, found: true, password, roles, active })
                };
                rows.iter().map(of).collect()
            }
            Database::Sqlite(sqlite) => {
                let after = after.to_owned();
                let read = move |connection: &rusqlite::Connection| {
                    let of = |row: &rusqlite::Row<'_>| {
                        let (epoch, password, roles, active) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                        Ok((row.get(0)?, AccountRow { epoch, found: true, password, roles, active }))
                    };
                    let mut statement = connection.prepare_cached(&SQLITE_LIST.replace(AFTER, begin))?;
                    statement.query_map(rusqlite::params![after, most], of)?.collect()
                };
                sqlite.read(read).await?
            }
        };
        Ok(rows.into_iter().filter_map(|(id, row)| row.into_account(&id)).collect())
    }

    /// Ends the waits of an account on every instance: the log of changes names the account, though nothing of it
    /// changes. The count of unlockings ends those at the page of passwords.
    ///
    /// # Errors
    /// The database did not answer, or its role may not change accounts.
    pub async fn unlock(&self, id: &str) -> Result<(), AccountsError> {
        let unlock = async {
            match &self.database {
                Database::Postgres(pool) => _ = self.run_named(pool, "SELECT fedgate_unlock($1)", &[&id]).await?,
                Database::Sqlite(sqlite) => {
                    let id = id.to_owned();
                    let write = move |transaction: &Transaction<'_>| {
                        transaction.execute("UPDATE fedgate_epoch SET epoch = epoch + 1", [])?;
                        transaction.execute(SQLITE_NAME, [&id])?;
                        transaction.execute(SQLITE_UNLOCK, [&id])
                    };
                    self.run_named_embedded(sqlite, write).await?;
                }
            }
            Ok(())
        };
        within(WRITE_TIMEOUT, unlock).await
    }

    /// The time, in ms, that an account has to wait at the page of passwords, after guesses of its present password.
    ///
    /// # Errors
    /// The database did not answer within two seconds.
    pub async fn page_wait(&self, account: &StoredAccount) -> Result<Option<u64>, AccountsError> {
        let Some(hash) = &account.password_hash else { return Ok(None) };
        let (id, password) = (account.id.clone(), guessed_of(hash));
        let read = async {
            let left: Option<i64> = match &self.database {
                Database::Postgres(pool) => {
                    let row = pool.get().await?.query_opt(POSTGRES_PAGE_WAIT, &[&id, &password]).await?;
                    row.map(|row| row.get(0))
                }
                Database::Sqlite(sqlite) => {
                    let read = move |db: &rusqlite::Connection| {
                        db.query_row(SQLITE_PAGE_WAIT, [id, password], |row| row.get(0)).optional()
                    };
                    sqlite.read(read).await?
                }
            };
            Ok(left.and_then(|left| u64::try_from(left).ok()))
        };
        within(READ_TIMEOUT, read).await
    }

    /// Deletes a person whose account is inactive and who has neither pages nor documents.
    ///
    /// # Errors
    /// The database did not answer.
    pub async fn delete(&self, id: &str) -> Result<AccountDeletion, AccountsError> {
        within(WRITE_TIMEOUT, self.delete_unbounded(id)).await
    }

    async fn delete_unbounded(&self, id: &str) -> Result<AccountDeletion, AccountsError> {
        let deleted = match &self.database {
            Database::Postgres(pool) => match self.run_named(pool, POSTGRES_DELETE, &[&id, &id]).await {
                // A page was added between the check and the deletion.
                Err(AccountsError::Database(error)) if error.is_foreign_key_violation() => 0,
                deleted => deleted?,
            },
            Database::Sqlite(sqlite) => {
                let id = id.to_owned();
                let delete = move |transaction: &Transaction<'_>| transaction.execute(SQLITE_DELETE, [id]);
                self.run_named_embedded(sqlite, delete).await? as u64
            }
        };
        if deleted > 0 {
            return Ok(AccountDeletion::Done);
        }
        // The reason is read afterwards, and may have changed meanwhile: it informs the operator and decides nothing.
        match self.read(id).await? {
            None => Ok(AccountDeletion::Missing),
            Some(account) if account.active => Ok(AccountDeletion::Active),
            Some(_) => {
                let (pages, documents) = self.records(id).await?;
                Ok(AccountDeletion::InUse { pages, documents })
            }
        }
    }

    /// How many pages and documents a person has.
    async fn records(&self, id: &str) -> Result<(u64, u64), AccountsError> {
        let (pages, documents): (i64, i64) = match &self.database {
            Database::Postgres(pool) => {
                let of: [&(dyn ToSql + Sync); 1] = [&id];
                let session = pool.get().await?;
                let pages = session.query_one("SELECT count(*) FROM pols WHERE book = $1", &of).await?;
                let documents = session.query_one("SELECT count(*) FROM personal_docs WHERE fedacct = $1", &of).await?;
                (pages.get(0), documents.get(0))
            }
            Database::Sqlite(sqlite) => {
                let id = id.to_owned();
                let counts = "SELECT (SELECT count(*) FROM pols WHERE book = ?1), \
                              (SELECT count(*) FROM personal_docs WHERE fedacct = ?1)";
                sqlite.read(move |db| db.query_row(counts, [id], |row| Ok((row.get(0)?, row.get(1)?)))).await?
            }
        };
        Ok((pages.unsigned_abs(), documents.unsigned_abs()))
    }
}

/// Where a page of the list begins.
const AFTER: &str = "WHERE p.id > ";
const FROM: &str = "WHERE p.id >= ";

// Reads the same columns as `POSTGRES_READ` does for one account.
const POSTGRES_LIST: &str = "
    SELECT p.id::varchar, e.epoch,
           CASE WHEN l.id IS NULL THEN d.password ELSE l.password END,
           CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END,
           CASE WHEN l.id IS NULL THEN d.active ELSE l.active END
    FROM fedgate_epoch e CROSS JOIN people p
    LEFT JOIN fedgate_logins l ON l.id = p.id::varchar COLLATE \"C\" AND l.row_writer = p.xmin AND l.row_place = p.ctid
    LEFT JOIN LATERAL fedgate_login(CASE WHEN l.id IS NULL THEN p.data END) d ON true
    WHERE p.id > $1 ORDER BY p.id LIMIT $2";
const SQLITE_LIST: &str = "
    SELECT CAST(p.id AS TEXT), e.epoch,
           CASE WHEN l.id IS NULL THEN d.password ELSE l.password END,
           CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END,
           CASE WHEN l.id IS NULL THEN d.active ELSE l.active END
    FROM fedgate_epoch e CROSS JOIN people p
    LEFT JOIN fedgate_logins l ON l.id = p.id COLLATE BINARY
    LEFT JOIN fedgate_logins_due d ON l.id IS NULL AND d.row_id = p.id
    WHERE p.id > ?1 ORDER BY p.id LIMIT ?2";
const SQLITE_NAME: &str = "INSERT INTO fedgate_account_changes SELECT epoch, ?1 FROM fedgate_epoch";
const SQLITE_UNLOCK: &str = "
    INSERT INTO fedgate_page_waits (account, unlocks) VALUES (?1, 1)
    ON CONFLICT (account) DO UPDATE SET unlocks = unlocks + 1, waits_until = NULL";
const POSTGRES_PAGE_WAIT: &str = "
    SELECT (extract(epoch FROM waits_until - now()) * 1000)::bigint
    FROM fedgate_page_waits WHERE account = $1 AND waits_until > now() AND password = $2";
const SQLITE_PAGE_WAIT: &str = "
    SELECT (waits_until - unixepoch()) * 1000
    FROM fedgate_page_waits WHERE account = ?1 AND waits_until > unixepoch() AND password = ?2";
const POSTGRES_DELETE: &str = "
    DELETE FROM people WHERE id = $1 AND id::varchar COLLATE \"C\" = $2::text
    AND NOT coalesce((data -> 'active')::text IN ('null', 'true', '\"True\"', '\"true\"'), true)
    AND NOT EXISTS (SELECT FROM pols WHERE book = people.id)
    AND NOT EXISTS (SELECT FROM personal_docs WHERE fedacct = people.id)";
const SQLITE_DELETE: &str = "
    DELETE FROM people WHERE id = ?1 AND CAST(id AS TEXT) = ?1 COLLATE BINARY
    AND NOT coalesce((data -> '$.active') IN ('null', 'true', '\"True\"', '\"true\"'), 1)
    AND NOT EXISTS (SELECT 1 FROM pols WHERE book = people.id)
    AND NOT EXISTS (SELECT 1 FROM personal_docs WHERE fedacct = people.id)";
