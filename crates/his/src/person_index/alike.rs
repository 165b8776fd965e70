//! The persons who may be somebody: found by keys, and judged one by one.
//!
//! The one rule: what is looked at has a bound, and so has the room that it takes.

use fedgate_index::assess::{Assessment, Grade};
use fedgate_index::fold::FoldedPerson;

use super::{PersonIndex, keys_of, mark_of};
use crate::store::{CANDIDATES_AT_A_TIME, LONG_CANDIDATE_BYTES, PersonRecord, RecordKey, RecordReach, RecordStore};
use fedgate_base::db::DbError;

/// The most records beyond the length of others that are read for one answer.
const MOST_LONG: usize = 8;
/// Room for the records that are read at a time, in bytes.
pub(crate) const ROOM: usize = CANDIDATES_AT_A_TIME * LONG_CANDIDATE_BYTES;

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
        let (mut found, mut long) = (Vec::new(), 0);
        let candidates = store.candidates(&keys_of(asked), reach).await?;
        for persons in candidates.chunks(CANDIDATES_AT_A_TIME) {
            for (id, record) in store.candidate_records(persons).await? {
                let text = match record {
                    PersonRecord::Text(text) => Some(text),
                    PersonRecord::Long if long < MOST_LONG => {
                        long += 1;
                        store.whole_record(&RecordKey::Person(id.clone()), reach).await?
                    }
                    PersonRecord::Long | PersonRecord::Missing => None,
                };
                let Some(record) = text.and_then(|text| self.folded(&text)) else { continue };
                let assessment = self.assess(asked, &record);
                if assessment.grade >= least {
                    found.push(LikePerson { id, mark: mark_of(&record), assessment });
                }
            }
        }
        found.sort_by(|one, other| {
            other.assessment.evidence.cmp(&one.assessment.evidence).then_with(|| one.id.cmp(&other.id))
        });
        Ok(found)
    }
}

/// A probability with four digits, rounded down: the model knows no more.
pub(super) fn in_ten_thousandths(score: f64) -> i64 {
    (score * 10_000.0).floor() as i64
}
