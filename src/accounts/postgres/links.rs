//! Links and relations on PostgreSQL: see [`super::super::links`].

use tokio_postgres::Row;

use super::PostgresAccounts;
use crate::accounts::AccountsError;
use crate::accounts::links::{AccountLink, AccountLinks, AccountRelation};

impl PostgresAccounts {
    pub(in crate::accounts) async fn link(&self, account: &str, system: &str, id: &str) -> Result<u64, AccountsError> {
        self.run_named(LINK, &[&system, &id, &account, &account]).await
    }

    pub(in crate::accounts) async fn unlink(
        &self,
        account: &str,
        system: &str,
        id: &str,
    ) -> Result<u64, AccountsError> {
        self.run_named(UNLINK, &[&system, &id, &account]).await
    }

    /// The account with which an id is linked.
    pub(in crate::accounts) async fn linked_with(
        &self,
        system: &str,
        id: &str,
    ) -> Result<Option<String>, AccountsError> {
        let row = self.pool.get().await?.query_opt(LINKED_WITH, &[&system, &id]).await?;
        Ok(row.map(|row| row.get(0)))
    }

    pub(in crate::accounts) async fn relate(&self, relation: &AccountRelation) -> Result<u64, AccountsError> {
        let AccountRelation { account, subject, kind, from, until } = relation;
        self.run_named(RELATE, &[account, subject, kind, from, until, account, subject]).await
    }

    pub(in crate::accounts) async fn unrelate(
        &self,
        account: &str,
        subject: &str,
        kind: Option<&str>,
    ) -> Result<u64, AccountsError> {
        self.run_named(UNRELATE, &[&account, &subject, &kind]).await
    }

    pub(in crate::accounts) async fn links(&self, account: &str) -> Result<AccountLinks, AccountsError> {
        let session = self.pool.get().await?;
        let links = session.query(LINKS, &[&account]).await?;
        let relations = session.query(RELATIONS, &[&account]).await?;
        Ok(AccountLinks {
            links: links.iter().map(link).collect(),
            relations: relations.iter().map(relation).collect(),
        })
    }
}

fn link(row: &Row) -> AccountLink {
    AccountLink { system: row.get(0), id: row.get(1), account: row.get(2), since: row.get(3) }
}

fn relation(row: &Row) -> AccountRelation {
    AccountRelation { account: row.get(0), subject: row.get(1), kind: row.get(2), from: row.get(3), until: row.get(4) }
}

// The bounds are checked here to say why, and by the triggers for every writer.
const LINK: &str = "
    INSERT INTO fedgate_links (system, id, account) SELECT $1::varchar, $2::varchar, $3::varchar
    WHERE EXISTS (SELECT FROM people WHERE id = $4 AND id::varchar COLLATE \"C\" = $3)
        AND 64 > (SELECT count(*) FROM fedgate_links WHERE account = $3)
    ON CONFLICT (system, id) DO NOTHING";
const UNLINK: &str = "DELETE FROM fedgate_links WHERE system = $1 AND id = $2 AND account = $3";
const LINKED_WITH: &str = "SELECT account FROM fedgate_links WHERE system = $1 AND id = $2";
const RELATE: &str = "
    WITH run_out AS (
        DELETE FROM fedgate_relations WHERE account = $1 AND valid_until <= now() AND (subject, kind) <> ($2, $3)
    )
    INSERT INTO fedgate_relations AS known (account, subject, kind, valid_from, valid_until)
    SELECT $1::varchar, $2::varchar, $3::varchar, to_timestamp($4::bigint), to_timestamp($5::bigint)
    WHERE EXISTS (SELECT FROM people WHERE id = $6 AND id::varchar COLLATE \"C\" = $1)
        AND EXISTS (SELECT FROM people WHERE id = $7 AND id::varchar COLLATE \"C\" = $2)
        AND 256 > (
            SELECT count(*) FROM fedgate_relations
            WHERE account = $1 AND (valid_until IS NULL OR valid_until > now()) AND (subject, kind) <> ($2, $3)
        )
    ON CONFLICT (account, subject, kind) DO UPDATE SET
        valid_from = excluded.valid_from, valid_until = excluded.valid_until";
const UNRELATE: &str =
    "DELETE FROM fedgate_relations WHERE account = $1 AND subject = $2 AND kind = coalesce($3::varchar, kind)";
const LINKS: &str = "
    SELECT system, id, account, floor(extract(epoch FROM since))::bigint
    FROM fedgate_links WHERE account = $1 ORDER BY system, id";
const RELATIONS: &str = "
    SELECT account, subject, kind, floor(extract(epoch FROM valid_from))::bigint,
        ceil(extract(epoch FROM valid_until))::bigint
    FROM fedgate_relations WHERE account = $1 OR subject = $1
    ORDER BY account <> $1, account, subject, kind LIMIT 1000";
