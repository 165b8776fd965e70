//! One attempt to send one message.
//!
//! The one rule: what the account may read is asked for before each attempt, and the outcome is stored before the next
//! message of the lane is sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use rand::Rng;

use super::client::{IdleConnections, ReceiverAnswer, SendingFault};
use super::lanes::WebhookLanes;
use super::rights::MessageRights;
use super::url::WebhookUrl;
use super::{WebhookHub, schedule};
use crate::budget::{self, HeldBytes};
use crate::store::webhooks::{StoredWebhook, WaitingMessage, WebhookForm, WebhookKeyPlace};
use crate::store::{MessageFilter, MessageReach, MessageShape, RecordReach, RecordStore};
use fedgate_base::db::DbError;

/// How long a message waits for room in memory, for a policy, or for the store.
const BUSY: Duration = Duration::from_secs(1);

/// A webhook that is served.
pub(super) struct ServedWebhook {
    pub(super) webhook: StoredWebhook,
    /// The history of messages, read before everything else.
    pub(super) history: u64,
    pub(super) url: WebhookUrl,
    pub(super) keys: Vec<WebhookKeyPlace>,
    pub(super) store: RecordStore,
    pub(super) idle: IdleConnections,
}

/// The outcome of an attempt to send a message.
#[derive(Debug)]
pub(super) enum AttemptOutcome {
    /// It was taken.
    Sent,
    /// It need not be sent, or never can be: that is stored.
    Settled,
    /// It is sent again after a pause. The receiver may have said that it is overloaded, and for how long.
    Again { attempts: u32, pause: Duration, slow: Option<Option<Duration>> },
    /// It was not sent, for a reason that is not the receiver's.
    Later(Duration),
    /// The webhook has ended.
    Ended(String),
    /// This process does not own the webhook any longer.
    NotOwned,
    /// Another history of messages has begun, so other messages may have the positions that wait here.
    OtherHistory,
    /// There is no key to sign with.
    NoKey,
}

/// The content of a message, for the account as it is now.
enum MessageContent {
    Readable(String, HeldBytes),
    /// The account may not read it.
    Hidden,
    /// It is kept no longer.
    Dropped,
    NoRoom,
}

/// Makes an attempt.
pub(super) async fn attempt(hub: &WebhookHub, served: &ServedWebhook, message: &WaitingMessage) -> AttemptOutcome {
    send(hub, served, message).await.unwrap_or_else(|error| {
        tracing::debug!("a message of the webhook {} waits for the store: {error}", served.webhook.id);
        AttemptOutcome::Later(BUSY)
    })
}

/// Sends a message. An error means that it was not sent.
async fn send(hub: &WebhookHub, served: &ServedWebhook, message: &WaitingMessage) -> Result<AttemptOutcome, DbError> {
    let (webhook, store) = (&served.webhook, &served.store);
    let Some(account) = store.webhook_account(webhook, &hub.owner, message.position).await? else {
        return Ok(AttemptOutcome::NotOwned);
    };
    if account.history != served.history {
        return Ok(AttemptOutcome::OtherHistory);
    }
    let reach = match hub.policy.judge(&webhook.account, &account) {
        MessageRights::Within(reach) => reach,
        MessageRights::Unknown => return Ok(AttemptOutcome::Later(BUSY)),
        MessageRights::Nothing(reason) => return ended(store, webhook, reason).await,
    };
    let (text, held) = match content(hub, served, message.position, &reach).await? {
        MessageContent::Readable(text, held) => (text, held),
        MessageContent::NoRoom => return Ok(AttemptOutcome::Later(BUSY)),
        MessageContent::Hidden => {
            store.note_sent(&webhook.id, message.position).await?;
            return Ok(AttemptOutcome::Settled);
        }
        MessageContent::Dropped => {
            // The receiver misses it, so it is not forgotten.
            store.note_dead(&webhook.id, message.position, &"its message is kept no longer".into()).await?;
            hub.metrics.webhooks.dead.inc();
            return Ok(AttemptOutcome::Settled);
        }
    };
    // Positions are given again after a failover that lost messages, so the history is part of the id. A dot would end it
    // in the signed text.
    let id = format!("msg_{}_{}_{}", webhook.id, account.history_of_position, message.position);
    let Some(headers) = headers(hub, served, &id, text.as_bytes()) else { return Ok(AttemptOutcome::NoKey) };
    let answer = hub.client.post(&served.url, headers, held.around(text), &served.idle).await;
    loop {
        match note(hub, served, message, &answer).await {
            Ok(outcome) => return Ok(outcome),
            // A message whose outcome is not stored is sent again, so this goes on until the lease ends.
            Err(error) => {
                tracing::debug!("the outcome of a message of the webhook {} waits for the store: {error}", webhook.id)
            }
        }
        tokio::time::sleep(BUSY).await;
    }
}

