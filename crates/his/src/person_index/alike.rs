//! The persons who may be somebody: found by keys, and judged one by one.
//!
//! The one rule: what is looked at has a bound, and so has the room that it takes.

use std::collections::{HashMap, HashSet};

use fedgate_index::assess::{Assessment, Grade};
use fedgate_index::fold::{FoldedIdentifier, FoldedPerson, MAX_LINE_BYTES};

use super::{PersonIndex, keys_of, mark_of};
use crate::store::{
    CANDIDATES_AT_A_TIME, Candidate, CandidateRecord, LONG_CANDIDATE_BYTES, MOST_CANDIDATES, PersonRecord, RecordReach,
    RecordStore,
};
use fedgate_base::db::DbError;

/// The most records beyond the length of others that are read for one answer.
const MOST_LONG: usize = 8;
/// Room for what is compared of candidates, or for the records that are read at a time, in bytes.
pub(crate) const ROOM: usize = MOST_CANDIDATES * MAX_LINE_BYTES;
const _: () = assert!(ROOM >= CANDIDATES_AT_A_TIME * LONG_CANDIDATE_BYTES);
/// The system of this hub's own ids among identifiers. No document can name it.
const OWN_SYSTEM: &str = "\0";

/// A person who may be the one that was asked about.
#[derive(Debug, Clone)]
pub(crate) struct LikePerson {
    /// The id that stays, also where the record of an id that merges made old was compared.
    pub(crate) id: String,
    /// What of that person's record was compared, as a number.
    pub(crate) mark: i64,
    pub(crate) assessment: Assessment,
}

impl PersonIndex {
    /// The persons within reach who may be `asked`, of this grade or a better one, the likeliest first.
    pub(crate) async fn alike(
        &self,
        store: &RecordStore,
        asked: &FoldedPerson,
        reach: &RecordReach,
        least: Grade,
    ) -> Result<Vec<LikePerson>, DbError> {
        let mut found = self.judged(store, asked, &[], reach).await?.persons;
        found.retain(|person| person.assessment.grade >= least);
        if !found.is_empty() {
            // A person who has just been deleted has keys for a moment.
            let ids: Vec<&str> = found.iter().map(|person| person.id.as_str()).collect();
            let present: HashSet<String> = store.present(&ids, reach).await?.into_iter().collect();
            found.retain(|person| present.contains(&person.id));
        }
        found.sort_by(|one, other| {
            other.assessment.evidence.cmp(&one.assessment.evidence).then_with(|| one.id.cmp(&other.id))
        });
        // Of a person with several records, the likest counts.
        let mut known = HashSet::new();
        found.retain(|person| known.insert(person.id.clone()));
        Ok(found)
    }

    /// Hands each person within reach who may be `asked`, or whose id it states, to `take` with its record. Another id than
    /// a stated one speaks against a person. Returns whether these are all.
    pub(crate) async fn compare(
        &self,
        store: &RecordStore,
        asked: &FoldedPerson,
        stated: &[String],
        reach: &RecordReach,
        mut take: impl FnMut(String, &str, Assessment),
    ) -> Result<bool, DbError> {
        let judged = self.judged(store, asked, stated, reach).await?;
        let may_be = |person: &LikePerson| person.assessment.grade > Grade::CertainlyNot;
        let mut likely: Vec<LikePerson> = judged.persons.into_iter().filter(may_be).collect();
        likely.sort_by_key(|person| person.assessment.evidence);
        let mut found: HashMap<String, Assessment> =
            likely.into_iter().map(|person| (person.id, person.assessment)).collect();
        let mut ids: Vec<String> = found.keys().cloned().collect();
        ids.sort_unstable();
        let mut records = LongRecords::default();
        for persons in ids.chunks(CANDIDATES_AT_A_TIME) {
            for CandidateRecord { person, record, .. } in store.candidate_records(persons, reach).await? {
                let text = records.text(store, &person, record, reach).await?;
                if let (Some(text), Some(assessment)) = (text, found.remove(&person)) {
                    take(person, &text, assessment);
                }
            }
        }
        Ok(judged.is_whole && records.are_whole())
    }

