//! The persons who may be somebody: found by keys, and judged one by one.
//!
//! The one rule: what is looked at has a bound, and so has the room that it takes.

use std::collections::HashSet;

use fedgate_index::assess::{Assessment, Grade};
use fedgate_index::fold::{FoldedIdentifier, FoldedPerson};

use super::{PersonIndex, keys_of, mark_of};
use crate::store::{
    CANDIDATES_AT_A_TIME, LONG_CANDIDATE_BYTES, MOST_CANDIDATES, PersonRecord, RecordKey, RecordReach, RecordStore,
};
use fedgate_base::db::DbError;

/// The most records beyond the length of others that are read for one answer.
const MOST_LONG: usize = 8;
/// Room for the records that are read at a time, in bytes.
pub(crate) const ROOM: usize = CANDIDATES_AT_A_TIME * LONG_CANDIDATE_BYTES;
/// The system of this hub's own ids among identifiers. No document can name it.
const OWN_SYSTEM: &str = "\0";

/// A person who may be the one that was asked about.
#[derive(Debug, Clone)]
pub(crate) struct LikePerson {
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
        let mut found = Vec::new();
        let wanted = |id, _: &str, record: &FoldedPerson, assessment: Assessment| {
            if assessment.grade >= least {
                found.push(LikePerson { id, mark: mark_of(record), assessment });
            }
        };
        self.compare(store, asked, &[], reach, wanted).await?;
        found.sort_by(|one, other| {
            other.assessment.evidence.cmp(&one.assessment.evidence).then_with(|| one.id.cmp(&other.id))
        });
        Ok(found)
    }

    /// Judges the persons within reach who share a key with `asked`, and those whose ids it states, and hands each to
    /// `take` with its record. Another id than a stated one speaks against a person. Returns whether these are all.
    pub(crate) async fn compare(
        &self,
        store: &RecordStore,
        asked: &FoldedPerson,
        stated: &[String],
        reach: &RecordReach,
        mut take: impl FnMut(String, &str, &FoldedPerson, Assessment),
    ) -> Result<bool, DbError> {
        let shared = store.candidates(&keys_of(asked), reach).await?;
        let mut known: HashSet<&String> = HashSet::new();
        let candidates: Vec<String> =
            stated.iter().chain(&shared).filter(|person| known.insert(person)).cloned().collect();
        let mut asked = asked.clone();
        with_own_ids(&mut asked, stated);
        let mut long = 0;
        for persons in candidates.chunks(CANDIDATES_AT_A_TIME) {
            for (id, record) in store.candidate_records(persons, reach).await? {
                let text = match record {
                    PersonRecord::Text(text) => Some(text),
                    PersonRecord::Long if long < MOST_LONG => {
                        long += 1;
                        store.whole_record(&RecordKey::Person(id.clone()), reach).await?
                    }
                    PersonRecord::Long => {
                        long = MOST_LONG + 1;
                        None
                    }
                    PersonRecord::Missing => None,
                };
                let Some(text) = text else { continue };
                let Some(mut record) = self.folded(&text) else { continue };
                if !stated.is_empty() {
                    with_own_ids(&mut record, std::slice::from_ref(&id));
                }
                let assessment = self.assess(&asked, &record);
                take(id, &text, &record, assessment);
            }
        }
        Ok(shared.len() < MOST_CANDIDATES && long <= MOST_LONG)
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
