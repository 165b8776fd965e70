//! Changes of persons on PostgreSQL, and their records without hashes.
//!
//! The one rule: no statement here reads or writes `people` itself. A hash is read and written by functions of the database
//! alone (`db/schema/postgres_people.sql`), so the role of the HIS needs no right to read the documents.

use tokio_postgres::types::ToSql;

use super::super::visible::seen;
use super::super::{ChangeResult, PatchCondition, RecordKey, RecordReach};
use super::{DIALECT, PostgresStore, is_merged, lock_sql};
use crate::store::sql;
use fedgate_base::db::DbError;
use fedgate_core::json::JsonObject;

const PATCH: &str = "SELECT fedgate_patch_person($1, $2, $3, $4, $5, $6)";

impl PostgresStore {
    /// Changes a person. None for one who has several ids, or got or lost one meanwhile.
    pub(super) async fn patch_person(
        &self,
        key: &RecordKey,
        patch: &JsonObject,
        condition: &PatchCondition,
        reach: &RecordReach,
    ) -> Result<Option<ChangeResult>, DbError> {
        let (said, acts) = (self.said(key, patch), self.acts());
        let (id, own, patch) = (key.id(), reach.ids(), patch.to_text());
        let most = condition.most.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
        let parameters: [&(dyn ToSql + Sync); 6] = [&id, &own, &patch, &most, &acts, &said];
        // Keys are made of the changed record, so a change that concerns them takes several statements.
        let has_keys = self.has_keys() && said.is_none();
        let mut session = self.writer().await?;
        // Without `If-Match` one statement decides, and no lock is held between two round trips.
        if !condition.tag.is_conditional() && !has_keys {
            let statement = session.prepare_cached(PATCH).await?;
            return match session.query_one(&statement, &parameters).await {
                // A merge came between the check and the write.
                Err(error) if error.is_merged_meanwhile() => Ok(None),
                row => Ok(outcome(row?.try_get(0)?)),
            };
        }
        let transaction = session.transaction().await?;
        // The row lock keeps another change from coming between the comparison and the merge.
        let locked = transaction.prepare_cached(&lock_sql(key)).await?;
        let Some(row) = transaction.query_opt(&locked, &[&id, &key.book(), &own]).await? else {
            return Ok(Some(ChangeResult::Missing));
        };
        if is_merged(&transaction, key).await? {
            return Ok(None);
        }
        if condition.tag.is_conditional() && !condition.tag.admits(&seen(key.table(), row.try_get(0)?)) {
            return Ok(Some(ChangeResult::Stale));
        }
        let statement = transaction.prepare_cached(PATCH).await?;
        let result = outcome(transaction.query_one(&statement, &parameters).await?.try_get(0)?);
        if let Some(ChangeResult::Done) = result {
            if has_keys {
                self.add_keys_of(&transaction, key).await?;
            }
            transaction.commit().await?;
        }
        Ok(result)
    }

    /// The visible text of a record, however long it is.
    pub(in super::super) async fn shown_record(
        &self,
        key: &RecordKey,
        reach: &RecordReach,
    ) -> Result<Option<String>, DbError> {
        self.text(&sql::select_visible(DIALECT, key), key, reach).await
    }
}

/// What came of a change, in the words of the function; none for a person with several ids.
fn outcome(word: &str) -> Option<ChangeResult> {
    Some(match word {
        "done" => ChangeResult::Done,
        "missing" => ChangeResult::Missing,
        "too_large" => ChangeResult::TooLarge,
        "no_object" => ChangeResult::NotAnObject,
        _ => return None,
    })
}
