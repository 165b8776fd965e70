//! Documents as FHIR reads them.
//!
//! The one rule: a document is read as it was stored. Only a number that no program can hold is none.

use fedgate_core::json::{self, JsonValue};
use serde_json::Value;

/// A record's text as a tree.
pub(super) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json::parse_stored(text).map_or(Value::Null, |value| tree(&value)))
}

fn tree(value: &JsonValue) -> Value {
    match value {
        JsonValue::Null => Value::Null,
        JsonValue::Bool(truth) => Value::Bool(*truth),
        JsonValue::String(text) => Value::String(text.clone()),
        JsonValue::Number(digits) => serde_json::from_str(digits).unwrap_or(Value::Null),
        JsonValue::Array(items) => Value::Array(items.iter().map(tree).collect()),
        JsonValue::Object(object) => {
            let member = |name: &str| Some((name.to_owned(), tree(object.member(name)?)));
            Value::Object(object.names().filter_map(member).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parsed;
    use serde_json::json;

    #[test]
    fn a_number_beyond_every_program_hides_nothing_else() {
        assert_eq!(parsed(r#"{"name":"Ana","n":[1e999,1]}"#), json!({"name": "Ana", "n": [null, 1]}));
        assert_eq!(parsed("7"), json!(7));
    }
}
