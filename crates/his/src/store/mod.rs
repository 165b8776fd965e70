//! The store of the HIS, on either database.
//!
//! The one rule: every statement carries the caller's [`RecordReach`]. So a request with the scope `own` cannot
//! touch another person's record, even if all code above were wrong. In the HIS, SQL lives here and nowhere else,
//! and HTTP does not.
//!
//! Called by the handlers and by the import. Both databases pass the same tests.

#[macro_use]
mod each;

mod batch;
mod changes;
mod cursors;
mod decision;
mod document;
mod element;
mod live_merges;
mod message_positions;
mod message_reach;
mod merged_record;
mod merges;
mod message_row;
mod messages;
mod model;
mod person_keys;
mod person_search;
mod person_pairs;
mod postgres;
mod reach;
mod replicas;
mod rows;
mod same_person;
mod sent;
mod shares;
mod since;
mod sql;
mod sqlite;
mod visible;
mod waits;
pub mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::etag::TagCondition;
use fedgate_base::config::SharesConfig;
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::outage::OutageLog;
use fedgate_base::db::{Database, DbError, GROUP_WRITES, NoTurn, READERS, follow};
use fedgate_core::json::JsonObject;

pub use batch::{BatchOutcome, WriteBatch};
pub use changes::{ChangePlace, ChangeRange, SeenChanges};
pub use cursors::{CursorKey, CursorWritten, MessageCursor};
pub use document::{
    DocumentContent, DocumentCreated, DocumentHead, DocumentKey, DocumentStaging, DocumentVersion, NewDocument,
    PIECE_BYTES,
};
pub use element::{CHUNK_BYTES, ListChunk, ListElement, document_start};
pub use merged_record::MemberSource;
pub use merges::{MOST_IDS, MergeOrder, MergeResult, PersonMerge, UnmergeResult};
pub use message_reach::{MESSAGE_TO_ALL, MessageAddressee, MessageConcern, MessageReach};
pub use message_row::MessageShape;
pub use messages::{MessageFilter, MessagePlaces, NODE_MESSAGE};
pub use model::{
    ChangeResult, CreateResult, DeleteResult, DocumentForm, ExistingKey, FoundRecord, ListQuery, ListWindow, OwnedKey,
    PatchCondition, RecordKey, RecordText, UnitKind,
};
pub use person_keys::{
    CANDIDATES_AT_A_TIME, Candidate, CandidateRecord, DueKeys, KeyMaker, LONG_CANDIDATE_BYTES, MOST_CANDIDATES,
    MadeKeys, MadeWord, PersonRecord,
};
pub use person_pairs::{DedupeTurn, DuePerson, FoundPair, PairFilter, PairState, RegisteredPerson, ReviewedPair};
pub use person_search::{KeyHolders, TypedWords};
pub use reach::{OwnPersons, RecordReach};
pub use same_person::SamePerson;
pub use sent::{NodeMessage, SendResult};
pub use since::ChangedSince;

use each::{tell, within_bound};
use postgres::PostgresStore;
use shares::ConnectionShares;
use sqlite::SqliteStore;

/// How often a change begins again because the person was merged meanwhile.
const MOST_TRIES: usize = 5;

/// The store of the HIS. Clones share it.
#[derive(Clone)]
pub enum RecordStore {
    /// PostgreSQL.
    Postgres(PostgresStore),
    /// SQLite.
    Sqlite(SqliteStore),
}

/// A store whose connections callers share. Clones share them, too.
#[derive(Clone)]
pub struct SharedStore {
    store: RecordStore,
    shares: Arc<ConnectionShares>,
}

impl SharedStore {
    /// The log that reports an unavailable database.
    pub fn outage(&self) -> &OutageLog {
        self.store.outage()
    }

    /// The store for one caller: each statement counts to that account's share.
    pub fn of(&self, account: &str) -> RecordStore {
        let turns = self.shares.of(account);
        match &self.store {
            RecordStore::Postgres(store) => RecordStore::Postgres(store.with(turns)),
            RecordStore::Sqlite(store) => RecordStore::Sqlite(store.with(turns)),
        }
    }
}

impl RecordStore {
    /// The store in an opened database. It has no share, and may use every connection.
    pub fn new(database: Database) -> Self {
        let (away, back) = ("the database is away", "the database answers again");
        let outage = Arc::new(OutageLog::new(away, "requests are answered 503 until it is there", back));
        match database {
            Database::Postgres(pool) => Self::Postgres(PostgresStore::new(pool, outage)),
            Database::Sqlite(sqlite) => Self::Sqlite(SqliteStore::new(sqlite, outage)),
        }
    }

    /// The database of this store.
    pub fn database(&self) -> Database {
        match self {
            Self::Postgres(store) => Database::Postgres(store.pool()),
            Self::Sqlite(store) => Database::Sqlite(store.sqlite()),
        }
    }

    /// The same store for an actor, which changes of accounts name.
    pub fn acting_as(self, actor: ChangeActor) -> Self {
        match self {
            Self::Postgres(store) => Self::Postgres(store.acting_as(actor)),
            Self::Sqlite(store) => Self::Sqlite(store.acting_as(actor)),
        }
    }

    /// The same store, whose writes of persons write keys, too.
    #[must_use]
    pub fn keyed_by(self, keys: Arc<dyn KeyMaker>) -> Self {
        match self {
            Self::Postgres(store) => Self::Postgres(store.keyed_by(keys)),
            Self::Sqlite(store) => Self::Sqlite(store.keyed_by(keys)),
        }
    }

