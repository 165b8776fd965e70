//! Checks one record of an import: its bytes become a record to store, or the reason for its refusal.

use zeroize::Zeroizing;

use super::records::MAX_RECORD_BYTES;
use super::{ClearPasswords, ImportKind};
use crate::error::HisError;
use crate::hashing::HashingThreads;
use crate::{people, verify_assertion};
use fedgate_core::json::{self, JsonObject, JsonValue};
use fedgate_core::password;
use fedgate_core::path::{MAX_ID_BYTES, new_person_id};

/// A hash that the rule of the store excludes ([`HashRule`](fedgate_base::db::hashes::HashRule)).
const UNREADABLE: &str = "`password` is a hash that a Thalamus on this database cannot read (argon2id); once no \
                          Thalamus uses it, set authentication.upgrade_hashes = true";

/// A record that can be stored.
pub(super) struct CheckedRecord {
    pub(super) id: String,
    /// The book of a page; empty for a person.
    pub(super) book: String,
    pub(super) document: JsonObject,
}

pub(super) enum RecordFault {
    /// This record cannot be stored; the import continues.
    Refused(String),
    /// Hashing fails, so the import stops: other records would be refused for a fault that is not theirs.
    Hashing,
}

impl RecordFault {
    fn because(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }
}

pub(super) async fn check(
    kind: ImportKind,
    clear_passwords: ClearPasswords,
    bytes: &[u8],
    hashing: &HashingThreads,
) -> Result<CheckedRecord, RecordFault> {
    let mut document = object(bytes)?;
    let mut id = id(&document, "id")?;
    let book = match kind {
        ImportKind::Pages => self::id(&document, "book")?,
        ImportKind::People => {
            // Ids follow the rules of a POST, which stores them in upper case.
            id = new_person_id(&id).map_err(|error| RecordFault::because(format!("`id`: {error}")))?;
            document.set("id", JsonValue::String(id.clone()));
            people::complete(&mut document).map_err(|problem| RecordFault::because(problem.to_string()))?;
            check_password(&mut document, clear_passwords, hashing).await?;
            String::new()
        }
    };
    Ok(CheckedRecord { id, book, document })
}

/// The object, alone or as the only element of a list.
fn object(bytes: &[u8]) -> Result<JsonObject, RecordFault> {
    let (value, grown) = json::parse_counted(bytes).map_err(|error| RecordFault::because(error.to_string()))?;
    // A short number with a large exponent is stored written out.
    if grown > 0 && bytes.len() + grown > MAX_RECORD_BYTES {
        return Err(RecordFault::because("it is longer than 16 MiB when its numbers are written out"));
    }
    match value {
        JsonValue::Object(object) => Ok(object),
        JsonValue::Array(mut items) => match (items.pop(), items.is_empty()) {
            (Some(JsonValue::Object(object)), true) => Ok(object),
            _ => Err(RecordFault::because("not an object")),
        },
        JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_) | JsonValue::String(_) => {
            Err(RecordFault::because("not an object"))
        }
    }
}

fn id(document: &JsonObject, name: &str) -> Result<String, RecordFault> {
    match document.member(name).and_then(JsonValue::as_str) {
        Some(id) if verify_assertion::is_id(id) => Ok(id.to_owned()),
        Some(id) if id.is_empty() || id.len() > MAX_ID_BYTES => {
            Err(RecordFault::because(format!("`{name}` is empty or longer than {MAX_ID_BYTES} bytes")))
        }
        Some(_) => Err(RecordFault::because(format!(
            "`{name}` is `.` or `..`, or holds `/` or a control character: no path can name it"
        ))),
        None => Err(RecordFault::because(format!("`{name}` is missing or not a string"))),
    }
}

async fn check_password(
    document: &mut JsonObject,
    clear_passwords: ClearPasswords,
    hashing: &HashingThreads,
) -> Result<(), RecordFault> {
    let clear = match document.member("password") {
        None | Some(JsonValue::Null) => return Ok(()),
        // Empty means no password, as in a POST.
        Some(JsonValue::String(text)) if text.is_empty() => {
            document.set("password", JsonValue::Null);
            return Ok(());
        }
        Some(JsonValue::String(text)) if password::is_acceptable_hash(text) => {
            // The import also takes a hash that is dear to verify: only an operator can run it.
            let kind = hashing.kind().await.map_err(|_| RecordFault::Hashing)?;
            return if kind.admits(text) { Ok(()) } else { Err(RecordFault::because(UNREADABLE)) };
        }
        Some(JsonValue::String(_)) if clear_passwords == ClearPasswords::Refuse => {
            return Err(RecordFault::because("`password` is not a hash that is accepted (see --hash-passwords)"));
        }
        Some(JsonValue::String(text)) if password::looks_like_hash(text) => {
            return Err(RecordFault::because("`password` looks like a hash of a kind that no sign-in reads"));
        }
        Some(JsonValue::String(text)) if password::is_blank(text.as_bytes()) => {
            return Err(RecordFault::because("`password` is blanks alone, which anybody guesses"));
        }
        // No sign-in accepts such a password, so its hash would lock the person out.
        Some(JsonValue::String(text)) if !password::can_sign_in(text.as_bytes()) => {
            return Err(RecordFault::because("`password` has a line break or NUL, which no sign-in accepts"));
        }
        Some(JsonValue::String(text)) => Zeroizing::new(text.clone()),
        Some(_) => return Err(RecordFault::because("`password` is not a string")),
    };
    let hash = hashing.hash(clear).await.map_err(|problem| match problem {
        HisError::PasswordTooLongFor(most) => {
            RecordFault::because(format!("`password` is too long: at most {most} bytes are used"))
        }
        _ => RecordFault::Hashing,
    })?;
    document.set("password", JsonValue::String(hash));
    Ok(())
}
