//! The indexes of Thalamus's tables on PostgreSQL, which may be large: built while the federation works.
//!
//! The one rule: no other session waits for a build. So an index is built concurrently, outside transactions and without
//! a limit, and the lock that keeps other migrations out is tried and never waited for: a session that waits for a lock
//! holds a snapshot, and a concurrent build waits for every older snapshot. A build that was interrupted leaves an index
//! that is invalid. The next migration drops it, and builds it again.
//!
//! The migration calls it, after the schema is complete: without an index the programs are slower, and not wrong.

use std::fmt;
use std::time::Instant;

use super::super::{Database, DbError, PooledSession, SessionPool, members, spelling};
use super::index_parts;
use super::progress::{BuildProgress, MigrationReport, reported};
use super::{LOCK, PATIENCE, RETRY};

/// How often one index is tried. A build may end in a deadlock with somebody else's, or meet an invalid index.
const TRIES: usize = 3;

/// An index of a table that may be large.
struct LargeIndex {
    name: &'static str,
    table: &'static str,
    columns: String,
}

fn large_indexes() -> Vec<LargeIndex> {
    let index = |name, table, columns: &str| LargeIndex { name, table, columns: columns.to_owned() };
    let mut all = vec![
        index("fedgate_pols_book", "pols", "book, id"),
        index("fedgate_personal_docs_fedacct", "personal_docs", "fedacct, id"),
        index("fedgate_personal_docs_pol", "personal_docs", "pol"),
        index("fedgate_people_spelling", "people", spelling::POSTGRES_KEY),
        index("fedgate_people_changed", "people", "(coalesce(fedgate_changed, TIMESTAMPTZ 'epoch')), id"),
    ];
    let of_members = members::MEMBERS.map(|(member, name)| index(name, "people", &members::postgres_columns(member)));
    all.extend(of_members);
    all
}

/// The names and columns of the indexes of a table.
pub(super) fn large_indexes_of(table: &str) -> Vec<(String, String)> {
    let of_table = large_indexes().into_iter().filter(|index| index.table == table);
    of_table.map(|index| (index.name.to_owned(), index.columns)).collect()
}

/// Indexes of large tables that are missing, or whose build was interrupted; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnbuiltIndexes(Vec<String>);

impl fmt::Display for UnbuiltIndexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.0.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let (are, them) = if self.0.len() == 1 { ("index", "it") } else { ("indexes", "them") };
        write!(
            f,
            "lists and books may read whole tables: the database has no usable {are} {named}; run `fedhis migrate`, \
             which builds {them} while others work"
        )
    }
}

/// The indexes that `fedhis migrate` has yet to build; none if all can be used. SQLite has them from its migration on.
///
/// # Errors
/// The database is away, or cannot tell.
pub async fn unbuilt_indexes(database: &Database) -> Result<Option<UnbuiltIndexes>, DbError> {
    let Database::Postgres(pool) = database else { return Ok(None) };
    let (tables, names): (Vec<&str>, Vec<&str>) = large_indexes().iter().map(|index| (index.table, index.name)).unzip();
    let rows = pool.get().await?.query(UNBUILT, &[&tables, &names]).await?;
    let unbuilt = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<String>, DbError>>()?;
    Ok((!unbuilt.is_empty()).then_some(UnbuiltIndexes(unbuilt)))
}

/// The state of an index in the database, and its table with the schema.
struct IndexState {
    table: String,
    index: String,
    /// Whether it can be used; none if there is no such index.
    is_valid: Option<bool>,
    /// Whether another session is building it.
    is_being_built: bool,
    /// Whether the table can be built on concurrently: of a partitioned one, only the partitions can.
    is_whole: bool,
}

