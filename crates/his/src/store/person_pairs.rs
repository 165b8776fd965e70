//! The review list: pairs of persons who may be one, what was decided about them, and persons who are yet to be compared.
//!
//! The one rule: a decision counts for the records that it was made on. When what is compared of one of them changes, the
//! pair is open again; the list itself never merges anybody. Whoever changed is to be compared from the transaction on that
//! writes the keys (`person_keys.rs`).

use super::person_keys::listed;
use super::rows::{SqlRow, SqlStatement, SqlValue};
use super::{PersonRecord, RecordStore};
use fedgate_base::db::DbError;

/// Persons who are compared at a time.
const BATCH: i64 = 50;
/// After this time, in milliseconds, another instance takes a person whom one has taken and not finished.
const TAKEN_FOR_MS: i64 = 60_000;
/// The length of a record, in bytes, that is read by itself when all persons are.
const MOST_BYTES: i64 = 16 * 1024;
/// Pairs that are written, and entries of the queue that are deleted, in one transaction.
const PAIRS_AT_A_TIME: usize = 200;
const DUE_AT_A_TIME: i64 = 5000;

/// A person who is to be compared with all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePerson {
    number: i64,
    /// The id.
    pub person: String,
}

/// What is read of a person when all are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegisteredPerson {
    /// What the index keeps of it.
    Compared(String),
    /// The record.
    Record(PersonRecord),
}

/// A comparison of all persons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedupeTurn {
    /// By what it judges.
    made_of: String,
    /// The last entry of the queue when it began: it compares those persons, too.
    due: i64,
    /// The last person who was compared with all later ones.
    pub upto: String,
}

/// A pair as a comparison finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPair {
    /// The ids.
    pub persons: [String; 2],
    /// What of each record was compared.
    pub marks: [i64; 2],
    /// The grade.
    pub grade: &'static str,
    /// The probability in ten-thousandths.
    pub score: i64,
    /// The evidence in thousandths of a bit.
    pub evidence: i64,
}

/// What is thought of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairState {
    /// Nobody has decided.
    Open,
    /// One person.
    Same,
    /// Two persons.
    Different,
}

/// A pair of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewedPair {
    /// Its number.
    pub number: i64,
    /// The ids.
    pub persons: [String; 2],
    /// The grade.
    pub grade: String,
    /// The probability in ten-thousandths.
    pub score: i64,
    /// The evidence in thousandths of a bit.
    pub evidence: i64,
    /// What was decided.
    pub state: PairState,
    /// When it was found, in milliseconds since 1970.
    pub found_at: i64,
    /// When that was decided, and by whom.
    pub decided: Option<(i64, String)>,
}

/// Which pairs are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairFilter {
    /// Of this state alone.
    pub state: Option<PairState>,
    /// Of this grade alone.
    pub grade: Option<String>,
    /// Of this person alone.
    pub person: Option<String>,
    /// Behind the pair with this evidence and this number.
    pub after: Option<(i64, i64)>,
}

