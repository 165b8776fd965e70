//! The size of a document: the bytes of its text as jsonb writes it, so that a bound means the same on both databases.

use super::{JsonObject, JsonValue};

impl JsonObject {
    /// The size in bytes of the text as jsonb writes it: `{"a": 1, "b": [2, 3]}`.
    pub fn size(&self) -> usize {
        let members = self.0.iter().map(|(name, value)| string(name) + ": ".len() + size(value));
        list(members)
    }
}

/// The depth that the parser accepts bounds the recursion.
fn size(value: &JsonValue) -> usize {
    match value {
        JsonValue::Null | JsonValue::Bool(true) => "null".len(),
        JsonValue::Bool(false) => "false".len(),
        JsonValue::Number(number) => number.len(),
        JsonValue::String(text) => string(text),
        JsonValue::Array(items) => list(items.iter().map(size)),
        JsonValue::Object(object) => object.size(),
    }
}

fn list(sizes: impl ExactSizeIterator<Item = usize>) -> usize {
    let separators = sizes.len().saturating_sub(1) * ", ".len();
    "[]".len() + separators + sizes.sum::<usize>()
}

fn string(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | 8 | 12 | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    "\"\"".len() + text.bytes().map(escaped).sum::<usize>()
}
