//! Webhooks: where messages are sent, what waits to be sent there, and what could not be sent.
//!
//! The one rule: every change states in its own statement what must be true for it: that the webhook belongs to the
//! account, that this process owns it, that nobody changed it. So a process that was paused changes nothing afterwards.

mod dead;
mod owned;

use std::time::Duration;

pub use dead::DeadLetter;
pub use owned::{DeliveryProblem, OwnedWebhook, WaitingMessage, WebhookAccount};

use super::rows::{SqlRow, SqlStatement, SqlValue};
use super::{MessageFilter, RecordStore};
use fedgate_base::db::DbError;

/// The most webhooks of one account, and of all accounts together.
const MOST: (i64, i64) = (20, 500);

/// The form in which a webhook gets messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookForm {
    /// The message as JSON.
    Json,
    /// A CloudEvent 1.0 as JSON.
    CloudEvent,
}

impl WebhookForm {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::CloudEvent => "cloudevents",
        }
    }

    /// The form that a word means.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Json, Self::CloudEvent].into_iter().find(|form| form.as_str() == word)
    }
}

/// How messages are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookKeyKind {
    /// HMAC-SHA256.
    V1,
    /// Ed25519.
    V1a,
}

impl WebhookKeyKind {
    /// The word for it, which begins a signature.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
        }
    }

    /// The kind that a word means.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::V1, Self::V1a].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A key of a webhook, without the key: the secret that it is derived from, and the number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookKeyPlace {
    /// The webhook.
    pub webhook: String,
    /// The number among all keys of the webhook.
    pub number: i64,
    /// The kind.
    pub kind: WebhookKeyKind,
    /// The name of the secret.
    pub secret: String,
}

/// The messages that a webhook is to get, and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookTerms {
    /// The address.
    pub url: String,
    /// The form of messages.
    pub form: WebhookForm,
    /// Which messages.
    pub filter: MessageFilter,
}

/// A webhook as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWebhook {
    /// Its id.
    pub id: String,
    /// The account whose rights apply.
    pub account: String,
    /// Its messages and its address.
    pub terms: WebhookTerms,
    /// Why it has ended; none while it is active.
    pub ended: Option<String>,
    /// When it was added, in milliseconds since 1970.
    pub created: i64,
    /// Grows with each change.
    pub version: i64,
    /// All messages up to here were sent, wait, or are not for it.
    pub position: u64,
    /// How long nothing is sent to it.
    pub slow_for: Duration,
    /// How many messages wait for another attempt, or are being sent.
    pub waiting: u64,
    /// How many dead letters there are.
    pub dead: u64,
    /// The age of the oldest message that was not sent yet.
    pub behind: Duration,
    /// Why the oldest message that waits was not sent, as the account may know it.
    pub problem: Option<String>,
    /// The same as operators see it.
    pub detail: Option<String>,
    /// The process that serves it.
    pub owner: Option<String>,
}

const COLUMNS: usize = 19;
macro_rules! select_webhooks {
    ($($end:literal),*) => {
        concat!(
            "SELECT w.id, w.account, w.url, w.form, w.person, w.resource, w.node, w.method, w.state, w.reason, w.created, \
             w.version, w.position, w.slow_until - {now}, \
             (SELECT count(*) FROM fedgate_deliveries AS d WHERE d.webhook = w.id AND d.state = 'waiting'), \
             (SELECT count(*) FROM fedgate_deliveries AS d WHERE d.webhook = w.id AND d.state = 'dead'), \
             {now} - (SELECT {message_at} FROM {place} WHERE place.position = coalesce((\
             SELECT min(d.position) FROM fedgate_deliveries AS d WHERE d.webhook = w.id AND d.state = 'waiting'), w.position + 1)), \
             (SELECT d.problem FROM fedgate_deliveries AS d WHERE d.webhook = w.id AND d.state = 'waiting' AND d.problem IS NOT NULL \
             ORDER BY d.position LIMIT 1), CASE WHEN w.owned_until > {now} THEN w.owner END, w.kind, \
             (SELECT coalesce(d.detail, d.problem) FROM fedgate_deliveries AS d WHERE d.webhook = w.id AND d.state = 'waiting' \
             AND d.problem IS NOT NULL ORDER BY d.position LIMIT 1) FROM fedgate_webhooks AS w ",
            $($end),*
        )
    };
}
use select_webhooks;

