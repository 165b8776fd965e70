//! Takes the fields from the text of a document, and builds no value of the members that no pointer passes.
//!
//! A person's document can hold a portrait of some megabytes. It is skipped without a copy.

use std::borrow::Cow;
use std::fmt::Formatter;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Demographics, Fields};

impl Demographics {
    /// Takes what the places of `fields` hold, from the text of a document that is an object.
    ///
    /// # Errors
    ///
    /// If the text is not one JSON object.
    pub fn read(fields: &Fields, document: &str) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(document);
        let members = NeededMembers(fields).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(Self::take(fields, &Value::Object(members)))
    }
}

/// The members of an object with which a pointer begins.
struct NeededMembers<'a>(&'a Fields);

impl NeededMembers<'_> {
    fn has(&self, member: &str) -> bool {
        self.0.pointers().iter().any(|pointer| pointer.names().next() == Some(member))
    }
}

impl<'de> DeserializeSeed<'de> for NeededMembers<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for NeededMembers<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("a person's document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut needed = Map::new();
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            if self.has(&name) {
                needed.insert(name.into_owned(), members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gives_what_its_value_gives() {
        let fields = Fields::default();
        for text in [
            r#"{"name": "Ana", "portrait": {"name": "x"}, "lastname": ["A", "B"], "address": {"suburb": "M\u00e1laga"}}"#,
            r#"{"name": "Ana", "name": "Eva"}"#,
            r#"{"\u006eame": "Ana", "phone": ["1", {"value": 2}]}"#,
            "{}",
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(Demographics::read(&fields, text).unwrap(), Demographics::take(&fields, &value), "{text}");
        }
        for fault in ["", "[]", "null", "{", r#"{"name": }"#, "{} {}"] {
            assert!(Demographics::read(&fields, fault).is_err(), "{fault}");
        }
    }
}
