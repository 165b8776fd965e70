//! How far a move is, in the table `fedgate_partition_moves`.

use std::fmt;

use super::super::super::{Database, DbError, PooledSession};
use super::PartitionCount;
use super::table::MovedTable;

/// The state of a move that has begun.
pub(super) struct MoveState {
    pub(super) count: PartitionCount,
    pub(super) is_swapped: bool,
    /// The person and the id of the last row that was copied.
    pub(super) last: Option<(String, String)>,
    pub(super) copied: i64,
}

impl MoveState {
    /// The state of a table's move; none if there is none.
    pub(super) async fn read(session: &PooledSession, table: &MovedTable) -> Result<Option<Self>, DbError> {
        let Some(row) = session.query_opt(READ, &[&table.name]).await? else { return Ok(None) };
        let (person, id): (Option<String>, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
        Ok(Some(Self {
            count: PartitionCount(u16::try_from(row.try_get::<_, i64>(0)?).unwrap_or(u16::MAX)),
            is_swapped: row.try_get(1)?,
            last: person.zip(id),
            copied: row.try_get(4)?,
        }))
    }
}

const READ: &str = "SELECT parts, is_swapped, person, id, copied FROM fedgate_partition_moves WHERE moved = $1";

/// Tables whose move to partitions has begun and not ended; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfinishedMoves(Vec<String>);

impl fmt::Display for UnfinishedMoves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.0.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
        write!(
            f,
            "the move of {named} has begun and not ended, and takes room with each write; run `fedhis migrate --partition` \
             again with the same number, or with the former one to give it up"
        )
    }
}

/// The tables whose move to partitions has not ended; none if there are none. Every role may ask.
///
/// # Errors
/// The database is away, or cannot tell.
pub async fn unfinished_moves(database: &Database) -> Result<Option<UnfinishedMoves>, DbError> {
    let Database::Postgres(pool) = database else { return Ok(None) };
    let rows = pool.get().await?.query(UNFINISHED, &[]).await?;
    let names = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<String>, DbError>>()?;
    Ok((!names.is_empty()).then_some(UnfinishedMoves(names)))
}

const UNFINISHED: &str = "
    SELECT name FROM unnest(ARRAY['pols', 'personal_docs']) AS name
    WHERE to_regclass('fedgate_' || name || '_old') IS NOT NULL OR EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = to_regclass(name) AND tgname = 'fedgate_row_moved'
    )";
