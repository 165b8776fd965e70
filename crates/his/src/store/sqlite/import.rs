//! Batches on SQLite: one transaction each.

use rusqlite::Transaction;

use super::super::batch::{self, BatchOutcome, WriteBatch};
use super::super::sql::STORE_ID;
use super::super::{CreateResult, RecordKey, RecordReach};
use super::{SqliteStore, insert};
use fedgate_base::db::DbError;
use fedgate_core::json::JsonObject;

impl SqliteStore {
    pub(in super::super) async fn id(&self) -> Result<String, DbError> {
        self.read(|connection| connection.query_row(STORE_ID, [], |row| row.get(0))).await
    }

    pub(in super::super) async fn import(&self, batch: WriteBatch) -> Result<Vec<BatchOutcome>, DbError> {
        let records: Vec<(RecordKey, JsonObject)> = match batch {
            WriteBatch::People(people) => {
                people.into_iter().map(|(id, document)| (RecordKey::Person(id), document)).collect()
            }
            WriteBatch::Pages(pages) => {
                pages.into_iter().map(|(person, page, document)| (RecordKey::Page { person, page }, document)).collect()
            }
        };
        let work = move |transaction: &Transaction<'_>| {
            records.iter().map(|(key, document)| store(transaction, key, document)).collect()
        };
        self.write_alone_as_actor(work).await
    }
}

fn store(
    transaction: &Transaction<'_>,
    key: &RecordKey,
    document: &JsonObject,
) -> Result<BatchOutcome, rusqlite::Error> {
    Ok(match insert(transaction, key, &document.to_text(), &RecordReach::Global)? {
        CreateResult::Done => BatchOutcome::Created,
        CreateResult::Twin => BatchOutcome::Twin,
        CreateResult::NoPerson => BatchOutcome::NoPerson,
        CreateResult::Taken(existing) if existing.book.as_deref() == key.book() => {
            batch::compare(&existing.text, document)
        }
        CreateResult::Taken(_) => BatchOutcome::Taken,
    })
}
