//! Cursors: positions that nodes keep here under names.
//!
//! The one rule: a cursor belongs to one account, which is part of every statement; whatever the scope, no other account
//! reads or moves it. A cursor never goes back. Whether it may move is decided in the statement that moves it.

use super::RecordStore;
use super::sql::SqlDialect;
use crate::etag::{EntityTags, TagCondition};
use fedgate_base::db::DbError;

/// The most cursors of an account.
pub(super) const MOST_CURSORS: i64 = 100;
/// How often a write is tried again that lost against another one.
const ATTEMPTS: usize = 5;

/// Names one cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorKey {
    /// The account that it belongs to.
    pub account: String,
    /// Its name.
    pub name: String,
}

/// A stored cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageCursor {
    /// Its name.
    pub name: String,
    /// The position that it has reached.
    pub position: u64,
    /// The history in which it was moved there; none if that was before histories were noted.
    pub history: Option<u64>,
    /// When it got there, in UTC.
    pub time: String,
}

impl MessageCursor {
    /// The entity tag: the position itself.
    pub fn tag(&self) -> String {
        tag_of(self.position)
    }
}

/// The result of moving a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorWritten {
    /// The cursor is new.
    Created,
    /// The cursor was moved, or is where it was.
    Moved,
    /// The cursor is not in the state that the caller named.
    Stale,
    /// The cursor has passed the position; it is at this one.
    Passed(u64),
    /// The position is beyond the last one, which is this.
    Unknown(u64),
    /// The account has as many cursors as it may have.
    TooMany,
    /// Others move the cursor all the time.
    Contended,
}

/// The facts that decide about a write: the cursor, whether the hub has lost messages before it, the last position, and
/// the number of cursors of the account.
#[derive(Debug)]
pub(super) struct CursorState {
    pub(super) position: Option<i64>,
    pub(super) is_lost: bool,
    pub(super) last: i64,
    pub(super) count: i64,
}

/// The conditions of a move: the positions that allow it, and those that forbid it.
#[derive(Debug, Clone, Default)]
pub(super) struct CursorCondition {
    pub(super) wanted: Option<Vec<i64>>,
    pub(super) unwanted: Option<Vec<i64>>,
}

impl CursorCondition {
    fn of(condition: &TagCondition) -> Self {
        let wanted = match condition.wanted() {
            Some(EntityTags::Listed(tags)) => Some(tags.iter().filter_map(|tag| position_of(tag)).collect()),
            // Every cursor that exists has a tag.
            Some(EntityTags::Any) | None => None,
        };
        let unwanted = match condition.unwanted() {
            // Weak comparison.
            Some(EntityTags::Listed(tags)) => {
                Some(tags.iter().filter_map(|tag| position_of(tag.strip_prefix("W/").unwrap_or(tag))).collect())
            }
            Some(EntityTags::Any) | None => None,
        };
        Self { wanted, unwanted }
    }
}

fn tag_of(position: u64) -> String {
    format!("\"{position}\"")
}

/// The position that a tag names, if it is one of ours to the letter.
fn position_of(tag: &str) -> Option<i64> {
    let position: u64 = tag.trim_matches('"').parse().ok()?;
    (tag_of(position) == tag).then(|| i64::try_from(position).ok()).flatten()
}

impl RecordStore {
    /// The cursors of an account, in the order of their names.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn cursors(&self, account: &str) -> Result<Vec<MessageCursor>, DbError> {
        each!(self, store => store.cursors(account, None))
    }

    /// One cursor.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn cursor(&self, key: &CursorKey) -> Result<Option<MessageCursor>, DbError> {
        let found = each!(self, store => store.cursors(&key.account, Some(&key.name)))?;
        Ok(found.into_iter().next())
    }

    /// Moves a cursor to a position, or makes one there.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn put_cursor(
        &self,
        key: &CursorKey,
        position: u64,
        condition: &TagCondition,
    ) -> Result<CursorWritten, DbError> {
        let Ok(wanted) = i64::try_from(position) else {
            return Ok(CursorWritten::Unknown(self.last_position().await?));
        };
        let may_exist = !matches!(condition.unwanted(), Some(EntityTags::Any));
        let tags = CursorCondition::of(condition);
        for _ in 0..ATTEMPTS {
            if may_exist && each!(self, store => store.move_cursor(key, wanted, &tags))? {
                return Ok(CursorWritten::Moved);
            }
            // Nothing was written. The reason decides what to answer; if there is none any more, another write came between.
            let state = each!(self, store => store.cursor_state(key))?;
            if let Some(refused) = refusal(&state, wanted, condition) {
                return Ok(refused);
            }
            if state.position.is_none() && each!(self, store => store.make_cursor(key, wanted))? {
                return Ok(CursorWritten::Created);
            }
        }
        Ok(CursorWritten::Contended)
    }

    /// Deletes a cursor, and returns whether it did; none if there was no such cursor.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn delete_cursor(&self, key: &CursorKey, condition: &TagCondition) -> Result<Option<bool>, DbError> {
        let tags = CursorCondition::of(condition);
        let may_exist = !matches!(condition.unwanted(), Some(EntityTags::Any));
        if may_exist && each!(self, store => store.delete_cursor(key, &tags))? {
            return Ok(Some(true));
        }
        let state = each!(self, store => store.cursor_state(key))?;
        Ok(state.position.map(|_| false))
    }
}

