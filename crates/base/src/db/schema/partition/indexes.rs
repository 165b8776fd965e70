//! The indexes of the copy, which are built when all rows are in it.
//!
//! The one rule: they are those of the table (`schema::indexes`), under names of their own until the swap.

use super::super::index_parts::{WholeIndex, build_whole, short_of};
use super::super::indexes::large_indexes_of;
use super::super::progress::reported;
use super::table::MovedTable;
use super::{Mover, PartitionError};

impl Mover<'_> {
    /// Builds the indexes of the copy.
    pub(super) async fn build_indexes(&mut self, table: &MovedTable) -> Result<(), PartitionError> {
        let copy = table.copy();
        for (index, columns) in large_indexes_of(table.name) {
            let name = format!("{index}_new");
            if self.count.is_one_table() {
                let sql = format!("CREATE INDEX IF NOT EXISTS {name} ON {copy} ({columns})");
                let build = self.session.batch_execute(&sql);
                reported(build, self.session, self.pool, (&name, &copy), self.report).await?;
                continue;
            }
            let short = short_of(&index, table.name);
            let whole = WholeIndex { table: &copy, name: &name, columns: &columns, short, is_live: false };
            build_whole(self.session, self.pool, &whole, self.report).await?;
        }
        Ok(())
    }
}
