//! The store on SQLite.
//!
//! Writers take turns, from `BEGIN IMMEDIATE` on. So a row that a transaction has read cannot change before it
//! writes.

mod cursors;
mod documents;
mod import;
mod keys;
mod list;
mod messages;
mod sent;

use std::sync::Arc;

pub(super) use self::keys::add_keys;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::watch;

use super::shares::StoreTurns;
use super::sql::{self, RecordTable, SqlDialect};
use super::visible::seen;
use super::{
    ChangeResult, CreateResult, DeleteResult, ExistingKey, FoundRecord, KeyMaker, OwnedKey, PatchCondition, RecordKey,
    RecordReach, RecordText,
};
use crate::etag::TagCondition;
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::outage::OutageLog;
use fedgate_base::db::{DbError, SqliteFile, WriteCompany, spelling};
use fedgate_core::json::{self, JsonObject, JsonValue};

const DIALECT: SqlDialect = SqlDialect::Sqlite;

/// The store on SQLite. Clones share it.
#[derive(Clone)]
pub struct SqliteStore {
    sqlite: SqliteFile,
    turns: StoreTurns,
    actor: Option<Arc<ChangeActor>>,
    outage: Arc<OutageLog>,
    written: Arc<watch::Sender<()>>,
    /// Makes the keys of persons that are written; none for a command, whose persons are queued.
    keys: Option<Arc<dyn KeyMaker>>,
}

impl SqliteStore {
    pub(super) fn new(sqlite: SqliteFile, outage: Arc<OutageLog>) -> Self {
        Self { sqlite, turns: StoreTurns::default(), actor: None, outage, written: Arc::default(), keys: None }
    }

    pub(super) fn sqlite(&self) -> SqliteFile {
        self.sqlite.clone()
    }

    pub(super) fn outage(&self) -> &Arc<OutageLog> {
        &self.outage
    }

    /// Changes after each write of this process, for everybody who follows it.
    pub(super) fn written(&self) -> &Arc<watch::Sender<()>> {
        &self.written
    }

    /// Reports a result.
    pub(super) fn heeded<T>(&self, answer: Result<T, DbError>) -> Result<T, DbError> {
        super::tell(&self.outage, &answer);
        answer
    }

    /// The same store, with other turns.
    pub(super) fn with(&self, turns: StoreTurns) -> Self {
        Self { turns, ..self.clone() }
    }

    /// The same store, whose writes of persons write keys, too.
    pub(super) fn keyed_by(self, keys: Arc<dyn KeyMaker>) -> Self {
        Self { keys: Some(keys), ..self }
    }

    /// What makes keys of persons.
    pub(super) fn keys(&self) -> Option<Arc<dyn KeyMaker>> {
        self.keys.clone()
    }

    /// The same store for an actor.
    pub(super) fn acting_as(self, actor: ChangeActor) -> Self {
        Self { actor: Some(Arc::new(actor)), ..self }
    }

    /// Writes a few rows of about so many bytes in the name of the actor.
    pub(super) async fn write_as_actor<T, F>(&self, bytes: usize, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let actor = self.actor.clone();
        self.write(bytes, move |transaction| ChangeActor::write(actor.as_deref(), transaction, work)).await
    }

