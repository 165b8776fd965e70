//! Which person a record belongs to, according to the record itself.
//!
//! The one rule: a record is the person's only if a member names exactly that person's id, in every occurrence of the
//! member.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Which person a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOwnership {
    /// It names the subject of the request.
    IsSubjects,
    /// It names another person, or something that is not a person.
    IsAnothers,
    /// It names no person: the member is missing, null or empty.
    IsUnnamed,
}

impl RecordOwnership {
    /// Reads `member` of a whole record.
    ///
    /// # Errors
    /// The record is not JSON.
    pub fn of(record: &[u8], member: &str, subject: &str) -> serde_json::Result<Self> {
        let mut reader = serde_json::Deserializer::from_slice(record);
        let owners = reader.deserialize_any(OwnerVisitor { member })?;
        reader.end()?;
        let named = |owner: &Value| match owner {
            Value::Null => Self::IsUnnamed,
            Value::String(owner) if owner.is_empty() => Self::IsUnnamed,
            Value::String(owner) if owner == subject => Self::IsSubjects,
            _ => Self::IsAnothers,
        };
        let mut named = owners.iter().map(named);
        let first = named.next().unwrap_or(Self::IsUnnamed);
        // Of a repeated member, some services take the first value and others the last. So all of them must agree.
        Ok(if named.all(|other| other == first) { first } else { Self::IsAnothers })
    }
}

/// Collects the values of one member of the outermost object, and ignores everything else.
struct OwnerVisitor<'a> {
    member: &'a str,
}

impl<'de> Visitor<'de> for OwnerVisitor<'_> {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut owners = Vec::new();
        while let Some(name) = map.next_key::<OwnedName>()? {
            if name.0 == self.member {
                owners.push(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(owners)
    }
}

/// A member's name, decoded.
#[derive(Deserialize)]
struct OwnedName(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_persons_only_if_it_says_so_each_time() {
        use RecordOwnership::{IsAnothers, IsSubjects, IsUnnamed};
        for (record, expected) in [
            (r#"{"book": "ANA"}"#, Some(IsSubjects)),
            (r#"{"id": 1, "b\u006fok": "\u0041NA", "n": [{"book": "BOB"}]} "#, Some(IsSubjects)),
            (r#"{"book": "BOB"}"#, Some(IsAnothers)),
            (r#"{"book": "ana"}"#, Some(IsAnothers)),
            (r#"{"book": 7}"#, Some(IsAnothers)),
            (r#"{"book": ["ANA"]}"#, Some(IsAnothers)),
            (r#"{"book": "ANA", "book": "BOB"}"#, Some(IsAnothers)),
            (r#"{"book": "ANA", "book": null}"#, Some(IsAnothers)),
            (r#"{"book": "ANA", "book": "ANA"}"#, Some(IsSubjects)),
            (r#"{"book": null}"#, Some(IsUnnamed)),
            (r#"{"book": ""}"#, Some(IsUnnamed)),
            (r#"{"Book": "ANA", "n": {"book": "ANA"}}"#, Some(IsUnnamed)),
            ("{}", Some(IsUnnamed)),
            (r#"[{"book": "ANA"}]"#, None),
            ("null", None),
            (r#"{"book": "ANA"} x"#, None),
            (r#"{"book": "ANA""#, None),
            ("", None),
        ] {
            assert_eq!(RecordOwnership::of(record.as_bytes(), "book", "ANA").ok(), expected, "{record}");
        }
    }
}
