//! The store: what is kept, whichever database keeps it.
//!
//! The one rule: every statement carries the caller's [`RecordReach`], so that a request for one's own record cannot touch
//! another's even if everything above were wrong. SQL lives here and nowhere else in the HIS; HTTP does not.
//!
//! Called by the handlers and by the import. Both databases pass one and the same test suite.

mod batch;
mod document;
mod element;
mod model;
mod postgres;
mod shares;
mod since;
mod sql;
mod sqlite;
mod visible;
mod waits;

use std::sync::Arc;
use std::time::Duration;

use crate::etag::IfMatch;
use fedgate_base::config::SharesConfig;
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::outage::OutageLog;
use fedgate_base::db::{Database, DbError, follow};
use fedgate_core::json::JsonObject;

pub use batch::{BatchOutcome, WriteBatch};
pub use document::{
    DocumentContent, DocumentCreated, DocumentHead, DocumentKey, DocumentStaging, DocumentVersion, NewDocument,
    PIECE_BYTES,
};
pub use element::{CHUNK_BYTES, ListChunk, ListElement, document_start};
pub use model::{
    ChangeResult, CreateResult, DeleteResult, DocumentForm, ExistingKey, ListQuery, ListWindow, OwnedKey,
    PatchCondition, RecordKey, RecordReach, RecordText, UnitKind,
};
pub use since::ChangedSince;

use postgres::PostgresStore;
use shares::ConnectionShares;
use sqlite::SqliteStore;

/// The store of the HIS; clones share it.
#[derive(Clone)]
pub enum RecordStore {
    /// PostgreSQL.
    Postgres(PostgresStore),
    /// SQLite.
    Sqlite(SqliteStore),
}

/// A store whose connections callers share.
pub struct SharedStore {
    store: RecordStore,
    shares: Arc<ConnectionShares>,
}

impl SharedStore {
    /// The store for one caller: every statement counts to the share of that account.
    pub fn of(&self, account: &str) -> RecordStore {
        let turns = self.shares.of(account);
        match &self.store {
            RecordStore::Postgres(store) => RecordStore::Postgres(store.with(turns)),
            RecordStore::Sqlite(store) => RecordStore::Sqlite(store.with(turns)),
        }
    }
}

/// How long a call may take, with all its statements and what it waits for: less than a gateway waits for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends a call to whichever database there is.
macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            Self::Postgres($store) => $store.heeded(within_bound($call).await),
            Self::Sqlite($store) => $store.heeded($call.await),
        }
    };
}

/// Tells the operator of what became of a call, where the database itself is the reason.
fn tell<T>(outage: &OutageLog, answer: &Result<T, DbError>) {
    match answer {
        Ok(_) => outage.answered(),
        Err(error) if error.is_outage() => outage.failed(error.in_short()),
        Err(_) => {}
    }
}

async fn within_bound<T>(call: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|elapsed| Err(DbError::Unavailable(elapsed.into())))
}

impl RecordStore {
    /// The store in an opened database; whoever uses it has no share, but may use every connection.
    pub fn new(database: Database) -> Self {
        let (away, back) = ("the database is away", "the database answers again");
        let outage = Arc::new(OutageLog::new(away, "requests are answered 503 until it is there", back));
        match database {
            Database::Postgres(pool) => Self::Postgres(PostgresStore::new(pool, outage)),
            Database::Sqlite(sqlite) => Self::Sqlite(SqliteStore::new(sqlite, outage)),
        }
    }

    /// The database it is in.
    pub fn database(&self) -> Database {
        match self {
            Self::Postgres(store) => Database::Postgres(store.pool()),
            Self::Sqlite(store) => Database::Sqlite(store.sqlite()),
        }
    }

    /// The same store, for who acts: changes of accounts name it.
    pub fn acting_as(self, actor: ChangeActor) -> Self {
        match self {
            Self::Postgres(store) => Self::Postgres(store.acting_as(actor)),
            Self::Sqlite(store) => Self::Sqlite(store.acting_as(actor)),
        }
    }

    /// Who tells the operator that the database is away.
    pub fn outage(&self) -> &OutageLog {
        match self {
            Self::Postgres(store) => store.outage(),
            Self::Sqlite(store) => store.outage(),
        }
    }

    /// Keeps to the primary, where that can be another server, for as long as it is polled.
    pub async fn watch_over(self) {
        match self {
            Self::Postgres(store) => follow::watch_over(store.route(), store.outage()).await,
            Self::Sqlite(_) => std::future::pending().await,
        }
    }

    /// The same store, for callers who share its connections.
    pub fn shared(&self, config: &SharesConfig) -> SharedStore {
        let connections = match self {
            Self::Postgres(store) => store.connections(),
            Self::Sqlite(store) => store.connections(),
        };
        SharedStore { store: self.clone(), shares: ConnectionShares::new(connections, config) }
    }

