//! Batches on PostgreSQL: one transaction, whose statements are sent without waiting for each other's results.

use futures_util::future::try_join_all;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::super::RecordReach;
use super::super::batch::{self, BatchOutcome, WriteBatch};
use super::super::sql::{RecordTable, STORE_ID};
use super::{PostgresStore, existing_sql, insert_sql, twin_sql};
use fedgate_base::db::{DbError, SessionTransaction, spelling};
use fedgate_core::json::JsonObject;

/// One record of a batch.
struct StoredRow<'a> {
    id: &'a str,
    book: Option<&'a str>,
    document: &'a JsonObject,
}

impl<'a> StoredRow<'a> {
    fn person((id, document): &'a (String, JsonObject)) -> Self {
        Self { id, book: None, document }
    }

    fn page((book, id, document): &'a (String, String, JsonObject)) -> Self {
        Self { id, book: Some(book), document }
    }
}

/// The statements that a record may need.
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
        // Pipelined statements wait for each other, so the limit of one statement would hit the last ones of a
        // batch.
        let mut session = self.writer().await?.without_limit();
        let transaction = session.transaction().await?;
        let statements = ImportStatements {
            insert: transaction.prepare_cached(insert_sql(table)).await?,
            existing: transaction.prepare_cached(&existing_sql(table)).await?,
            twin: match table {
                RecordTable::People => Some(transaction.prepare_cached(&twin_sql()).await?),
                RecordTable::Pols | RecordTable::Dus | RecordTable::Institutions | RecordTable::PersonalDocs => None,
            },
        };
        let acts = self.acts();
        let outcomes = records.iter().map(|record| store(&transaction, &statements, record, acts.as_deref()));
        let outcomes = try_join_all(outcomes).await?;
        transaction.commit().await?;
        Ok(outcomes)
    }
}

async fn store(
    transaction: &SessionTransaction<'_>,
    statements: &ImportStatements,
    record: &StoredRow<'_>,
    acts: Option<&str>,
) -> Result<BatchOutcome, DbError> {
    let text = record.document.to_text();
    let reach = RecordReach::Global;
    let anyone = reach.ids();
    let lower_case = spelling::lower_case(record.id);
    // An import is queued: it lasts, and its persons are compared all at once.
    let handed: Option<String> = None;
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&record.id, &text, &anyone, &record.book, &acts];
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
