//! The keys of persons, by which records of one person are found, and the persons whose keys are due.
//!
//! The one rule: keys are written only if no other transaction wrote keys since the records were read from which they
//! are made, with the words of names beside them. Each such transaction takes a turn, so of two that were prepared at once one writes nothing. Triggers queue
//! every change of a person, whichever program makes it (`db/schema/postgres_persons.sql`).

use std::collections::HashSet;

use super::rows::{SqlRow, SqlStatement, SqlValue};
use super::{RecordReach, RecordStore};
use fedgate_base::db::DbError;

/// Persons whose keys are made at a time.
const BATCH: i64 = 100;
/// A longer record, in bytes, is read by itself.
const MOST_BYTES: i64 = 128 * 1024;
/// The most entries of the index that one search looks at, and the most persons that it finds.
const MOST_ENTRIES: i64 = 50_000;
const MOST_PERSONS: i64 = 300;
/// The same, for callers.
pub const MOST_CANDIDATES: usize = MOST_PERSONS as usize;
/// Candidates whose records are read at a time, and the length of a record, in bytes, that is read by itself instead.
pub const CANDIDATES_AT_A_TIME: usize = 16;
/// See [`CANDIDATES_AT_A_TIME`].
pub const LONG_CANDIDATE_BYTES: usize = 16 * 1024;

/// A record from which keys are made or that is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PersonRecord {
    /// Its text.
    Text(String),
    /// It is so long that it has to be read by itself.
    Long,
    /// There is none.
    Missing,
}

/// A state of the index, and persons whose keys are due.
#[derive(Debug, Clone)]
pub struct DueKeys {
    /// The turn in which this was read.
    turn: i64,
    /// How keys are made.
    pub made_of: String,
    /// The last person whose keys were made anew; none if all were.
    pub upto: Option<String>,
    /// Entries of the queue.
    numbers: Vec<i64>,
    /// The persons, each once, with their records.
    pub persons: Vec<(String, PersonRecord)>,
}

/// Words that the vocabulary does not have yet.
#[derive(Debug, Clone, Default)]
pub struct NewWords {
    /// The words, each with the key of persons who have it.
    pub words: Vec<(i64, String)>,
    /// The words, each with the hash of one of its deletions.
    pub deletions: Vec<(i64, String)>,
}

