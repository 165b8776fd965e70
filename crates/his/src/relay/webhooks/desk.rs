//! Webhooks as accounts and operators add and change them.
//!
//! The one rule: keys are made here and shown once. Later only public keys are shown.

use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

pub use super::keys::WebhookKeyTexts;
use super::terms;
pub use super::terms::TermsFault;
use super::{WebhookSecrets, random_id, shown};
use crate::store::webhooks::{StoredWebhook, WebhookAdded, WebhookKeyKind, WebhookKeyPlace, WebhookTerms};
use crate::store::{MessageFilter, MessageReach, RecordReach, RecordStore};
use fedgate_base::config::WebhooksConfig;
use fedgate_base::db::DbError;

/// How often a change is tried again after somebody else's.
const TRIES: usize = 5;

/// Why a webhook was not added or changed.
#[derive(Debug, Error)]
pub enum DeskFault {
    /// There is no such webhook.
    #[error("there is no such webhook")]
    Missing,
    /// Its terms cannot be used.
    #[error("the webhook cannot be as asked: {0}")]
    Terms(TermsFault),
    /// There are as many as there may be.
    #[error("the account has as many webhooks as it may have, or all accounts together have")]
    TooMany,
    /// There is no secret from which to derive keys.
    #[error("`his.webhook_key_file` is not set, so no webhooks are sent; name a file with at least 32 random bytes")]
    Off,
    /// The position that was asked for is beyond the last one.
    #[error("no message has that position yet; the last one is {0}")]
    Unknown(u64),
    /// Messages after the position are kept no longer.
    #[error("messages that follow that position are kept no longer; the first one that is left is {0}")]
    Gone(u64),
    /// Others change it again and again.
    #[error("the webhook is being changed by others; try again")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] DbError),
}

impl From<TermsFault> for DeskFault {
    fn from(fault: TermsFault) -> Self {
        Self::Terms(fault)
    }
}

/// A webhook, or new keys of one.
pub struct IssuedKeys {
    /// The id of the webhook.
    pub id: String,
    /// Its new keys.
    pub keys: Vec<WebhookKeyTexts>,
}

/// A webhook as JSON, with what only an operator may see.
pub fn operators_view(webhook: &StoredWebhook) -> Value {
    let mut shown = shown::described(webhook);
    if let Some(members) = shown.as_object_mut() {
        members.insert("account".into(), webhook.account.as_str().into());
        members.insert("owner".into(), json!(webhook.owner));
        members.insert("problem".into(), json!(webhook.detail));
    }
    shown
}

/// A time in milliseconds since 1970, as messages have it.
pub fn time(milliseconds: i64) -> Option<String> {
    shown::time(milliseconds)
}

/// Adds and changes webhooks.
pub struct WebhookDesk {
    secrets: WebhookSecrets,
}

impl WebhookDesk {
    /// A desk with the secrets of the configuration.
    pub fn new(config: &WebhooksConfig) -> Self {
        Self { secrets: WebhookSecrets::new(&config.secrets) }
    }

    /// Terms from members and their values.
    ///
    /// # Errors
    /// A value cannot be used.
    pub fn terms(members: &[(&'static str, Option<&str>)]) -> Result<WebhookTerms, DeskFault> {
        let mut made = terms::empty();
        for (name, text) in members {
            // A member that is left out keeps its default.
            if text.is_some() {
                terms::set(&mut made, name, *text)?;
            }
        }
        terms::set(&mut made.clone(), "url", Some(&made.url))?;
        Ok(made)
    }

    /// Adds a webhook for the messages after a position; without one, for those that are still to come.
    ///
    /// # Errors
    /// See [`DeskFault`].
    pub async fn add(
        &self,
        store: &RecordStore,
        account: &str,
        terms: &WebhookTerms,
        after: Option<u64>,
        kinds: &[WebhookKeyKind],
    ) -> Result<IssuedKeys, DeskFault> {
        if self.secrets.is_empty() {
            return Err(DeskFault::Off);
        }
        let nobody = MessageReach::new(RecordReach::Nobody, "", &[]);
        let places = store.message_places(after.unwrap_or(0), 1, &MessageFilter::default(), &nobody).await?;
        let position = match after {
            None => places.last,
            Some(after) if after > places.last => return Err(DeskFault::Unknown(places.last)),
            Some(after) if after.saturating_add(1) < places.first => return Err(DeskFault::Gone(places.first)),
            Some(after) => after,
        };
        let id = random_id("wh_");
        let keys = self.secrets.new_places(&id, kinds, 0);
        match store.add_webhook(account, &id, terms, position, &keys).await? {
            WebhookAdded::Done => Ok(self.issued(id, &keys)),
            WebhookAdded::TooMany => Err(DeskFault::TooMany),
        }
    }

    /// Gives a webhook new keys. The present ones sign beside them for some time more.
    ///
    /// # Errors
    /// See [`DeskFault`].
    pub async fn rotate(
        &self,
        store: &RecordStore,
        id: &str,
        account: Option<&str>,
        kinds: Option<&[WebhookKeyKind]>,
        kept: Duration,
    ) -> Result<IssuedKeys, DeskFault> {
        if self.secrets.is_empty() {
            return Err(DeskFault::Off);
        }
        for _ in 0..TRIES {
            let webhook = store.webhook(id, account).await?.ok_or(DeskFault::Missing)?;
            let mut present: Vec<WebhookKeyKind> = Vec::new();
            // In the order in which they were made, so that the new ones have it, too.
            for key in store.webhook_keys(id).await?.into_iter().rev() {
                if !present.contains(&key.kind) {
                    present.push(key.kind);
                }
            }
            if present.is_empty() {
                present.push(WebhookKeyKind::V1);
            }
            let last = store.last_webhook_key(id).await?;
            let keys = self.secrets.new_places(id, kinds.unwrap_or(&present), last);
            if store.rotate_webhook_keys(&webhook, &keys, kept).await? {
                return Ok(self.issued(id.to_owned(), &keys));
            }
        }
        Err(DeskFault::Contended)
    }

    /// Changes a webhook by a function, which may be called several times.
    ///
    /// # Errors
    /// See [`DeskFault`].
    pub async fn change(
        &self,
        store: &RecordStore,
        id: &str,
        account: Option<&str>,
        change: impl Fn(&mut StoredWebhook) -> Result<(), DeskFault>,
    ) -> Result<(), DeskFault> {
        for _ in 0..TRIES {
            let mut webhook = store.webhook(id, account).await?.ok_or(DeskFault::Missing)?;
            change(&mut webhook)?;
            if store.change_webhook(&webhook).await? {
                return Ok(());
            }
        }
        Err(DeskFault::Contended)
    }

    /// The public keys of a webhook that are in use.
    ///
    /// # Errors
    /// See [`DeskFault`].
    pub async fn public_keys(&self, store: &RecordStore, id: &str) -> Result<Vec<String>, DeskFault> {
        let keys = store.webhook_keys(id).await?;
        let public = keys.iter().filter(|key| key.kind == WebhookKeyKind::V1a);
        Ok(public.filter_map(|key| Some(self.secrets.texts(key)?.verifying.to_string())).collect())
    }

    fn issued(&self, id: String, keys: &[WebhookKeyPlace]) -> IssuedKeys {
        IssuedKeys { id, keys: keys.iter().filter_map(|key| self.secrets.texts(key)).collect() }
    }
}
