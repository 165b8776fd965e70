//! The triggers of links and relations on SQLite, which has no procedures to share between them. PostgreSQL's are in
//! `postgres_links.sql`.
//!
//! The one rule: each changed row raises the account epoch, and names the accounts whose reach it changes: those of its
//! person, and those to whom one of that person's ids is related.
//!
//! The migration calls it.

use rusqlite::{OptionalExtension, Transaction};

/// The triggers of the tables themselves, and those that follow the table of people.
pub(super) const SQLITE_LINK_TRIGGERS: [&str; 11] = [
    "fedgate_link_inserted",
    "fedgate_link_replaced",
    "fedgate_link_updated",
    "fedgate_link_deleted",
    "fedgate_relation_inserted",
    "fedgate_relation_replaced",
    "fedgate_relation_updated",
    "fedgate_relation_deleted",
    "fedgate_links_person_deleted",
    "fedgate_links_person_renamed",
    "fedgate_links_person_replaced",
];

/// A table with the parts of its triggers, of which `{row}` is `old` or `new`.
struct FollowedTable {
    name: &'static str,
    row: &'static str,
    /// The row that an insertion would replace.
    replaced: &'static str,
    made: &'static str,
    ended: &'static str,
    /// Whether the end of a row is an event.
    ends: &'static str,
    detail: [&'static str; 2],
    checks: &'static str,
}

const LINKS: FollowedTable = FollowedTable {
    name: "fedgate_links",
    row: "fedgate_link",
    replaced: "system = new.system AND id = new.id",
    made: "linked",
    ended: "unlinked",
    ends: "true",
    detail: ["json_object('system', new.system, 'id', new.id)", "json_object('system', old.system, 'id', old.id)"],
    checks: "
        SELECT raise(ABORT, 'there is no such person') WHERE NOT EXISTS (
            SELECT 1 FROM people WHERE id = new.account AND CAST(id AS TEXT) = new.account COLLATE BINARY);
        SELECT raise(ABORT, 'an account has at most 64 links')
        WHERE 64 < (SELECT count(*) FROM fedgate_links WHERE account = new.account);",
};
const RELATIONS: FollowedTable = FollowedTable {
    name: "fedgate_relations",
    row: "fedgate_relation",
    replaced: "account = new.account AND subject = new.subject AND kind = new.kind",
    made: "related",
    ended: "unrelated",
    // One that has run out counts no more, and its end was announced with its beginning.
    ends: "coalesce(old.valid_until > unixepoch(), true)",
    detail: [
        "json_object('subject', new.subject, 'kind', new.kind,
            'from', strftime('%Y-%m-%dT%H:%M:%SZ', new.valid_from, 'unixepoch'),
            'until', strftime('%Y-%m-%dT%H:%M:%SZ', new.valid_until, 'unixepoch'))",
        "json_object('subject', old.subject, 'kind', old.kind)",
    ],
    checks: "
        SELECT raise(ABORT, 'there is no such person') WHERE 2 > (
            SELECT count(*) FROM people WHERE id IN (new.account, new.subject)
            AND CAST(id AS TEXT) COLLATE BINARY IN (new.account, new.subject));
        SELECT raise(ABORT, 'an account has at most 256 relations') WHERE 256 < (
            SELECT count(*) FROM fedgate_relations
            WHERE account = new.account AND coalesce(valid_until > unixepoch(), true));",
};

impl FollowedTable {
    fn triggers(&self) -> String {
        let Self { name, row, replaced, made, ended, ends, detail: [new, old], checks } = self;
        let event = |what: &str, account: &str, detail: &str, when: &str| {
            format!(
                "INSERT INTO fedgate_account_events (what, account, detail, via, actor, request_id)
                 SELECT '{what}', {account}, {detail}, acting.* FROM fedgate_acting AS acting WHERE {when};"
            )
        };
        let (begun, over) = (event(made, "new.account", new, "true"), event(ended, "old.account", old, ends));
        let (of_new, of_old) = (concerns("SELECT new.account"), concerns("SELECT old.account"));
        let of_both = concerns("SELECT old.account UNION SELECT new.account");
        // REPLACE deletes a row without a DELETE trigger; the row that comes is announced by its own.
        let of_replaced = concerns(&format!("SELECT account FROM {name} WHERE {replaced}"));
        format!(
            "DROP TRIGGER IF EXISTS {row}_inserted;
             CREATE TRIGGER {row}_inserted AFTER INSERT ON {name} BEGIN {checks} {of_new} {begun} END;
             DROP TRIGGER IF EXISTS {row}_replaced;
             CREATE TRIGGER {row}_replaced BEFORE INSERT ON {name}
             WHEN EXISTS (SELECT 1 FROM {name} WHERE {replaced}) BEGIN {of_replaced} END;
             DROP TRIGGER IF EXISTS {row}_updated;
             CREATE TRIGGER {row}_updated AFTER UPDATE ON {name} BEGIN {checks} {of_both} {over} {begun} END;
             DROP TRIGGER IF EXISTS {row}_deleted;
             CREATE TRIGGER {row}_deleted AFTER DELETE ON {name} BEGIN {of_old} {over} END;"
        )
    }
}

