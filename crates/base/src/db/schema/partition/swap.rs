//! The swap: the copy takes the name of the table, with its rights, triggers and foreign keys.
//!
//! The one rule: one transaction does all of it, or nothing, and it waits for locks only briefly. Whatever the table has
//! then is read from the catalog, so what an operator granted or added meanwhile comes along.

use std::time::Instant;

use super::super::super::{DbError, PooledSession, SessionTransaction, WaitReason};
use super::super::PATIENCE;
use super::super::indexes::large_indexes_of;
use super::copy::Recopy;
use super::table::{DOCUMENTS, MovedTable, PAGES};
use super::{Mover, PartitionCount, PartitionError, begin_briefly};

/// The longest time for one statement while others wait.
const SWAP_TIMEOUT_MS: u64 = 10_000;

impl Mover<'_> {
    /// Swaps the table and its copy. Returns false if the table was emptied since the copy began,
    /// or its writes were not all noted.
    pub(super) async fn swap(&mut self, table: &MovedTable) -> Result<bool, PartitionError> {
        let deadline = Instant::now() + PATIENCE;
        let from = table.count(self.session).await?;
        let again = Recopy::of(self.session, table).await?;
        loop {
            match try_swap(self.session, table, from, self.count, &again).await {
                Err(error) if error.waited_for() == Some(WaitReason::Lock) => {
                    self.wait(deadline, &format!("the swap of `{}`", table.name)).await?;
                    self.recopy_all(&again, table).await?;
                }
                done => return Ok(done?),
            }
        }
    }
}

async fn try_swap(
    session: &mut PooledSession,
    table: &MovedTable,
    from: PartitionCount,
    to: PartitionCount,
    again: &Recopy,
) -> Result<bool, DbError> {
    let (name, copy, old) = (table.name, table.copy(), table.old());
    let transaction = begin_briefly(session).await?;
    transaction.batch_execute(&format!("SET LOCAL statement_timeout = {SWAP_TIMEOUT_MS}")).await?;
    // Foreign keys of the copy first: so far nobody waits but writers of persons. Rows of before are checked afterwards.
    transaction.batch_execute("LOCK TABLE people IN SHARE ROW EXCLUSIVE MODE").await?;
    let keys = texts(&transaction, FOREIGN_KEYS, table).await?;
    for part in parts_of(table, to, &copy) {
        for key in &keys {
            transaction.batch_execute(&format!("ALTER TABLE {part} ADD {key} NOT VALID")).await?;
        }
    }
    if table.name == PAGES.name {
        let documents = DOCUMENTS.name;
        transaction.batch_execute(&format!("LOCK TABLE {documents} IN ACCESS EXCLUSIVE MODE")).await?;
    }
    transaction.batch_execute(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")).await?;
    // From here on nobody reads or writes the table, and all that was written is noted.
    let emptied = "SELECT EXISTS (SELECT FROM fedgate_moved_rows WHERE moved = $1 AND id IS NULL)";
    if transaction.query_one(emptied, &[&name]).await?.try_get(0)? {
        return Ok(false);
    }
    // A trigger that was off for a while may be on again, but it does not fire for all sessions any more.
    if !transaction.query_one(IS_WATCHED, &[&name]).await?.try_get::<_, bool>(0)? {
        return Ok(false);
    }
    while again.some(&transaction).await? > 0 {}
    let triggers = texts(&transaction, TRIGGERS, table).await?;
    let mut statements = texts(&transaction, &RIGHTS.replace("{copy}", &copy), table).await?;
    statements.extend(texts(&transaction, &COMMENT.replace("{copy}", &copy), table).await?);
    let moves_key = (from.is_one_table() != to.is_one_table()) && table.name == PAGES.name;
    let referring = if moves_key { texts(&transaction, REFERRING, table).await? } else { Vec::new() };
    // The names of indexes are those of the schema.
    let mut names = vec![(format!("{copy}_pkey"), format!("{name}_pkey"))];
    names.extend(large_indexes_of(name).into_iter().map(|(index, _)| (format!("{index}_new"), index)));
    for (_, index) in &names {
        statements.push(format!("ALTER INDEX IF EXISTS {index} RENAME TO {index}_old"));
    }
    for (of_copy, index) in &names {
        statements.push(format!("ALTER INDEX {of_copy} RENAME TO {index}"));
    }
    statements.push(format!("ALTER TABLE {name} RENAME TO {old}"));
    statements.push(format!("ALTER TABLE {copy} RENAME TO {name}"));
    // Each begins with the name of the key, and ends in its definition.
    for key in referring {
        let (key, definition) = key.split_once(' ').unwrap_or((&key, ""));
        let (refers, target) = match to.is_one_table() {
            true => (table.ids, name),
            false => (name, table.ids),
        };
        let definition = definition.replacen(&format!("REFERENCES {refers}("), &format!("REFERENCES {target}("), 1);
        let documents = DOCUMENTS.name;
        statements.push(format!("ALTER TABLE {documents} DROP CONSTRAINT {key}"));
        statements.push(format!("ALTER TABLE {documents} ADD CONSTRAINT {key} {definition} NOT VALID"));
    }
    statements.extend(triggers);
    if !to.is_one_table() {
        statements.push(format!("SELECT fedgate_keep_ids('{name}')"));
    }
    // Its foreign keys would otherwise keep persons and pages from being deleted until it is dropped, and to drop them now
    // would keep everybody from reading persons. Its triggers must not tell of this.
    statements.push(format!("ALTER TABLE {old} DISABLE TRIGGER USER"));
    statements.push(format!("TRUNCATE {old}"));
    statements.push(format!("DELETE FROM fedgate_moved_rows WHERE moved = '{name}'"));
    statements.push(format!("UPDATE fedgate_partition_moves SET is_swapped = true WHERE moved = '{name}'"));
    transaction.batch_execute(&statements.join(";\n")).await?;
    transaction.commit().await?;
    Ok(true)
}

/// What has rows: the partitions, or the one table.
pub(super) fn parts_of(table: &MovedTable, count: PartitionCount, one: &str) -> Vec<String> {
    match count.0 {
        0 => vec![one.to_owned()],
        count_of => (0..count_of).map(|at| table.part(count, at)).collect(),
    }
}

/// The texts of a query about a table (`$1`).
async fn texts(transaction: &SessionTransaction<'_>, sql: &str, table: &MovedTable) -> Result<Vec<String>, DbError> {
    let rows = transaction.query(sql, &[&table.name]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Whether every write of a table (`$1`) has been noted, also in its partitions.
const IS_WATCHED: &str = "
    SELECT bool_and(tgenabled = 'A') AND count(*) FILTER (WHERE tgrelid = to_regclass($1::text)) = 2 FROM pg_trigger
    WHERE tgname IN ('fedgate_row_moved', 'fedgate_rows_moved') AND (
        tgrelid = to_regclass($1::text) OR tgrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1::text))
    )";
const FOREIGN_KEYS: &str = "
    SELECT format('CONSTRAINT %I %s', conname, replace(pg_get_constraintdef(oid), ' NOT VALID', '')) FROM pg_constraint
    WHERE contype = 'f' AND conrelid = to_regclass($1::text) AND conparentid = 0
    UNION
    SELECT format('CONSTRAINT %I %s', conname, replace(pg_get_constraintdef(oid), ' NOT VALID', '')) FROM pg_constraint
    WHERE contype = 'f' AND conparentid = 0
    AND conrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = to_regclass($1::text))";
