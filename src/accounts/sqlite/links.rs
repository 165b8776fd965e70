//! Links and relations on the embedded store: see [`super::super::links`].

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::SqliteAccounts;
use crate::accounts::AccountsError;
use crate::accounts::links::{AccountLink, AccountLinks, AccountRelation};

impl SqliteAccounts {
    pub(in crate::accounts) async fn link(&self, account: &str, system: &str, id: &str) -> Result<u64, AccountsError> {
        let parameters = [system.to_owned(), id.to_owned(), account.to_owned()];
        let link = move |transaction: &Transaction<'_>| transaction.execute(LINK, parameters);
        Ok(self.run_named(link).await? as u64)
    }

    pub(in crate::accounts) async fn unlink(
        &self,
        account: &str,
        system: &str,
        id: &str,
    ) -> Result<u64, AccountsError> {
        let parameters = [system.to_owned(), id.to_owned(), account.to_owned()];
        let unlink = move |transaction: &Transaction<'_>| transaction.execute(UNLINK, parameters);
        Ok(self.run_named(unlink).await? as u64)
    }

    /// The account with which an id is linked.
    pub(in crate::accounts) async fn linked_with(
        &self,
        system: &str,
        id: &str,
    ) -> Result<Option<String>, AccountsError> {
        let parameters = [system.to_owned(), id.to_owned()];
        let read =
            move |connection: &Connection| connection.query_row(LINKED_WITH, parameters, |row| row.get(0)).optional();
        Ok(self.sqlite.read(read).await?)
    }

    pub(in crate::accounts) async fn relate(&self, relation: &AccountRelation) -> Result<u64, AccountsError> {
        let AccountRelation { account, subject, kind, from, until } = relation.clone();
        let relate = move |transaction: &Transaction<'_>| {
            transaction.execute(RUN_OUT, params![account, subject, kind])?;
            match transaction.execute(RELATE_AGAIN, params![account, subject, kind, from, until])? {
                0 => transaction.execute(RELATE, params![account, subject, kind, from, until]),
                changed => Ok(changed),
            }
        };
        Ok(self.run_named(relate).await? as u64)
    }

    pub(in crate::accounts) async fn unrelate(
        &self,
        account: &str,
        subject: &str,
        kind: Option<&str>,
    ) -> Result<u64, AccountsError> {
        let (account, subject, kind) = (account.to_owned(), subject.to_owned(), kind.map(str::to_owned));
        let unrelate =
            move |transaction: &Transaction<'_>| transaction.execute(UNRELATE, params![account, subject, kind]);
        Ok(self.run_named(unrelate).await? as u64)
    }

    pub(in crate::accounts) async fn links(&self, account: &str) -> Result<AccountLinks, AccountsError> {
        let account = account.to_owned();
        let read = move |connection: &Connection| {
            let links = connection.prepare_cached(LINKS)?.query_map([&account], link)?.collect::<Result<_, _>>()?;
            let relations =
                connection.prepare_cached(RELATIONS)?.query_map([&account], relation)?.collect::<Result<_, _>>()?;
            Ok(AccountLinks { links, relations })
        };
        Ok(self.sqlite.read(read).await?)
    }
}

fn link(row: &Row<'_>) -> Result<AccountLink, rusqlite::Error> {
    Ok(AccountLink { system: row.get(0)?, id: row.get(1)?, account: row.get(2)?, since: row.get(3)? })
}

fn relation(row: &Row<'_>) -> Result<AccountRelation, rusqlite::Error> {
    Ok(AccountRelation {
        account: row.get(0)?,
        subject: row.get(1)?,
        kind: row.get(2)?,
        from: row.get(3)?,
        until: row.get(4)?,
    })
}

