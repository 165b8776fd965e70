//! Persons by their search keys, and the words of names by what somebody types.
//!
//! The one rule: a statement looks at a bounded number of entries, however common a key is. Only callers whose reach is
//! every person search here: what it costs depends on the records of all.

use super::RecordStore;
use super::person_keys::{LONG_CANDIDATE_BYTES, listed};
use super::rows::{SqlStatement, SqlValue};
use super::sql::RecordTable;
use super::visible::seen;
use crate::store::RecordReach;
use fedgate_base::db::DbError;

/// The most words of the vocabulary that a typed word finds as its beginning, and that are compared with it for an error.
const MOST_BEGUN: i64 = 64;
const MOST_NEAR: i64 = 256;

/// Words that a typed word may mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypedWords {
    /// Words that begin with it.
    pub begun: Vec<String>,
    /// Words that share a deletion with it.
    pub near: Vec<String>,
    /// Whether these are all.
    pub is_complete: bool,
}

/// Which entries of the index are looked at.
#[derive(Debug, Clone, Default)]
pub struct KeyHolders<'a> {
    /// The keys whose persons come first.
    pub keys: &'a [i64],
    /// Keys whose persons come next.
    pub others: &'a [i64],
    /// A person must have a key of each of these, of which at most three count.
    pub parts: &'a [Vec<i64>],
    /// The most entries of each of the two that are looked at.
    pub entries: u64,
    /// The most persons.
    pub persons: u64,
}