/// Raises the epoch and names whom a change of these accounts concerns.
fn concerns(accounts: &str) -> String {
    const OF_THIS: &str =
        "(SELECT account FROM fedgate_account_changes WHERE epoch = (SELECT epoch FROM fedgate_epoch))";
    format!(
        "UPDATE fedgate_epoch SET epoch = epoch + 1;
         INSERT INTO fedgate_account_changes SELECT epoch, account FROM fedgate_epoch, (SELECT account FROM (
             SELECT NULL AS account WHERE false UNION {accounts}
         ));
         INSERT INTO fedgate_account_changes SELECT epoch, other.id FROM fedgate_epoch, fedgate_same_persons AS mine
         JOIN fedgate_same_persons AS other ON other.person = mine.person
         WHERE other.id <> mine.id AND mine.id IN {OF_THIS};
         INSERT INTO fedgate_account_changes SELECT epoch, related.account FROM fedgate_epoch, fedgate_related_to AS related
         WHERE related.subject IN {OF_THIS};
         DELETE FROM fedgate_account_changes WHERE epoch < (SELECT epoch FROM fedgate_epoch) - 10000;"
    )
}

/// Nobody inherits links by taking the id of a person who is gone.
fn follow_people() -> String {
    let [deleted, renamed, replaced] =
        ["fedgate_links_person_deleted", "fedgate_links_person_renamed", "fedgate_links_person_replaced"];
    let forget = |gone: &str| {
        format!(
            "BEGIN DELETE FROM fedgate_links WHERE account IN ({gone});
             DELETE FROM fedgate_relations WHERE account IN ({gone}) OR subject IN ({gone}); END;"
        )
    };
    let old = forget("CAST(old.id AS TEXT)");
    // REPLACE may delete a row with another spelling, if the column equates the two.
    let other = forget("SELECT CAST(id AS TEXT) FROM people WHERE id = new.id AND id <> new.id COLLATE BINARY");
    format!(
        "DROP TRIGGER IF EXISTS {deleted};
         CREATE TRIGGER {deleted} AFTER DELETE ON people {old}
         DROP TRIGGER IF EXISTS {renamed};
         CREATE TRIGGER {renamed} AFTER UPDATE OF id ON people WHEN old.id IS NOT new.id COLLATE BINARY {old}
         DROP TRIGGER IF EXISTS {replaced};
         CREATE TRIGGER {replaced} BEFORE INSERT ON people
         WHEN EXISTS (SELECT 1 FROM people WHERE id = new.id AND id <> new.id COLLATE BINARY) {other}"
    )
}

/// The column of events that a table of before lacks; the scripts come afterwards.
///
/// # Errors
/// The database refuses.
pub(super) fn add_event_detail(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let lacks = "SELECT 1 FROM sqlite_schema WHERE name = 'fedgate_account_events' AND type = 'table' \
                 AND NOT EXISTS (SELECT 1 FROM pragma_table_info('fedgate_account_events') WHERE name = 'detail')";
    match transaction.query_row(lacks, [], |_| Ok(())).optional()? {
        Some(()) => transaction.execute_batch("ALTER TABLE fedgate_account_events ADD COLUMN detail TEXT"),
        None => Ok(()),
    }
}

/// Makes the tables and their triggers.
///
/// # Errors
/// The database refuses.
pub(super) fn make_sqlite(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    transaction.execute_batch(include_str!("sqlite_links.sql"))?;
    let triggers = [LINKS.triggers(), RELATIONS.triggers(), follow_people()];
    triggers.iter().try_for_each(|script| transaction.execute_batch(script))
}