/// Keeps other migrations out, until this session is closed.
///
/// # Errors
/// Another one holds the lock for a minute without building an index.
pub(super) async fn keep_others_out(session: &PooledSession, report: MigrationReport<'_>) -> Result<(), DbError> {
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        if session.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]).await?.try_get(0)? {
            return Ok(());
        }
        if let Some(row) = session.query_opt(&BuildProgress::of_holder(), &[&LOCK]).await? {
            report(&format!("another migration is at work: {}", BuildProgress::read(&row)?));
            deadline = Instant::now() + PATIENCE;
        }
        if Instant::now() > deadline {
            let held = "another migration holds its lock and builds no index (`pg_locks`, advisory); run this again when \
                        that has ended";
            return Err(DbError::Unavailable(held.into()));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Builds every index that is missing or invalid.
///
/// # Errors
/// The database is away, has no room, or refuses.
pub(super) async fn build(
    session: &PooledSession,
    pool: &SessionPool,
    report: MigrationReport<'_>,
) -> Result<(), DbError> {
    // Limits of the role or of the database would end a build, and leave an invalid index. Not every version has each.
    session.execute(WITHOUT_LIMITS, &[]).await?;
    for index in large_indexes() {
        build_one(session, pool, &index, report).await?;
    }
    session.batch_execute(WITHOUT_STATISTICS).await?;
    // Without statistics of the members, the planner would not know which of them finds few persons. The server is asked,
    // because a migration may have ended between a build and this.
    let members: Vec<&str> = members::MEMBERS.iter().map(|(_, index)| *index).collect();
    if session.query_one(LACKS_STATISTICS, &[&members]).await?.try_get(0)? {
        report("collecting statistics of `people`");
        session.batch_execute("ANALYZE people").await?;
    }
    Ok(())
}

/// Builds an index if it has to be.
async fn build_one(
    session: &PooledSession,
    pool: &SessionPool,
    index: &LargeIndex,
    report: MigrationReport<'_>,
) -> Result<(), DbError> {
    let mut tries = 0;
    loop {
        let Some(state) = state(session, index).await? else { return Ok(()) };
        match state.is_valid {
            Some(true) => return Ok(()),
            Some(_) | None if !state.is_whole => {
                tries += 1;
                let of = (index.name, index.table, index.columns.as_str());
                index_parts::build_live(session, pool, of, report).await?;
                if tries == TRIES {
                    return Ok(());
                }
            }
            Some(false) if state.is_being_built => tokio::time::sleep(RETRY).await,
            Some(false) => {
                report(&format!("dropping index `{}`, whose build was interrupted", index.name));
                session.batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {}", state.index)).await?;
            }
            None => {
                tries += 1;
                let sql = format!("CREATE INDEX CONCURRENTLY {} ON {} ({})", index.name, state.table, index.columns);
                let of = (index.name, index.table);
                match reported(session.batch_execute(&sql), session, pool, of, report).await {
                    Err(error) if error.waited_for().is_some() && tries < TRIES => {
                        tracing::warn!("index `{}` is built again: {}", index.name, error.in_short());
                    }
                    built => built?,
                }
            }
        }
    }
}

/// The state of an index; none if its table is missing.
async fn state(session: &PooledSession, index: &LargeIndex) -> Result<Option<IndexState>, DbError> {
    let row = session.query_opt(STATE, &[&index.table, &index.name]).await?;
    row.map(|row| {
        Ok(IndexState {
            table: row.try_get(0)?,
            index: row.try_get(1)?,
            is_valid: row.try_get(2)?,
            is_being_built: row.try_get(3)?,
            is_whole: row.try_get(4)?,
        })
    })
    .transpose()
}

/// While few rows have a time, the planner would take their order for that of the table, and read the index of times for
/// lists that have nothing to do with it.
const WITHOUT_STATISTICS: &str = "
    DO $$
    BEGIN
        IF EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = to_regclass('fedgate_people_changed') AND attnum = 1 AND attstattarget IS DISTINCT FROM 0
        ) THEN
            ALTER INDEX fedgate_people_changed ALTER COLUMN 1 SET STATISTICS 0;
        END IF;
    END
    $$";
pub(super) const WITHOUT_LIMITS: &str = "
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_session_timeout')";
const LACKS_STATISTICS: &str = "
    SELECT EXISTS (SELECT FROM people) AND EXISTS (
        SELECT FROM unnest($1::text[]) AS name CROSS JOIN pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = 'people'::regclass
          AND NOT EXISTS (SELECT FROM pg_stats WHERE schemaname = nspname AND tablename = name)
    )";
const UNBUILT: &str = "
    SELECT needed.name FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS needed (of, name, place)
    WHERE to_regclass(of) IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_index JOIN pg_class AS named ON named.oid = indexrelid
        WHERE indrelid = to_regclass(of) AND named.relname = needed.name AND indisvalid
    )
    ORDER BY place";
const STATE: &str = "
    SELECT format('%I.%I', nspname, relname), format('%I.%I', nspname, $2::text), found.indisvalid,
        EXISTS (SELECT FROM pg_stat_progress_create_index AS building WHERE building.index_relid = found.indexrelid),
        relkind = 'r'
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace LEFT JOIN LATERAL (
        SELECT indisvalid, indexrelid FROM pg_index JOIN pg_class AS named ON named.oid = indexrelid
        WHERE indrelid = pg_class.oid AND named.relname = $2::text
    ) AS found ON true
    WHERE pg_class.oid = to_regclass($1::text)";
