//! The two tables that can be moved, and the names of what belongs to them.

use super::super::super::{DbError, PooledSession};
use super::{PartitionCount, PartitionError};

/// A table that can be moved.
pub(super) struct MovedTable {
    pub(super) name: &'static str,
    /// The column with the person, by which rows are assigned to partitions.
    pub(super) person: &'static str,
    /// The table that keeps its ids unique while it is partitioned.
    pub(super) ids: &'static str,
    /// The first batch of rows: documents may be long.
    pub(super) batch: i64,
}

pub(super) const PAGES: MovedTable = MovedTable { name: "pols", person: "book", ids: "fedgate_page_ids", batch: 1000 };
pub(super) const DOCUMENTS: MovedTable =
    MovedTable { name: "personal_docs", person: "fedacct", ids: "fedgate_document_ids", batch: 50 };

impl MovedTable {
    /// The copy, until the swap.
    pub(super) fn copy(&self) -> String {
        format!("fedgate_{}_new", self.name)
    }

    /// The former table, after the swap.
    pub(super) fn old(&self) -> String {
        format!("fedgate_{}_old", self.name)
    }

    /// A partition. Its name has the number of them, so that it never meets one of another move.
    pub(super) fn part(&self, count: PartitionCount, at: u16) -> String {
        format!("fedgate_{}_{}_{at}", self.name, count.0)
    }

    /// Whether it is in partitions now, and in how many.
    pub(super) async fn count(&self, session: &PooledSession) -> Result<PartitionCount, PartitionError> {
        let row = session.query_one(COUNT, &[&self.name]).await?;
        let count: i64 = row.try_get(0).map_err(DbError::from)?;
        Ok(PartitionCount(u16::try_from(count).unwrap_or(u16::MAX)))
    }

    /// The columns that are copied, separated by commas.
    pub(super) async fn columns(&self, session: &PooledSession) -> Result<String, DbError> {
        Ok(session.query_one(COLUMNS, &[&self.name]).await?.try_get(0)?)
    }
}

const COUNT: &str = "SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass($1::text)";
const COLUMNS: &str = "
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = to_regclass($1::text) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";
