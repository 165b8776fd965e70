//! The store on PostgreSQL.
//!
//! Documents stay in jsonb and leave as its text. The database merges changes; without `If-Match` one statement does
//! all of it. An operation that must check a row before it writes (`If-Match`, a deletion) locks that row first.

mod cursors;
mod documents;
mod holder;
mod import;
mod keys;
mod list;
mod messages;
mod page_group;
mod persons;
mod replicas;
mod sent;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use tokio::sync::watch;
use tokio_postgres::types::ToSql;

pub(super) use self::page_group::PLACES;
use self::page_group::PageGroup;
use super::shares::{StoreTurn, StoreTurns};
use super::sql::{self, RecordTable, SqlDialect};
use super::visible::seen;
use super::{
    ChangeResult, CreateResult, DeleteResult, ExistingKey, FoundRecord, KeyMaker, OwnedKey, PatchCondition, RecordKey,
    RecordReach, RecordText,
};
use crate::etag::TagCondition;
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::outage::OutageLog;
use fedgate_base::db::replicas::Replicas;
use fedgate_base::db::route::ServerRoute;
use fedgate_base::db::{DbError, PooledSession, SessionPool, SessionTransaction, ShortRead, spelling};
use fedgate_core::json::JsonObject;

const DIALECT: SqlDialect = SqlDialect::Postgres;
/// A record of up to so many bytes is read on a session that is shared with other reads.
const SHORT_BYTES: i64 = 64 * 1024;

/// The store on PostgreSQL. Clones share its pool.
#[derive(Clone)]
pub struct PostgresStore {
    pool: SessionPool,
    turns: StoreTurns,
    actor: Option<Arc<ChangeActor>>,
    outage: Arc<OutageLog>,
    written: Arc<watch::Sender<()>>,
    pages: Arc<PageGroup>,
    /// Makes the keys of persons that are written; none for a command, whose persons are queued.
    keys: Option<Arc<dyn KeyMaker>>,
    replicas: Option<Arc<Replicas>>,
    /// Whether replicas may answer this caller's reads of records and lists.
    reads_replicas: bool,
}

impl PostgresStore {
    pub(super) fn new(pool: SessionPool, outage: Arc<OutageLog>) -> Self {
        Self {
            pool,
            turns: StoreTurns::default(),
            actor: None,
            outage,
            written: Arc::default(),
            pages: Arc::default(),
            keys: None,
            replicas: None,
            reads_replicas: false,
        }
    }

    /// The number of connections.
    pub(super) fn connections(&self) -> usize {
        self.pool.most()
    }

    pub(super) fn pool(&self) -> SessionPool {
        self.pool.clone()
    }

    /// The route to the server.
    pub(super) fn route(&self) -> &ServerRoute {
        self.pool.route()
    }

    pub(super) fn outage(&self) -> &Arc<OutageLog> {
        &self.outage
    }

    /// Changes after each write of this process, for everybody who follows it.
    pub(super) fn written(&self) -> &Arc<watch::Sender<()>> {
        &self.written
    }