impl RecordStore {
    /// The next persons of the queue, with their records as they are at the same moment.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn queued_keys(&self) -> Result<DueKeys, DbError> {
        const SQL: &str = "SELECT state.turn, state.made_of, state.upto, queued.number, queued.person, \
             CASE WHEN octet_length({document}) <= CAST($2 AS bigint) THEN {document} END, CAST(CASE WHEN people.id IS NULL THEN 0 ELSE 1 END AS bigint) \
             FROM fedgate_person_index AS state LEFT JOIN (SELECT number, person FROM fedgate_person_keys_due ORDER BY number LIMIT $1) AS queued \
             ON true LEFT JOIN people ON people.id = queued.person ORDER BY queued.number";
        self.due_keys(SqlStatement::of(SQL, vec![BATCH.into(), MOST_BYTES.into()])).await
    }

    /// The persons after `upto` in the order of their ids, with their records as they are at the same moment.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn keys_after(&self, upto: &str) -> Result<DueKeys, DbError> {
        const SQL: &str = "SELECT state.turn, state.made_of, state.upto, NULL, people.id, people.text, CAST(CASE WHEN people.id IS NULL THEN 0 ELSE 1 END AS bigint) \
             FROM fedgate_person_index AS state LEFT JOIN (SELECT people.id, CASE WHEN octet_length({document}) <= CAST($3 AS bigint) THEN {document} END AS text \
             FROM people WHERE people.id > $2 ORDER BY people.id LIMIT $1) AS people ON true ORDER BY people.id";
        self.due_keys(SqlStatement::of(SQL, vec![BATCH.into(), upto.into(), MOST_BYTES.into()])).await
    }

    async fn due_keys(&self, statement: SqlStatement) -> Result<DueKeys, DbError> {
        let rows = self.read_rows(statement).await?;
        let state = rows.first();
        let mut due = DueKeys {
            turn: state.and_then(|row| row.some_number(0)).unwrap_or(0),
            made_of: state.map(|row| row.text(1)).unwrap_or_default(),
            upto: state.and_then(|row| row.some_text(2)),
            numbers: rows.iter().filter_map(|row| row.some_number(3)).collect(),
            persons: vec![],
        };
        for row in &rows {
            let Some(person) = row.some_text(4) else { continue };
            // A person who changed twice has the same record in both rows.
            if due.persons.iter().all(|(known, _)| *known != person) {
                due.persons.push((person, record(row, 5, 6)));
            }
        }
        Ok(due)
    }

    /// Those of these words that the vocabulary does not have.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn unknown_words(&self, words: Vec<String>) -> Result<Vec<String>, DbError> {
        const SQL: &str = "SELECT word FROM fedgate_search_words WHERE word IN {texts $1}";
        let asked = serde_json::Value::from(words.as_slice()).to_string();
        let rows = self.read_rows(SqlStatement::of(SQL, vec![asked.as_str().into()])).await?;
        let known: HashSet<String> = rows.iter().map(|row| row.text(0)).collect();
        Ok(words.into_iter().filter(|word| !known.contains(word)).collect())
    }

    /// Writes the keys of persons that are due, and new words. Returns false, and writes nothing, if another transaction
    /// has taken the turn.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn put_keys(
        &self,
        due: &DueKeys,
        keys: &[(String, Vec<i64>)],
        words: &NewWords,
        made_of: &str,
        upto: Option<&str>,
    ) -> Result<bool, DbError> {
        const TURN: &str =
            "UPDATE fedgate_person_index SET turn = turn + 1, made_of = $2, upto = $3 WHERE turn = $1 RETURNING turn";
        const COMPARED: &str = "INSERT INTO fedgate_person_pairs_due (person) \
                                SELECT DISTINCT person FROM fedgate_person_keys_due WHERE number IN {listed $1}";
        const TAKEN: &str = "DELETE FROM fedgate_person_keys_due WHERE number IN {listed $1}";
        const ALL_FORMER: &str = "DELETE FROM fedgate_person_keys WHERE person IN {texts $1}";
        const NEW: &str = "INSERT INTO fedgate_person_keys (key, person) SELECT pairs.number, pairs.text FROM {pairs $1} \
                           WHERE true ON CONFLICT DO NOTHING";
        const WORDS: &str = "INSERT INTO fedgate_search_words (key, word) SELECT pairs.number, pairs.text FROM {pairs $1} \
                             WHERE true ON CONFLICT DO NOTHING";
        const DELETIONS: &str = "INSERT INTO fedgate_search_deletions (deletion, word) SELECT pairs.number, pairs.text \
                                 FROM {pairs $1} WHERE true ON CONFLICT DO NOTHING";
        let mut statements = vec![SqlStatement::of(
            TURN,
            vec![due.turn.into(), made_of.into(), SqlValue::Text(upto.map(str::to_owned))],
        )];
        if !due.numbers.is_empty() {
            // Persons whose keys are there are compared (`person_pairs.rs`).
            statements.extend([COMPARED, TAKEN].map(|sql| SqlStatement::of(sql, vec![listed(&due.numbers)])));
        }
        let is_walk = due.numbers.is_empty();
        if is_walk {
            let persons: Vec<&str> = keys.iter().map(|(person, _)| person.as_str()).collect();
            let persons = serde_json::Value::from(persons).to_string();
            statements.push(SqlStatement::of(ALL_FORMER, vec![persons.as_str().into()]));
        }
        let of_persons = keys.iter().flat_map(|(person, keys)| keys.iter().map(move |key| (*key, person.as_str())));
        statements.push(SqlStatement::of(NEW, vec![pairs(of_persons)]));
        for (sql, words) in [(WORDS, &words.words), (DELETIONS, &words.deletions)] {
            if !words.is_empty() {
                let words = words.iter().map(|(number, word)| (*number, word.as_str()));
                statements.push(SqlStatement::of(sql, vec![pairs(words)]));
            }
        }
        if !is_walk {
            statements.extend(keys.iter().flat_map(|(person, keys)| former(person, keys)));
        }
        // So that the last statement of one alone has a row.
        statements.push(SqlStatement::of("SELECT turn FROM fedgate_person_index", vec![]));
        Ok(self.write_rows(statements).await?.is_some())
    }

    /// The persons within reach who share keys, most keys first. An id that a merge made old is none beside its survivor.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn candidates(&self, keys: &[i64], reach: &RecordReach) -> Result<Vec<String>, DbError> {
        const SQL: &str = "SELECT keyed.person FROM (SELECT entry.person FROM fedgate_person_keys AS entry WHERE entry.key IN {listed $1} \
             AND (CAST($2 AS text) IS NULL OR entry.person IN {texts $2}) LIMIT $3) AS keyed \
             WHERE (SELECT same.person <> same.id FROM fedgate_same_persons AS same WHERE same.id = keyed.person) IS NOT TRUE \
             GROUP BY keyed.person ORDER BY count(*) DESC, keyed.person LIMIT $4";
        if keys.is_empty() || *reach == RecordReach::Nobody {
            return Ok(vec![]);
        }
        let own = SqlValue::Text(reach.listed().map(str::to_owned));
        let values = vec![listed(keys), own, MOST_ENTRIES.into(), MOST_PERSONS.into()];
        Ok(self.read_rows(SqlStatement::of(SQL, values)).await?.iter().map(|row| row.text(0)).collect())
    }

    /// The records of candidates within reach, as far as they are still there. Who was merged into another person is not.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn candidate_records(
        &self,
        persons: &[String],
        reach: &RecordReach,
    ) -> Result<Vec<(String, PersonRecord)>, DbError> {
        const SQL: &str = "SELECT people.id, CASE WHEN octet_length({document}) <= CAST($2 AS bigint) THEN {document} END, CAST(1 AS bigint) \
                           FROM people WHERE people.id IN {texts $1} AND NOT EXISTS \
                           (SELECT 1 FROM fedgate_same_persons AS same WHERE same.id = people.id AND same.person <> same.id) AND (CAST($3 AS text) IS NULL OR people.id IN {texts $3})";
        let persons = serde_json::Value::from(persons).to_string();
        let own = SqlValue::Text(reach.listed().map(str::to_owned));
        let values = vec![persons.as_str().into(), (LONG_CANDIDATE_BYTES as u64).into(), own];
        let found = self.read_rows(SqlStatement::of(SQL, values)).await?;
        Ok(found.iter().map(|row| (row.text(0), record(row, 1, 2))).collect())
    }
}

