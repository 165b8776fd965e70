//! Merges of two records of one person, and their end.
//!
//! The one rule: a merge rewrites the survivor's record alone, and keeps what that would be without the merge. Pages and
//! documents stay where they are, and whatever reads the book of a person reads those of all its ids
//! ([`same_person`](super::same_person)). So the end of a merge restores both exactly.
//!
//! Both records are locked in the order of their ids before anything is decided, so of two merges at once one comes
//! first, and the other one sees it.

use std::collections::BTreeMap;

use super::RecordStore;
use super::decision::{SqlDecision, WriteMode};
use super::live_merges::{LIVE, LOCKED, live_merge, put, texts};
use super::merged_record::{self as records, LiveMerge, MemberSource};
use super::rows::{SqlRow, SqlStatement, SqlValue};
use fedgate_base::db::DbError;
use fedgate_core::json::JsonObject;

/// The most ids of one person. Own ids are part of each assertion, and each write goes through all of them.
pub const MOST_IDS: usize = 16;

/// What to merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeOrder {
    /// The id that becomes old.
    pub old: String,
    /// The id that stays.
    pub survivor: String,
    /// Why, in the words of the caller.
    pub why: Option<String>,
    /// Members whose source the caller chooses.
    pub members: BTreeMap<String, MemberSource>,
    /// Who merges.
    pub by: String,
    /// The most bytes that the merged record may have, unless the survivor's is as long already.
    pub most: Option<usize>,
}

/// The result of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeResult {
    /// It has this number; the same merge again has the same one.
    Done(u64),
    /// One of the persons does not exist.
    Missing,
    /// Both ids are one.
    Itself,
    /// One of the ids has become old already; this is its survivor.
    Merged(String),
    /// The person would have too many ids.
    TooManyIds,
    /// The merged record would be too long.
    TooLarge,
    /// A stored record is no object.
    NotAnObject,
}

/// The result of the end of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnmergeResult {
    /// It has ended, now or before.
    Done,
    /// There is no such merge.
    Missing,
    /// This merge has to end first.
    Later(u64),
    /// A stored record is no object.
    NotAnObject,
}

/// A merge, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonMerge {
    /// Its number.
    pub number: u64,
    /// The id that became old.
    pub old: String,
    /// The id that stays.
    pub survivor: String,
    /// When, in UTC.
    pub at: String,
    /// Who merged.
    pub by: Option<String>,
    /// Why.
    pub why: Option<String>,
    /// When it ended.
    pub undone_at: Option<String>,
    /// Who ended it.
    pub undone_by: Option<String>,
}

impl RecordStore {
    /// Merges two persons.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn merge(&self, order: MergeOrder) -> Result<MergeResult, DbError> {
        const SAME: &str = "SELECT id, person FROM fedgate_same_persons WHERE person IN \
                            (SELECT same.person FROM fedgate_same_persons AS same WHERE same.id IN {texts $1})";
        const KNOWN: &str = "SELECT id, survivor FROM fedgate_merges WHERE old = $1 AND undone_at IS NULL";
        if order.old == order.survivor {
            return Ok(MergeResult::Itself);
        }
        let both = texts([order.old.as_str(), order.survivor.as_str()]);
        let reads = vec![
            SqlStatement::of(LOCKED, vec![both.clone()]),
            SqlStatement::of(SAME, vec![both]),
            SqlStatement::of(KNOWN, vec![order.old.as_str().into()]),
        ];
        let decide = move |rows: Vec<Vec<SqlRow>>| match decided(&order, &rows) {
            Ok(writes) => SqlDecision::Write(writes, MergeResult::Done(0)),
            Err(result) => SqlDecision::Leave(result),
        };
        let (result, rows) = self.decide(WriteMode::Merge, reads, decide).await?;
        Ok(match (result, rows.first()) {
            (MergeResult::Done(0), Some(row)) => MergeResult::Done(row.count(0)),
            (result, _) => result,
        })
    }

    /// Ends a merge: both persons are as if it had never been.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn unmerge(&self, number: u64, by: &str) -> Result<UnmergeResult, DbError> {
        const KEPT: &str = "SELECT {kept} FROM fedgate_merges WHERE id = $1 AND undone_at IS NULL";
        let Some(known) = self.person_merge(number).await? else { return Ok(UnmergeResult::Missing) };
        let reads = vec![
            SqlStatement::of(LOCKED, vec![texts([known.old.as_str(), known.survivor.as_str()])]),
            SqlStatement::of(LIVE, vec![known.survivor.as_str().into()]),
            SqlStatement::of(KEPT, vec![number.into()]),
        ];
        let by = by.to_owned();
        let decide = move |rows: Vec<Vec<SqlRow>>| match ended(&known, &by, &rows) {
            Ok(writes) => SqlDecision::Write(writes, UnmergeResult::Done),
            Err(result) => SqlDecision::Leave(result),
        };
        Ok(self.decide(WriteMode::Merge, reads, decide).await?.0)
    }

    /// One merge.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn person_merge(&self, number: u64) -> Result<Option<PersonMerge>, DbError> {
        const SQL: &str = "SELECT id, old, survivor, {stamp at}, by, why, {stamp undone_at}, undone_by \
                           FROM fedgate_merges WHERE id = $1";
        let rows = self.read_rows(SqlStatement::of(SQL, vec![number.into()])).await?;
        Ok(rows.first().map(shown))
    }

    /// At most `limit` merges after a number, in the order of their numbers; of one person alone, if one is named.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn person_merges(
        &self,
        after: u64,
        limit: u64,
        person: Option<&str>,
    ) -> Result<Vec<PersonMerge>, DbError> {
        const SQL: &str = "SELECT id, old, survivor, {stamp at}, by, why, {stamp undone_at}, undone_by \
             FROM fedgate_merges WHERE id > $1 AND (CAST($3 AS varchar) IS NULL OR old = $3 OR survivor = $3) \
             ORDER BY id LIMIT $2";
        let values = vec![after.into(), limit.into(), SqlValue::Text(person.map(str::to_owned))];
        Ok(self.read_rows(SqlStatement::of(SQL, values)).await?.iter().map(shown).collect())
    }
}

