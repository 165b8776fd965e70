//! A JSON pointer (RFC 6901) with exactly one reading.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// The most bytes of a pointer, and the most members on its way.
const MAX_BYTES: usize = 512;
const MAX_DEPTH: usize = 8;

/// The place of a field in a document, such as `/address/suburb`.
///
/// Holding one is the proof that it was checked. The whole document (the empty pointer) is no field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldPointer(Box<[Box<str>]>);

/// Why a text is no pointer to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PointerError {
    /// The empty pointer, or no pointer
    #[error("a JSON pointer to a field begins with `/`")]
    NoSlash,
    /// `~` without its digit
    #[error("in a JSON pointer `~` is written `~0` or `~1`, the second for `/`")]
    BadEscape,
    /// Too long or too deep
    #[error("a JSON pointer to a field has at most 512 bytes and is at most 8 members deep")]
    TooLong,
}

impl FieldPointer {
    /// Reads a pointer.
    ///
    /// # Errors
    ///
    /// If the text is no pointer to a field.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let rest = text.strip_prefix('/').ok_or(PointerError::NoSlash)?;
        if text.len() > MAX_BYTES || rest.split('/').count() > MAX_DEPTH {
            return Err(PointerError::TooLong);
        }
        rest.split('/').map(unescaped).collect::<Result<_, _>>().map(Self)
    }

    /// A pointer of member names that need no check.
    pub(super) fn of_members(names: &[&str]) -> Self {
        Self(names.iter().map(|name| Box::from(*name)).collect())
    }

    /// The names on the way to the field.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// What a document has at this place.
    #[must_use]
    pub fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.names().try_fold(document, |value, name| match value {
            Value::Object(members) => members.get(name),
            Value::Array(elements) => elements.get(array_index(name)?),
            _ => None,
        })
    }
}

/// The index that a name is in an array: RFC 6901 allows no leading zero.
fn array_index(name: &str) -> Option<usize> {
    let is_index = name == "0" || (name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0'));
    is_index.then(|| name.parse().ok()).flatten()
}

fn unescaped(name: &str) -> Result<Box<str>, PointerError> {
    let mut plain = String::with_capacity(name.len());
    let mut signs = name.chars();
    while let Some(sign) = signs.next() {
        plain.push(match (sign, if sign == '~' { signs.next() } else { None }) {
            ('~', Some('0')) => '~',
            ('~', Some('1')) => '/',
            ('~', _) => return Err(PointerError::BadEscape),
            (plain, _) => plain,
        });
    }
    Ok(plain.into())
}

impl TryFrom<String> for FieldPointer {
    type Error = PointerError;

    fn try_from(text: String) -> Result<Self, PointerError> {
        Self::parse(&text)
    }
}

impl From<FieldPointer> for String {
    fn from(pointer: FieldPointer) -> Self {
        pointer.to_string()
    }
}

impl fmt::Display for FieldPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names().try_for_each(|name| write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The examples of RFC 6901, section 5, without the empty pointer.
    #[test]
    fn the_examples_of_the_rfc_find_their_values() {
        let document = json!({
            "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6, " ": 7,
            "m~n": 8
        });
        for (pointer, value) in [
            ("/foo", json!(["bar", "baz"])),
            ("/foo/0", json!("bar")),
            ("/", json!(0)),
            ("/a~1b", json!(1)),
            ("/c%d", json!(2)),
            ("/e^f", json!(3)),
            ("/g|h", json!(4)),
            ("/i\\j", json!(5)),
            ("/k\"l", json!(6)),
            ("/ ", json!(7)),
            ("/m~0n", json!(8)),
        ] {
            let parsed = FieldPointer::parse(pointer).unwrap();
            assert_eq!(parsed.find(&document), Some(&value), "{pointer}");
            assert_eq!(parsed.to_string(), pointer);
        }
        for absent in ["/bar", "/foo/2", "/foo/00", "/foo/-", "/foo/bar", "/foo/0/x"] {
            assert_eq!(FieldPointer::parse(absent).unwrap().find(&document), None, "{absent}");
        }
    }
}
