//! Messages that nodes send.
//!
//! The one rule: sender and id together name a message for as long as it is kept. The same message again changes
//! nothing, and another one under that id is refused.

use super::RecordStore;
use super::message_reach::MessageAddressee;
use fedgate_base::db::DbError;
use fedgate_core::json;

/// A node's own message.
#[derive(Debug, Clone)]
pub struct NodeMessage {
    /// The id that the sender gave it.
    pub id: String,
    /// Whom it is for.
    pub to: MessageAddressee,
    /// Its type, if the sender says one.
    pub kind: Option<String>,
    /// Its content, as JSON.
    pub data: String,
}

impl NodeMessage {
    /// Whether this is the stored message.
    pub(super) fn is_same(&self, stored: &StoredMessage) -> bool {
        let StoredMessage { addressee, kind, data } = stored;
        *addressee == self.to.key() && *kind == self.kind && json::is_same(data, &self.data)
    }
}

/// A message that a sender's id names, as it is stored.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) addressee: String,
    pub(super) kind: Option<String>,
    pub(super) data: String,
}

/// The result of sending a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendResult {
    /// The message was stored, now or before.
    Done,
    /// The sender has used the id for another message.
    Taken,
}

impl RecordStore {
    /// Stores a message of this sender.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn send(&self, sender: &str, message: &NodeMessage) -> Result<SendResult, DbError> {
        written!(self, store => store.send(sender, message))
    }

    /// The result of sending a message that may have been sent before; none if it was not.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn sent(&self, sender: &str, message: &NodeMessage) -> Result<Option<SendResult>, DbError> {
        let stored = each!(self, store => store.sent(sender, &message.id))?;
        Ok(stored.map(|stored| if message.is_same(&stored) { SendResult::Done } else { SendResult::Taken }))
    }

    /// How many messages of a sender are kept, counted up to `most`.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn count_sent(&self, sender: &str, most: u64) -> Result<u64, DbError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let counted = each!(self, store => store.count_sent(sender, most))?;
        Ok(u64::try_from(counted).unwrap_or(0))
    }
}
