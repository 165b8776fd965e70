//! The keys of persons, by which records of one person are found, and the persons whose keys are due.
//!
//! The one rule: keys are written only if no other transaction wrote keys since the records were read from which they
//! are made. Each such transaction takes a turn, so of two that were prepared at once one writes nothing. Triggers queue
//! every change of a person, whichever program makes it (`db/schema/postgres_persons.sql`).

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

    /// Writes the keys of persons that are due. Returns false, and writes nothing, if another transaction has taken the turn.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn put_keys(
        &self,
        due: &DueKeys,
        keys: &[(String, Vec<i64>)],
        made_of: &str,
        upto: Option<&str>,
    ) -> Result<bool, DbError> {
        const TURN: &str =
            "UPDATE fedgate_person_index SET turn = turn + 1, made_of = $2, upto = $3 WHERE turn = $1 RETURNING turn";
        const TAKEN: &str = "DELETE FROM fedgate_person_keys_due WHERE number IN {listed $1}";
        const FORMER: &str = "DELETE FROM fedgate_person_keys WHERE person = $1 AND key NOT IN {listed $2}";
        const NEW: &str = "INSERT INTO fedgate_person_keys (person, key) SELECT CAST($1 AS varchar), {each $2} \
                           WHERE true ON CONFLICT DO NOTHING";
        let mut statements = vec![SqlStatement::of(
            TURN,
            vec![due.turn.into(), made_of.into(), SqlValue::Text(upto.map(str::to_owned))],
        )];
        if !due.numbers.is_empty() {
            statements.push(SqlStatement::of(TAKEN, vec![listed(&due.numbers)]));
        }
        for (person, keys) in keys {
            for sql in [FORMER, NEW] {
                statements.push(SqlStatement::of(sql, vec![person.as_str().into(), listed(keys)]));
            }
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

    /// The records of candidates, as far as they are still there.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn candidate_records(&self, persons: &[String]) -> Result<Vec<(String, PersonRecord)>, DbError> {
        const SQL: &str = "SELECT people.id, CASE WHEN octet_length({document}) <= CAST($2 AS bigint) THEN {document} END, CAST(1 AS bigint) \
                           FROM people WHERE people.id IN {texts $1}";
        let persons = serde_json::Value::from(persons).to_string();
        let values = vec![persons.as_str().into(), (LONG_CANDIDATE_BYTES as u64).into()];
        let found = self.read_rows(SqlStatement::of(SQL, values)).await?;
        Ok(found.iter().map(|row| (row.text(0), record(row, 1, 2))).collect())
    }
}

fn record(row: &SqlRow, text: usize, is_there: usize) -> PersonRecord {
    match (row.some_text(text), row.count(is_there)) {
        (Some(text), _) => PersonRecord::Text(text),
        (None, 0) => PersonRecord::Missing,
        (None, _) => PersonRecord::Long,
    }
}

fn listed(numbers: &[i64]) -> SqlValue {
    let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
    texts.join(",").as_str().into()
}