/// Takes the keys that a person has no more, and first the words that nobody else has: they would tell of a person who may
/// be gone. The keys of others are in place by then.
fn former(person: &str, keys: &[i64]) -> [SqlStatement; 3] {
    const DELETIONS: &str = "DELETE FROM fedgate_search_deletions WHERE word IN (SELECT known.word FROM fedgate_person_keys AS entry \
         JOIN fedgate_search_words AS known ON known.key = entry.key WHERE entry.person = $1 AND entry.key NOT IN {listed $2} AND NOT EXISTS \
         (SELECT 1 FROM fedgate_person_keys AS other WHERE other.key = entry.key AND other.person <> entry.person))";
    const WORDS: &str = "DELETE FROM fedgate_search_words WHERE word IN (SELECT known.word FROM fedgate_person_keys AS entry \
         JOIN fedgate_search_words AS known ON known.key = entry.key WHERE entry.person = $1 AND entry.key NOT IN {listed $2} AND NOT EXISTS \
         (SELECT 1 FROM fedgate_person_keys AS other WHERE other.key = entry.key AND other.person <> entry.person))";
    const KEYS: &str = "DELETE FROM fedgate_person_keys WHERE person = $1 AND key NOT IN {listed $2}";
    [DELETIONS, WORDS, KEYS].map(|sql| SqlStatement::of(sql, vec![person.into(), listed(keys)]))
}

/// Pairs of a number and a text, as statements take them.
fn pairs<'a>(pairs: impl Iterator<Item = (i64, &'a str)>) -> SqlValue {
    let pairs: Vec<serde_json::Value> = pairs.map(|(number, text)| serde_json::json!([number, text])).collect();
    serde_json::Value::from(pairs).to_string().as_str().into()
}

fn record(row: &SqlRow, text: usize, is_there: usize) -> PersonRecord {
    match (row.some_text(text), row.count(is_there)) {
        (Some(text), _) => PersonRecord::Text(text),
        (None, 0) => PersonRecord::Missing,
        (None, _) => PersonRecord::Long,
    }
}

pub(super) fn listed(numbers: &[i64]) -> SqlValue {
    let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
    texts.join(",").as_str().into()
}