    /// The text of one record as it may be seen, a person without the password hash, if it has at most so many bytes.
    ///
    /// # Errors
    /// As for every method here: the database is away, or refused.
    pub async fn record(
        &self,
        key: &RecordKey,
        most: usize,
        reach: &RecordReach,
    ) -> Result<Option<RecordText>, DbError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        each!(self, store => store.record(key, most, reach))
    }

    /// The whole of a record, a person's password hash included: for comparison, never for an answer.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn whole_record(&self, key: &RecordKey, reach: &RecordReach) -> Result<Option<String>, DbError> {
        each!(self, store => store.whole_record(key, reach))
    }

    /// Stores a new record.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn create(
        &self,
        key: &RecordKey,
        record: &JsonObject,
        reach: &RecordReach,
    ) -> Result<CreateResult, DbError> {
        each!(self, store => store.create(key, record.to_text(), reach))
    }

    /// Merges `patch` into a record: its members are replaced whole, the others stay.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn patch(
        &self,
        key: &RecordKey,
        patch: JsonObject,
        condition: &PatchCondition,
        reach: &RecordReach,
    ) -> Result<ChangeResult, DbError> {
        each!(self, store => store.patch(key, patch, condition, reach))
    }

    /// How many records of a kind a person has, counted up to `most`.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn count(&self, owned: OwnedKey, person: &str, most: u64, reach: &RecordReach) -> Result<u64, DbError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let counted = each!(self, store => store.count(owned, person, most, reach))?;
        Ok(u64::try_from(counted).unwrap_or(0))
    }

    /// Deletes a record that nothing belongs to.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn delete(
        &self,
        key: &RecordKey,
        condition: &IfMatch,
        reach: &RecordReach,
    ) -> Result<DeleteResult, DbError> {
        each!(self, store => store.delete(key, condition, reach))
    }

    /// The next rows of a list, in the order of their ids: at most `limit`, none of more than `most` bytes, and no more than
    /// fit a chunk.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn chunk(
        &self,
        list: &ListQuery,
        window: &ListWindow,
        limit: usize,
        most: usize,
        reach: &RecordReach,
    ) -> Result<ListChunk, DbError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        each!(self, store => store.chunk(list, window, limit, most, reach))
    }

    /// The first `limit` ids of a list.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn ids(
        &self,
        list: &ListQuery,
        window: &ListWindow,
        limit: usize,
        reach: &RecordReach,
    ) -> Result<Vec<String>, DbError> {
        let (mut found, mut window) = (vec![], window.clone());
        loop {
            let rows = each!(self, store => store.ids(list, &window, limit, reach))?;
            let is_last = rows.len() < limit;
            window.after = rows.last().map(|(id, _)| id.clone());
            found.extend(rows.into_iter().filter_map(|(id, is_wanted)| is_wanted.then_some(id)));
            if is_last || found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
        }
    }

    /// What is known about a personal document.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn document(&self, key: &DocumentKey, reach: &RecordReach) -> Result<Option<DocumentHead>, DbError> {
        each!(self, store => store.document(key, reach))
    }

    /// The piece of a document at a place, counted from 0 in steps of [`PIECE_BYTES`]; none if the document is not there any
    /// more, or not in this version.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn piece(
        &self,
        key: &DocumentKey,
        version: &DocumentVersion,
        at: u64,
        reach: &RecordReach,
    ) -> Result<Option<Vec<u8>>, DbError> {
        each!(self, store => store.piece(key, version, at, reach))
    }

    /// Keeps a piece of a document that is to be stored, until it is, or an hour.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn stage(&self, upload: &str, place: i64, piece: &[u8]) -> Result<(), DbError> {
        each!(self, store => store.stage(upload, place, piece))
    }

    /// Forgets the pieces of an upload.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn unstage(&self, upload: &str) -> Result<(), DbError> {
        each!(self, store => store.unstage(upload))
    }

    /// Stores a new personal document.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn create_document(
        &self,
        key: &DocumentKey,
        document: &NewDocument,
        reach: &RecordReach,
    ) -> Result<DocumentCreated, DbError> {
        each!(self, store => store.create_document(key, document, reach))
    }

    /// What a document that is there already means for one that should be stored in its place; `Incomplete` if none is there.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn compare_document(
        &self,
        key: &DocumentKey,
        document: &NewDocument,
        reach: &RecordReach,
    ) -> Result<DocumentCreated, DbError> {
        each!(self, store => store.compare(key, document, reach))
    }

    /// Deletes a personal document.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn delete_document(
        &self,
        key: &DocumentKey,
        condition: &IfMatch,
        reach: &RecordReach,
    ) -> Result<DeleteResult, DbError> {
        each!(self, store => store.delete_document(key, condition, reach))
    }

    /// Which store this is: an id that the migration wrote once.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn id(&self) -> Result<String, DbError> {
        each!(self, store => store.id())
    }

    /// How often the waits of an account at the page of passwords have been ended.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn page_unlocks(&self, account: &str) -> Result<i64, DbError> {
        each!(self, store => store.page_unlocks(account))
    }

    /// Notes for the operator that an account waits there from now on, for what it guessed of a password.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn note_page_wait(&self, account: &str, wait: Duration, password: &str) -> Result<(), DbError> {
        let seconds = waits::whole_seconds(wait);
        each!(self, store => store.note_page_wait(account, seconds, password))
    }

    /// Stores many new records in one transaction, and says of each how it ended.
    ///
    /// # Errors
    /// See [`RecordStore::record`]; nothing of the batch is stored then.
    pub async fn import(&self, batch: WriteBatch) -> Result<Vec<BatchOutcome>, DbError> {
        match self {
            Self::Postgres(store) => store.import(batch).await,
            Self::Sqlite(store) => store.import(batch).await,
        }
    }
}
