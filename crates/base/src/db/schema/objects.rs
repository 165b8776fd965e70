//! Whether the database has every table, view, function and trigger that the programs use.
//!
//! The one rule: the catalog is asked, not the version. A database that an earlier build migrated, or in which
//! somebody dropped something, may have the right version and still lack an object. Everything in these lists is
//! made by the migration, so the remedy is always to run it again. Indexes are left out: without one the programs are
//! slower, and not wrong.
//!
//! The catalog is readable for every role. `check` calls it, both programs at their start, and the gateway's watch.

use std::collections::BTreeSet;
use std::fmt;

use rusqlite::Connection;
use tokio_postgres::types::ToSql;

use super::super::{Database, DbError, SessionPool};
use super::changes::{SQLITE_SEEN_AGAIN, STAMPED, sqlite_triggers};
use super::links::SQLITE_LINK_TRIGGERS;

/// The tables of both databases.
const TABLES: [&str; 37] = [
    "people",
    "pols",
    "personal_docs",
    "dus",
    "institutions",
    "fedgate_schema",
    "fedgate_store",
    "fedgate_instances",
    "fedgate_pieces",
    "fedgate_epoch",
    "fedgate_account_changes",
    "fedgate_page_waits",
    "fedgate_logins",
    "fedgate_account_events",
    "fedgate_messages",
    "fedgate_cursors",
    "fedgate_webhooks",
    "fedgate_webhook_keys",
    "fedgate_deliveries",
    "fedgate_relay",
    "fedgate_ended_histories",
    "fedgate_former_accounts",
    "fedgate_person_keys",
    "fedgate_compared_persons",
    "fedgate_person_keys_due",
    "fedgate_person_index",
    "fedgate_search_words",
    "fedgate_search_deletions",
    "fedgate_same_persons",
    "fedgate_merges",
    "fedgate_person_pairs",
    "fedgate_person_pairs_due",
    "fedgate_person_dedupe",
    "fedgate_change_clock",
    "fedgate_change_times",
    "fedgate_links",
    "fedgate_relations",
];
/// The tables of PostgreSQL alone. Partitions are made as they are needed.
const POSTGRES_TABLES: [&str; 9] = [
    "fedgate_messages_rest",
    "fedgate_waiting",
    "fedgate_positions",
    "fedgate_sent",
    "fedgate_roles",
    "fedgate_people",
    "fedgate_partition_moves",
    "fedgate_moved_rows",
    "fedgate_replica_marks",
];
/// Columns that the migration adds to existing tables, each with its table.
const POSTGRES_COLUMNS: [(&str, &str); 3] =
    [("fedgate_epoch", "raised_by"), ("fedgate_store", "origin"), ("fedgate_account_events", "detail")];
const POSTGRES_FUNCTIONS: [&str; 70] = [
    "fedgate_grant_like(regclass,text,text[])",
    "fedgate_id_type()",
    "fedgate_record_changes(varchar[])",
    "fedgate_people_updated()",
    "fedgate_people_deleted()",
    "fedgate_people_truncated()",
    "fedgate_people_replicated()",
    "fedgate_login(jsonb)",
    "fedgate_record_event(varchar,varchar,varchar,varchar,varchar,varchar,varchar,varchar)",
    "fedgate_take_events(bigint)",
    "fedgate_events_recorded(bigint[])",
    "fedgate_login_kept()",
    "fedgate_unlock(varchar)",
    "fedgate_note_page_wait(varchar,bigint,varchar)",
    "fedgate_triggers(regclass)",
    "fedgate_forget_node(varchar)",
    "fedgate_begin_node(varchar)",
    "fedgate_end_node(varchar)",
    "fedgate_server()",
    "fedgate_begin_history()",
    "fedgate_send(varchar,varchar,varchar,varchar,jsonb)",
    "fedgate_append(varchar,varchar,varchar,varchar,varchar,jsonb)",
    "fedgate_append_change(varchar,varchar,varchar,varchar,jsonb,jsonb)",
    "fedgate_changed_members(jsonb,jsonb)",
    "fedgate_shown_person(jsonb)",
    "fedgate_person_message()",
    "fedgate_page_message()",
    "fedgate_document_message()",
    "fedgate_unit_message()",
    "fedgate_all_deleted_message()",
    "fedgate_messages_fire()",
    "fedgate_give_positions(bigint)",
    "fedgate_add_partitions()",
    "fedgate_drop_messages(bigint,bigint)",
    "fedgate_clean_messages(bigint)",
    "fedgate_put_words(varchar[],bigint[],varchar[])",
    "fedgate_put_person_keys(varchar,bigint[],varchar,boolean,boolean)",
    "fedgate_add_person_keys(text)",
    "fedgate_key_new_person(text)",
    "fedgate_put_keys(bigint,varchar,varchar,boolean,bigint[],varchar[],varchar[],varchar[],boolean[],varchar[],bigint[],varchar[])",
    "fedgate_person_keys_changed()",
    "fedgate_merge_message()",
    "fedgate_merges_follow()",
    "fedgate_same_persons_changed()",
    "fedgate_without_hashes(jsonb)",
    "fedgate_whole_person(varchar)",
    "fedgate_patch_person(varchar,text[],text,bigint,text,text)",
    "fedgate_put_person(varchar,text)",
    "fedgate_store_pages(varchar[],varchar[],text[],varchar[],text[])",
    "fedgate_account_rights(varchar)",
    "fedgate_account(varchar,bigint)",
    "fedgate_replace_hash(varchar,varchar,varchar,varchar)",
    "fedgate_change_moment()",
    "fedgate_stamp_change()",
    "fedgate_changes_until()",
    "fedgate_stamp_changes(varchar)",
    "fedgate_person_seen_again()",
    "fedgate_row_moved()",
    "fedgate_page_id_kept()",
    "fedgate_document_id_kept()",
    "fedgate_keep_ids(varchar)",
    "fedgate_page_book(varchar,varchar)",
    "fedgate_document_person(varchar,varchar)",
    "fedgate_concerned(varchar[])",
    "fedgate_record_link(varchar,varchar,json)",
    "fedgate_must_be_person(varchar)",
    "fedgate_links_changed()",
    "fedgate_relations_changed()",
    "fedgate_forget_links(varchar)",
    "fedgate_account_links(varchar)",
];
/// The triggers of the table `people`.
const POSTGRES_TRIGGERS: [&str; 10] = [
    "fedgate_people_updated",
    "fedgate_people_updated_by_replica",
    "fedgate_people_deleted",
    "fedgate_people_deleted_by_replica",
    "fedgate_people_truncated",
    "fedgate_login_kept",
    "fedgate_person_keys_changed",
    "fedgate_person_keys_emptied",
    "fedgate_merges_follow",
    "fedgate_merges_emptied",
];
/// The triggers of the table that says which ids are one person.
const POSTGRES_SAME_TRIGGERS: [&str; 3] =
    ["fedgate_same_persons_changed", "fedgate_same_persons_emptied", "fedgate_person_seen_again"];