    /// The same, for many rows.
    pub(super) async fn write_alone_as_actor<T, F>(&self, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let actor = self.actor.clone();
        self.write_alone(move |transaction| ChangeActor::write(actor.as_deref(), transaction, work)).await
    }

    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let turn = self.turns.read().await?;
        self.sqlite.read_with(turn, work).await
    }

    /// Writes a few rows, found by their keys, of about so many bytes. Others that wait share the commit.
    pub(super) async fn write<T, F>(&self, bytes: usize, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let turn = self.turns.write().await?;
        self.sqlite.write_with(WriteCompany::Shared { lane: self.turns.lane(), bytes }, turn, work).await
    }

    /// Writes many rows, in a transaction of their own.
    pub(super) async fn write_alone<T, F>(&self, work: F) -> Result<T, DbError>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
        T: Send + 'static,
    {
        let turn = self.turns.write().await?;
        self.sqlite.write_with(WriteCompany::Alone { lane: self.turns.lane() }, turn, work).await
    }

    pub(super) async fn record(
        &self,
        key: &RecordKey,
        most: i64,
        reach: &RecordReach,
    ) -> Result<Option<FoundRecord>, DbError> {
        let (key, reach) = (key.clone(), reach.clone());
        let work = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(sql::select_fitting(DIALECT, &key))?;
            let found = |row: &rusqlite::Row<'_>| {
                let text = RecordText::of(key.table(), row.get_ref(0)?.as_str_or_null()?, row.get(1)?);
                Ok(FoundRecord { text, survivor: row.get(3)? })
            };
            statement.query_row(params![key.id(), key.book(), reach.listed(), most], found).optional()
        };
        self.read(work).await
    }

    pub(super) async fn whole_record(&self, key: &RecordKey, reach: &RecordReach) -> Result<Option<String>, DbError> {
        let (key, reach) = (key.clone(), reach.clone());
        let work = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&sql::select_whole(DIALECT, &key))?;
            // Other programs write bytes, and text that is none: whoever reads all records goes on.
            let lossy = |row: &rusqlite::Row<'_>| {
                Ok(match row.get_ref(0)? {
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                    ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
                })
            };
            statement.query_row(params![key.id(), key.book(), reach.listed()], lossy).optional().map(Option::flatten)
        };
        self.read(work).await
    }

    pub(super) async fn create(
        &self,
        key: &RecordKey,
        text: String,
        reach: &RecordReach,
    ) -> Result<CreateResult, DbError> {
        let (key, reach, keys, bytes) = (key.clone(), reach.clone(), self.keys.clone(), text.len());
        let work = move |transaction: &Transaction<'_>| {
            let result = insert(transaction, &key, &text, &reach)?;
            if let (CreateResult::Done, RecordKey::Person(id), Some(maker)) = (&result, &key, keys) {
                keys::key_new(transaction, &*maker, id, &text)?;
            }
            Ok(result)
        };
        self.write_as_actor(bytes, work).await
    }

    pub(super) async fn patch(
        &self,
        key: &RecordKey,
        patch: JsonObject,
        condition: &PatchCondition,
        reach: &RecordReach,
    ) -> Result<Option<ChangeResult>, DbError> {
        let (key, condition, reach) = (key.clone(), condition.clone(), reach.clone());
        let maker = self.keys.clone().filter(|_| key.table() == RecordTable::People);
        let bytes = patch.size();
        let work = move |transaction: &Transaction<'_>| {
            // A person with several ids is written by `patch_merged`.
            if key.table() == RecordTable::People && exists(transaction, sql::PERSON_IS_MERGED, params![key.id()])? {
                return Ok(None);
            }
            // The condition compares the text that the client has seen, without the hash. The merge needs the
            // whole row.
            let Some(seen) = visible(transaction, &key, &reach)? else {
                return Ok(Some(ChangeResult::Missing));
            };
            if !condition.tag.admits(&seen) {
                return Ok(Some(ChangeResult::Stale));
            }
            let stored = text(transaction, &sql::select_whole(DIALECT, &key), &key, &reach)?;
            // Nothing changes of which keys are made.
            let mut is_same = maker.as_ref().is_some_and(|maker| !maker.concerns(&patch));
            let mut object = match stored.map(|stored| json::parse_stored(&stored)) {
                Some(Ok(JsonValue::Object(object))) => object,
                // A row whose document is null starts as a new document.
                Some(Ok(JsonValue::Null)) | None => {
                    is_same = false;
                    JsonObject::default()
                }
                Some(Ok(_) | Err(_)) => return Ok(Some(ChangeResult::NotAnObject)),
            };
            let before = object.size();
            object.merge(patch);
            let size = object.size();
            // A record over the bound may still shrink, or an older one could never be brought below it.
            if condition.most.is_some_and(|most| size > most && size > before) {
                return Ok(Some(ChangeResult::TooLarge));
            }
            let mut statement = transaction.prepare_cached(&sql::update(DIALECT, &key, "$4"))?;
            let text = object.to_text();
            statement.execute(params![key.id(), key.book(), reach.listed(), text])?;
            match is_same {
                true => keys::forget_queued(transaction, key.id())?,
                false => keys::add_keys(transaction, maker.as_ref(), &[(key.id().to_owned(), text)])?,
            }
            Ok(Some(ChangeResult::Done))
        };
        self.write_as_actor(bytes, work).await
    }

    pub(super) async fn count(
        &self,
        owned: OwnedKey,
        person: &str,
        most: i64,
        reach: &RecordReach,
    ) -> Result<i64, DbError> {
        let (person, reach) = (person.to_owned(), reach.clone());
        let work = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&sql::count(DIALECT, owned))?;
            statement.query_row(params![person, most, reach.listed()], |row| row.get(0))
        };
        self.read(work).await
    }

    pub(super) async fn delete(
        &self,
        key: &RecordKey,
        condition: &TagCondition,
        reach: &RecordReach,
    ) -> Result<DeleteResult, DbError> {
        let (key, condition, reach) = (key.clone(), condition.clone(), reach.clone());
        let work = move |transaction: &Transaction<'_>| {
            let Some(seen) = visible(transaction, &key, &reach)? else {
                return Ok(DeleteResult::Missing);
            };
            if !condition.admits(&seen) {
                return Ok(DeleteResult::Stale);
            }
            if key.table() == RecordTable::People {
                // An active person may still log in, so the account must be disabled first.
                if !is_inactive(&seen) {
                    return Ok(DeleteResult::Active);
                }
                if exists(transaction, sql::PERSON_IS_MERGED, params![key.id()])? {
                    return Ok(DeleteResult::Merged);
                }
                if exists(transaction, sql::PERSON_IN_USE, params![key.id()])? {
                    return Ok(DeleteResult::InUse);
                }
            }
            let mut statement = transaction.prepare_cached(&sql::delete(DIALECT, &key))?;
            match statement.execute(params![key.id(), key.book(), reach.listed()]) {
                Err(error) if is_foreign_key_violation(&error) => Ok(DeleteResult::InUse),
                deleted => deleted.map(|_| DeleteResult::Done),
            }
        };
        self.write_as_actor(0, work).await
    }
}

