//! Webhooks as JSON, for accounts and for operators.
//!
//! The one rule: no key is part of it.

use chrono::DateTime;
use serde_json::{Value, json};

use crate::store::webhooks::StoredWebhook;

/// A webhook as JSON.
pub(super) fn described(webhook: &StoredWebhook) -> Value {
    let StoredWebhook { terms, .. } = webhook;
    let filter = &terms.filter;
    json!({
        "id": webhook.id,
        "url": terms.url,
        "form": terms.form.as_str(),
        "person": filter.person,
        "resource": filter.resource,
        "node": filter.node,
        "method": filter.method,
        "type": filter.kind,
        "state": if webhook.ended.is_some() { "ended" } else { "active" },
        "reason": webhook.ended,
        "created": time(webhook.created),
        "position": webhook.position,
        "waiting": webhook.waiting,
        "dead": webhook.dead,
        "behind_seconds": webhook.behind.as_secs(),
        "problem": webhook.problem,
    })
}

/// A time as messages have it.
pub(super) fn time(milliseconds: i64) -> Option<String> {
    let moment = DateTime::from_timestamp_millis(milliseconds)?;
    Some(moment.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
