//! Rows by the time of their last write.
//!
//! The one rule: a list of changes is in the order of the writes, and by id within one moment. Moments are in microseconds
//! since 1970, and 0 for a row that was never written while times were kept.

use super::RecordStore;
use super::live_merges::texts;
use super::model::ListQuery;
use super::rows::SqlStatement;
use fedgate_base::db::DbError;

/// The rows of a list by the time of their last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeRange {
    /// The earliest one; 0 for all rows.
    pub from: i64,
    /// The latest one.
    pub upto: i64,
}

/// The place of a row in a list of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangePlace<'a> {
    /// When it was last written.
    pub at: i64,
    /// Its id.
    pub id: &'a str,
}

impl<'a> ChangePlace<'a> {
    /// Reads a place, as lists write it: a moment, a dot and the id.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (at, id) = text.split_once('.')?;
        let is_number = (1..=18).contains(&at.len()) && at.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { at: at.parse().ok().filter(|_| is_number)?, id })
    }
}

/// What readers see of the writes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenChanges {
    /// Every row that was written before this is visible from now on, if its transaction was not rolled back.
    pub until: i64,
    /// The present moment.
    pub moment: i64,
}

impl RecordStore {
    /// What readers see of the writes so far.
    ///
    /// # Errors
    /// See [`RecordStore::record`]; also if the database takes no writes.
    pub async fn seen_changes(&self) -> Result<SeenChanges, DbError> {
        const SQL: &str = "SELECT until, moment FROM {seen changes}";
        let rows = self.read_rows(SqlStatement::of(SQL, vec![])).await?;
        let number = |at| rows.first().and_then(|row| row.some_number(at)).unwrap_or(0);
        Ok(SeenChanges { until: number(0), moment: number(1) })
    }

    /// Whether everything that came into a list since a moment was written since then, in microseconds since 1970. It was
    /// not while no times were kept, or if the person of a book got another id.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn knows_changes(&self, list: &ListQuery, since: i64) -> Result<bool, DbError> {
        const SQL: &str = "SELECT CAST(count(*) AS bigint) FROM (\
             SELECT 1 FROM fedgate_change_times WHERE written IN ($3, 'fedgate_same_persons') AND begun >= $2 \
             UNION ALL SELECT 1 FROM fedgate_same_persons AS same \
             WHERE same.id IN {texts $1} AND {same.changed} >= $2) AS unknown";
        let persons: &[String] = match list {
            ListQuery::Pages { persons, .. } => persons,
            ListQuery::People { .. } | ListQuery::Units(_) | ListQuery::Documents { .. } => &[],
        };
        let ids = texts(persons.iter().map(String::as_str));
        let values = vec![ids, since.into(), list.table().name().into()];
        let rows = self.read_rows(SqlStatement::of(SQL, values)).await?;
        Ok(rows.first().is_some_and(|row| row.count(0) == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_moment_and_any_id() {
        assert_eq!(ChangePlace::parse("17.a.b"), Some(ChangePlace { at: 17, id: "a.b" }));
        assert_eq!(ChangePlace::parse("0."), Some(ChangePlace { at: 0, id: "" }));
        for none in ["", "17", ".a", "-1.a", "+1.a", " 1.a", "9999999999999999999.a", "a.1"] {
            assert_eq!(ChangePlace::parse(none), None, "{none}");
        }
    }
}
