//! Whose records a statement may touch.
//!
//! The one rule: every statement about a person's records takes a reach. A caller's own records are those of its account
//! and of the other ids of the same person, as the gateway asserts them; no statement looks them up again.

use fedgate_core::json::JsonValue;

/// The persons whose records a statement may touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordReach {
    /// No person: public pages reach no record.
    Nobody,
    /// Only these ids.
    Own(OwnPersons),
    /// Every person.
    Global,
}

/// The ids whose records are a caller's own; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPersons {
    ids: Vec<String>,
    /// The same as JSON, as most statements take it.
    listed: String,
}

impl OwnPersons {
    /// An account's id, and the other ids of the same person.
    pub fn new(account: impl Into<String>, others: impl IntoIterator<Item = String>) -> Self {
        let mut ids = vec![account.into()];
        ids.extend(others);
        let listed = JsonValue::Array(ids.iter().cloned().map(JsonValue::String).collect()).to_text();
        Self { ids, listed }
    }

    /// Whether a person is one of them.
    pub fn holds(&self, person: &str) -> bool {
        self.ids.iter().any(|id| id == person)
    }
}

impl RecordReach {
    /// A reach of one id.
    pub fn only(person: impl Into<String>) -> Self {
        Self::Own(OwnPersons::new(person, []))
    }

    /// Whether a person is within reach.
    pub(super) fn holds(&self, person: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::Own(own) => own.holds(person),
            Self::Global => true,
        }
    }

    /// The ids within reach as a JSON list; `None` if all are.
    pub(super) fn listed(&self) -> Option<&str> {
        match self {
            Self::Nobody => Some("[]"),
            Self::Own(own) => Some(&own.listed),
            Self::Global => None,
        }
    }

    /// The ids within reach; `None` if all are.
    pub fn ids(&self) -> Option<&[String]> {
        match self {
            Self::Nobody => Some(&[]),
            Self::Own(own) => Some(&own.ids),
            Self::Global => None,
        }
    }
}
