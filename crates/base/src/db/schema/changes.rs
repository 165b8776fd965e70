//! When each row was last written: the column `fedgate_changed`, and the triggers that fill it.
//!
//! The one rule: a table that has gone without its trigger begins anew, because what was written meanwhile has no time.
//! PostgreSQL's part is `postgres_changes.sql`; SQLite's statements differ by the table alone, and are written here.
//!
//! The migration calls it.

use rusqlite::Transaction;

/// The tables whose rows are stamped. Documents are not: on SQLite a stamp would write all their bytes again, and no
/// document is ever changed. Which ids are one person decides which pages a book has.
pub(super) const STAMPED: [&str; 5] = ["people", "pols", "dus", "institutions", "fedgate_same_persons"];

/// The statements of PostgreSQL, each for a transaction of its own.
pub(super) fn postgres_scripts() -> impl Iterator<Item = String> {
    STAMPED.into_iter().map(|table| {
        format!(
            "SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', true) \
             FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = 'people'::regclass; \
             SELECT fedgate_stamp_changes('{table}')"
        )
    })
}

/// The triggers on SQLite that follow the ends of merges.
pub(super) const SQLITE_SEEN_AGAIN: [&str; 2] =
    ["fedgate_person_seen_again_deleted", "fedgate_person_seen_again_updated"];

/// The triggers of a table on SQLite.
pub(super) fn sqlite_triggers(table: &str) -> [String; 2] {
    ["inserted", "updated"].map(|change| format!("fedgate_changed_{table}_{change}"))
}

/// Adds what is missing on SQLite.
///
/// # Errors
/// The database refuses.
pub(super) fn stamp_sqlite(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    transaction.execute_batch(include_str!("sqlite_changes.sql"))?;
    for table in STAMPED {
        stamp_sqlite_table(transaction, table)?;
    }
    // An id that was old and stands for itself again is in the list of persons again, so its row counts as written.
    let [deleted, updated] = SQLITE_SEEN_AGAIN;
    let stamped = format!(
        "BEGIN {TICK}; UPDATE people SET fedgate_changed = (SELECT last FROM fedgate_change_clock) \
         WHERE id = old.id AND id = old.id COLLATE BINARY; END"
    );
    transaction.execute_batch(&format!(
        "CREATE TRIGGER IF NOT EXISTS {deleted} AFTER DELETE ON fedgate_same_persons
         WHEN old.person <> old.id {stamped};
         CREATE TRIGGER IF NOT EXISTS {updated} AFTER UPDATE OF id, person ON fedgate_same_persons
         WHEN old.person <> old.id AND (new.id <> old.id OR new.person = new.id) {stamped};
         CREATE INDEX IF NOT EXISTS fedgate_people_changed ON people (coalesce(fedgate_changed, 0), id);"
    ))
}

fn stamp_sqlite_table(transaction: &Transaction<'_>, table: &str) -> Result<(), rusqlite::Error> {
    let holds = |sql: &str| transaction.query_row(sql, [table], |row| row.get::<_, bool>(0));
    if !holds("SELECT count(*) > 0 FROM pragma_table_info(?1) WHERE name = 'fedgate_changed'")? {
        transaction.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN fedgate_changed INTEGER"))?;
    }
    let [inserted, updated] = sqlite_triggers(table);
    let is_begun = holds("SELECT count(*) > 0 FROM fedgate_change_times WHERE written = ?1")?;
    let named = format!(
        "SELECT count(*) = 2 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 AND name IN ('{inserted}', '{updated}')"
    );
    if is_begun && holds(&named)? {
        return Ok(());
    }
    // `fedgate_same_persons` has no row ids.
    let (row, columns) = match table {
        "fedgate_same_persons" => ("id = new.id", "id, person"),
        "pols" => ("rowid = new.rowid", "id, book, data"),
        _ => ("rowid = new.rowid", "id, data"),
    };
    // The stamp itself is no write: no trigger fires for its column alone.
    let stamped = format!(
        "BEGIN {TICK}; UPDATE {table} SET fedgate_changed = (SELECT last FROM fedgate_change_clock) WHERE {row}; END"
    );
    transaction.execute_batch(&format!(
        "CREATE TRIGGER IF NOT EXISTS {inserted} AFTER INSERT ON {table} {stamped};
         CREATE TRIGGER IF NOT EXISTS {updated} AFTER UPDATE OF {columns} ON {table} {stamped};
         {TICK};
         INSERT INTO fedgate_change_times (written, begun) SELECT '{table}', last FROM fedgate_change_clock WHERE true
         ON CONFLICT (written) DO UPDATE SET begun = excluded.begun;"
    ))
}

/// Moves the clock on SQLite: to the present time in microseconds, which is later than each that was given before.
const TICK: &str = "UPDATE fedgate_change_clock SET last = max(last + 1, CAST(strftime('%s', 'now') AS INTEGER) * 1000000 \
                    + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000)";