    /// Reports a result. A server that refuses writes may no longer be the primary, so the watch checks it at once.
    pub(super) fn heeded<T>(&self, answer: Result<T, DbError>) -> Result<T, DbError> {
        super::tell(&self.outage, &answer);
        if answer.as_ref().is_err_and(DbError::is_read_only) {
            self.route().doubt();
        }
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

    /// The same store for an actor.
    pub(super) fn acting_as(self, actor: ChangeActor) -> Self {
        Self { actor: Some(Arc::new(actor)), ..self }
    }

    /// The actor in the form that the database records; `None` for a session outside these programs.
    pub(super) fn acts(&self) -> Option<String> {
        self.actor.as_deref().map(ChangeActor::setting)
    }

    /// A session to read.
    pub(super) async fn reader(&self) -> Result<PooledSession, DbError> {
        self.pool.get_with(self.turns.read().await?).await
    }

    /// A session to write.
    pub(super) async fn writer(&self) -> Result<PooledSession, DbError> {
        self.pool.get_with(self.turns.write().await?).await
    }

    async fn record_at(&self, key: &RecordKey, most: i64, reach: &RecordReach) -> Result<Option<FoundRecord>, DbError> {
        if let Some((replica, turn)) = self.fresh_replica().await {
            let read = record_from(replica.pool(), turn, key, most, reach).await;
            if let Some(found) = replica.heeded(read) {
                return Ok(found);
            }
        }
        record_from(&self.pool, self.turns.read().await?, key, most, reach).await
    }

    async fn whole_record_at(&self, key: &RecordKey, reach: &RecordReach) -> Result<Option<String>, DbError> {
        self.text(&sql::select_whole(DIALECT, key), key, reach).await
    }

    async fn text(&self, sql: &str, key: &RecordKey, reach: &RecordReach) -> Result<Option<String>, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(sql).await?;
        let row = session.query_opt(&statement, &[&key.id(), &key.book(), &reach.ids()]).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn create_alone(&self, key: &RecordKey, text: &str, reach: &RecordReach) -> Result<CreateResult, DbError> {
        let session = self.writer().await?;
        let (id, book, own) = (key.id(), key.book(), reach.ids());
        let (lower_case, acts) = (spelling::lower_case(id), self.acts());
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&id, &text, &own, &book, &acts];
        let handed = self.handed(key, text);
        if key.table() == RecordTable::People {
            parameters.extend([&lower_case as &(dyn ToSql + Sync), &handed]);
        }
        // One statement checks and writes, so no other request can come between.
        let statement = session.prepare_cached(insert_sql(key.table())).await?;
        let inserted = match session.execute(&statement, &parameters).await {
            // The person was deleted between the check and the write.
            Err(error) if error.is_foreign_key_violation() => return Ok(CreateResult::NoPerson),
            inserted => inserted?,
        };
        if inserted > 0 {
            return Ok(CreateResult::Done);
        }
        let statement = session.prepare_cached(&existing_sql(key.table())).await?;
        match session.query_opt(&statement, &[&id, &book]).await? {
            Some(row) => return Ok(CreateResult::Taken(ExistingKey { book: row.try_get(0)?, text: row.try_get(1)? })),
            None if key.table() != RecordTable::People => return Ok(CreateResult::NoPerson),
            None => {}
        }
        let statement = session.prepare_cached(&twin_sql()).await?;
        let is_taken: bool = session.query_one(&statement, &[&id, &lower_case]).await?.try_get(0)?;
        Ok(if is_taken { CreateResult::Twin } else { CreateResult::NoPerson })
    }

    async fn patch_at(
        &self,
        key: &RecordKey,
        patch: &JsonObject,
        condition: &PatchCondition,
        reach: &RecordReach,
    ) -> Result<Option<ChangeResult>, DbError> {
        if let RecordKey::Person(_) = key {
            return self.patch_person(key, patch, condition, reach).await;
        }
        let patch = patch.to_text();
        let most = condition.most.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
        let (id, book, own, acts) = (key.id(), key.book(), reach.ids(), self.acts());
        let parameters: [&(dyn ToSql + Sync); 6] = [&id, &book, &own, &patch, &most, &acts];
        let of_row: [&(dyn ToSql + Sync); 3] = [&id, &book, &own];
        let sql = ChangeActor::told_by(&merge_sql(key), parameters.len());
        let mut session = self.writer().await?;
        // Without `If-Match` one statement decides, and no lock is held between two round trips.
        if !condition.tag.is_conditional() {
            let statement = session.prepare_cached(&sql).await?;
            if session.execute(&statement, &parameters).await? > 0 {
                return Ok(Some(ChangeResult::Done));
            }
            let statement = session.prepare_cached(&kind_sql(key)).await?;
            let row = session.query_opt(&statement, &of_row).await?;
            return unchanged(row.as_ref());
        }
        let transaction = session.transaction().await?;
        // The row lock keeps another change from coming between the comparison and the merge.
        let locked = transaction.prepare_cached(&lock_sql(key)).await?;
        let Some(row) = transaction.query_opt(&locked, &of_row).await? else {
            return Ok(Some(ChangeResult::Missing));
        };
        if !condition.tag.admits(&seen(key.table(), row.try_get(0)?)) {
            return Ok(Some(ChangeResult::Stale));
        }
        let statement = transaction.prepare_cached(&sql).await?;
        // The row exists and is locked, so only its size or kind can prevent the change.
        if transaction.execute(&statement, &parameters).await? == 0 {
            let statement = transaction.prepare_cached(&kind_sql(key)).await?;
            let row = transaction.query_opt(&statement, &of_row).await?;
            return unchanged(row.as_ref());
        }
        transaction.commit().await?;
        Ok(Some(ChangeResult::Done))
    }

