//! Batches: one transaction.

use rusqlite::Transaction;

use super::super::batch::{self, Batch, BatchOutcome};
use super::super::sql::STORE_ID;
use super::super::{Created, Key, Reach};
use super::{SqliteStore, insert};
use fedgate_base::db::DbError;
use fedgate_base::db::actor::ChangeActor;
use fedgate_core::json::Object;

impl SqliteStore {
    pub(in super::super) async fn id(&self) -> Result<String, DbError> {
        self.read(|connection| connection.query_row(STORE_ID, [], |row| row.get(0))).await
    }

    pub(in super::super) async fn import(&self, batch: Batch) -> Result<Vec<BatchOutcome>, DbError> {
        let records: Vec<(Key, Object)> = match batch {
            Batch::People(people) => people.into_iter().map(|(id, document)| (Key::Person(id), document)).collect(),
            Batch::Pages(pages) => {
                pages.into_iter().map(|(person, page, document)| (Key::Page { person, page }, document)).collect()
            }
        };
        let work = move |transaction: &Transaction<'_>| {
            records.iter().map(|(key, document)| store(transaction, key, document)).collect()
        };
        let actor = self.actor.clone();
        self.write(move |transaction| ChangeActor::write(actor.as_deref(), transaction, work)).await
    }
}

fn store(transaction: &Transaction<'_>, key: &Key, document: &Object) -> Result<BatchOutcome, rusqlite::Error> {
    Ok(match insert(transaction, key, &document.to_text(), &Reach::Global)? {
        Created::Done => BatchOutcome::Created,
        Created::Twin => BatchOutcome::Twin,
        Created::NoPerson => BatchOutcome::NoPerson,
        Created::Taken(existing) if existing.book.as_deref() == key.book() => batch::compare(&existing.text, document),
        Created::Taken(_) => BatchOutcome::Taken,
    })
}
