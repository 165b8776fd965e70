//! Webhooks that this process serves: how it becomes their owner, and what it notes of each message.

use std::time::Duration;

use super::super::rows::{SqlRow, SqlStatement};
use super::{StoredWebhook, select_webhooks};
use crate::store::RecordStore;
use fedgate_base::db::DbError;

/// The most dead letters of a webhook. One more ends it, so that none is forgotten.
const MOST_DEAD: i64 = 10_000;

/// A webhook that a process owns.
#[derive(Debug, Clone)]
pub struct OwnedWebhook {
    /// The id.
    pub id: String,
    /// The version.
    pub version: i64,
    /// How long the process owns it.
    pub left: Duration,
}

/// A message that waits for a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingMessage {
    /// Its position.
    pub position: u64,
    /// The person, or the record without a person, or the node that sent it.
    pub lane: String,
    /// How often it was sent in vain.
    pub attempts: u32,
    /// How long until it is sent.
    pub due: Duration,
}

impl WaitingMessage {
    fn of(row: &SqlRow) -> Self {
        Self {
            position: row.count(0),
            lane: row.text(1),
            attempts: u32::try_from(row.count(2)).unwrap_or(u32::MAX),
            due: Duration::from_millis(row.count(3)),
        }
    }
}

/// The account of a webhook, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookAccount {
    /// Whether there is such a person.
    pub exists: bool,
    /// The stored roles, as JSON.
    pub roles: Option<String>,
    /// The stored mark, as JSON.
    pub active: Option<String>,
    /// The other ids of the same person.
    pub same: Vec<String>,
    /// The history of messages now.
    pub history: u64,
    /// The history to which the position that was asked for belongs.
    pub history_of_position: u64,
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryProblem {
    /// What the account of the webhook may know.
    pub shown: String,
    /// What operators see in its place.
    pub detail: Option<String>,
}

impl From<&str> for DeliveryProblem {
    fn from(shown: &str) -> Self {
        Self { shown: shown.to_owned(), detail: None }
    }
}