    /// Judges the persons within reach who share a key with `asked`, and those whose ids it states.
    async fn judged(
        &self,
        store: &RecordStore,
        asked: &FoldedPerson,
        stated: &[String],
        reach: &RecordReach,
    ) -> Result<JudgedPersons, DbError> {
        let shared = store.candidates(&keys_of(asked), reach).await?;
        let mut stated = stated.to_vec();
        if !stated.is_empty() {
            stated.extend(store.same_persons(&stated).await?.into_iter().map(|(_, stays)| stays));
            stated.sort_unstable();
            stated.dedup();
        }
        self.judge(store, asked, &stated, shared, reach).await
    }

    /// Judges these persons, and those whose ids are stated.
    pub(super) async fn judge(
        &self,
        store: &RecordStore,
        asked: &FoldedPerson,
        stated: &[String],
        shared: Vec<Candidate>,
        reach: &RecordReach,
    ) -> Result<JudgedPersons, DbError> {
        let mut judged = JudgedPersons { persons: Vec::new(), is_whole: shared.len() < MOST_CANDIDATES };
        let mut asked = asked.clone();
        with_own_ids(&mut asked, stated);
        let mut judge = |id: String, stays: String, mut person: FoldedPerson| {
            let mark = mark_of(&person);
            if !stated.is_empty() {
                with_own_ids(&mut person, &[id, stays.clone()]);
            }
            let assessment = self.assess(&asked, &person);
            judged.persons.push(LikePerson { id: stays, mark, assessment });
        };
        // The compared fields of most persons are kept. The records of the others are read.
        let known: HashSet<&str> = shared.iter().map(|candidate| candidate.person.as_str()).collect();
        let mut others: Vec<String> = stated.iter().filter(|id| !known.contains(id.as_str())).cloned().collect();
        for Candidate { person, stays, compared } in shared {
            match compared.as_deref().and_then(FoldedPerson::of_line) {
                Some(folded) => judge(person, stays, folded),
                None => others.push(person),
            }
        }
        let mut records = LongRecords::default();
        for persons in others.chunks(CANDIDATES_AT_A_TIME) {
            for CandidateRecord { person, stays, record } in store.candidate_records(persons, reach).await? {
                let text = records.text(store, &person, record, reach).await?;
                if let Some(folded) = text.and_then(|text| self.folded(&text)) {
                    judge(person, stays, folded);
                }
            }
        }
        judged.is_whole &= records.are_whole();
        Ok(judged)
    }
}

/// Persons with what is thought of them.
pub(super) struct JudgedPersons {
    pub(super) persons: Vec<LikePerson>,
    /// Whether these are all who may be meant.
    is_whole: bool,
}

/// How many records beyond the length of others were read.
#[derive(Default)]
struct LongRecords(usize);

impl LongRecords {
    async fn text(
        &mut self,
        store: &RecordStore,
        id: &str,
        record: PersonRecord,
        reach: &RecordReach,
    ) -> Result<Option<String>, DbError> {
        match record {
            PersonRecord::Text(text) => Ok(Some(text)),
            PersonRecord::Missing => Ok(None),
            PersonRecord::Long => {
                self.0 += 1;
                match self.are_whole() {
                    true => store.compared_record(id, reach).await,
                    false => Ok(None),
                }
            }
        }
    }

    fn are_whole(&self) -> bool {
        self.0 <= MOST_LONG
    }
}

/// A probability with four digits, rounded down: the model knows no more.
pub(super) fn in_ten_thousandths(score: f64) -> i64 {
    (score * 10_000.0).floor() as i64
}

/// Adds this hub's own ids to the identifiers of a person.
fn with_own_ids(person: &mut FoldedPerson, ids: &[String]) {
    let own = ids.iter().map(|id| FoldedIdentifier { value: id.as_str().into(), system: OWN_SYSTEM.into() });
    person.identifiers = std::mem::take(&mut person.identifiers).into_vec().into_iter().chain(own).collect();
}
