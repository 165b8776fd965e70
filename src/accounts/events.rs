//! Account events: the store keeps one for every change of an account, with its author.
//!
//! The one rule: an event is written in the transaction that makes the change, so neither exists without the other. A
//! gateway takes the events that are in no record yet, writes them, and marks them as recorded. If it dies in between,
//! another gateway takes them. So each event is recorded once, or twice rather than never.

use serde_json::Value;

/// One change of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEvent {
    /// Its number. Later events have higher numbers, except for transactions that run at the same time.
    pub id: i64,
    /// The time in UTC (RFC 3339).
    pub at: String,
    /// `created`, `changed`, `deleted`; `linked`, `unlinked`, `related`, `unrelated`, `all_unlinked`, `all_unrelated`; `all_deleted` if the whole table was emptied at once; `unwatched` if the
    /// changes up to this event are unknown.
    pub what: String,
    /// The account; none if all are concerned.
    pub account: Option<String>,
    /// The roles, if they changed.
    pub roles: MemberChange,
    /// The `active` mark, if it changed.
    pub active: MemberChange,
    /// `set`, `changed`, `removed`, or `rehashed` by a login.
    pub password: Option<String>,
    /// `http`, `command`, `import` or `login`; `replication`, `migration`; and `outside` for any other program.
    pub via: String,
    /// The account that sent the request, or the user of the machine who ran the command.
    pub actor: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The user of the database; none on an embedded store.
    pub database_user: Option<String>,
    /// The application name of the program in the database.
    pub application: Option<String>,
    /// The link or the relation.
    pub detail: Option<Value>,
}

/// A member of a person's document before and after a change; both are none if it did not change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// Before, as JSON; none if there was no such member.
    pub before: Option<Value>,
    /// After.
    pub after: Option<Value>,
}

impl MemberChange {
    /// Whether it changed.
    pub fn is_change(&self) -> bool {
        self.before.is_some() || self.after.is_some()
    }

    pub(super) fn of(before: Option<&str>, after: Option<&str>) -> Self {
        // A text that is not JSON was cut off.
        let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        Self { before: before.map(value), after: after.map(value) }
    }
}

/// The link or relation of an event. A text that is not JSON was cut off.
pub(super) fn detail(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// The statement that reads events, with SQLite's places of parameters: `?1` the first event that is too late, `?2` the
/// most events, and `?3` the account.
pub(super) fn history(columns: &str, is_of_account: bool) -> String {
    let of = if is_of_account { "AND account = ?3" } else { "" };
    format!("SELECT {columns} FROM fedgate_account_events WHERE id < ?1 {of} ORDER BY id DESC LIMIT ?2")
}
