//! What happened in a history: the writes, as their writers know them, and the messages, as readers saw them.
//!
//! The one rule: nothing here asks the store. All times are nanoseconds of one clock, from the beginning of the history.

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
}

impl ReadMessage {
    pub(crate) fn parse(message: &serde_json::Value) -> Self {
        let text = |name: &str| message[name].as_str().map(str::to_owned);
        let (resource, data) = (text("resource").unwrap(), &message["data"]);
        let mark = data["w"].as_str();
        let (method, id) = (text("method").unwrap(), text("id").unwrap_or_default());
        let key = mark.map_or_else(|| format!("{method} {resource} {id}"), str::to_owned);
        Self {
            position: message["position"].as_u64().unwrap(),
            key,
            resource,
            person: text("person"),
            count: data["n"].as_i64(),
        }
    }
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
}