impl StoredWebhook {
    fn of(row: &SqlRow) -> Self {
        let some = |at| row.some_text(at);
        let filter =
            MessageFilter { person: some(4), resource: some(5), node: some(6), method: some(7), kind: some(COLUMNS) };
        // A form of a newer release is read as the plain one.
        let form = WebhookForm::parse(&row.text(3)).unwrap_or(WebhookForm::Json);
        let ended = (row.text(8) != "active").then(|| row.text(9));
        Self {
            id: row.text(0),
            account: row.text(1),
            terms: WebhookTerms { url: row.text(2), form, filter },
            ended,
            created: row.some_number(10).unwrap_or(0),
            version: row.some_number(11).unwrap_or(0),
            position: row.count(12),
            slow_for: Duration::from_millis(row.count(13)),
            waiting: row.count(14),
            dead: row.count(15),
            behind: Duration::from_millis(row.count(16)),
            problem: some(17),
            detail: some(COLUMNS + 1),
            owner: some(18),
        }
    }
}

/// Whether a new webhook was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookAdded {
    /// It was.
    Done,
    /// The account has the most webhooks that it may have, or all accounts together have.
    TooMany,
}

impl RecordStore {
    /// Adds a webhook, which gets the messages after a position.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn add_webhook(
        &self,
        account: &str,
        id: &str,
        terms: &WebhookTerms,
        position: u64,
        keys: &[WebhookKeyPlace],
    ) -> Result<WebhookAdded, DbError> {
        let filter = &terms.filter;
        let values = vec![
            id.into(),
            account.into(),
            terms.url.as_str().into(),
            terms.form.as_str().into(),
            (&filter.person).into(),
            (&filter.resource).into(),
            (&filter.node).into(),
            (&filter.method).into(),
            (&filter.kind).into(),
            position.into(),
            MOST.0.into(),
            MOST.1.into(),
        ];
        // One transaction at a time counts and adds.
        let mut statements = vec![SqlStatement::of("SELECT {turn fedgate_webhooks}", vec![])];
        statements.push(SqlStatement::of(INSERT, values));
        statements.extend(keys.iter().map(insert_key));
        // The last statement adds a key, or the webhook itself.
        Ok(match self.write_rows(statements).await? {
            Some(rows) if !rows.is_empty() => WebhookAdded::Done,
            Some(_) | None => WebhookAdded::TooMany,
        })
    }

    /// The webhooks of an account, or of all, in the order in which they were added.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn webhooks(&self, account: Option<&str>) -> Result<Vec<StoredWebhook>, DbError> {
        const SQL: &str = select_webhooks!(
            "WHERE CAST($1 AS varchar) IS NULL OR w.account = CAST($1 AS varchar) ORDER BY w.created, w.id"
        );
        let account = SqlValue::Text(account.map(str::to_owned));
        let rows = self.read_rows(SqlStatement::of(SQL, vec![account])).await?;
        Ok(rows.iter().map(StoredWebhook::of).collect())
    }

    /// One webhook; of this account alone, if one is named.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn webhook(&self, id: &str, account: Option<&str>) -> Result<Option<StoredWebhook>, DbError> {
        const SQL: &str =
            select_webhooks!("WHERE w.id = $2 AND (CAST($1 AS varchar) IS NULL OR w.account = CAST($1 AS varchar))");
        let account = SqlValue::Text(account.map(str::to_owned));
        let rows = self.read_rows(SqlStatement::of(SQL, vec![account, id.into()])).await?;
        Ok(rows.first().map(StoredWebhook::of))
    }

    /// Removes a webhook with its keys, and everything that waits for it. Returns whether there was one.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn remove_webhook(&self, id: &str) -> Result<bool, DbError> {
        self.change_one("DELETE FROM fedgate_webhooks WHERE id = $1 RETURNING id", vec![id.into()]).await
    }

    /// Replaces what a webhook gets and where, unless somebody else has changed it since.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn change_webhook(&self, webhook: &StoredWebhook) -> Result<bool, DbError> {
        let (terms, filter) = (&webhook.terms, &webhook.terms.filter);
        let state = if webhook.ended.is_some() { "ended" } else { "active" };
        let values = vec![
            webhook.id.as_str().into(),
            webhook.version.into(),
            terms.url.as_str().into(),
            terms.form.as_str().into(),
            (&filter.person).into(),
            (&filter.resource).into(),
            (&filter.node).into(),
            (&filter.method).into(),
            state.into(),
            (&webhook.ended).into(),
            (&filter.kind).into(),
        ];
        self.change_one(
            "UPDATE fedgate_webhooks SET url = $3, form = $4, person = $5, resource = $6, node = $7, method = $8, \
             state = $9, reason = $10, kind = $11, slow_until = 0, version = version + 1 WHERE id = $1 AND version = $2 RETURNING id",
            values,
        )
        .await
    }

    /// The keys of a webhook that are in use, the newest first, and at most eight: each makes the signature longer.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn webhook_keys(&self, id: &str) -> Result<Vec<WebhookKeyPlace>, DbError> {
        const SQL: &str = "SELECT number, kind, secret FROM fedgate_webhook_keys \
                           WHERE webhook = $1 AND (expires IS NULL OR expires > {now}) ORDER BY number DESC LIMIT 8";
        let rows = self.read_rows(SqlStatement::of(SQL, vec![id.into()])).await?;
        let place = |row: &SqlRow| {
            let (number, kind) = (row.some_number(0)?, WebhookKeyKind::parse(&row.text(1))?);
            Some(WebhookKeyPlace { webhook: id.to_owned(), number, kind, secret: row.text(2) })
        };
        Ok(rows.iter().filter_map(place).collect())
    }

    /// The highest number of a key that a webhook has had.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn last_webhook_key(&self, id: &str) -> Result<i64, DbError> {
        const SQL: &str = "SELECT max(number) FROM fedgate_webhook_keys WHERE webhook = $1";
        let rows = self.read_rows(SqlStatement::of(SQL, vec![id.into()])).await?;
        Ok(rows.first().and_then(|row| row.some_number(0)).unwrap_or(0))
    }

    /// Adds new keys, and lets the present ones expire after a time. Returns false if somebody changed the webhook since.
    ///
    /// # Errors
    /// See [`RecordStore::record`].
    pub async fn rotate_webhook_keys(
        &self,
        webhook: &StoredWebhook,
        keys: &[WebhookKeyPlace],
        kept: Duration,
    ) -> Result<bool, DbError> {
        let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        let id = || SqlValue::from(webhook.id.as_str());
        let mut statements = vec![
            SqlStatement::of(
                "UPDATE fedgate_webhooks SET version = version + 1 WHERE id = $1 AND version = $2 RETURNING id",
                vec![id(), webhook.version.into()],
            ),
            SqlStatement::of(
                "UPDATE fedgate_webhook_keys SET expires = {now} + CAST($2 AS bigint) \
                 WHERE webhook = $1 AND (expires IS NULL OR expires > {now} + CAST($2 AS bigint)) RETURNING webhook",
                vec![id(), kept.into()],
            ),
            // The last number stays, whatever it is: a number that came again would be the same key.
            SqlStatement::of(
                "DELETE FROM fedgate_webhook_keys WHERE webhook = $1 AND expires <= {now} \
                 AND number < (SELECT max(number) FROM fedgate_webhook_keys WHERE webhook = $1) RETURNING webhook",
                vec![id()],
            ),
        ];
        statements.extend(keys.iter().map(insert_key));
        Ok(self.write_rows(statements).await?.is_some_and(|rows| !rows.is_empty()))
    }

    /// One statement that returns a row if it changed something.
    async fn change_one(&self, sql: &'static str, values: Vec<SqlValue>) -> Result<bool, DbError> {
        let rows = self.write_rows(vec![SqlStatement::of(sql, values)]).await?;
        Ok(rows.is_some_and(|rows| !rows.is_empty()))
    }
}