/// Stores what became of a message that was sent.
async fn note(
    hub: &WebhookHub,
    served: &ServedWebhook,
    message: &WaitingMessage,
    answer: &Result<ReceiverAnswer, SendingFault>,
) -> Result<AttemptOutcome, DbError> {
    let (webhook, store) = (&served.webhook, &served.store);
    let (problem, retry_after, slow) = match answer {
        Ok(ReceiverAnswer { status, .. }) if status.is_success() => {
            store.note_sent(&webhook.id, message.position).await?;
            return Ok(AttemptOutcome::Sent);
        }
        Ok(ReceiverAnswer { status, .. }) if *status == StatusCode::GONE => {
            return ended(store, webhook, "the receiver answered 410").await;
        }
        Ok(ReceiverAnswer { status, retry_after }) => {
            let is_slow = matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            let redirect = if status.is_redirection() { ", and redirects are not followed" } else { "" };
            let problem = format!("the receiver answered {}{redirect}", status.as_u16());
            (problem.as_str().into(), *retry_after, is_slow.then_some(*retry_after))
        }
        Err(fault) => (fault.problem(), None, None),
    };
    let attempts = message.attempts.saturating_add(1);
    let dice = rand::rng().random();
    match schedule::pause(attempts, retry_after, dice) {
        Some(pause) => {
            store.note_failed(&webhook.id, message, pause, &problem).await?;
            hub.metrics.webhooks.failed.inc();
            Ok(AttemptOutcome::Again { attempts, pause, slow })
        }
        None => {
            store.note_dead(&webhook.id, message.position, &problem).await?;
            hub.metrics.webhooks.failed.inc();
            hub.metrics.webhooks.dead.inc();
            Ok(AttemptOutcome::Settled)
        }
    }
}

async fn ended(store: &RecordStore, webhook: &StoredWebhook, reason: &str) -> Result<AttemptOutcome, DbError> {
    store.end_webhook(webhook, reason).await?;
    Ok(AttemptOutcome::Ended(reason.to_owned()))
}

/// Reads a message, once there is room for it.
async fn content(
    hub: &WebhookHub,
    served: &ServedWebhook,
    position: u64,
    reach: &MessageReach,
) -> Result<MessageContent, DbError> {
    let shape = match served.webhook.terms.form {
        WebhookForm::Json => MessageShape::Plain,
        WebhookForm::CloudEvent => MessageShape::CloudEvent,
    };
    let (mut most, mut held) = (budget::SMALL_BYTES, HeldBytes::nothing());
    loop {
        let chunk = served.store.messages(&[position], most, reach, shape).await?;
        if let Some(row) = chunk.rows.into_iter().next() {
            return Ok(MessageContent::Readable(row.text, held));
        }
        let Some(bytes) = chunk.exceeding else {
            let (filter, nobody) = (MessageFilter::default(), MessageReach::new(RecordReach::Nobody, "", &[]));
            let first = served.store.message_places(position, 1, &filter, &nobody).await?.first;
            return Ok(if position < first { MessageContent::Dropped } else { MessageContent::Hidden });
        };
        drop(held);
        // The data, and the message that is made of it.
        match hub.budget.hold(&served.webhook.account, bytes.saturating_mul(2), budget::PATIENCE).await {
            Some(room) => (most, held) = (bytes, room),
            None => return Ok(MessageContent::NoRoom),
        }
    }
}

/// The headers of an attempt; none without a key.
fn headers(hub: &WebhookHub, served: &ServedWebhook, id: &str, body: &[u8]) -> Option<HeaderMap> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let signature = hub.secrets.sign(&served.keys, id, now, body)?;
    let kind = match served.webhook.terms.form {
        WebhookForm::Json => "application/json",
        WebhookForm::CloudEvent => "application/cloudevents+json",
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("fedhis/", env!("CARGO_PKG_VERSION"))));
    headers.insert("webhook-id", HeaderValue::from_str(id).ok()?);
    headers.insert("webhook-timestamp", HeaderValue::from(now));
    headers.insert("webhook-signature", HeaderValue::from_str(&signature).ok()?);
    Some(headers)
}

/// Makes a first message of a lane a dead letter, because too many wait behind it or beside it.
pub(super) async fn give_up(
    hub: &WebhookHub,
    served: &ServedWebhook,
    lanes: &mut WebhookLanes,
    message: &WaitingMessage,
) -> Result<(), DbError> {
    let problem = "too many messages waited behind it".into();
    served.store.note_dead(&served.webhook.id, message.position, &problem).await?;
    hub.metrics.webhooks.dead.inc();
    lanes.give_up(message, tokio::time::Instant::now());
    Ok(())
}