fn shown(row: &SqlRow) -> PersonMerge {
    PersonMerge {
        number: row.count(0),
        old: row.text(1),
        survivor: row.text(2),
        at: row.text(3),
        by: row.some_text(4),
        why: row.some_text(5),
        undone_at: row.some_text(6),
        undone_by: row.some_text(7),
    }
}

/// The statements of a merge, given the locked records, the ids of both persons, and the merge of the old id.
fn decided(order: &MergeOrder, rows: &[Vec<SqlRow>]) -> Result<Vec<SqlStatement>, MergeResult> {
    const MERGES: &str = "INSERT INTO fedgate_merges (old, survivor, by, why, kept) VALUES ($1, $2, $3, $4, {json $5})";
    const MOVES: &str = "UPDATE fedgate_same_persons SET person = $2 WHERE person = $1";
    const JOINS: &str = "INSERT INTO fedgate_same_persons (id, person) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    const NUMBER: &str = "SELECT id FROM fedgate_merges WHERE old = $1 AND undone_at IS NULL";
    let [locked, same, known] = rows else { return Err(MergeResult::Missing) };
    let MergeOrder { old, survivor, why, members, by, most } = order;
    if let Some(known) = known.first()
        && known.text(1) == *survivor
    {
        return Err(MergeResult::Done(known.count(0)));
    }
    let (old_record, present) = (record(locked, old)?, record(locked, survivor)?);
    let root = |id: &str| same.iter().find(|row| row.text(0) == id).map(|row| row.text(1));
    for id in [old, survivor] {
        if let Some(root) = root(id).filter(|root| root != id) {
            return Err(MergeResult::Merged(root));
        }
    }
    let alone = [old, survivor].into_iter().filter(|id| root(id).is_none()).count();
    if same.len() + alone > MOST_IDS {
        return Err(MergeResult::TooManyIds);
    }
    let merged = records::merged(&present, &old_record, members);
    if most.is_some_and(|most| merged.size() > most && merged.size() > present.size()) {
        return Err(MergeResult::TooLarge);
    }
    let kept = records::kept(present);
    let merge = vec![
        old.as_str().into(),
        survivor.as_str().into(),
        by.as_str().into(),
        SqlValue::Text(why.clone()),
        kept.to_text().as_str().into(),
    ];
    let pair = |one: &str, other: &str| vec![one.into(), other.into()];
    Ok(vec![
        put(survivor, &merged),
        SqlStatement::of(MERGES, merge),
        SqlStatement::of(MOVES, pair(old, survivor)),
        SqlStatement::of(JOINS, pair(old, survivor)),
        SqlStatement::of(JOINS, pair(survivor, survivor)),
        SqlStatement::of(NUMBER, vec![old.as_str().into()]),
    ])
}

/// The statements that end a merge, given the locked records, the live merges of the person, and the kept record.
fn ended(known: &PersonMerge, by: &str, rows: &[Vec<SqlRow>]) -> Result<Vec<SqlStatement>, UnmergeResult> {
    const ENDS: &str = "UPDATE fedgate_merges SET undone_at = {moment}, undone_by = $2, kept = NULL WHERE id = $1 AND undone_at IS NULL";
    const MOVES: &str = "UPDATE fedgate_same_persons SET person = $2 WHERE id IN {texts $1}";
    const PARTS: &str = "DELETE FROM fedgate_same_persons WHERE id IN {texts $1}";
    let [locked, live, kept] = rows else { return Err(UnmergeResult::Missing) };
    // Without a live row it has ended before.
    let kept = kept.first().ok_or(UnmergeResult::Done)?;
    let live: Vec<LiveMerge> = live.iter().map(live_merge).collect();
    let PersonMerge { number, old, survivor, .. } = known;
    let later = live.iter().find(|merge| merge.old == *survivor).or_else(|| {
        let into = live.iter().filter(|merge| merge.survivor == *survivor);
        into.max_by_key(|merge| merge.number).filter(|newest| newest.number > number.cast_signed())
    });
    if let Some(later) = later {
        return Err(UnmergeResult::Later(later.number.cast_unsigned()));
    }
    let present = record(locked, survivor).map_err(|_| UnmergeResult::NotAnObject)?;
    let kept = records::object(&kept.text(0)).ok_or(UnmergeResult::NotAnObject)?;
    let left: Vec<LiveMerge> = live.into_iter().filter(|merge| merge.number != number.cast_signed()).collect();
    let mut writes = vec![
        put(survivor, &records::restored(&present, kept)),
        SqlStatement::of(ENDS, vec![(*number).into(), by.into()]),
    ];
    for top in [old, survivor] {
        let half = records::half(top, &left);
        let ids = texts(half.iter().map(String::as_str));
        writes.push(match half.len() {
            1 => SqlStatement::of(PARTS, vec![ids]),
            _ if top == survivor => continue,
            _ => SqlStatement::of(MOVES, vec![ids, top.as_str().into()]),
        });
    }
    Ok(writes)
}

/// The record of a person among locked rows.
fn record(locked: &[SqlRow], id: &str) -> Result<JsonObject, MergeResult> {
    let row = locked.iter().find(|row| row.text(0) == id).ok_or(MergeResult::Missing)?;
    records::object(&row.text(1)).ok_or(MergeResult::NotAnObject)
}
