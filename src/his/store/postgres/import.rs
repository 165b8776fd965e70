//! Batches: one transaction, its statements sent one behind the other without waiting between them.

use deadpool_postgres::Transaction;
use futures_util::future::try_join_all;

use super::super::batch::{self, Batch, BatchOutcome};
use super::super::sql::Table;
use super::{Postgres, existing, insert};
use crate::db::DbError;
use crate::his::json::Object;

/// One record of a batch.
struct Record<'a> {
    table: Table,
    id: &'a str,
    book: Option<&'a str>,
    document: &'a Object,
}

impl Postgres {
    pub(in super::super) async fn import(&self, batch: Batch) -> Result<Vec<BatchOutcome>, DbError> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        let records: Vec<Record<'_>> = match &batch {
            Batch::People(people) => {
                people.iter().map(|(id, document)| Record { table: Table::People, id, book: None, document }).collect()
            }
            Batch::Pages(pages) => pages
                .iter()
                .map(|(book, id, document)| Record { table: Table::Pols, id, book: Some(book), document })
                .collect(),
        };
        let outcomes = try_join_all(records.iter().map(|record| store(&transaction, record))).await?;
        transaction.commit().await?;
        Ok(outcomes)
    }
}

async fn store(transaction: &Transaction<'_>, record: &Record<'_>) -> Result<BatchOutcome, DbError> {
    let statement = transaction.prepare_cached(insert(record.table)).await?;
    let text = record.document.to_text();
    let anyone = None::<&str>;
    if transaction.execute(&statement, &[&record.id, &text, &anyone, &record.book]).await? > 0 {
        return Ok(BatchOutcome::Created);
    }
    let statement = transaction.prepare_cached(&existing(record.table)).await?;
    let Some(row) = transaction.query_opt(&statement, &[&record.id, &record.book]).await? else {
        return Ok(BatchOutcome::NoPerson);
    };
    let (book, known): (Option<&str>, &str) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match book == record.book {
        true => batch::compare(known, record.document),
        false => BatchOutcome::Taken,
    })
}