/// The triggers of links and relations.
const POSTGRES_LINK_TRIGGERS: [(&str, &str); 4] = [
    ("fedgate_links", "fedgate_links_changed"),
    ("fedgate_links", "fedgate_links_emptied"),
    ("fedgate_relations", "fedgate_relations_changed"),
    ("fedgate_relations", "fedgate_relations_emptied"),
];
/// The column that says when a row was last written, and the trigger that fills it.
const CHANGED: &str = "fedgate_changed";
/// The triggers of the table of merges.
const POSTGRES_MERGE_TRIGGERS: [&str; 2] = ["fedgate_merge_made", "fedgate_merge_undone"];

/// The triggers of each table that leaves messages.
const MESSAGE_TRIGGERS: [&str; 2] = ["fedgate_message", "fedgate_all_deleted"];
const MESSAGE_TABLES: [&str; 5] = ["people", "pols", "personal_docs", "dus", "institutions"];

/// The tables of the embedded store alone, and its views.
const SQLITE_TABLES: [&str; 8] = [
    "fedgate_actor",
    "fedgate_acting",
    "fedgate_logins_due",
    "fedgate_triggers",
    "fedgate_messages_fire",
    "fedgate_acting_node",
    "fedgate_merging",
    "fedgate_related_to",
];
/// The kinds of records that leave messages, each with a trigger for each of these changes.
const SQLITE_MESSAGE_KINDS: [&str; 5] = ["person", "page", "document", "unit", "institution"];
const SQLITE_MESSAGE_CHANGES: [&str; 3] = ["inserted", "updated", "deleted"];
const SQLITE_TRIGGERS: [&str; 19] = [
    "fedgate_people_updated",
    "fedgate_people_replaced",
    "fedgate_people_inserted",
    "fedgate_people_deleted",
    "fedgate_login_made",
    "fedgate_login_changed",
    "fedgate_login_deleted",
    "fedgate_person_keys_inserted",
    "fedgate_person_keys_updated",
    "fedgate_person_keys_deleted",
    "fedgate_merge_made",
    "fedgate_merge_undone",
    "fedgate_merges_deleted",
    "fedgate_merges_renamed",
    "fedgate_same_person_inserted",
    "fedgate_same_person_replaced",
    "fedgate_same_person_updated",
    "fedgate_same_person_deleted",
    "fedgate_merges_follow",
];

/// The most objects that are named.
const NAMED: usize = 8;

/// Objects that the programs use and the database lacks; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingObjects(Vec<String>);

impl fmt::Display for MissingObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<&str> = self.0.iter().take(NAMED).map(String::as_str).collect();
        write!(f, "the database lacks the {}", named.join(", the "))?;
        if self.0.len() > named.len() {
            write!(f, " and {} more", self.0.len() - named.len())?;
        }
        f.write_str(" (an earlier build migrated it, or something was dropped); run `fedhis migrate` again")
    }
}