/// What the account `?1` has linked, as PostgreSQL's `fedgate_account_links` gives it: the second part of a read.
pub(super) const OF_ACCOUNT: &str = "
    CASE WHEN EXISTS (SELECT 1 FROM fedgate_links) OR EXISTS (SELECT 1 FROM fedgate_relations) THEN (
        WITH own (id) AS MATERIALIZED (
            SELECT ?1 UNION SELECT other.id FROM fedgate_same_persons AS mine
            JOIN fedgate_same_persons AS other ON other.person = mine.person WHERE mine.id = ?1
        ), mine AS MATERIALIZED (
            SELECT subject, valid_from, valid_until FROM fedgate_relations WHERE account IN (SELECT id FROM own)
        ), subject (id) AS MATERIALIZED (
            SELECT DISTINCT subject FROM mine
            WHERE valid_from <= unixepoch('now', 'subsec') AND coalesce(valid_until > unixepoch('now', 'subsec'), true)
            ORDER BY 1 LIMIT 256
        ), related (id) AS MATERIALIZED (
            SELECT id FROM (
                SELECT id FROM subject UNION SELECT other.id FROM subject
                JOIN fedgate_same_persons AS same ON same.id = subject.id
                JOIN fedgate_same_persons AS other ON other.person = same.person
            ) WHERE id NOT IN (SELECT id FROM own) ORDER BY id LIMIT 512
        ), linked AS (
            SELECT * FROM (SELECT system, id, 0 AS is_related FROM fedgate_links
                WHERE account IN (SELECT id FROM own) ORDER BY 1, 2 LIMIT 256)
            UNION ALL
            SELECT * FROM (SELECT system, id, 1 FROM fedgate_links
                WHERE account IN (SELECT id FROM related) ORDER BY 1, 2 LIMIT 1024)
        ), moment (at) AS (SELECT valid_from FROM mine UNION ALL SELECT valid_until FROM mine)
        SELECT json_object(
            'links', json((SELECT json_group_array(json_array(system, id, is_related)) FROM linked)),
            'related', json((SELECT json_group_array(id) FROM related)),
            'left_us', (SELECT CAST(min((min(at) - unixepoch('now', 'subsec')) * 1000000, 86400000000) AS INTEGER)
                FROM moment WHERE at > unixepoch('now', 'subsec'))
        ) WHERE EXISTS (SELECT 1 FROM mine) OR EXISTS (SELECT 1 FROM linked)
    ) END";

// The bounds are checked here to say why, and by the triggers for every writer. An `ON CONFLICT` would fire the trigger
// of a replaced row.
const LINK: &str = "
    INSERT INTO fedgate_links (system, id, account) SELECT ?1, ?2, ?3
    WHERE NOT EXISTS (SELECT 1 FROM fedgate_links WHERE system = ?1 AND id = ?2)
        AND EXISTS (SELECT 1 FROM people WHERE id = ?3 AND CAST(id AS TEXT) = ?3 COLLATE BINARY)
        AND 64 > (SELECT count(*) FROM fedgate_links WHERE account = ?3)";
const UNLINK: &str = "DELETE FROM fedgate_links WHERE system = ?1 AND id = ?2 AND account = ?3";
const LINKED_WITH: &str = "SELECT account FROM fedgate_links WHERE system = ?1 AND id = ?2";
const RUN_OUT: &str = "
    DELETE FROM fedgate_relations WHERE account = ?1 AND valid_until <= unixepoch() AND (subject, kind) <> (?2, ?3)";
const RELATE_AGAIN: &str = "
    UPDATE fedgate_relations SET valid_from = ?4, valid_until = ?5
    WHERE account = ?1 AND subject = ?2 AND kind = ?3";
const RELATE: &str = "
    INSERT INTO fedgate_relations (account, subject, kind, valid_from, valid_until) SELECT ?1, ?2, ?3, ?4, ?5
    WHERE EXISTS (SELECT 1 FROM people WHERE id = ?1 AND CAST(id AS TEXT) = ?1 COLLATE BINARY)
        AND EXISTS (SELECT 1 FROM people WHERE id = ?2 AND CAST(id AS TEXT) = ?2 COLLATE BINARY)
        AND 256 > (SELECT count(*) FROM fedgate_relations
            WHERE account = ?1 AND coalesce(valid_until > unixepoch(), true))";
const UNRELATE: &str =
    "DELETE FROM fedgate_relations WHERE account = ?1 AND subject = ?2 AND kind = coalesce(?3, kind)";
const LINKS: &str = "SELECT system, id, account, since FROM fedgate_links WHERE account = ?1 ORDER BY system, id";
const RELATIONS: &str = "
    SELECT account, subject, kind, valid_from, valid_until FROM fedgate_relations WHERE account = ?1 OR subject = ?1
    ORDER BY account <> ?1, account, subject, kind LIMIT 1000";
