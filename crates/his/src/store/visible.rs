//! Hides password hashes in a person's row, at any depth.
//!
//! The statement that reads a row removes `password` from its document. An older row may hold more: Thalamus
//! appends a list that is sent as a change, which leaves `[{"id": …, "password": …}, 1]`. So the one rule: a text
//! that may contain a hash is parsed, and shown without it. All other texts, which are nearly all, are shown as
//! they are.

use std::borrow::Cow;

use super::sql::RecordTable;
use fedgate_core::json::{self, JsonValue};

/// The visible text of a row.
pub(super) fn seen(table: RecordTable, text: &str) -> Cow<'_, str> {
    let is_object = text.starts_with('{');
    // Within strings the databases escape only control characters, but other programs may have escaped letters.
    let is_plain = is_object && !text.contains("password\"") && !text.contains("\\u");
    if table != RecordTable::People || is_plain {
        return Cow::Borrowed(text);
    }
    // An unreadable text may contain anything.
    let Ok(mut value) = json::parse_stored(text) else { return Cow::Borrowed("null") };
    let is_unwanted = |name: Option<&str>, value: &JsonValue| match name {
        Some("password") => !is_object || is_hash(value),
        // In an object the member's name tells a hash from other text. A list that Thalamus made of one has lost
        // those names, so every hash in it is removed.
        Some(_) | None => !is_object && is_hash(value),
    };
    if is_unwanted(None, &value) {
        return Cow::Borrowed("null");
    }
    match value.strip(&is_unwanted) {
        true => Cow::Owned(value.to_text()),
        false => Cow::Borrowed(text),
    }
}

/// Whether a value looks like a bcrypt or argon2 hash, valid or not.
fn is_hash(value: &JsonValue) -> bool {
    value.as_str().is_some_and(|text| text.starts_with("$2") || text.starts_with("$argon2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hash_is_seen_at_any_depth_and_all_else_is_as_it_was() {
        let hash = "$2b$12$cjrzjdZJGA6ARGr5Z1HVpOIyvhVrHAO3TN6t39r4X5rLrhRDlNUmi";
        #[rustfmt::skip]
        let cases = [
            (format!(r#"[{{"id": "A", "password": "{hash}"}}, 1]"#), r#"[{"id":"A"},1]"#),
            (format!(r#"[[{{"a": [{{"password": "{hash}", "b": 1.50}}]}}]]"#), r#"[[{"a":[{"b":1.50}]}]]"#),
            (format!(r#"["password", "{hash}"]"#), r#"["password",null]"#),
            (format!(r#""{hash}""#), "null"),
            (r#"[{"password": "in clear"}]"#.to_owned(), "[{}]"),
            (format!(r#"{{"old": {{"password": "{hash}", "b": 1}}}}"#), r#"{"old":{"b":1}}"#),
            (r#"{"old": {"p\u0061ssword": "$argon2id$v=19$"}}"#.to_owned(), r#"{"old":{}}"#),
            (r#"{"wifi": {"password": "garden"}, "note": "$2 a day"}"#.to_owned(), r#"{"wifi": {"password": "garden"}, "note": "$2 a day"}"#),
            (r#"["password", 1]"#.to_owned(), r#"["password", 1]"#),
            ("7".to_owned(), "7"), ("null".to_owned(), "null"), ("{broken \"password\"".to_owned(), "null"),
        ];
        for (text, expected) in &cases {
            assert_eq!(seen(RecordTable::People, text), *expected, "{text}");
        }
        assert_eq!(seen(RecordTable::Pols, &cases[0].0), cases[0].0, "pages hold no accounts");
    }
}