    pub(super) async fn count(
        &self,
        owned: OwnedKey,
        person: &str,
        most: i64,
        reach: &RecordReach,
    ) -> Result<i64, DbError> {
        let session = self.reader().await?;
        let statement = session.prepare_cached(&sql::count(DIALECT, owned)).await?;
        Ok(session.query_one(&statement, &[&person, &most, &reach.ids()]).await?.try_get(0)?)
    }

    async fn delete_at(
        &self,
        key: &RecordKey,
        condition: &TagCondition,
        reach: &RecordReach,
    ) -> Result<DeleteResult, DbError> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&key.id(), &key.book(), &reach.ids()];
        let mut session = self.writer().await?;
        let transaction = session.transaction().await?;
        let locked = transaction.prepare_cached(&lock_sql(key)).await?;
        let Some(row) = transaction.query_opt(&locked, &parameters).await? else {
            return Ok(DeleteResult::Missing);
        };
        if !condition.admits(&seen(key.table(), row.try_get(0)?)) {
            return Ok(DeleteResult::Stale);
        }
        // Only an inactive person can be deleted. The lock also keeps the account from being activated meanwhile.
        if key.table() == RecordTable::People {
            if !row.try_get::<_, bool>(1)? {
                return Ok(DeleteResult::Active);
            }
            if is_merged(&transaction, key).await? {
                return Ok(DeleteResult::Merged);
            }
            let in_use = transaction.prepare_cached(sql::PERSON_IN_USE).await?;
            if transaction.query_one(&in_use, &[&key.id()]).await?.try_get(0)? {
                return Ok(DeleteResult::InUse);
            }
        }
        let acts = self.acts();
        let mut parameters = parameters.to_vec();
        parameters.push(&acts);
        let sql = ChangeActor::told_by(&sql::delete(DIALECT, key), parameters.len());
        let statement = transaction.prepare_cached(&sql).await?;
        match transaction.execute(&statement, &parameters).await {
            // A page or document was added after the check; the foreign key decides.
            Err(error) if error.is_foreign_key_violation() => return Ok(DeleteResult::InUse),
            deleted => deleted?,
        };
        transaction.commit().await?;
        Ok(DeleteResult::Done)
    }
}

/// A record on one server.
async fn record_from(
    pool: &SessionPool,
    turn: StoreTurn,
    key: &RecordKey,
    most: i64,
    reach: &RecordReach,
) -> Result<Option<FoundRecord>, DbError> {
    let (sql, id, book, own) = (sql::select_fitting(DIALECT, key), key.id(), key.book(), reach.ids());
    let parameters: [&(dyn ToSql + Sync); 4] = [&id, &book, &own, &most];
    let row = match most <= SHORT_BYTES {
        true => pool.read_one(ShortRead { table: key.table().name(), sql, of: &parameters }, turn).await?,
        // Boxed: it is rare, and every request would carry its room.
        false => {
            let long = async {
                let session = pool.get_with(turn).await?;
                session.query_opt(&session.prepare_cached(sql).await?, &parameters).await
            };
            Box::pin(long).await?
        }
    };
    let Some(row) = row else { return Ok(None) };
    let text = RecordText::of(key.table(), row.try_get(0)?, row.try_get(1)?);
    Ok(Some(FoundRecord { text, survivor: row.try_get(3)? }))
}

/// Whether a person is part of a merge. The row is locked, and a merge would lock it too, so the answer stays true.
async fn is_merged(transaction: &SessionTransaction<'_>, key: &RecordKey) -> Result<bool, DbError> {
    let statement = transaction.prepare_cached(sql::PERSON_IS_MERGED).await?;
    Ok(transaction.query_one(&statement, &[&key.id()]).await?.try_get(0)?)
}

/// A row with a change (`$4`) merged into it.
const MERGED: &str = "(CASE WHEN jsonb_typeof(data) = 'object' THEN data ELSE '{}' END) || $4::text::jsonb";
/// Tells the triggers of people what is known of keys (`$7`), as the actor is told.
const KEYS_ARE_SAID: &str = "(SELECT set_config('fedgate.person_keys', coalesce($7::text, ''), true)) IS NOT NULL";
/// Whether a row with the change is no larger than `$5` (or null), or no larger than before.
fn fits() -> String {
    let size = format!("octet_length(({MERGED})::text)");
    format!("($5::bigint IS NULL OR {size} <= $5 OR {size} <= octet_length(data::text))")
}

