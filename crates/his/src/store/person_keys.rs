//! The keys of persons, by which records of one person are found, and the persons whose keys are due.
//!
//! The one rule: keys are made in one place ([`KeyMaker`]), of the record itself. A writer of these programs writes them in
//! the transaction that writes the record. Triggers queue every other change of a person, whichever program makes it
//! (`db/schema/postgres_persons.sql`), and whoever takes from the queue takes a turn: of two that were prepared at once one
//! writes nothing.

use super::each::within_bound;
use super::rows::{SqlRow, SqlStatement, SqlValue};
use super::{RecordReach, RecordStore};
use fedgate_base::db::DbError;
use fedgate_core::json::JsonObject;

/// A longer record, in bytes, is read by itself, and left to the queue by its writer.
pub(super) const MOST_BYTES: i64 = 128 * 1024;
/// The most persons that one search for candidates finds. It looks at 50,000 entries of the index.
///
/// Numbers of rows stand in the statements themselves: for a parameter PostgreSQL would plan a tenth of all rows.
pub const MOST_CANDIDATES: usize = 300;
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
    pub(super) turn: i64,
    /// How keys are made.
    pub made_of: String,
    /// The last person whose keys were made anew; none if all were.
    pub upto: Option<String>,
    /// Entries of the queue.
    pub(super) numbers: Vec<i64>,
    /// The persons, each once, with their records.
    pub persons: Vec<(String, PersonRecord)>,
}

impl DueKeys {
    /// What takes the turn, and then the entries of the queue.
    fn taken(&self, made_of: &str, upto: Option<&str>) -> (SqlStatement, Vec<SqlStatement>) {
        const TURN: &str =
            "UPDATE fedgate_person_index SET turn = turn + 1, made_of = $2, upto = $3 WHERE turn = $1 RETURNING turn";
        const COMPARED: &str = "INSERT INTO fedgate_person_pairs_due (person) \
                                SELECT DISTINCT person FROM fedgate_person_keys_due WHERE number IN {listed $1}";
        const TAKEN: &str = "DELETE FROM fedgate_person_keys_due WHERE number IN {listed $1}";
        let upto = SqlValue::Text(upto.map(str::to_owned));
        let turn = SqlStatement::of(TURN, vec![self.turn.into(), made_of.into(), upto]);
        // Persons whose keys are there are compared (`person_pairs.rs`).
        let queue = match self.numbers.is_empty() {
            true => vec![],
            false => [COMPARED, TAKEN].map(|sql| SqlStatement::of(sql, vec![listed(&self.numbers)])).into(),
        };
        (turn, queue)
    }
}

/// A person who may be somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The id.
    pub person: String,
    /// The id that stays, where merges made this one old; the same id for most.
    pub stays: String,
    /// What is compared, if it is kept.
    pub compared: Option<String>,
}

/// The record of a person who may be somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateRecord {
    /// The id.
    pub person: String,
    /// See [`Candidate::stays`].
    pub stays: String,
    /// The record.
    pub record: PersonRecord,
}

/// What the index keeps of a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MadeKeys {
    /// The keys, each once.
    pub keys: Vec<i64>,
    /// What is compared, if there is something and it is not too long.
    pub compared: Option<String>,
    /// The words of names, in their order.
    pub words: Vec<MadeWord>,
}

/// A word as the vocabulary keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MadeWord {
    /// The word: small letters and digits.
    pub word: String,
    /// The key of persons who have it.
    pub key: i64,
    /// The hashes of its deletions.
    pub deletions: Vec<i64>,
}

/// Makes keys of records.
pub trait KeyMaker: Send + Sync {
    /// The keys of a record.
    fn made(&self, id: &str, record: &str) -> MadeKeys;
    /// Whether a change of these members may change keys.
    fn concerns(&self, change: &JsonObject) -> bool;
    /// How keys are made. Keys that were made in another way are made anew.
    fn made_of(&self) -> &str;
}

