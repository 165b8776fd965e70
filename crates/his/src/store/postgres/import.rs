//! Batches on PostgreSQL: one transaction, with a statement for all of its records.
//!
//! The records travel as arrays in the parameters of a statement. That needs no table to stage them, and so no right to
//! make one. One statement finds those that are stored, which are compared and not written; another stores the others. The
//! few that neither settles (no person, a twin) are stored one by one, in their order.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::super::RecordReach;
use super::super::batch::{self, BatchOutcome, WriteBatch};
use super::super::sql::{RecordTable, STORE_ID};
use super::{DIALECT, KEYS_ARE_SAID, PostgresStore, existing_sql, insert_sql, twin_sql};
use fedgate_base::db::actor::ChangeActor;
use fedgate_base::db::{DbError, SessionTransaction, spelling};
use fedgate_core::json::JsonObject;

/// How much longer than the text of a batch a stored record may be to be the same: it may have a hash that the other
/// lacks.
const SAME_BYTES: i64 = 64 * 1024;

/// One record of a batch.
struct StoredRow<'a> {
    id: &'a str,
    book: Option<&'a str>,
    document: &'a JsonObject,
    text: String,
}

impl<'a> StoredRow<'a> {
    fn person((id, document): &'a (String, JsonObject)) -> Self {
        Self { id, book: None, document, text: document.to_text() }
    }

    fn page((book, id, document): &'a (String, String, JsonObject)) -> Self {
        Self { id, book: Some(book), document, text: document.to_text() }
    }
}

/// The statements that a record by itself may need.
struct ImportStatements {
    insert: Statement,
    existing: Statement,
    /// For persons only.
    twin: Option<Statement>,
}

impl PostgresStore {
    pub(in super::super) async fn id(&self) -> Result<String, DbError> {
        Ok(self.reader().await?.query_one(STORE_ID, &[]).await?.try_get(0)?)
    }

    pub(in super::super) async fn import(&self, batch: WriteBatch) -> Result<Vec<BatchOutcome>, DbError> {
        let (table, records): (RecordTable, Vec<StoredRow<'_>>) = match &batch {
            WriteBatch::People(people) => (RecordTable::People, people.iter().map(StoredRow::person).collect()),
            WriteBatch::Pages(pages) => (RecordTable::Pols, pages.iter().map(StoredRow::page).collect()),
        };
        // A statement for a whole batch is no request's, and the limit is for one request.
        let mut session = self.writer().await?.without_limit();
        let transaction = session.transaction().await?;
        let acts = self.acts();
        let mut outcomes = vec![None; records.len()];
        // A file is new as a whole or stored as a whole, as a rule. Its ends tell which is looked for first.
        let ends: Vec<_> = records.first().into_iter().chain(records.last()).map(|record| (0, record)).collect();
        if !known(&transaction, table, &ends).await?.is_empty() {
            let found = known(&transaction, table, &open(&records, &outcomes)).await?;
            put(&mut outcomes, found);
        }
        let new = first_new(open(&records, &outcomes));
        if table == RecordTable::Pols || new.iter().all(|(_, record)| has_one_spelling(record.id)) {
            let created = create(&transaction, table, &new, acts.as_deref()).await?;
            let is_created = |(_, record): &&(usize, &StoredRow<'_>)| created.contains(record.id);
            put(&mut outcomes, new.iter().filter(is_created).map(|(at, _)| (*at, BatchOutcome::Created)).collect());
        }
        let found = known(&transaction, table, &open(&records, &outcomes)).await?;
        put(&mut outcomes, found);
        let outcomes = rest(&transaction, table, &records, outcomes, acts.as_deref()).await?;
        transaction.commit().await?;
        Ok(outcomes)
    }
}

/// Whether no other id of a batch can be a spelling of this one without being the same.
fn has_one_spelling(id: &str) -> bool {
    id.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase())
}

/// Records with their places in the batch.
type Placed<'a> = [(usize, &'a StoredRow<'a>)];

/// The records without an outcome.
fn open<'a>(records: &'a [StoredRow<'a>], outcomes: &[Option<BatchOutcome>]) -> Vec<(usize, &'a StoredRow<'a>)> {
    let open = records.iter().zip(outcomes).enumerate().filter(|(_, (_, outcome))| outcome.is_none());
    open.map(|(at, (record, _))| (at, record)).collect()
}