impl PairState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Same, Self::Different];

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Same => "same",
            Self::Different => "different",
        }
    }

    /// The state of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl FoundPair {
    /// The pair with its ids in their order.
    #[must_use]
    pub fn of(one: (String, i64), other: (String, i64), grade: &'static str, score: i64, evidence: i64) -> Self {
        let [(one, mark), (other, of_other)] = if one.0 <= other.0 { [one, other] } else { [other, one] };
        Self { persons: [one, other], marks: [mark, of_other], grade, score, evidence }
    }

    fn put(&self) -> SqlStatement {
        // A decision stays while both marks do.
        const SQL: &str = "INSERT INTO fedgate_person_pairs AS known (one, other, one_mark, other_mark, grade, score, evidence, found_at) \
             VALUES (CAST($1 AS varchar), CAST($2 AS varchar), $3, $4, CAST($5 AS varchar), $6, $7, {now}) ON CONFLICT (one, other) DO UPDATE SET \
             state = CASE WHEN known.one_mark = excluded.one_mark AND known.other_mark = excluded.other_mark THEN known.state ELSE 'open' END, \
             found_at = CASE WHEN known.one_mark = excluded.one_mark AND known.other_mark = excluded.other_mark THEN known.found_at ELSE excluded.found_at END, \
             one_mark = excluded.one_mark, other_mark = excluded.other_mark, grade = excluded.grade, score = excluded.score, evidence = excluded.evidence \
             WHERE known.one_mark <> excluded.one_mark OR known.other_mark <> excluded.other_mark OR known.grade <> excluded.grade \
             OR known.evidence <> excluded.evidence";
        let ([one, other], [one_mark, other_mark]) = (&self.persons, self.marks);
        let values: Vec<SqlValue> = vec![
            one.as_str().into(),
            other.as_str().into(),
            one_mark.into(),
            other_mark.into(),
            self.grade.into(),
            self.score.into(),
            self.evidence.into(),
        ];
        SqlStatement::of(SQL, values)
    }
}

