//! The end of a move, after the swap: foreign keys are checked and made those of the whole table, and the former table is
//! dropped.
//!
//! The one rule: every step can be made again, and the programs work before any of them.

use super::super::super::DbError;
use super::swap::parts_of;
use super::table::{DOCUMENTS, MovedTable, PAGES};
use super::{Mover, PartitionError};

impl Mover<'_> {
    /// Ends a move that has been swapped.
    pub(super) async fn finish(&mut self, table: &MovedTable) -> Result<(), PartitionError> {
        let (name, old) = (table.name, table.old());
        let count = table.count(self.session).await?;
        let mut stored = parts_of(table, count, name);
        let first = stored.first().cloned().unwrap_or_default();
        if name == PAGES.name {
            stored.push(DOCUMENTS.name.to_owned());
        }
        let mut are_valid = true;
        for part in &stored {
            are_valid &= self.check_keys(part).await?;
        }
        if !count.is_one_table() && are_valid {
            // The keys of the partitions become parts of one key, which is not checked again.
            for row in self.session.query(KEYS_OF_PARTS, &[&name, &first]).await? {
                let key: String = row.try_get(0).map_err(DbError::from)?;
                let statement = format!("ALTER TABLE {name} ADD {key}");
                self.in_turn(&[statement], &format!("a foreign key of `{name}`")).await?;
            }
        }
        let mut statements = vec![format!("DROP TABLE IF EXISTS {old}")];
        if count.is_one_table() {
            statements.push(format!("DROP TABLE IF EXISTS {}", table.ids));
        }
        statements.push(format!("DELETE FROM fedgate_partition_moves WHERE moved = '{name}'"));
        self.in_turn(&statements, &format!("dropping the former table of `{name}`")).await
    }

    /// Checks the rows of a table against its foreign keys. Rows that have violated them since before keep them unchecked.
    async fn check_keys(&mut self, part: &str) -> Result<bool, PartitionError> {
        let mut are_valid = true;
        (self.report)(&format!("checking the foreign keys of `{part}`"));
        for row in self.session.query(UNCHECKED, &[&part]).await? {
            let key: String = row.try_get(0).map_err(DbError::from)?;
            let statement = format!("ALTER TABLE {part} VALIDATE CONSTRAINT {key}");
            match self.in_turn(&[statement], &format!("a foreign key of `{part}`")).await {
                Err(PartitionError::Database(error)) if error.is_foreign_key_violation() => {
                    tracing::warn!("rows of `{part}` violate the foreign key {key}, which counts for new rows alone");
                    are_valid = false;
                }
                checked => checked?,
            }
        }
        Ok(are_valid)
    }
}

const UNCHECKED: &str = "
    SELECT quote_ident(conname) FROM pg_constraint
    WHERE contype = 'f' AND conrelid = to_regclass($1::text) AND NOT convalidated ORDER BY conname";
/// The foreign keys of a partition (`$2`) that the whole table (`$1`) does not have.
const KEYS_OF_PARTS: &str = "
    SELECT format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)) FROM pg_constraint AS of_part
    WHERE contype = 'f' AND conrelid = to_regclass($2::text) AND conparentid = 0 AND NOT EXISTS (
        SELECT FROM pg_constraint AS whole WHERE whole.conrelid = to_regclass($1::text) AND whole.conname = of_part.conname
    ) ORDER BY conname";