/// The keys that refer to pages, of which there are those of documents alone.
const REFERRING: &str = "
    SELECT format('%I %s', conname, replace(pg_get_constraintdef(oid), ' NOT VALID', '')) FROM pg_constraint
    WHERE contype = 'f' AND conrelid = to_regclass('personal_docs') AND conparentid = 0
    AND confrelid IN (to_regclass($1::text), to_regclass('fedgate_page_ids'))";
/// The triggers, without those of the move and of the ids. They name the table, as the copy is called then.
const TRIGGERS: &str = "
    SELECT pg_get_triggerdef(oid) || CASE tgenabled
        WHEN 'O' THEN '' ELSE format('; ALTER TABLE %I %s TRIGGER %I', $1::text, CASE tgenabled
            WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE' END, tgname)
    END
    FROM pg_trigger WHERE tgrelid = to_regclass($1::text) AND NOT tgisinternal
    AND tgname NOT IN ('fedgate_row_moved', 'fedgate_rows_moved', 'fedgate_id_kept', 'fedgate_ids_emptied') ORDER BY tgname";
/// The rights of others to the table and to its columns.
const RIGHTS: &str = "
    SELECT format('GRANT %s%s ON {copy} TO %s%s', privilege_type, part, coalesce(quote_ident(rolname), 'PUBLIC'),
        CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM (
        SELECT relowner, '' AS part, acl.* FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS acl
        WHERE pg_class.oid = to_regclass($1::text)
        UNION ALL
        SELECT relowner, format(' (%I)', attname), acl.* FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        CROSS JOIN LATERAL aclexplode(attacl) AS acl WHERE attrelid = to_regclass($1::text) AND NOT attisdropped
    ) AS given LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE grantee <> relowner AND (grantee = 0 OR rolname IS NOT NULL)";
const COMMENT: &str = "
    SELECT format('COMMENT ON TABLE {copy} IS %L', obj_description(to_regclass($1::text)::oid, 'pg_class'))
    WHERE obj_description(to_regclass($1::text)::oid, 'pg_class') IS NOT NULL";