/// Merges `$4` into the row of a page or unit if it [fits]. Other parameters are as in [`RecordKey::condition`]. It is one
/// statement, so that two concurrent changes cannot pass the bound together. Lists are left out because `||` would append
/// the change to them.
fn merge_sql(key: &RecordKey) -> String {
    let takes = "coalesce(jsonb_typeof(data), 'null') IN ('object', 'null')";
    format!("{} AND {takes} AND {}", sql::update(DIALECT, key, MERGED), fits())
}

/// A query for the kind of value in the row. Parameters are as in [`RecordKey::condition`].
fn kind_sql(key: &RecordKey) -> String {
    let (table, condition) = (key.table().name(), key.condition(DIALECT));
    format!("SELECT coalesce(jsonb_typeof(data), 'null') FROM {table} WHERE {condition}")
}

/// Why a row was not changed, given the result of [`kind_sql`].
fn unchanged(row: Option<&tokio_postgres::Row>) -> Result<Option<ChangeResult>, DbError> {
    let Some(row) = row else { return Ok(Some(ChangeResult::Missing)) };
    Ok(Some(match row.try_get(0)? {
        "object" | "null" => ChangeResult::TooLarge,
        _ => ChangeResult::NotAnObject,
    }))
}

/// A query whether a person exists whose id differs from `$1` only in case. `$2` is the same id in lower case.
fn twin_sql() -> String {
    format!("SELECT EXISTS (SELECT 1 FROM people WHERE {})", spelling::POSTGRES_IS_TWIN.replace("$5", "$2"))
}

/// Inserts unless the id is taken: `$1` id, `$2` text, `$3` the list of persons within reach (or null), `$4` book, `$5` the
/// actor. For a person, `$6` is the id in lower case, and `$7` its keys.
fn insert_sql(table: RecordTable) -> &'static str {
    static WRITTEN: LazyLock<HashMap<RecordTable, String>> =
        LazyLock::new(|| RecordTable::ALL.into_iter().map(|table| (table, written_insert(table))).collect());
    WRITTEN.get(&table).map_or("", String::as_str)
}

fn written_insert(table: RecordTable) -> String {
    let acts = ChangeActor::condition(5);
    match table {
        RecordTable::People => format!(
            "INSERT INTO people (id, data) SELECT $1::varchar, $2::text::jsonb \
             WHERE {} AND $4::text IS NULL \
             AND NOT EXISTS (SELECT 1 FROM people WHERE {}) AND {acts} AND {KEYS_ARE_SAID} ON CONFLICT DO NOTHING",
            DIALECT.reaches("$1", "$3"),
            spelling::POSTGRES_IS_TWIN.replace("$5", "$6")
        ),
        RecordTable::Pols => format!(
            "INSERT INTO pols (id, book, data) SELECT $1::varchar, $4::varchar, $2::text::jsonb \
             WHERE {} AND EXISTS (SELECT 1 FROM people WHERE {}) AND {acts} ON CONFLICT DO NOTHING",
            DIALECT.reaches("$4", "$3"),
            DIALECT.names("id", "$4")
        ),
        RecordTable::Dus | RecordTable::Institutions | RecordTable::PersonalDocs => format!(
            "INSERT INTO {} (id, data) SELECT $1::varchar, $2::text::jsonb \
             WHERE ($3::text[] IS NULL OR true) AND $4::text IS NULL AND {acts} ON CONFLICT DO NOTHING",
            table.name()
        ),
    }
}

/// The row that has an id (`$1`), as its book and whole text. For a page, only if the person (`$2`) exists.
fn existing_sql(table: RecordTable) -> String {
    let (whole, from) = (DIALECT.whole(), DIALECT.with_hash(table));
    match table {
        RecordTable::Pols => format!(
            "SELECT book, {whole} FROM pols WHERE id = $1 AND EXISTS (SELECT 1 FROM people WHERE people.id = $2)"
        ),
        RecordTable::People | RecordTable::Dus | RecordTable::Institutions | RecordTable::PersonalDocs => {
            format!("SELECT CAST($2 AS text), {whole} FROM {from} WHERE id = $1")
        }
    }
}

/// The visible row, and whether it is inactive, locked until the transaction ends.
fn lock_sql(key: &RecordKey) -> String {
    let (table, condition) = (key.table(), key.condition(DIALECT));
    let (visible, from) = (DIALECT.visible(table), DIALECT.shown(table));
    format!("SELECT {visible}, coalesce(data -> 'active' = 'false', false) FROM {from} WHERE {condition} FOR UPDATE")
}