/// The objects that the programs use and the database lacks; none if it is complete.
///
/// # Errors
/// The database is away, or cannot tell.
pub async fn missing_objects(database: &Database) -> Result<Option<MissingObjects>, DbError> {
    let missing = match database {
        Database::Postgres(pool) => postgres_missing(pool).await?,
        Database::Sqlite(sqlite) => sqlite.read(sqlite_missing).await?,
    };
    Ok((!missing.is_empty()).then_some(MissingObjects(missing)))
}

async fn postgres_missing(pool: &SessionPool) -> Result<Vec<String>, DbError> {
    let stamped = || STAMPED.into_iter().map(|table| (table, CHANGED));
    let (of, columns): (Vec<&str>, Vec<&str>) = POSTGRES_COLUMNS.into_iter().chain(stamped()).unzip();
    let tables: Vec<&str> = TABLES.into_iter().chain(POSTGRES_TABLES).collect();
    let functions = POSTGRES_FUNCTIONS.as_slice();
    let of_people = POSTGRES_TRIGGERS.into_iter().map(|name| ("people", name));
    let of_messages = MESSAGE_TABLES.into_iter().flat_map(|table| MESSAGE_TRIGGERS.map(|name| (table, name)));
    let of_merges = POSTGRES_MERGE_TRIGGERS.into_iter().map(|name| ("fedgate_merges", name));
    let of_same = POSTGRES_SAME_TRIGGERS.into_iter().map(|name| ("fedgate_same_persons", name));
    let all =
        of_people.chain(of_messages).chain(of_merges).chain(of_same).chain(POSTGRES_LINK_TRIGGERS).chain(stamped());
    let (fired_by, triggers): (Vec<&str>, Vec<&str>) = all.unzip();
    let parameters: [&(dyn ToSql + Sync); 6] = [&tables, &of, &columns, &functions, &fired_by, &triggers];
    let rows = pool.get().await?.query(POSTGRES_MISSING, &parameters).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn sqlite_missing(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    let found = |kinds: &str| -> Result<BTreeSet<String>, rusqlite::Error> {
        let sql = format!("SELECT name FROM sqlite_schema WHERE type IN ({kinds})");
        connection.prepare_cached(&sql)?.query_map([], |row| row.get(0))?.collect()
    };
    let (tables, triggers) = (found("'table', 'view'")?, found("'trigger'")?);
    let lacks = |name: &&&str, found: &BTreeSet<String>| !found.contains(**name);
    let all_tables = TABLES.iter().chain(&SQLITE_TABLES).filter(|name| lacks(name, &tables));
    let of_tables = all_tables.map(|name| format!("table `{name}`"));
    let of_messages = SQLITE_MESSAGE_KINDS
        .iter()
        .flat_map(|kind| SQLITE_MESSAGE_CHANGES.map(|change| format!("fedgate_message_{kind}_{change}")));
    let of_changes = STAMPED.into_iter().flat_map(sqlite_triggers);
    let all_triggers =
        SQLITE_TRIGGERS.iter().chain(&SQLITE_SEEN_AGAIN).chain(&SQLITE_LINK_TRIGGERS).map(|name| (*name).to_owned());
    let all_triggers = all_triggers.chain(of_messages).chain(of_changes);
    let of_triggers = all_triggers.filter(|name| !triggers.contains(name));
    Ok(of_tables.chain(of_triggers.map(|name| format!("trigger `{name}`"))).collect())
}

// The names are looked up as the programs' own statements are: through the search path.
const POSTGRES_MISSING: &str = "
    SELECT format('table `%s`', name) FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL
    UNION ALL
    SELECT format('column `%s.%s`', name, part) FROM unnest($2::text[], $3::text[]) AS needed (name, part)
    WHERE to_regclass(name) IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = to_regclass(name) AND attname = part AND NOT attisdropped
    )
    UNION ALL
    SELECT format('function `%s`', name) FROM unnest($4::text[]) AS name WHERE to_regprocedure(name) IS NULL
    UNION ALL
    SELECT format('trigger `%s` of `%s`', name, fired_by) FROM unnest($5::text[], $6::text[]) AS needed (fired_by, name)
    WHERE to_regclass(fired_by) IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = to_regclass(fired_by) AND tgname = name AND tgenabled <> 'D'
    )
    UNION ALL
    SELECT format('table `%s`', ids) FROM (VALUES ('pols', 'fedgate_page_ids'), ('personal_docs', 'fedgate_document_ids')) AS kept (of, ids)
    JOIN pg_class ON pg_class.oid = to_regclass(of) WHERE relkind = 'p' AND to_regclass(ids) IS NULL
    UNION ALL
    SELECT format('trigger `%s` of `%s`', name, relname)
    FROM pg_class CROSS JOIN unnest(ARRAY['fedgate_id_kept', 'fedgate_ids_emptied']) AS name
    WHERE relkind = 'p' AND pg_class.oid IN (to_regclass('pols'), to_regclass('personal_docs')) AND NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = name AND tgenabled <> 'D'
    )";
