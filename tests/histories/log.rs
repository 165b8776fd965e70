//! What happened in a history: the writes, as their writers know them, and the messages, as readers saw them.
//!
//! The one rule: nothing here asks the store. All times are nanoseconds of one clock, from the beginning of the history.

use std::collections::BTreeMap;
use std::time::Instant;

/// The clock of a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryClock(Instant);

impl HistoryClock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }
}

/// What a writer knows of its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// It was acknowledged.
    Acknowledged,
    /// It was refused, rolled back, or never sent.
    Failed,
    /// No answer tells.
    Unknown,
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenChange {
    /// Distinguishes the change from all others of the history.
    pub(crate) key: String,
    pub(crate) resource: &'static str,
    pub(crate) person: Option<String>,
    /// When it was sent.
    pub(crate) begun: u64,
}

/// A transaction: all of its changes are made, or none is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// In the order in which they were sent.
    pub(crate) changes: Vec<WrittenChange>,
    /// When the outcome was known.
    pub(crate) ended: u64,
    pub(crate) outcome: WriteOutcome,
}

/// A message, as far as the laws speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadMessage {
    pub(crate) position: u64,
    pub(crate) key: String,
    pub(crate) resource: String,
    pub(crate) person: Option<String>,
    /// The counter of the person, which each writer raised by one within its transaction.
    pub(crate) count: Option<i64>,
    /// What it says of the record of its person.
    pub(crate) step: Option<RecordStep>,
}

/// What a message says of the record of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordStep {
    /// The record has this mark.
    Marked(String),
    /// The other id leads to the person.
    Merged { old: String },
    /// It no longer does.
    Parted { old: String },
}

/// What the hub answers for an id of a person when everything has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndRecord {
    /// The record, with this mark.
    Marked(String),
    LeadsTo(String),
    /// Neither.
    Other(u16),
}

impl ReadMessage {
    pub(crate) fn parse(message: &serde_json::Value) -> Self {
        let text = |name: &str| message[name].as_str().map(str::to_owned);
        let (resource, data) = (text("resource").unwrap(), &message["data"]);
        let mark = data["w"].as_str();
        let (method, id) = (text("method").unwrap(), text("id").unwrap_or_default());
        let person = text("person");
        let merged =
            data["old"].as_str().zip(person.as_deref()).map(|(old, survivor)| merge_key(&method, old, survivor));
        let key = mark
            .map(|mark| mark_key(&resource, person.as_deref(), mark))
            .or(merged)
            .unwrap_or_else(|| format!("{method} {resource} {id}"));
        let old = || data["old"].as_str().unwrap_or_default().to_owned();
        let step = match (resource.as_str(), method.as_str()) {
            ("person", "MERGE") => Some(RecordStep::Merged { old: old() }),
            ("person", "UNMERGE") => Some(RecordStep::Parted { old: old() }),
            ("person", _) => mark.map(|mark| RecordStep::Marked(mark.to_owned())),
            _ => None,
        };
        Self { position: message["position"].as_u64().unwrap(), key, resource, person, count: data["n"].as_i64(), step }
    }
}

/// The key of a write with a mark. One write to a merged id changes the records of several people.
pub(crate) fn mark_key(resource: &str, person: Option<&str>, mark: &str) -> String {
    match person {
        Some(person) if resource == "person" => format!("{mark} of {person}"),
        _ => mark.to_owned(),
    }
}

/// The key of a merge, or of its end.
pub(crate) fn merge_key(method: &str, old: &str, survivor: &str) -> String {
    format!("{method} {old} {survivor}")
}

/// A reader, and everything that it saw.
#[derive(Debug, Default)]
pub(crate) struct ReaderLog {
    pub(crate) name: String,
    /// The person whose messages alone the reader may see; none for all.
    pub(crate) own: Option<String>,
    /// The position from which it followed.
    pub(crate) from: u64,
    /// The messages in the order in which they came, each with the time when it was there.
    pub(crate) seen: Vec<(ReadMessage, u64)>,
    /// The position that it had reached in the end.
    pub(crate) reached: u64,
    /// How often it was told that its position is unknown or gone.
    pub(crate) turned_away: usize,
}

/// A whole history.
#[derive(Debug, Default)]
pub(crate) struct HistoryLog {
    pub(crate) writes: Vec<Write>,
    pub(crate) readers: Vec<ReaderLog>,
    /// All messages, read from the beginning when everything had ended.
    pub(crate) order: Vec<ReadMessage>,
    /// What each id of a person was answered with in the end.
    pub(crate) records: BTreeMap<String, EndRecord>,
}
