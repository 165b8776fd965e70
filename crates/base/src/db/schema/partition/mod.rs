//! Moves pages and documents on PostgreSQL to partitions by person, or back to one table, while others read and write.
//!
//! The one rule: until the swap nobody but this reads the copy, and a writer does no more than to note the id of its row
//! in a table of its own. So a move that is killed at any point breaks nothing, and the next one goes on where it stands
//! (`fedgate_partition_moves`).
//!
//! A move copies the rows in the order of persons (`copy`), builds the indexes on each partition (`indexes`), copies again
//! what was noted meanwhile, and swaps the two tables in one short transaction (`swap`). Then it makes the foreign keys
//! whole, and drops the old table (`finish`). `fedhis migrate --partition` calls it.

mod begin;
mod copy;
mod finish;
mod indexes;
mod preflight;
mod state;
mod swap;
mod table;

use std::time::Instant;

use thiserror::Error;

use super::super::{Database, DbError, PooledSession, SessionPool, SessionTransaction, WaitReason};
use super::progress::MigrationReport;
use super::{LOCK_TIMEOUT_MS, PATIENCE, RETRY};
use state::MoveState;
pub use state::{UnfinishedMoves, unfinished_moves};
use table::{DOCUMENTS, MovedTable, PAGES};

/// The fewest and the most partitions: with more, a statement that no person names would cost too much.
const FEWEST: u16 = 2;
const MOST: u16 = 128;

/// Into how many partitions a table is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionCount(u16);

impl PartitionCount {
    /// Takes a number of partitions; 0 is one table.
    ///
    /// # Errors
    /// The number is out of range.
    pub fn new(count: u16) -> Result<Self, PartitionError> {
        match count {
            0 | FEWEST..=MOST => Ok(Self(count)),
            _ => Err(PartitionError::Refused(format!(
                "`--partition {count}`: name {FEWEST} to {MOST} partitions, or 0 for one table"
            ))),
        }
    }

    fn is_one_table(self) -> bool {
        self.0 == 0
    }

    fn in_words(self) -> String {
        if self.is_one_table() { "one table".to_owned() } else { format!("{} partitions", self.0) }
    }
}

/// Why a table was not moved.
#[derive(Debug, Error)]
pub enum PartitionError {
    /// It cannot be: what is in the way, and the remedy.
    #[error("{0}")]
    Refused(String),
    /// The database is away, or refuses.
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Moves pages and documents, and returns what was done in one line.
///
/// # Errors
/// [`PartitionError::Refused`] if something that only an operator can decide is in the way. Otherwise as for
/// [`super::migrate`]; the next call goes on.
pub async fn partition(
    database: &Database,
    count: PartitionCount,
    report: MigrationReport<'_>,
) -> Result<String, PartitionError> {
    let Database::Postgres(pool) = database else {
        return Err(PartitionError::Refused(
            "the store is a file of SQLite, which has no partitions; `--partition` is for PostgreSQL (docs/OPERATE.md, \
             Partitions)"
                .to_owned(),
        ));
    };
    let mut session = pool.get().await?.without_limit();
    let moved = Mover { session: &mut session, pool, count, report }.move_all(database).await;
    // With it the lock ends, and the limits that were changed.
    session.close();
    moved
}

/// A move of both tables, on the session that keeps other migrations out.
struct Mover<'a> {
    session: &'a mut PooledSession,
    pool: &'a SessionPool,
    count: PartitionCount,
    report: MigrationReport<'a>,
}

impl Mover<'_> {
    async fn move_all(&mut self, database: &Database) -> Result<String, PartitionError> {
        super::indexes::keep_others_out(self.session, self.report).await?;
        self.session.execute(super::indexes::WITHOUT_LIMITS, &[]).await?;
        // The server ends a statement whose client was killed. Not every system of a server can.
        _ = self.session.batch_execute("SET client_connection_check_interval = 1000").await;
        self.session.execute(BESIDE_PEOPLE, &[]).await?;
        let is_back = self.count.is_one_table();
        // Documents refer to the table of ids while there is one, and to the one table of pages otherwise.
        let order = if is_back { [&DOCUMENTS, &PAGES] } else { [&PAGES, &DOCUMENTS] };
        let mut moved = Vec::new();
        for table in order {
            if self.move_one(table, database).await? {
                moved.push(format!("`{}`", table.name));
            }
        }
        let words = self.count.in_words();
        Ok(match moved.as_slice() {
            [] => format!("pages and documents are in {words} already"),
            moved => format!("{} moved to {words}", moved.join(" and ")),
        })
    }

    /// Moves a table, and returns whether there was anything to do.
    async fn move_one(&mut self, table: &MovedTable, database: &Database) -> Result<bool, PartitionError> {
        let mut known = MoveState::read(self.session, table).await?;
        let mut has_moved = false;
        if known.as_ref().is_some_and(|state| state.is_swapped) {
            self.finish(table).await?;
            (known, has_moved) = (None, true);
        }
        if known.as_ref().is_some_and(|state| state.count != self.count) {
            self.abandon(table).await?;
            (known, has_moved) = (None, true);
        }
        if table.count(self.session).await? == self.count {
            return Ok(has_moved);
        }
        self.refuse_what_is_in_the_way(table, database).await?;
        loop {
            if known.is_none() {
                self.begin(table).await?;
            }
            self.copy(table).await?;
            self.build_indexes(table).await?;
            self.catch_up(table).await?;
            self.refuse_what_is_in_the_way(table, database).await?;
            if self.swap(table).await? {
                break;
            }
            // The table was emptied meanwhile, or written while its triggers were off, so the copy is made anew.
            self.abandon(table).await?;
            known = None;
        }
        self.finish(table).await?;
        Ok(true)
    }

    /// Runs statements in one transaction that waits only briefly for a lock, and tries for a while.
    async fn in_turn(&mut self, statements: &[String], what: &str) -> Result<(), PartitionError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = async {
                let transaction = begin_briefly(self.session).await?;
                for statement in statements {
                    transaction.batch_execute(statement).await?;
                }
                transaction.commit().await
            };
            match outcome.await {
                Err(error) if error.waited_for() == Some(WaitReason::Lock) => self.wait(deadline, what).await?,
                done => return Ok(done?),
            }
        }
    }

    /// Lets others go first.
    async fn wait(&self, deadline: Instant, what: &str) -> Result<(), PartitionError> {
        (self.report)(&format!("{what} waits for a lock that another session holds"));
        if Instant::now() > deadline {
            let held = format!(
                "{what}: somebody holds a lock that it needs (a dump, a long transaction); run this again when that has \
                 ended, and it goes on"
            );
            return Err(DbError::Unavailable(held.into()).into());
        }
        tokio::time::sleep(RETRY).await;
        Ok(())
    }
}

/// A transaction that waits only briefly for a lock.
async fn begin_briefly(session: &mut PooledSession) -> Result<SessionTransaction<'_>, DbError> {
    let transaction = session.transaction().await?;
    transaction.batch_execute(&format!("SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")).await?;
    Ok(transaction)
}

const BESIDE_PEOPLE: &str = "
    SELECT set_config('search_path', quote_ident(nspname) || ', pg_temp', false)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = 'people'::regclass";