impl RecordStore {
    /// Makes a process the owner of all active webhooks that have none, and prolongs its ownership of others. Returns
    /// those that it owns now.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn own_webhooks(&self, owner: &str, lease: Duration) -> Result<Vec<OwnedWebhook>, DbError> {
        // The clock of the store was set back if a lease ends later than one that begins now. It must not keep a webhook
        // from being served, so it counts as ended; a second is for clocks that are corrected by little.
        const DUE: &str = "SELECT id, version, owned_until - {now} FROM fedgate_webhooks WHERE state = 'active' \
                           AND (owner = $1 OR owned_until < {now} OR owned_until > {now} + CAST($2 AS bigint) + 1000) \
                           ORDER BY id";
        const OWN: &str = "UPDATE fedgate_webhooks SET owner = CAST($1 AS varchar), owned_until = {now} + CAST($2 AS bigint) \
                           WHERE state = 'active' AND (owner = CAST($1 AS varchar) OR owned_until < {now} \
                           OR owned_until > {now} + CAST($2 AS bigint) + 1000) \
                           RETURNING id, version, owned_until - {now}";
        let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let values = || vec![owner.into(), lease_ms.into()];
        let mut rows = self.read_rows(SqlStatement::of(DUE, values())).await?;
        // Usually nothing is written.
        if rows.iter().any(|row| !(lease_ms / 2..=lease_ms).contains(&row.some_number(2).unwrap_or(0))) {
            let own = SqlStatement::of(OWN, values());
            rows = self.write_rows(vec![own]).await?.unwrap_or_default();
        }
        let owned = |row: &SqlRow| OwnedWebhook {
            id: row.text(0),
            version: row.some_number(1).unwrap_or(0),
            left: Duration::from_millis(row.count(2)).min(lease),
        };
        Ok(rows.iter().map(owned).collect())
    }

    /// Ends the ownership of a process, so that another one need not wait.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn leave_webhooks(&self, owner: &str) -> Result<(), DbError> {
        const SQL: &str = "UPDATE fedgate_webhooks SET owned_until = 0 WHERE owner = $1 RETURNING id";
        self.write_rows(vec![SqlStatement::of(SQL, vec![owner.into()])]).await.map(drop)
    }

    /// A webhook that a process owns; none if it does not, or if the version is another.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn owned_webhook(&self, owned: &OwnedWebhook, owner: &str) -> Result<Option<StoredWebhook>, DbError> {
        const SQL: &str = select_webhooks!(
            "WHERE w.id = $1 AND w.version = $2 AND w.owner = $3 AND w.owned_until > {now} AND w.state = 'active'"
        );
        let values = vec![owned.id.as_str().into(), owned.version.into(), owner.into()];
        let rows = self.read_rows(SqlStatement::of(SQL, values)).await?;
        Ok(rows.first().map(StoredWebhook::of))
    }

    /// The account of a webhook, if the process still owns it in this version, and the history of a position. The answer
    /// is asked for before each attempt.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn webhook_account(
        &self,
        webhook: &StoredWebhook,
        owner: &str,
        position: u64,
    ) -> Result<Option<WebhookAccount>, DbError> {
        let sql = match self {
            Self::Postgres(_) => POSTGRES_ACCOUNT,
            Self::Sqlite(_) => SQLITE_ACCOUNT,
        };
        let account = webhook.account.as_str();
        let values =
            vec![webhook.id.as_str().into(), webhook.version.into(), owner.into(), account.into(), position.into()];
        let rows = self.read_rows(SqlStatement::of(sql, values)).await?;
        Ok(rows.first().map(|row| WebhookAccount {
            exists: row.some_number(0).is_some_and(|count| count > 0),
            roles: row.some_text(1),
            active: row.some_text(2),
            history: row.count(3),
            history_of_position: row.count(4),
            same: row.some_text(5).and_then(|same| serde_json::from_str(&same).ok()).unwrap_or_default(),
        }))
    }

    /// The messages behind a position that wait for a webhook, at most `most`, in the order of their positions.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn waiting_messages(&self, id: &str, after: u64, most: u64) -> Result<Vec<WaitingMessage>, DbError> {
        const SQL: &str = "SELECT position, lane, attempts, due - {now} FROM fedgate_deliveries WHERE webhook = $1 \
                           AND position > $2 AND state = 'waiting' ORDER BY position LIMIT CAST($3 AS bigint)";
        let rows = self.read_rows(SqlStatement::of(SQL, vec![id.into(), after.into(), most.into()])).await?;
        Ok(rows.iter().map(WaitingMessage::of).collect())
    }

    /// Moves a webhook on from its position to another, and notes the messages between that are for it. Returns none if
    /// the process owns it no longer.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn take_messages(
        &self,
        webhook: &StoredWebhook,
        owner: &str,
        upto: u64,
        found: &[u64],
    ) -> Result<Option<Vec<WaitingMessage>>, DbError> {
        const MOVE: &str = "UPDATE fedgate_webhooks SET position = CAST($5 AS bigint) WHERE id = $1 AND version = $2 \
                            AND owner = $3 AND owned_until > {now} AND state = 'active' AND position = $4 RETURNING id";
        const NOTE: &str = "INSERT INTO fedgate_deliveries (webhook, position, lane) \
                            SELECT CAST($1 AS varchar), place.position, \
                            CASE WHEN place.resource = 'message' THEN 'node ' || coalesce(place.node, '') WHEN place.person IS NULL THEN place.resource || ' ' || coalesce(place.id, '') ELSE 'person ' || place.person END \
                            FROM {place} WHERE place.position IN {listed $2} ON CONFLICT DO NOTHING \
                            RETURNING position, lane, attempts, due";
        let list = found.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let id = webhook.id.as_str();
        let moved = vec![id.into(), webhook.version.into(), owner.into(), webhook.position.into(), upto.into()];
        let moved = SqlStatement::of(MOVE, moved);
        let noted = SqlStatement::of(NOTE, vec![id.into(), list.as_str().into()]);
        let is_moved_alone = found.is_empty();
        let statements = if is_moved_alone { vec![moved] } else { vec![moved, noted] };
        let Some(rows) = self.write_rows(statements).await? else { return Ok(None) };
        if is_moved_alone {
            return Ok((!rows.is_empty()).then(Vec::new));
        }
        let mut taken: Vec<WaitingMessage> = rows.iter().map(WaitingMessage::of).collect();
        taken.sort_unstable_by_key(|message| message.position);
        Ok(Some(taken))
    }

    /// Notes that a message was sent, or need not be.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn note_sent(&self, id: &str, position: u64) -> Result<(), DbError> {
        const SQL: &str = "DELETE FROM fedgate_deliveries WHERE webhook = $1 AND position = $2 RETURNING webhook";
        self.change_one(SQL, vec![id.into(), position.into()]).await.map(drop)
    }

    /// Notes that a message was sent in vain, and when it is sent again.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn note_failed(
        &self,
        id: &str,
        message: &WaitingMessage,
        pause: Duration,
        problem: &DeliveryProblem,
    ) -> Result<(), DbError> {
        const SQL: &str = "UPDATE fedgate_deliveries SET attempts = attempts + 1, due = {now} + CAST($4 AS bigint), \
                           problem = $5, detail = $6 WHERE webhook = $1 AND position = $2 AND attempts = $3 AND state = 'waiting' \
                           RETURNING webhook";
        let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        let attempts = i64::from(message.attempts);
        let mut values = vec![id.into(), message.position.into(), attempts.into(), pause.into()];
        values.extend([problem.shown.as_str().into(), (&problem.detail).into()]);
        self.change_one(SQL, values).await.map(drop)
    }

    /// Makes a message a dead letter. Too many of them end the webhook.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn note_dead(&self, id: &str, position: u64, problem: &DeliveryProblem) -> Result<(), DbError> {
        const NOTE: &str = "UPDATE fedgate_deliveries SET state = 'dead', attempts = attempts + 1, problem = $3, detail = $4, due = {now} \
                            WHERE webhook = $1 AND position = $2 AND state = 'waiting' RETURNING webhook";
        const END: &str = "UPDATE fedgate_webhooks SET state = 'ended', reason = 'too many dead letters', version = version + 1 \
                           WHERE id = $1 AND state = 'active' AND CAST($2 AS bigint) <= \
                           (SELECT count(*) FROM fedgate_deliveries WHERE webhook = $1 AND state = 'dead') RETURNING id";
        let values = vec![id.into(), position.into(), problem.shown.as_str().into(), (&problem.detail).into()];
        let note = SqlStatement::of(NOTE, values);
        let end = SqlStatement::of(END, vec![id.into(), MOST_DEAD.into()]);
        self.write_rows(vec![note, end]).await.map(drop)
    }

    /// Ends a webhook that is in this version. It does not begin again by itself.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn end_webhook(&self, webhook: &StoredWebhook, reason: &str) -> Result<bool, DbError> {
        const SQL: &str = "UPDATE fedgate_webhooks SET state = 'ended', reason = $3, version = version + 1 \
                           WHERE id = $1 AND version = $2 AND state = 'active' RETURNING id";
        self.change_one(SQL, vec![webhook.id.as_str().into(), webhook.version.into(), reason.into()]).await
    }

    /// Sends nothing to a webhook for a time.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn slow_webhook(&self, id: &str, pause: Duration) -> Result<(), DbError> {
        const SQL: &str =
            "UPDATE fedgate_webhooks SET slow_until = {now} + CAST($2 AS bigint) WHERE id = $1 RETURNING id";
        let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        self.change_one(SQL, vec![id.into(), pause.into()]).await.map(drop)
    }

    /// The first committed message that waits for a position, by its number, and how many wait; none where messages have
    /// positions from the beginning.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn unplaced_messages(&self) -> Result<Option<(i64, u64)>, DbError> {
        const SQL: &str =
            "SELECT min(entry), count(*) FROM fedgate_waiting WHERE entry > (SELECT decided FROM fedgate_relay)";
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(_) => {
                let rows = self.read_rows(SqlStatement::of(SQL, vec![])).await?;
                Ok(rows.first().and_then(|row| Some((row.some_number(0)?, row.count(1)))))
            }
        }
    }
}