/// Of several records with one id the first.
fn first_new<'a>(mut records: Vec<(usize, &'a StoredRow<'a>)>) -> Vec<(usize, &'a StoredRow<'a>)> {
    let mut seen = HashSet::new();
    records.retain(|(_, record)| seen.insert(record.id));
    records
}

fn put(outcomes: &mut [Option<BatchOutcome>], found: Vec<(usize, BatchOutcome)>) {
    for (at, outcome) in found {
        if let Some(place) = outcomes.get_mut(at) {
            *place = Some(outcome);
        }
    }
}

/// What came of those of the records that are stored already.
async fn known(
    transaction: &SessionTransaction<'_>,
    table: RecordTable,
    records: &Placed<'_>,
) -> Result<Vec<(usize, BatchOutcome)>, DbError> {
    if records.is_empty() {
        return Ok(vec![]);
    }
    let ids: Vec<&str> = records.iter().map(|(_, record)| record.id).collect();
    let books: Vec<Option<&str>> = records.iter().map(|(_, record)| record.book).collect();
    let most = records.iter().map(|(_, record)| i64::try_from(record.text.len()).unwrap_or(i64::MAX));
    let most: Vec<i64> = most.map(|bytes| bytes.saturating_mul(2).saturating_add(SAME_BYTES)).collect();
    let statement = transaction.prepare_cached(&known_sql(table)).await?;
    let mut found = vec![];
    for row in transaction.query(&statement, &[&ids, &books, &most]).await? {
        let (number, book, text): (i64, Option<&str>, Option<&str>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let Some((at, record)) = usize::try_from(number - 1).ok().and_then(|place| records.get(place)) else {
            continue;
        };
        found.push((
            *at,
            match text {
                Some(text) if book == record.book => batch::compare(text, record.document),
                Some(_) | None => BatchOutcome::Taken,
            },
        ));
    }
    Ok(found)
}

/// Stores new records, and returns the ids of those that could be.
async fn create(
    transaction: &SessionTransaction<'_>,
    table: RecordTable,
    new: &Placed<'_>,
    acts: Option<&str>,
) -> Result<HashSet<String>, DbError> {
    if new.is_empty() {
        return Ok(HashSet::new());
    }
    let ids: Vec<&str> = new.iter().map(|(_, record)| record.id).collect();
    let texts: Vec<&str> = new.iter().map(|(_, record)| record.text.as_str()).collect();
    let (books, lower_case): (Vec<Option<&str>>, Vec<String>);
    let statement = transaction.prepare_cached(&create_sql(table)).await?;
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&ids, &texts, &acts];
    match table {
        RecordTable::People => {
            lower_case = ids.iter().map(|id| spelling::lower_case(id)).collect();
            parameters.push(&lower_case);
        }
        RecordTable::Pols | RecordTable::Dus | RecordTable::Institutions | RecordTable::PersonalDocs => {
            books = new.iter().map(|(_, record)| record.book).collect();
            parameters.push(&books);
        }
    }
    let created = transaction.query(&statement, &parameters).await?;
    created.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// What came of all records; those without an outcome are stored one by one.
async fn rest(
    transaction: &SessionTransaction<'_>,
    table: RecordTable,
    records: &[StoredRow<'_>],
    outcomes: Vec<Option<BatchOutcome>>,
    acts: Option<&str>,
) -> Result<Vec<BatchOutcome>, DbError> {
    if let Some(outcomes) = outcomes.iter().copied().collect() {
        return Ok(outcomes);
    }
    let statements = ImportStatements {
        insert: transaction.prepare_cached(insert_sql(table)).await?,
        existing: transaction.prepare_cached(&existing_sql(table)).await?,
        twin: match table {
            RecordTable::People => Some(transaction.prepare_cached(&twin_sql()).await?),
            RecordTable::Pols | RecordTable::Dus | RecordTable::Institutions | RecordTable::PersonalDocs => None,
        },
    };
    // They are sent in their order, without waiting for each other's results.
    let each = records.iter().zip(outcomes).map(async |(record, outcome)| match outcome {
        Some(outcome) => Ok(outcome),
        None => store(transaction, &statements, record, acts).await,
    });
    try_join_all(each).await
}

async fn store(
    transaction: &SessionTransaction<'_>,
    statements: &ImportStatements,
    record: &StoredRow<'_>,
    acts: Option<&str>,
) -> Result<BatchOutcome, DbError> {
    let reach = RecordReach::Global;
    let anyone = reach.ids();
    let lower_case = spelling::lower_case(record.id);
    // An import is queued: it lasts, and its persons are compared all at once.
    let handed: Option<String> = None;
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&record.id, &record.text, &anyone, &record.book, &acts];
    if statements.twin.is_some() {
        parameters.extend([&lower_case as &(dyn ToSql + Sync), &handed]);
    }
    if transaction.execute(&statements.insert, &parameters).await? > 0 {
        return Ok(BatchOutcome::Created);
    }
    let Some(row) = transaction.query_opt(&statements.existing, &[&record.id, &record.book]).await? else {
        let Some(twin) = &statements.twin else { return Ok(BatchOutcome::NoPerson) };
        let is_taken: bool = transaction.query_one(twin, &[&record.id, &lower_case]).await?.try_get(0)?;
        return Ok(if is_taken { BatchOutcome::Twin } else { BatchOutcome::Taken });
    };
    let (book, known): (Option<&str>, &str) = (row.try_get(0)?, row.try_get(1)?);
    Ok(if book == record.book { batch::compare(known, record.document) } else { BatchOutcome::Taken })
}

/// The stored rows of ids (`$1`), as the number of the id, the book and the whole text, or null if it is longer than
/// `$3`. As with [`existing_sql`], a page is found only if the person of its book (`$2`) exists.
fn known_sql(table: RecordTable) -> String {
    // A comparison leaves hashes out, so the view without them will do.
    let (name, from, whole) = (table.name(), DIALECT.shown(table), DIALECT.whole());
    let (book, exists) = match table {
        RecordTable::Pols => ("book::text", "EXISTS (SELECT 1 FROM people WHERE people.id = one.book)"),
        RecordTable::People | RecordTable::Dus | RecordTable::Institutions | RecordTable::PersonalDocs => {
            ("one.book", "true")
        }
    };
    format!(
        "SELECT one.number, stored.book, CASE WHEN octet_length(stored.whole) <= one.most THEN stored.whole END \
         FROM unnest($1::varchar[], $2::text[], $3::bigint[]) WITH ORDINALITY AS one (id, book, most, number) \
         JOIN LATERAL (SELECT {book} AS book, {whole} AS whole FROM {from} WHERE {name}.id = one.id OFFSET 0) AS stored \
         ON {exists}"
    )
}

/// Inserts rows of ids (`$1`) and texts (`$2`) whose ids are free, for an actor (`$3`), as [`insert_sql`] does for one row.
/// `$4` has the ids of persons in lower case, or the books of pages.
fn create_sql(table: RecordTable) -> String {
    let acts = ChangeActor::condition(3);
    match table {
        RecordTable::People => format!(
            "INSERT INTO people (id, data) SELECT one.id, one.whole::jsonb \
             FROM unnest($1::varchar[], $2::text[], $4::text[]) AS one (id, whole, lower_case) \
             WHERE NOT EXISTS (SELECT 1 FROM people WHERE {}) AND {acts} AND {} ON CONFLICT DO NOTHING RETURNING id::text",
            spelling::POSTGRES_IS_TWIN.replace("$1", "one.id").replace("$5", "one.lower_case"),
            KEYS_ARE_SAID.replace("$7", "NULL"),
        ),
        RecordTable::Pols => format!(
            "INSERT INTO pols (id, book, data) SELECT one.id, one.book, one.whole::jsonb \
             FROM unnest($1::varchar[], $2::text[], $4::varchar[]) AS one (id, whole, book) \
             WHERE EXISTS (SELECT 1 FROM people WHERE {}) AND {acts} ON CONFLICT DO NOTHING RETURNING id::text",
            DIALECT.names("people.id", "one.book"),
        ),
        RecordTable::Dus | RecordTable::Institutions | RecordTable::PersonalDocs => format!(
            "INSERT INTO {} (id, data) SELECT one.id, one.whole::jsonb \
             FROM unnest($1::varchar[], $2::text[], $4::text[]) AS one (id, whole, nothing) \
             WHERE {acts} ON CONFLICT DO NOTHING RETURNING id::text",
            table.name()
        ),
    }
}