/// Between the parts of what a writer on PostgreSQL hands over.
const PART: char = '\u{1f}';

impl MadeKeys {
    /// These keys as one text, which `fedgate_add_person_keys` reads. None if a part cannot be told from the next one: then
    /// the person is queued.
    pub(super) fn handed(&self, id: &str, made_of: &str) -> Option<String> {
        let [words, numbers, deletions] = word_lists(&self.words);
        let keys = joined(&self.keys, ",");
        let parts = [id, made_of, &keys, self.compared.as_deref().unwrap_or_default(), &words, &numbers, &deletions];
        let is_plain = parts.iter().all(|part| !part.contains([PART, '\0']));
        is_plain.then(|| parts.join("\u{1f}"))
    }
}

/// Words, their keys, and their deletions, as `fedgate_put_words` takes them.
pub(super) fn word_lists(words: &[MadeWord]) -> [String; 3] {
    let texts: Vec<&str> = words.iter().map(|word| word.word.as_str()).collect();
    let numbers: Vec<i64> = words.iter().map(|word| word.key).collect();
    let deletions: Vec<String> = words.iter().map(|word| joined(&word.deletions, " ")).collect();
    [texts.join(","), joined(&numbers, ","), deletions.join(",")]
}

pub(super) fn joined(numbers: &[i64], between: &str) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(between)
}

