//! Messages: what each accepted write left for the nodes, in the order of their positions.
//!
//! The one rule: a reader that asks for what follows a position, again and again, sees every message that it may see,
//! once, and in an order in which nothing about one person goes backwards. Triggers append messages
//! (`db/schema/postgres_messages.sql`), and this module only reads them and gives them positions.

use std::time::Duration;

use super::message_reach::{MessageConcern, MessageReach, ReachSql};
use super::message_row::MessageShape;
use super::sql::SqlDialect;
use super::{ListChunk, RecordReach, RecordStore, waits};
use fedgate_base::db::DbError;

/// Which messages are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// Only messages about this person.
    pub person: Option<String>,
    /// Only messages about this kind of resource.
    pub resource: Option<String>,
    /// Only messages of writes by this account.
    pub node: Option<String>,
    /// Only messages of this method.
    pub method: Option<String>,
    /// Only messages of this type.
    pub kind: Option<String>,
}

/// The resource of a node's own message.
pub const NODE_MESSAGE: &str = "message";

impl MessageFilter {
    /// Whether only messages of nodes are asked for.
    pub(super) fn is_of_nodes(&self) -> bool {
        self.resource.as_deref() == Some(NODE_MESSAGE)
    }
}

/// The positions of the messages that follow a position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessagePlaces {
    /// The first position that is kept.
    pub first: u64,
    /// The last position that was given.
    pub last: u64,
    /// All messages up to here were examined.
    pub upto: u64,
    /// The positions found, in order.
    pub found: Vec<u64>,
    /// The history that these positions belong to.
    pub history: u64,
}

impl RecordStore {
    /// The positions of at most `limit` messages after `after`.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn message_places(
        &self,
        after: u64,
        limit: usize,
        filter: &MessageFilter,
        reach: &MessageReach,
    ) -> Result<MessagePlaces, DbError> {
        each!(self, store => store.message_places(after, limit, filter, reach))
    }

    /// What the messages after `after` and up to `upto` concern, each once.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn message_concerns(&self, after: u64, upto: u64) -> Result<Vec<MessageConcern>, DbError> {
        let [after, upto] = [after, upto].map(|position| i64::try_from(position).unwrap_or(i64::MAX));
        each!(self, store => store.message_concerns(after, upto))
    }

    /// The first and the last position, and the history.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn message_bounds(&self) -> Result<MessagePlaces, DbError> {
        let (filter, nobody) = (MessageFilter::default(), MessageReach::new(RecordReach::Nobody, "", &[]));
        self.message_places(0, 1, &filter, &nobody).await
    }

    /// The last position that was given.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn last_position(&self) -> Result<u64, DbError> {
        Ok(self.message_bounds().await?.last)
    }

    /// The last position that a reader from `history` may have reached: the least at which a history has ended since.
    /// None if none has ended.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn history_end(&self, history: u64) -> Result<Option<u64>, DbError> {
        let history = i64::try_from(history).unwrap_or(i64::MAX);
        let ends: Option<i64> = each!(self, store => store.history_end(history))?;
        Ok(ends.and_then(|ends| u64::try_from(ends).ok()))
    }

    /// Begins another history of messages on an embedded store, before a process writes there. The file may be a copy of
    /// the one that served the last time, and nothing in it can tell. Readers notice nothing unless they have read
    /// messages that the file lacks. On PostgreSQL the function that gives positions recognizes another database.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn take_history(&self) -> Result<(), DbError> {
        match self {
            Self::Postgres(_) => Ok(()),
            Self::Sqlite(store) => store.take_history().await,
        }
    }

    /// Deletes messages that are older than `age`, or beyond the youngest `most`; the oldest first, and some at a time.
    /// Returns whether more may be left to delete.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn drop_messages(&self, age: Option<Duration>, most: Option<u64>) -> Result<bool, DbError> {
        let seconds = age.map(waits::whole_seconds);
        let most = most.map(|most| i64::try_from(most).unwrap_or(i64::MAX));
        each!(self, store => store.drop_messages(seconds, most))
    }

    /// The messages at these positions, as many as fill a chunk, none with data of more than `most` bytes. A message that
    /// is not kept any longer is missing.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn messages(
        &self,
        positions: &[u64],
        most: usize,
        reach: &MessageReach,
        shape: MessageShape,
    ) -> Result<ListChunk, DbError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        each!(self, store => store.messages(positions, most, reach, shape))
    }
}

/// What the messages after `$1` and up to `$2` concern, as [`MessageConcern`] has it.
pub(super) fn select_concerns(dialect: SqlDialect) -> String {
    let (table, sender) = match dialect {
        SqlDialect::Postgres => ("fedgate_positions", "sender"),
        // Messages about records have a node, too.
        SqlDialect::Sqlite => ("fedgate_messages", "CASE WHEN addressee IS NOT NULL THEN node END"),
    };
    let each = format!(
        "SELECT 'person ' || person AS concern FROM {table} WHERE position > $1 AND position <= $2 \
         UNION SELECT 'sender ' || {sender} FROM {table} WHERE position > $1 AND position <= $2 \
         UNION SELECT addressee FROM {table} WHERE position > $1 AND position <= $2"
    );
    dialect.placeholders(&format!("SELECT concern FROM ({each}) AS concerns WHERE concern IS NOT NULL"))
}

/// The least end of the histories from `$1` on.
pub(super) const HISTORY_END: &str = "SELECT min(ends) FROM fedgate_ended_histories WHERE history >= $1";

/// The messages at some positions (`$1`), in order; the data is null if it has more than `$2` bytes. Columns: data, its
/// bytes, and the members of a row from the position on. Further parameters are texts.
pub(super) fn select_messages(dialect: SqlDialect, reach: &MessageReach) -> (String, Vec<String>) {
    let mut parameters = vec![];
    let records = ReachSql::of_records(dialect, reach, &mut parameters, 2);
    let sees = ReachSql::add(records.condition(), dialect, reach, &mut parameters, 2).of_all();
    const COLUMNS: &str = "message.resource, message.person, message.id, message.method, message.node, message.author, \
                           message.kind, message.addressee";
    // The history in which the position was given: the first one after all that ended before it.
    let history = format!(
        "coalesce((SELECT history + 1 FROM fedgate_ended_histories WHERE ends < {}.position ORDER BY history DESC LIMIT 1), 1)",
        dialect.place()
    );
    let sql = match dialect {
        SqlDialect::Postgres => format!(
            "SELECT CASE WHEN octet_length(text) <= CAST($2 AS bigint) THEN text END, coalesce(octet_length(text), 0)::bigint, place.position, \
             to_char(message.at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), {COLUMNS}, {history} \
             FROM fedgate_positions AS place JOIN fedgate_messages AS message USING (entry) \
             CROSS JOIN LATERAL (SELECT message.data::text AS text OFFSET 0) AS content \
             WHERE place.position = ANY ($1::bigint[]) AND {sees} ORDER BY place.position"
        ),
        SqlDialect::Sqlite => format!(
            "SELECT CASE WHEN octet_length(message.data) <= $2 THEN message.data END, coalesce(octet_length(message.data), 0), \
             message.position, message.at, {COLUMNS}, {history} FROM fedgate_messages AS message \
             WHERE message.position IN (SELECT value FROM json_each($1)) AND {sees} ORDER BY message.position"
        ),
    };
    (dialect.placeholders(&sql), parameters)
}