const INSERT: &str = "\
    INSERT INTO fedgate_webhooks (id, account, url, form, person, resource, node, method, kind, position, created) \
    SELECT CAST($1 AS varchar), CAST($2 AS varchar), CAST($3 AS varchar), CAST($4 AS varchar), CAST($5 AS varchar), \
    CAST($6 AS varchar), CAST($7 AS varchar), CAST($8 AS varchar), CAST($9 AS varchar), CAST($10 AS bigint), {now} \
    WHERE (SELECT count(*) FROM fedgate_webhooks WHERE account = CAST($2 AS varchar)) < CAST($11 AS bigint) \
    AND (SELECT count(*) FROM fedgate_webhooks) < CAST($12 AS bigint) RETURNING id";

fn insert_key(key: &WebhookKeyPlace) -> SqlStatement {
    SqlStatement::of(
        // None for a webhook that was not added.
        "INSERT INTO fedgate_webhook_keys (webhook, number, kind, secret) SELECT id, CAST($2 AS bigint), CAST($3 AS varchar), \
         CAST($4 AS varchar) FROM fedgate_webhooks WHERE id = $1 RETURNING webhook",
        vec![key.webhook.as_str().into(), key.number.into(), key.kind.as_str().into(), key.secret.as_str().into()],
    )
}