/// Why a cursor is not written. A condition counts before everything else (RFC 9110, 13.2.1).
fn refusal(state: &CursorState, wanted: i64, condition: &TagCondition) -> Option<CursorWritten> {
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let is_admitted = match state.position {
        Some(known) => condition.admits_tag(|| tag_of(number(known))),
        None => condition.admits_absence(),
    };
    match state.position {
        _ if !is_admitted => Some(CursorWritten::Stale),
        _ if wanted > state.last => Some(CursorWritten::Unknown(number(state.last))),
        Some(known) if wanted < known && !state.is_lost => Some(CursorWritten::Passed(number(known))),
        None if state.count >= MOST_CURSORS => Some(CursorWritten::TooMany),
        Some(_) | None => None,
    }
}

impl SqlDialect {
    /// The last position that was given.
    fn last_position(self) -> &'static str {
        match self {
            Self::Postgres => "(SELECT relay.position FROM fedgate_relay AS relay)",
            Self::Sqlite => "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'fedgate_messages'), 0)",
        }
    }

    fn now(self) -> &'static str {
        match self {
            Self::Postgres => "clock_timestamp()",
            Self::Sqlite => "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
        }
    }

    /// The conditions on the position of an existing cursor: parameters with lists, or null for no condition.
    fn admits_position(self, wanted: usize, unwanted: usize) -> String {
        let (wanted_in, unwanted_in) = match self {
            Self::Postgres => (format!("= ANY (${wanted}::bigint[])"), format!("<> ALL (${unwanted}::bigint[])")),
            Self::Sqlite => (
                format!("IN (SELECT value FROM json_each(${wanted}))"),
                format!("NOT IN (SELECT value FROM json_each(${unwanted}))"),
            ),
        };
        let list = match self {
            Self::Postgres => "::bigint[]",
            Self::Sqlite => "",
        };
        format!(
            "(${wanted}{list} IS NULL OR position {wanted_in}) AND (${unwanted}{list} IS NULL OR position {unwanted_in})"
        )
    }
}

/// Whether the history in which a cursor was moved has ended before its position. Only then it may go back.
const IS_LOST: &str = "EXISTS (SELECT 1 FROM fedgate_ended_histories AS ended \
                       WHERE ended.history >= fedgate_cursors.history AND ended.ends < fedgate_cursors.position)";

/// Cursors of an account (`$1`), all or the one of a name (`$2`). Columns: name, position, history, time.
pub(super) fn select(dialect: SqlDialect) -> String {
    let time = match dialect {
        SqlDialect::Postgres => "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
        SqlDialect::Sqlite => "at",
    };
    dialect.placeholders(&format!(
        "SELECT name, position, history, {time} FROM fedgate_cursors \
         WHERE account = $1 AND (CAST($2 AS text) IS NULL OR name = $2) ORDER BY name"
    ))
}

/// Moves the cursor of an account (`$1`) and name (`$2`) to a position (`$3`), if its own position allows that
/// (`$4`, `$5`).
pub(super) fn update(dialect: SqlDialect) -> String {
    let (last, now, admits) = (dialect.last_position(), dialect.now(), dialect.admits_position(4, 5));
    // The time is that of the arrival, so a repeated write changes nothing.
    dialect.placeholders(&format!(
        "UPDATE fedgate_cursors SET at = CASE WHEN position = $3 THEN at ELSE {now} END, position = $3, \
         history = (SELECT relay.history FROM fedgate_relay AS relay) \
         WHERE account = $1 AND name = $2 AND (position <= $3 OR {IS_LOST}) AND $3 <= {last} AND {admits}"
    ))
}

/// Makes a cursor, unless there is one, or as many as an account may have (`$4`).
pub(super) fn insert(dialect: SqlDialect) -> String {
    let (last, now) = (dialect.last_position(), dialect.now());
    dialect.placeholders(&format!(
        "INSERT INTO fedgate_cursors (account, name, position, history, at) \
         SELECT CAST($1 AS text), CAST($2 AS text), CAST($3 AS bigint), (SELECT relay.history FROM fedgate_relay AS relay), {now} WHERE CAST($3 AS bigint) <= {last} \
         AND (SELECT count(*) FROM fedgate_cursors WHERE account = $1) < $4 ON CONFLICT DO NOTHING"
    ))
}

/// Deletes a cursor whose position allows that (`$3`, `$4`).
pub(super) fn delete(dialect: SqlDialect) -> String {
    let admits = dialect.admits_position(3, 4);
    dialect.placeholders(&format!("DELETE FROM fedgate_cursors WHERE account = $1 AND name = $2 AND {admits}"))
}

/// The columns of [`CursorState`].
pub(super) fn select_state(dialect: SqlDialect) -> String {
    let last = dialect.last_position();
    dialect.placeholders(&format!(
        "SELECT (SELECT position FROM fedgate_cursors WHERE account = $1 AND name = $2), \
         EXISTS (SELECT 1 FROM fedgate_cursors WHERE account = $1 AND name = $2 AND {IS_LOST}), {last}, \
         (SELECT count(*) FROM fedgate_cursors WHERE account = $1)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tag_of_ours_to_the_letter_names_a_position() {
        assert_eq!(position_of("\"7\""), Some(7));
        for tag in ["7", "\"07\"", "\"+7\"", "W/\"7\"", "\"\"", "\"-1\"", "\"7", "\"99999999999999999999\""] {
            assert_eq!(position_of(tag), None, "{tag}");
        }
    }
}