// The account is read as the gateway reads it: from beside the document, if that is of this version of the row. A
// position belongs to the first history that ended at it or behind it, so no later failover changes the answer.
const POSTGRES_ACCOUNT: &str = "
    SELECT CASE WHEN a.is_there THEN 1 ELSE 0 END::bigint, a.roles, a.active,
           (SELECT history FROM fedgate_relay), coalesce(
               (SELECT min(history) FROM fedgate_ended_histories WHERE ends >= $5::bigint), (SELECT history FROM fedgate_relay)),
           (SELECT json_agg(id)::text FROM (
                SELECT other.id FROM fedgate_same_persons mine JOIN fedgate_same_persons other ON other.person = mine.person
                WHERE mine.id = $4::text AND other.id <> mine.id ORDER BY other.id LIMIT 100) same)
    FROM fedgate_webhooks w LEFT JOIN LATERAL fedgate_account_rights($4::text) AS a ON true
    WHERE w.id = $1 AND w.version = $2 AND w.owner = $3 AND w.owned_until > {now} AND w.state = 'active'";
const SQLITE_ACCOUNT: &str = "
    SELECT CASE WHEN p.id IS NULL THEN 0 ELSE 1 END,
           CASE WHEN l.id IS NULL THEN d.roles ELSE l.roles END, CASE WHEN l.id IS NULL THEN d.active ELSE l.active END,
           (SELECT history FROM fedgate_relay), coalesce(
               (SELECT min(history) FROM fedgate_ended_histories WHERE ends >= $5), (SELECT history FROM fedgate_relay)),
           (SELECT json_group_array(id) FROM (
                SELECT other.id FROM fedgate_same_persons mine JOIN fedgate_same_persons other ON other.person = mine.person
                WHERE mine.id = $4 AND other.id <> mine.id ORDER BY other.id LIMIT 100))
    FROM fedgate_webhooks w
    LEFT JOIN people p ON p.id = $4 AND CAST(p.id AS TEXT) = $4 COLLATE BINARY
    LEFT JOIN fedgate_logins l ON l.id = p.id COLLATE BINARY
    LEFT JOIN fedgate_logins_due d ON l.id IS NULL AND d.row_id = p.id
    WHERE w.id = $1 AND w.version = $2 AND w.owner = $3 AND w.owned_until > {now} AND w.state = 'active'";
