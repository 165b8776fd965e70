//! One record of an import: bytes to what can be stored, or the reason why not.

use zeroize::Zeroizing;

use super::records::MAX_RECORD_BYTES;
use super::{ClearPasswords, Kind};
use crate::error::Problem;
use crate::hashing::Hashing;
use crate::{guard, people};
use fedgate_core::json::{self, Object, Value};
use fedgate_core::password;
use fedgate_core::path::{MAX_ID_BYTES, new_person_id};

/// A hash that the rule of the store excludes ([`HashRule`](fedgate_base::db::hashes::HashRule)).
const UNREADABLE: &str = "`password` is a hash that a Thalamus on this database cannot read (argon2id); when none uses it any more, \
                          set authentication.upgrade_hashes = true";

/// A record that can be stored.
pub(super) struct Checked {
    pub(super) id: String,
    /// The book of a page; empty for a person.
    pub(super) book: String,
    pub(super) document: Object,
}

pub(super) enum Fault {
    /// This record cannot be stored.
    Refused(String),
    /// None can for now.
    Hashing,
}

impl Fault {
    fn because(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }
}

pub(super) async fn check(
    kind: Kind,
    clear_passwords: ClearPasswords,
    bytes: &[u8],
    hashing: &Hashing,
) -> Result<Checked, Fault> {
    let mut document = object(bytes)?;
    let mut id = id(&document, "id")?;
    let book = match kind {
        Kind::Pages => self::id(&document, "book")?,
        Kind::People => {
            // As a POST stores it.
            id = new_person_id(&id).map_err(|error| Fault::because(format!("`id`: {error}")))?;
            document.set("id", Value::String(id.clone()));
            people::complete(&mut document).map_err(|problem| Fault::because(problem.to_string()))?;
            check_password(&mut document, clear_passwords, hashing).await?;
            String::new()
        }
    };
    Ok(Checked { id, book, document })
}

/// The object, alone or as the only element of a list.
fn object(bytes: &[u8]) -> Result<Object, Fault> {
    let (value, grown) = json::parse_counted(bytes).map_err(|error| Fault::because(error.to_string()))?;
    if grown > 0 && bytes.len() + grown > MAX_RECORD_BYTES {
        return Err(Fault::because("it is longer than 16 MiB when its numbers are written out"));
    }
    match value {
        Value::Object(object) => Ok(object),
        Value::Array(mut items) => match (items.pop(), items.is_empty()) {
            (Some(Value::Object(object)), true) => Ok(object),
            _ => Err(Fault::because("not an object")),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(Fault::because("not an object")),
    }
}

fn id(document: &Object, name: &str) -> Result<String, Fault> {
    match document.member(name).and_then(Value::as_str) {
        Some(id) if guard::is_id(id) => Ok(id.to_owned()),
        Some(id) if id.is_empty() || id.len() > MAX_ID_BYTES => {
            Err(Fault::because(format!("`{name}` is empty or longer than {MAX_ID_BYTES} bytes")))
        }
        Some(_) => Err(Fault::because(format!(
            "`{name}` is `.` or `..`, or holds `/` or a control character: no path can name it"
        ))),
        None => Err(Fault::because(format!("`{name}` is missing or no string"))),
    }
}

async fn check_password(
    document: &mut Object,
    clear_passwords: ClearPasswords,
    hashing: &Hashing,
) -> Result<(), Fault> {
    let clear = match document.member("password") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(text)) if text.is_empty() => {
            document.set("password", Value::Null);
            return Ok(());
        }
        Some(Value::String(text)) if password::is_acceptable_hash(text) => {
            let kind = hashing.kind().await.map_err(|_| Fault::Hashing)?;
            return if kind.admits(text) { Ok(()) } else { Err(Fault::because(UNREADABLE)) };
        }
        Some(Value::String(_)) if clear_passwords == ClearPasswords::Refuse => {
            return Err(Fault::because("`password` is not a hash that is accepted (see --hash-passwords)"));
        }
        Some(Value::String(text)) if !password::can_sign_in(text.as_bytes()) => {
            return Err(Fault::because("`password` has a line break or NUL, with which nobody can sign in"));
        }
        Some(Value::String(text)) => Zeroizing::new(text.clone()),
        Some(_) => return Err(Fault::because("`password` is no string")),
    };
    let hash = hashing.hash(clear).await.map_err(|problem| match problem {
        Problem::PasswordTooLongFor(most) => {
            Fault::because(format!("`password` is too long: at most {most} bytes are read of it"))
        }
        _ => Fault::Hashing,
    })?;
    document.set("password", Value::String(hash));
    Ok(())
}