impl RecordStore {
    /// The next persons of the queue, with their records as they are at the same moment.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn queued_keys(&self) -> Result<DueKeys, DbError> {
        const SQL: &str = "SELECT state.turn, state.made_of, state.upto, queued.number, queued.person, \
             CASE WHEN octet_length({document}) <= CAST($1 AS bigint) THEN {document} END, CAST(CASE WHEN people.id IS NULL THEN 0 ELSE 1 END AS bigint) \
             FROM fedgate_person_index AS state LEFT JOIN (SELECT number, person FROM fedgate_person_keys_due ORDER BY number LIMIT 100) AS queued \
             ON true LEFT JOIN {people} ON people.id = {plain queued.person} ORDER BY queued.number";
        self.due_keys(SqlStatement::of(SQL, vec![MOST_BYTES.into()])).await
    }

    /// The persons after `upto` in the order of their ids, with their records as they are at the same moment.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn keys_after(&self, upto: &str) -> Result<DueKeys, DbError> {
        const SQL: &str = "SELECT state.turn, state.made_of, state.upto, NULL, people.id, people.text, CAST(CASE WHEN people.id IS NULL THEN 0 ELSE 1 END AS bigint) \
             FROM fedgate_person_index AS state LEFT JOIN (SELECT people.id, CASE WHEN octet_length({document}) <= CAST($2 AS bigint) THEN {document} END AS text \
             FROM {people} WHERE people.id > $1 ORDER BY people.id LIMIT 100) AS people ON true ORDER BY people.id";
        self.due_keys(SqlStatement::of(SQL, vec![upto.into(), MOST_BYTES.into()])).await
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

    /// Writes the keys of persons that are due; none for one who is not there. Returns false, and writes nothing, if another
    /// transaction has taken the turn.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn put_keys(
        &self,
        due: &DueKeys,
        persons: Vec<(String, Option<MadeKeys>)>,
        made_of: &str,
        upto: Option<&str>,
    ) -> Result<bool, DbError> {
        match self {
            Self::Postgres(store) => store.heeded(within_bound(store.put_keys(due, persons, made_of, upto)).await),
            Self::Sqlite(store) => {
                let (turn, queue) = due.taken(made_of, upto);
                store.heeded(store.put_keys(turn, queue, persons).await)
            }
        }
    }

    /// The persons within reach who share keys with somebody, most keys first; those too whom a merge made old.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn candidates(&self, keys: &[i64], reach: &RecordReach) -> Result<Vec<Candidate>, DbError> {
        Ok(self.candidates_of_all(&[keys.to_vec()], reach).await?.pop().unwrap_or_default())
    }

    /// The same for several persons.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn candidates_of_all(
        &self,
        keys: &[Vec<i64>],
        reach: &RecordReach,
    ) -> Result<Vec<Vec<Candidate>>, DbError> {
        const SQL: &str = "SELECT near.person, kept.compared, coalesce((SELECT same.person FROM fedgate_same_persons AS same WHERE same.id = near.person), near.person) FROM (SELECT keyed.person, count(*) AS shared FROM \
             (SELECT entry.person FROM fedgate_person_keys AS entry WHERE entry.key {among $1} \
             AND (CAST($2 AS text) IS NULL OR entry.person IN {texts $2}) LIMIT 50000) AS keyed \
             GROUP BY keyed.person ORDER BY shared DESC, keyed.person LIMIT 300) AS near \
             LEFT JOIN fedgate_compared_persons AS kept ON kept.person = near.person ORDER BY near.shared DESC, near.person";
        if *reach == RecordReach::Nobody {
            return Ok(vec![vec![]; keys.len()]);
        }
        let own = SqlValue::Text(reach.listed().map(str::to_owned));
        let statement = |keys: &Vec<i64>| SqlStatement::of(SQL, vec![listed(keys), own.clone()]);
        let found = self.read_all(keys.iter().map(statement).collect()).await?;
        Ok(found.iter().map(|rows| rows.iter().map(candidate).collect()).collect())
    }

    /// What is compared of persons, as far as it is kept.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn compared(&self, persons: &[&str]) -> Result<Vec<Candidate>, DbError> {
        const SQL: &str = "SELECT kept.person, kept.compared, coalesce((SELECT same.person FROM fedgate_same_persons AS same WHERE same.id = kept.person), kept.person) FROM fedgate_compared_persons AS kept WHERE kept.person {any of $1}";
        let persons = serde_json::Value::from(persons).to_string();
        let rows = self.read_rows(SqlStatement::of(SQL, vec![persons.as_str().into()])).await?;
        Ok(rows.iter().map(candidate).collect())
    }

    /// Those of these persons who are there and within reach.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn present(&self, persons: &[&str], reach: &RecordReach) -> Result<Vec<String>, DbError> {
        const SQL: &str = "SELECT people.id FROM people WHERE people.id {any of $1} AND (CAST($2 AS text) IS NULL OR people.id IN {texts $2})";
        let persons = serde_json::Value::from(persons).to_string();
        let own = SqlValue::Text(reach.listed().map(str::to_owned));
        let rows = self.read_rows(SqlStatement::of(SQL, vec![persons.as_str().into(), own])).await?;
        Ok(rows.iter().map(|row| row.text(0)).collect())
    }

    /// The records of candidates within reach, as far as they are still there.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn candidate_records(
        &self,
        persons: &[String],
        reach: &RecordReach,
    ) -> Result<Vec<CandidateRecord>, DbError> {
        const SQL: &str = "SELECT people.id, CASE WHEN octet_length({document}) <= CAST($2 AS bigint) THEN {document} END, CAST(1 AS bigint), coalesce((SELECT same.person FROM fedgate_same_persons AS same WHERE same.id = people.id), people.id) \
                           FROM {people} WHERE people.id IN {texts $1} AND (CAST($3 AS text) IS NULL OR people.id IN {texts $3})";
        let persons = serde_json::Value::from(persons).to_string();
        let own = SqlValue::Text(reach.listed().map(str::to_owned));
        let values = vec![persons.as_str().into(), (LONG_CANDIDATE_BYTES as u64).into(), own];
        let found = self.read_rows(SqlStatement::of(SQL, values)).await?;
        let candidate =
            |row: &SqlRow| CandidateRecord { person: row.text(0), stays: row.text(3), record: record(row, 1, 2) };
        Ok(found.iter().map(candidate).collect())
    }
}

/// A candidate of the columns `person`, `compared` and the id that stays.
fn candidate(row: &SqlRow) -> Candidate {
    Candidate { person: row.text(0), compared: row.some_text(1), stays: row.text(2) }
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
