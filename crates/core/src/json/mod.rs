//! JSON as the HIS stores it: nothing lost, nothing with two readings.
//!
//! The one rule: both stores can hold everything that this module accepts, and every client reads it the same way. So
//! it is stricter than RFC 8259 where that leaves room: no byte order mark, no unpaired surrogates, no U+0000
//! (PostgreSQL's jsonb has none), no numbers beyond what jsonb holds, bounded depth. Of a repeated key the last one
//! counts, as in Python and jsonb. Numbers keep every digit: they never become floating point.
//!
//! Used for incoming documents. Outgoing documents are text from the row and never pass through here.

mod number;
mod parse;
mod size;

use std::collections::HashMap;
use std::fmt::Write;

pub use parse::{parse, parse_counted, parse_stored};

pub use crate::fields::JsonError;

/// A JSON value. Equality is by meaning: `1.0` equals `1e0`, and the order of keys does not count.
#[derive(Debug, Clone)]
pub enum JsonValue {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, written out.
    Number(Box<str>),
    /// A string, decoded.
    String(String),
    /// A list.
    Array(Vec<JsonValue>),
    /// An object.
    Object(JsonObject),
}

/// The members of an object in their order of arrival, each name once.
#[derive(Debug, Clone, Default)]
pub struct JsonObject(Vec<(String, JsonValue)>);

impl JsonObject {
    /// The value of a member.
    pub fn member(&self, name: &str) -> Option<&JsonValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The names of the members, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Sets a member, new or existing.
    pub fn set(&mut self, name: &str, value: JsonValue) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes a member and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<JsonValue> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Replaces whole members by those of `patch` and adds new ones, as PostgreSQL's `jsonb || jsonb` does.
    pub fn merge(&mut self, patch: Self) {
        let places: Vec<Option<usize>> = {
            let known = MemberIndex::of(self);
            patch.0.iter().map(|(name, _)| known.place(name)).collect()
        };
        for ((name, value), place) in patch.0.into_iter().zip(places) {
            match place.and_then(|place| self.0.get_mut(place)) {
                Some((_, known)) => *known = value,
                None => self.0.push((name, value)),
            }
        }
    }

    /// Whether both have the same members, apart from those named in `besides`.
    pub fn same_besides(&self, other: &Self, besides: &[&str]) -> bool {
        let counted = |object: &Self| object.0.iter().filter(|(name, _)| !besides.contains(&name.as_str())).count();
        let others = MemberIndex::of(other);
        counted(self) == counted(other)
            && self
                .0
                .iter()
                .filter(|(name, _)| !besides.contains(&name.as_str()))
                .all(|(name, value)| others.member(name) == Some(value))
    }

    /// The object as compact JSON.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        write_object(self, &mut text);
        text
    }
}

/// From this many members on, an object is indexed where each of another's members is looked up in it. Otherwise an
/// object with many members costs quadratic time.
const INDEX_FROM: usize = 16;

/// The places of the members of an object.
struct MemberIndex<'a> {
    object: &'a JsonObject,
    /// Only of a large object.
    places: Option<HashMap<&'a str, usize>>,
}

impl<'a> MemberIndex<'a> {
    fn of(object: &'a JsonObject) -> Self {
        let places = || object.0.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
        Self { object, places: (object.0.len() >= INDEX_FROM).then(places) }
    }

    fn place(&self, name: &str) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(name).copied(),
            None => self.object.0.iter().position(|(known, _)| known == name),
        }
    }

    fn member(&self, name: &str) -> Option<&'a JsonValue> {
        self.place(name).and_then(|place| self.object.0.get(place)).map(|(_, value)| value)
    }
}

impl PartialEq for JsonObject {
    fn eq(&self, other: &Self) -> bool {
        self.same_besides(other, &[])
    }
}

impl JsonValue {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// Removes unwanted values at any depth: members by name and value; elements of lists become null. True if there
    /// was any.
    pub fn strip(&mut self, is_unwanted: &impl Fn(Option<&str>, &Self) -> bool) -> bool {
        match self {
            Self::Array(items) => items.iter_mut().fold(false, |found, item| match is_unwanted(None, item) {
                true => {
                    *item = Self::Null;
                    true
                }
                false => item.strip(is_unwanted) || found,
            }),
            Self::Object(JsonObject(members)) => {
                let before = members.len();
                members.retain(|(name, value)| !is_unwanted(Some(name), value));
                let found = members.len() < before;
                members.iter_mut().fold(found, |found, (_, value)| value.strip(is_unwanted) || found)
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => false,
        }
    }

    /// The value as compact JSON.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        write_value(self, &mut text);
        text
    }
}

impl PartialEq for JsonValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b || number::JsonDecimal::of(a) == number::JsonDecimal::of(b),
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            _ => false,
        }
    }
}

/// Whether two JSON texts, stored or about to be stored, mean the same.
pub fn is_same(left: &str, right: &str) -> bool {
    left == right || matches!((parse_stored(left), parse_stored(right)), (Ok(left), Ok(right)) if left == right)
}

/// Appends a JSON string literal.
pub fn write_string(string: &str, text: &mut String) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            // RFC 8259, 7: controls must be escaped.
            control if control < ' ' => {
                // Writing to a `String` cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

fn write_object(object: &JsonObject, text: &mut String) {
    text.push('{');
    for (at, (name, value)) in object.0.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        write_string(name, text);
        text.push(':');
        write_value(value, text);
    }
    text.push('}');
}

/// Recursion is bounded by the depth that [`parse`] accepts.
fn write_value(value: &JsonValue, text: &mut String) {
    match value {
        JsonValue::Null => text.push_str("null"),
        JsonValue::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        JsonValue::Number(number) => text.push_str(number),
        JsonValue::String(string) => write_string(string, text),
        JsonValue::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_value(item, text);
            }
            text.push(']');
        }
        JsonValue::Object(object) => write_object(object, text),
    }
}

#[cfg(test)]
mod tests;