    /// The log that reports an unavailable database.
    pub fn outage(&self) -> &OutageLog {
        match self {
            Self::Postgres(store) => store.outage(),
            Self::Sqlite(store) => store.outage(),
        }
    }

    /// Changes after each write of this process.
    pub fn written(&self) -> &Arc<watch::Sender<()>> {
        match self {
            Self::Postgres(store) => store.written(),
            Self::Sqlite(store) => store.written(),
        }
    }

    /// Follows the primary, where that can become another server. Runs for as long as it is polled.
    pub async fn watch_over(self) {
        match self {
            Self::Postgres(store) => {
                let pool = store.pool();
                let following = follow::watch_over(store.route(), store.outage());
                tokio::join!(following, pool.give_idle_back(), store.watch_replicas());
            }
            Self::Sqlite(_) => std::future::pending().await,
        }
    }

    /// The same store for callers that share its connections.
    pub fn shared(&self, config: &SharesConfig) -> SharedStore {
        let shares = match self {
            Self::Postgres(store) => {
                ConnectionShares::new(store.connections(), postgres::PLACES, store.replicas(), config)
            }
            Self::Sqlite(_) => ConnectionShares::of_file(READERS, GROUP_WRITES, config),
        };
        SharedStore { store: self.clone(), shares }
    }

    /// The visible text of one record (a person without the password hash), if it has at most `most` bytes.
    /// A page is found in the books of all ids of its person.
    ///
    /// # Errors
    /// As for every method here: the database cannot be reached, or refused.
    pub async fn record(
        &self,
        key: &RecordKey,
        most: usize,
        reach: &RecordReach,
    ) -> Result<Option<FoundRecord>, DbError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        each!(self, store => store.record(key, most, reach))
    }

    /// The whole text of a record, with a person's password hash. It is for comparison, never for an answer.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn whole_record(&self, key: &RecordKey, reach: &RecordReach) -> Result<Option<String>, DbError> {
        each!(self, store => store.whole_record(key, reach))
    }

    /// The text of a person's record that others are compared with, however long it is. On PostgreSQL it has no hash.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn compared_record(&self, person: &str, reach: &RecordReach) -> Result<Option<String>, DbError> {
        let key = RecordKey::Person(person.to_owned());
        match self {
            Self::Postgres(store) => store.heeded(within_bound(store.shown_record(&key, reach)).await),
            Self::Sqlite(_) => self.whole_record(&key, reach).await,
        }
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
        written!(self, store => store.create(key, record.to_text(), reach))
    }

    /// Merges `patch` into a record: each of its members replaces the old one as a whole, and others stay.
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
        for _ in 0..MOST_TRIES {
            let answer = written!(self, store => store.patch(key, patch.clone(), condition, reach))?;
            if let Some(result) = answer {
                return Ok(result);
            }
            // A person with several ids.
            if let Some(result) = self.patch_merged(key.id(), &patch, condition, reach).await? {
                return Ok(result);
            }
        }
        // Merges come and go faster than this write.
        Err(NoTurn::OfWrites.into())
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

    /// Deletes a record to which no other belongs.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn delete(
        &self,
        key: &RecordKey,
        condition: &TagCondition,
        reach: &RecordReach,
    ) -> Result<DeleteResult, DbError> {
        written!(self, store => store.delete(key, condition, reach))
    }

    /// The next rows of a list in the order of their ids, or of their last writes: at most `limit` rows, none longer than `most` bytes, and
    /// no more than fit a chunk.
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
        // Rows that the date filters out are skipped here, so a page may need several statements.
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

    /// The facts about a personal document, without its bytes.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn document(&self, key: &DocumentKey, reach: &RecordReach) -> Result<Option<DocumentHead>, DbError> {
        each!(self, store => store.document(key, reach))
    }

    /// One piece of a document. `at` counts pieces of [`PIECE_BYTES`] from 0. `None` if the document is gone, or
    /// has another version.
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

    /// Keeps a piece of a document that is arriving, until the document is stored, or for an hour.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn stage(&self, upload: &str, place: i64, piece: &[u8]) -> Result<(), DbError> {
        each!(self, store => store.stage(upload, place, piece))
    }

    /// Deletes the pieces of an upload.
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
        written!(self, store => store.create_document(key, document, reach))
    }

    /// Compares a document with the stored one of the same id; `Incomplete` if there is none.
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
        condition: &TagCondition,
        reach: &RecordReach,
    ) -> Result<DeleteResult, DbError> {
        written!(self, store => store.delete_document(key, condition, reach))
    }

    /// The id of this store, which the migration wrote once.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn id(&self) -> Result<String, DbError> {
        each!(self, store => store.id())
    }

    /// How often an operator has ended an account's waits on the page of passwords.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn page_unlocks(&self, account: &str) -> Result<i64, DbError> {
        each!(self, store => store.page_unlocks(account))
    }

    /// Notes for the operator that an account now waits on the page of passwords, and for guesses at which password.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn note_page_wait(&self, account: &str, wait: Duration, password: &str) -> Result<(), DbError> {
        let seconds = waits::whole_seconds(wait);
        each!(self, store => store.note_page_wait(account, seconds, password))
    }

    /// Stores many new records in one transaction, and returns the result of each.
    ///
    /// # Errors
    /// See [`RecordStore::record`]. Then no record of the batch is stored.
    pub async fn import(&self, batch: WriteBatch) -> Result<Vec<BatchOutcome>, DbError> {
        match self {
            // Without the time limit of a call: a batch takes as long as its records need.
            Self::Postgres(store) => store.import(batch).await,
            Self::Sqlite(store) => store.import(batch).await,
        }
    }
}