impl RecordStore {
    /// The words of the vocabulary that a typed word may mean.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn typed_words(&self, typed: &str, deletions: &[i64]) -> Result<TypedWords, DbError> {
        const SQL: &str = "SELECT begun.word, CAST(0 AS bigint) FROM (SELECT word FROM fedgate_search_words WHERE word >= $1 AND word < $2 \
             ORDER BY word LIMIT $4) AS begun UNION ALL SELECT near.word, CAST(1 AS bigint) FROM (SELECT DISTINCT word \
             FROM fedgate_search_deletions WHERE deletion {among $3} LIMIT $5) AS near";
        // Behind every letter and digit.
        let end = format!("{typed}~");
        let most = [MOST_BEGUN + 1, MOST_NEAR + 1].map(SqlValue::from);
        let [begun, near] = most;
        let values = vec![typed.into(), end.as_str().into(), listed(deletions), begun, near];
        let rows = self.read_rows(SqlStatement::of(SQL, values)).await?;
        let words = |kind| rows.iter().filter(move |row| row.some_number(1) == Some(kind)).map(|row| row.text(0));
        let (begun, near): (Vec<String>, Vec<String>) = (words(0).collect(), words(1).collect());
        let is_complete = begun.len() <= MOST_BEGUN as usize && near.len() <= MOST_NEAR as usize;
        Ok(TypedWords { begun, near, is_complete })
    }

    /// How many entries keys have, counted up to `most`, and whether everybody has keys.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn entries_of(&self, keys: &[i64], most: u64) -> Result<(u64, bool), DbError> {
        const SQL: &str = "SELECT count(*), (SELECT CAST(1 AS bigint) FROM fedgate_person_index WHERE upto IS NULL) \
             FROM (SELECT 1 FROM fedgate_person_keys WHERE key {among $1} LIMIT $2) AS entries";
        let rows = self.read_rows(SqlStatement::of(SQL, vec![listed(keys), most.into()])).await?;
        Ok(rows.first().map_or((0, false), |row| (row.count(0), row.count(1) == 1)))
    }

    /// The persons who have keys, each once.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn holders(&self, of: &KeyHolders<'_>) -> Result<Vec<String>, DbError> {
        const SQL: &str = "SELECT entry.person FROM (\
             SELECT first.person FROM (SELECT person FROM fedgate_person_keys WHERE key {among $1} LIMIT $3) AS first UNION ALL \
             SELECT next.person FROM (SELECT person FROM fedgate_person_keys WHERE key {among $2} LIMIT $3) AS next) AS entry \
             WHERE (CAST($4 AS text) = '' OR EXISTS (SELECT 1 FROM fedgate_person_keys AS part WHERE part.person = entry.person AND part.key {among $4})) \
             AND (CAST($5 AS text) = '' OR EXISTS (SELECT 1 FROM fedgate_person_keys AS part WHERE part.person = entry.person AND part.key {among $5})) \
             AND (CAST($6 AS text) = '' OR EXISTS (SELECT 1 FROM fedgate_person_keys AS part WHERE part.person = entry.person AND part.key {among $6})) \
             LIMIT $7";
        let part = |at: usize| listed(of.parts.get(at).map_or(&[][..], Vec::as_slice));
        // A person may have several of the keys, so more rows than persons are read.
        let most = of.persons.saturating_mul(4);
        let values =
            vec![listed(of.keys), listed(of.others), of.entries.into(), part(0), part(1), part(2), most.into()];
        let rows = self.read_rows(SqlStatement::of(SQL, values)).await?;
        let mut seen = std::collections::HashSet::new();
        let mut persons: Vec<String> = rows.iter().map(|row| row.text(0)).collect();
        persons.retain(|person| seen.insert(person.clone()));
        persons.truncate(usize::try_from(of.persons).unwrap_or(usize::MAX));
        Ok(persons)
    }

    /// The shown records of persons within reach, as far as they are there; none of a text for a long one.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn shown_records(
        &self,
        persons: &[String],
        reach: &RecordReach,
    ) -> Result<Vec<(String, Option<String>)>, DbError> {
        const SQL: &str = "SELECT people.id, CASE WHEN octet_length({document}) <= CAST($2 AS bigint) THEN {visible} END \
             FROM {people} WHERE people.id IN {texts $1} AND (CAST($3 AS text) IS NULL OR people.id IN {texts $3})";
        let persons = serde_json::Value::from(persons).to_string();
        let own = SqlValue::Text(reach.listed().map(str::to_owned));
        let values = vec![persons.as_str().into(), (LONG_CANDIDATE_BYTES as u64).into(), own];
        let rows = self.read_rows(SqlStatement::of(SQL, values)).await?;
        let shown = |text: String| seen(RecordTable::People, &text).into_owned();
        Ok(rows.iter().map(|row| (row.text(0), row.some_text(1).map(shown))).collect())
    }

    /// The ids of persons in their order: the next after `after`.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn person_ids_after(&self, after: &str, most: u64) -> Result<Vec<String>, DbError> {
        const SQL: &str = "SELECT people.id FROM people WHERE people.id > $1 ORDER BY people.id LIMIT $2";
        let rows = self.read_rows(SqlStatement::of(SQL, vec![after.into(), most.into()])).await?;
        Ok(rows.iter().map(|row| row.text(0)).collect())
    }

    /// How many persons there are, counted up to `most`.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn count_persons(&self, most: u64) -> Result<u64, DbError> {
        const SQL: &str = "SELECT count(*) FROM (SELECT 1 FROM people LIMIT $1) AS persons";
        let rows = self.read_rows(SqlStatement::of(SQL, vec![most.into()])).await?;
        Ok(rows.first().map_or(0, |row| row.count(0)))
    }

    /// Each id of the groups of merged persons to which these ids belong, with the one that stands for the group.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn same_persons(&self, persons: &[String]) -> Result<Vec<(String, String)>, DbError> {
        const SQL: &str = "SELECT same.id, same.person FROM fedgate_same_persons AS same WHERE same.person IN \
             (SELECT known.person FROM fedgate_same_persons AS known WHERE known.id IN {texts $1}) ORDER BY same.id";
        let persons = serde_json::Value::from(persons).to_string();
        let rows = self.read_rows(SqlStatement::of(SQL, vec![persons.as_str().into()])).await?;
        Ok(rows.iter().map(|row| (row.text(0), row.text(1))).collect())
    }
}