impl RecordStore {
    /// Takes the next persons who are to be compared.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn take_due_persons(&self) -> Result<Vec<DuePerson>, DbError> {
        // The second look at `taken` is for a row that another instance took while this one waited for its lock.
        const SQL: &str = "UPDATE fedgate_person_pairs_due SET taken = {now} WHERE number IN \
             (SELECT number FROM fedgate_person_pairs_due WHERE taken < {now} - $2 ORDER BY number LIMIT $1) \
             AND taken < {now} - $2 RETURNING number, person";
        let statement = SqlStatement::of(SQL, vec![BATCH.into(), TAKEN_FOR_MS.into()]);
        let taken = self.write_rows(vec![statement]).await?.unwrap_or_default();
        let due = |row: &SqlRow| Some(DuePerson { number: row.some_number(0)?, person: row.some_text(1)? });
        Ok(taken.iter().filter_map(due).collect())
    }

    /// Writes what was found about persons, who are then compared. Open pairs that are found no longer go.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn persons_are_compared(&self, due: &[&DuePerson], found: &[FoundPair]) -> Result<(), DbError> {
        const DONE: &str = "DELETE FROM fedgate_person_pairs_due WHERE number IN {listed $1}";
        const GONE: &str = "DELETE FROM fedgate_person_pairs WHERE state = 'open' AND (one {any of $1} OR other {any of $1}) \
             AND one || '\u{1f}' || other NOT IN {texts $2}";
        let numbers: Vec<i64> = due.iter().map(|due| due.number).collect();
        let persons: Vec<&str> = due.iter().map(|due| due.person.as_str()).collect();
        let persons = serde_json::Value::from(persons).to_string();
        let pairs: Vec<String> = found.iter().map(|pair| pair.persons.join("\u{1f}")).collect();
        let pairs = serde_json::Value::from(pairs).to_string();
        let mut statements = vec![
            SqlStatement::of(DONE, vec![listed(&numbers)]),
            SqlStatement::of(GONE, vec![persons.as_str().into(), pairs.as_str().into()]),
        ];
        // In one order, so that two instances never wait for each other.
        let mut found: Vec<&FoundPair> = found.iter().collect();
        found.sort_unstable_by(|one, other| one.persons.cmp(&other.persons));
        statements.extend(found.into_iter().map(FoundPair::put));
        self.write_all(statements).await
    }

    /// Writes that a person is no more: its pairs go, whatever was decided.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn person_is_gone(&self, due: &DuePerson) -> Result<(), DbError> {
        const DONE: &str = "DELETE FROM fedgate_person_pairs_due WHERE number = $1 RETURNING number";
        const GONE: &str = "DELETE FROM fedgate_person_pairs WHERE one = $1 OR other = $1";
        let statements = vec![
            SqlStatement::of(DONE, vec![due.number.into()]),
            SqlStatement::of(GONE, vec![due.person.as_str().into()]),
        ];
        self.write_rows(statements).await.map(drop)
    }

    /// The persons after this one, in the order of their ids, without those who are merged into others.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn persons_after(&self, after: &str) -> Result<Vec<(String, RegisteredPerson)>, DbError> {
        const SQL: &str = "SELECT people.id, kept.compared, CASE WHEN kept.compared IS NULL AND octet_length({document}) <= CAST($2 AS bigint) \
             THEN {document} END FROM (SELECT people.id, people.data FROM {people} WHERE people.id > $1 AND NOT EXISTS \
             (SELECT 1 FROM fedgate_same_persons AS merged WHERE merged.id = people.id AND merged.person <> merged.id) \
             ORDER BY people.id LIMIT 1000) AS people LEFT JOIN fedgate_compared_persons AS kept ON kept.person = people.id \
             ORDER BY people.id";
        let values = vec![after.into(), MOST_BYTES.into()];
        let rows = self.read_rows(SqlStatement::of(SQL, values)).await?;
        let person = |row: &SqlRow| match (row.some_text(1), row.some_text(2)) {
            (Some(line), _) => RegisteredPerson::Compared(line),
            (None, Some(text)) => RegisteredPerson::Record(PersonRecord::Text(text)),
            (None, None) => RegisteredPerson::Record(PersonRecord::Long),
        };
        Ok(rows.iter().map(|row| (row.text(0), person(row))).collect())
    }

    /// Begins a comparison of all persons, or goes on with one that judges by the same.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn begin_dedupe(&self, made_of: &str) -> Result<DedupeTurn, DbError> {
        const SQL: &str = "INSERT INTO fedgate_person_dedupe AS known (\"only\", made_of, due, upto) \
             SELECT CAST(1 AS boolean), CAST($1 AS varchar), coalesce(max(number), 0), '' FROM fedgate_person_pairs_due WHERE true \
             ON CONFLICT (\"only\") DO UPDATE SET made_of = excluded.made_of, \
             due = CASE WHEN known.made_of = excluded.made_of THEN known.due ELSE excluded.due END, \
             upto = CASE WHEN known.made_of = excluded.made_of THEN known.upto ELSE '' END RETURNING made_of, due, upto";
        let rows = self.write_rows(vec![SqlStatement::of(SQL, vec![made_of.into()])]).await?.unwrap_or_default();
        let turn =
            |row: &SqlRow| DedupeTurn { made_of: row.text(0), due: row.some_number(1).unwrap_or(0), upto: row.text(2) };
        Ok(rows.first().map(turn).unwrap_or(DedupeTurn { made_of: made_of.to_owned(), due: 0, upto: String::new() }))
    }

    /// Writes the pairs of a part of a comparison of all persons. Returns false if another one has gone on meanwhile.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn put_pairs(&self, turn: &mut DedupeTurn, found: &[FoundPair], upto: &str) -> Result<bool, DbError> {
        const ON: &str = "UPDATE fedgate_person_dedupe SET upto = $3 WHERE made_of = $1 AND upto = $2 RETURNING upto";
        const LAST: &str = "SELECT CAST(1 AS bigint)";
        let mut parts: Vec<&[FoundPair]> = found.chunks(PAIRS_AT_A_TIME).collect();
        // What is written twice is the same, so the place goes on with the last part alone.
        let last = parts.pop().unwrap_or_default();
        for (part, place) in parts.into_iter().map(|part| (part, turn.upto.as_str())).chain([(last, upto)]) {
            let values = vec![turn.made_of.as_str().into(), turn.upto.as_str().into(), place.into()];
            let mut statements = vec![SqlStatement::of(ON, values)];
            statements.extend(part.iter().map(FoundPair::put));
            statements.push(SqlStatement::of(LAST, vec![]));
            if self.write_rows(statements).await?.is_none() {
                return Ok(false);
            }
        }
        upto.clone_into(&mut turn.upto);
        Ok(true)
    }

    /// Ends a comparison of all persons: those who were in the queue when it began are compared.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn end_dedupe(&self, turn: &DedupeTurn) -> Result<(), DbError> {
        const SOME: &str = "DELETE FROM fedgate_person_pairs_due WHERE number IN \
             (SELECT number FROM fedgate_person_pairs_due WHERE number <= $1 ORDER BY number LIMIT $2) RETURNING number";
        const END: &str = "DELETE FROM fedgate_person_dedupe WHERE made_of = $1";
        loop {
            let some = SqlStatement::of(SOME, vec![turn.due.into(), DUE_AT_A_TIME.into()]);
            if self.write_rows(vec![some]).await?.is_none_or(|rows| rows.is_empty()) {
                break;
            }
        }
        self.write_rows(vec![SqlStatement::of(END, vec![turn.made_of.as_str().into()])]).await.map(drop)
    }

    /// The next pairs, those with the most evidence first.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn pairs(&self, filter: &PairFilter, limit: u64) -> Result<Vec<ReviewedPair>, DbError> {
        const SQL: &str = "SELECT number, one, other, grade, score, evidence, state, found_at, decided_at, decided_by \
             FROM fedgate_person_pairs WHERE (CAST($1 AS varchar) IS NULL OR state = $1) AND (CAST($2 AS varchar) IS NULL OR grade = $2) \
             AND (CAST($3 AS varchar) IS NULL OR one = $3 OR other = $3) \
             AND NOT EXISTS (SELECT 1 FROM fedgate_same_persons AS merged WHERE merged.id IN (one, other) AND merged.person <> merged.id) \
             AND (CAST($4 AS bigint) IS NULL OR evidence < $4 OR (evidence = $4 AND number > $5)) \
             ORDER BY evidence DESC, number LIMIT $6";
        let PairFilter { state, grade, person, after } = filter;
        let values = vec![
            SqlValue::Text(state.map(|state| state.as_str().to_owned())),
            grade.into(),
            person.into(),
            SqlValue::Number(after.map(|(evidence, _)| evidence)),
            SqlValue::Number(after.map(|(_, number)| number)),
            limit.into(),
        ];
        Ok(self.read_rows(SqlStatement::of(SQL, values)).await?.iter().map(pair).collect())
    }

    /// One pair.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn pair(&self, number: i64) -> Result<Option<ReviewedPair>, DbError> {
        const SQL: &str = "SELECT number, one, other, grade, score, evidence, state, found_at, decided_at, decided_by \
             FROM fedgate_person_pairs WHERE number = $1";
        Ok(self.read_rows(SqlStatement::of(SQL, vec![number.into()])).await?.first().map(pair))
    }

    /// Decides about a pair, and returns it as it is then; none if there is no such pair.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn decide_pair(&self, number: i64, state: PairState, by: &str) -> Result<Option<ReviewedPair>, DbError> {
        const SQL: &str = "UPDATE fedgate_person_pairs SET state = CAST($2 AS varchar), \
             decided_at = CASE WHEN $2 = 'open' THEN NULL ELSE {now} END, decided_by = CASE WHEN $2 = 'open' THEN NULL ELSE CAST($3 AS varchar) END \
             WHERE number = $1 RETURNING number, one, other, grade, score, evidence, state, found_at, decided_at, decided_by";
        let values = vec![number.into(), state.as_str().into(), by.into()];
        let decided = self.write_rows(vec![SqlStatement::of(SQL, values)]).await?;
        Ok(decided.unwrap_or_default().first().map(pair))
    }
}

fn pair(row: &SqlRow) -> ReviewedPair {
    ReviewedPair {
        number: row.some_number(0).unwrap_or(0),
        persons: [row.text(1), row.text(2)],
        grade: row.text(3),
        score: row.some_number(4).unwrap_or(0),
        evidence: row.some_number(5).unwrap_or(0),
        state: PairState::parse(&row.text(6)).unwrap_or(PairState::Open),
        found_at: row.some_number(7).unwrap_or(0),
        decided: row.some_number(8).map(|at| (at, row.text(9))),
    }
}
