//! Pages of persons with several ids, whose books may be in several partitions.
//!
//! The one rule: a statement names one book, so that PostgreSQL reads one partition and prepares for no other. Only if the
//! page is not in the book that was asked for, the book that has it is looked up, and the statement is run for that one.

use super::super::{ChangeResult, DeleteResult, FoundRecord, PatchCondition, RecordKey, RecordReach};
use super::PostgresStore;
use crate::etag::TagCondition;
use fedgate_base::db::DbError;
use fedgate_core::json::JsonObject;

/// The book of a page (`$1`) for a person with several ids (`$2`), and the id that stands for the person, if another.
const HOLDER: &str = "
    SELECT fedgate_page_book($1::varchar, same.id), nullif(same.person, same.id)
    FROM fedgate_same_persons AS same WHERE same.id = $2";

/// Where a page is, if not in the book that was asked for.
struct PageHolder {
    key: RecordKey,
    survivor: Option<String>,
}

impl PostgresStore {
    pub(in super::super) async fn record(
        &self,
        key: &RecordKey,
        most: i64,
        reach: &RecordReach,
    ) -> Result<Option<FoundRecord>, DbError> {
        if let Some(found) = self.record_at(key, most, reach).await? {
            return Ok(Some(found));
        }
        let Some(PageHolder { key, survivor }) = self.holder(key).await? else { return Ok(None) };
        let found = self.record_at(&key, most, reach).await?;
        Ok(found.map(|found| FoundRecord { survivor, ..found }))
    }

    pub(in super::super) async fn whole_record(
        &self,
        key: &RecordKey,
        reach: &RecordReach,
    ) -> Result<Option<String>, DbError> {
        if let Some(found) = self.whole_record_at(key, reach).await? {
            return Ok(Some(found));
        }
        match self.holder(key).await? {
            Some(holder) => self.whole_record_at(&holder.key, reach).await,
            None => Ok(None),
        }
    }

    pub(in super::super) async fn patch(
        &self,
        key: &RecordKey,
        patch: JsonObject,
        condition: &PatchCondition,
        reach: &RecordReach,
    ) -> Result<Option<ChangeResult>, DbError> {
        match self.patch_at(key, &patch, condition, reach).await? {
            Some(ChangeResult::Missing) => match self.holder(key).await? {
                Some(holder) => self.patch_at(&holder.key, &patch, condition, reach).await,
                None => Ok(Some(ChangeResult::Missing)),
            },
            done => Ok(done),
        }
    }

    pub(in super::super) async fn delete(
        &self,
        key: &RecordKey,
        condition: &TagCondition,
        reach: &RecordReach,
    ) -> Result<DeleteResult, DbError> {
        match self.delete_at(key, condition, reach).await? {
            DeleteResult::Missing => match self.holder(key).await? {
                Some(holder) => self.delete_at(&holder.key, condition, reach).await,
                None => Ok(DeleteResult::Missing),
            },
            done => Ok(done),
        }
    }

    /// Where a page is; none for other records, and for a person with one id.
    async fn holder(&self, key: &RecordKey) -> Result<Option<PageHolder>, DbError> {
        let RecordKey::Page { person, page } = key else { return Ok(None) };
        let session = self.reader().await?;
        let statement = session.prepare_cached(HOLDER).await?;
        let Some(row) = session.query_opt(&statement, &[page, person]).await? else { return Ok(None) };
        let (book, survivor): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        Ok(book.map(|person| PageHolder { key: RecordKey::Page { person, page: page.clone() }, survivor }))
    }
}