fn text(
    connection: &Connection,
    sql: &str,
    key: &RecordKey,
    reach: &RecordReach,
) -> Result<Option<String>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row(params![key.id(), key.book(), reach.listed()], |row| row.get(0)).optional()
}

/// The visible text of the row.
fn visible(connection: &Connection, key: &RecordKey, reach: &RecordReach) -> Result<Option<String>, rusqlite::Error> {
    let text = text(connection, &sql::select_visible(DIALECT, key), key, reach)?;
    Ok(text.map(|text| seen(key.table(), &text).into_owned()))
}

fn exists(connection: &Connection, sql: &str, parameters: impl rusqlite::Params) -> Result<bool, rusqlite::Error> {
    connection.prepare_cached(&DIALECT.placeholders(sql))?.query_row(parameters, |row| row.get(0))
}

fn person_exists() -> String {
    format!("SELECT EXISTS (SELECT 1 FROM people WHERE {})", DIALECT.names("id", "$1"))
}

fn is_inactive(text: &str) -> bool {
    let Ok(JsonValue::Object(person)) = json::parse_stored(text) else { return false };
    person.member("active") == Some(&JsonValue::Bool(false))
}

fn is_foreign_key_violation(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_FOREIGNKEY)
}

/// Stores a record, unless its id is taken, its person does not exist, or it is out of reach.
fn insert(
    transaction: &Transaction<'_>,
    key: &RecordKey,
    text: &str,
    reach: &RecordReach,
) -> Result<CreateResult, rusqlite::Error> {
    // Checked here, because `INSERT … VALUES` has no condition. The write lock keeps the answer true.
    let within_reach = match key {
        RecordKey::Person(id) => reach.holds(id),
        RecordKey::Page { person, .. } => {
            reach.holds(person) && exists(transaction, &person_exists(), params![person])?
        }
        RecordKey::Unit(..) => true,
    };
    if !within_reach {
        return Ok(CreateResult::NoPerson);
    }
    let table = key.table();
    if let RecordKey::Person(id) = key
        && spelling::has_twin(transaction, id)?
    {
        return Ok(CreateResult::Twin);
    }
    let inserted = match key.book() {
        Some(book) => transaction
            .prepare_cached("INSERT INTO pols (id, book, data) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute(params![key.id(), book, text])?,
        None => transaction
            .prepare_cached(&format!("INSERT INTO {} (id, data) VALUES (?1, ?2) ON CONFLICT DO NOTHING", table.name()))?
            .execute(params![key.id(), text])?,
    };
    if inserted > 0 {
        return Ok(CreateResult::Done);
    }
    let book = if table == RecordTable::Pols { "book" } else { "NULL" };
    let mut statement = transaction.prepare_cached(&format!(
        "SELECT {book}, {} FROM {} WHERE id = ?1",
        DIALECT.whole(),
        table.name()
    ))?;
    let existing = |row: &rusqlite::Row<'_>| Ok(ExistingKey { book: row.get(0)?, text: row.get(1)? });
    statement.query_row([key.id()], existing).map(CreateResult::Taken)
}
