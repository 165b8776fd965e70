//! `POST /messages`: a node's own message, for another node, for a role or for all.
//!
//! The one rule: the sender is the account of the assertion, whatever the body says. The content is opaque: it is kept and
//! passed on, and never read.

use std::sync::Arc;

use axum::extract::State;

use super::request::RESOURCES;
use crate::body::JsonBody;
use crate::error::{HandlerResult, HisError};
use crate::store::{MessageAddressee, NODE_MESSAGE, NodeMessage, SendResult};
use crate::verify_assertion::{Caller, is_id};
use crate::{HisService, answer};
use fedgate_core::json::{JsonObject, JsonValue};

/// The longest type, in bytes.
const TYPE_BYTES: usize = 128;

/// `POST /messages`
pub(in super::super) async fn send(
    State(service): State<Arc<HisService>>,
    caller: Caller,
    JsonBody(body, _held): JsonBody,
) -> HandlerResult {
    service.check_size(&body)?;
    let message = parse(body)?;
    let (store, sender) = (caller.store(&service), caller.account.as_str());
    let count = async |most| store.count_sent(sender, most).await;
    let result = match service.quotas.messages.admits(sender, count).await? {
        true => store.send(sender, &message).await?,
        // A node that lost the answer sends a stored message again.
        false => store.sent(sender, &message).await?.ok_or(HisError::TooManyMessages)?,
    };
    match result {
        SendResult::Done => Ok(answer::null()),
        SendResult::Taken => Err(HisError::MessageExists),
    }
}

fn parse(mut body: JsonObject) -> Result<NodeMessage, HisError> {
    let id = body.member("id").and_then(JsonValue::as_str).filter(|id| is_id(id)).map(str::to_owned);
    let to = body.member("to").and_then(addressee);
    let kind = match body.member("type") {
        None | Some(JsonValue::Null) => None,
        Some(kind) => {
            Some(kind.as_str().filter(|kind| is_own_type(kind)).ok_or(HisError::BadMember("type"))?.to_owned())
        }
    };
    Ok(NodeMessage {
        id: id.ok_or(HisError::BadMember("id"))?,
        to: to.ok_or(HisError::BadMember("to"))?,
        kind,
        data: body.remove("data").unwrap_or(JsonValue::Null).to_text(),
    })
}

/// `"all"`, or an object with one of `node` and `role`.
fn addressee(to: &JsonValue) -> Option<MessageAddressee> {
    match to {
        JsonValue::String(all) if all == "all" => Some(MessageAddressee::All),
        JsonValue::Object(object) => {
            let name = |member: &str| object.member(member).map(|name| name.as_str().filter(|name| is_id(name)));
            match (name("node"), name("role")) {
                (Some(account), None) => account.map(|account| MessageAddressee::Node(account.to_owned())),
                (None, Some(role)) => role.map(|role| MessageAddressee::Role(role.to_owned())),
                (Some(_), Some(_)) | (None, None) => None,
            }
        }
        JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_) | JsonValue::String(_) | JsonValue::Array(_) => {
            None
        }
    }
}

/// Whether a node may say this type. Those of records are not free: a reader that filters by type would take a node's message
/// for a write.
fn is_own_type(kind: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/');
    let first = kind.split('.').next().unwrap_or_default();
    let is_of_records = RESOURCES.contains(&first) && first != NODE_MESSAGE;
    (1..=TYPE_BYTES).contains(&kind.len()) && kind.bytes().all(is_plain) && !is_of_records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_node_says_the_type_of_a_record() {
        for kind in [
            "page.post",
            "person",
            "document.x",
            "domiciliary_unit.patch",
            "all.reset",
            "",
            "a b",
            "é",
            &"x".repeat(129),
        ] {
            assert!(!is_own_type(kind), "{kind}");
        }
        for kind in ["message.post", "org.example.lab/result:v1", "pages.post", "x"] {
            assert!(is_own_type(kind), "{kind}");
        }
    }
}
