//! The ids of one person, and writes to an id that has become old.
//!
//! The one rule: whatever is written to an id reaches each record that it would have reached without any merge that
//! came later ([`merged_record`](super::merged_record)). So all of them are right when merges end, in whatever order.

use std::collections::BTreeSet;

use super::decision::{SqlDecision, WriteMode};
use super::live_merges::{LIVE, LOCKED, live_merge, put, texts};
use super::merged_record::{self as records, LiveMerge};
use super::rows::{SqlRow, SqlStatement, SqlValue};
use super::sql::RecordTable;
use super::visible::seen;
use super::{ChangeResult, PatchCondition, RecordReach, RecordStore};
use fedgate_base::db::DbError;
use fedgate_core::json::JsonObject;

/// The live merges among the ids of the person `$1`, each with its kept record.
const KEPT: &str = "SELECT id, old, survivor, {kept} FROM fedgate_merges WHERE undone_at IS NULL AND old IN \
     (SELECT other.id FROM fedgate_same_persons AS same JOIN fedgate_same_persons AS other \
     ON other.person = same.person WHERE same.id = $1)";

/// The ids of one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamePerson {
    /// The id that stays.
    pub survivor: String,
    /// All ids, the survivor's first.
    pub ids: Vec<String>,
}

impl SamePerson {
    /// Whether an id is one of an old record.
    pub fn is_old(&self, id: &str) -> bool {
        self.survivor != id
    }
}

impl RecordStore {
    /// The ids of the person who has an id; that id alone if it was never merged, or is beyond reach.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn members(&self, id: &str, reach: &RecordReach) -> Result<SamePerson, DbError> {
        const SQL: &str = "SELECT other.id, other.person FROM fedgate_same_persons AS same \
             JOIN fedgate_same_persons AS other ON other.person = same.person WHERE same.id = $1 ORDER BY other.id";
        let rows = match reach.holds(id) {
            true => self.read_rows(SqlStatement::of(SQL, vec![id.into()])).await?,
            false => vec![],
        };
        let survivor = rows.first().map_or_else(|| id.to_owned(), |row| row.text(1));
        let others = rows.iter().map(|row| row.text(0)).filter(|other| *other != survivor);
        Ok(SamePerson { ids: [survivor.clone()].into_iter().chain(others).collect(), survivor })
    }

    /// The id that stands for a person whose id has become old; none if the id has not.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn survivor_of(&self, id: &str, reach: &RecordReach) -> Result<Option<String>, DbError> {
        Ok(Some(self.members(id, reach).await?).filter(|person| person.is_old(id)).map(|person| person.survivor))
    }

    /// The old ids that a surviving id replaces; none if it is no surviving id.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn replaced(&self, id: &str, reach: &RecordReach) -> Result<Vec<String>, DbError> {
        let person = self.members(id, reach).await?;
        Ok(if person.is_old(id) { vec![] } else { person.ids.into_iter().skip(1).collect() })
    }

    /// Merges `patch` into the record of a person with several ids, and into every record that follows it. None if the
    /// person got another id, or lost one, meanwhile: then the caller tries again.
    pub(super) async fn patch_merged(
        &self,
        id: &str,
        patch: &JsonObject,
        condition: &PatchCondition,
        reach: &RecordReach,
    ) -> Result<Option<ChangeResult>, DbError> {
        if !reach.holds(id) {
            return Ok(Some(ChangeResult::Missing));
        }
        let live = self.read_rows(SqlStatement::of(LIVE, vec![id.into()])).await?;
        let live: Vec<LiveMerge> = live.iter().map(live_merge).collect();
        let ids: BTreeSet<String> = records::path(id, &live).into_iter().map(|(id, _)| id.to_owned()).collect();
        let reads = vec![
            SqlStatement::of(LOCKED, vec![texts(ids.iter().map(String::as_str))]),
            SqlStatement::of(KEPT, vec![id.into()]),
        ];
        let write = WriteThrough { id: id.to_owned(), ids, patch: patch.clone(), condition: condition.clone() };
        let decide = move |rows: Vec<Vec<SqlRow>>| match write.decided(&rows) {
            Ok(writes) => SqlDecision::Write(writes, Some(ChangeResult::Done)),
            Err(result) => SqlDecision::Leave(result),
        };
        Ok(self.decide(WriteMode::Through, reads, decide).await?.0)
    }
}

/// A change of one id, and the ids whose records were locked for it.
struct WriteThrough {
    id: String,
    ids: BTreeSet<String>,
    patch: JsonObject,
    condition: PatchCondition,
}

impl WriteThrough {
    /// The statements of the write, given the locked records and the live merges; or the result without any, where none
    /// means that the merges are others by now.
    fn decided(&self, rows: &[Vec<SqlRow>]) -> Result<Vec<SqlStatement>, Option<ChangeResult>> {
        let [locked, rows] = rows else { return Err(None) };
        let live: Vec<LiveMerge> = rows.iter().map(live_merge).collect();
        let path = records::path(&self.id, &live);
        // Whoever merges or ends a merge locks the records of both, so a path whose records are locked stays as it is.
        if path.iter().map(|(id, _)| (*id).to_owned()).collect::<BTreeSet<_>>() != self.ids {
            return Err(None);
        }
        let text = |id: &str, at| locked.iter().find(|row| row.text(0) == id).map(|row| row.text(at));
        // What a reader of the old id is shown is the survivor's record.
        let shown = path.last().and_then(|(survivor, _)| text(survivor, 2)).ok_or(Some(ChangeResult::Missing))?;
        if !self.condition.tag.admits(&seen(RecordTable::People, &shown)) {
            return Err(Some(ChangeResult::Stale));
        }
        let passed_on = records::without_account(self.patch.clone());
        let mut writes = Vec::new();
        for (id, _) in &path {
            let text = text(id, 1).ok_or(Some(ChangeResult::Missing))?;
            let mut record = records::object(&text).ok_or(Some(ChangeResult::NotAnObject))?;
            let before = record.size();
            record.merge(if *id == self.id { self.patch.clone() } else { passed_on.clone() });
            let size = record.size();
            if self.condition.most.is_some_and(|most| size > most && size > before) {
                return Err(Some(ChangeResult::TooLarge));
            }
            writes.push(put(id, &record));
        }
        for number in records::kept_changed(&path, &live) {
            let kept = rows.iter().find(|row| row.some_number(0) == Some(number)).map(|row| row.text(3));
            let mut kept = kept.as_deref().and_then(records::object).unwrap_or_default();
            kept.merge(passed_on.clone());
            writes.push(keep(number, &kept));
        }
        Ok(writes)
    }
}

/// Replaces what a record would be without a merge.
fn keep(number: i64, kept: &JsonObject) -> SqlStatement {
    const SQL: &str = "UPDATE fedgate_merges SET kept = {json $2} WHERE id = $1";
    SqlStatement::of(SQL, vec![number.into(), SqlValue::from(kept.to_text().as_str())])
}
