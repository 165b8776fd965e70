//! One message as text: as the JSON object that lists hold, or as a CloudEvent around it.
//!
//! The one rule: each text is one line, and no hash is in it.

use std::borrow::Cow;
use std::fmt::Write;

use super::element::ListElement;
use super::message_reach::MessageAddressee;
use super::sql::RecordTable;
use super::visible::seen;
use fedgate_core::json::write_string;

/// The shape of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageShape {
    /// The object itself.
    Plain,
    /// A CloudEvent 1.0 in its JSON format, whose data is the object.
    CloudEvent,
}

/// One row of a message.
pub(super) struct MessageRow<'a> {
    pub(super) position: i64,
    /// The history in which it was given.
    pub(super) history: i64,
    pub(super) time: &'a str,
    pub(super) resource: &'a str,
    pub(super) person: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) method: &'a str,
    pub(super) node: Option<&'a str>,
    pub(super) author: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) addressee: Option<&'a str>,
    pub(super) data: Option<&'a str>,
}

impl MessageRow<'_> {
    /// The message as an element of a list.
    pub(super) fn element(&self, shape: MessageShape) -> ListElement {
        let mut text = String::with_capacity(self.data.map_or(0, str::len) + 640);
        match shape {
            MessageShape::Plain => self.write_object(&mut text),
            MessageShape::CloudEvent => self.write_event(&mut text),
        }
        ListElement { id: self.position.to_string(), text, large: None }
    }

    /// The type: that of the sender, or what was done with which resource.
    fn kind(&self) -> Cow<'_, str> {
        match self.kind {
            Some(kind) => Cow::Borrowed(kind),
            None => Cow::Owned(format!("{}.{}", self.resource, self.method.to_ascii_lowercase())),
        }
    }

    /// The record: the person and the id within it, or the id alone where they are the same or there is no person.
    fn subject(&self) -> Option<Cow<'_, str>> {
        match (self.person, self.id) {
            (Some(person), Some(id)) if person != id => Some(Cow::Owned(format!("{person}/{id}"))),
            (_, Some(id)) => Some(Cow::Borrowed(id)),
            (_, None) => None,
        }
    }

    fn write_object(&self, text: &mut String) {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{{\"position\":{}", self.position);
        let kind = self.kind();
        let members = [
            ("time", Some(self.time)),
            ("type", Some(&*kind)),
            ("node", self.node),
            ("author", self.author),
            ("resource", Some(self.resource)),
            ("person", self.person),
            ("id", self.id),
            ("method", Some(self.method)),
        ];
        for (name, value) in members {
            let _ = write!(text, ",\"{name}\":");
            match value {
                Some(value) => write_string(value, text),
                None => text.push_str("null"),
            }
        }
        if let Some(addressee) = self.addressee.filter(|_| self.method != "RESET") {
            text.push_str(",\"to\":");
            MessageAddressee::write(addressee, text);
        }
        text.push_str(",\"data\":");
        // The triggers leave a person's hash out. This removes hashes that an older row holds elsewhere.
        let table = if self.resource == "person" { RecordTable::People } else { RecordTable::Pols };
        text.push_str(&seen(table, self.data.unwrap_or("null")));
        text.push('}');
    }

    /// The id is unique for the source, since a position is given once in a history. Attributes without a value are left out (CloudEvents 1.0.2, JSON format, 2.2).
    fn write_event(&self, text: &mut String) {
        let id = format!("{}.{}", self.position, self.history);
        let (kind, subject) = (self.kind(), self.subject());
        let attributes = [
            ("specversion", Some("1.0")),
            ("id", Some(id.as_str())),
            ("source", Some("/messages")),
            ("type", Some(&*kind)),
            ("time", Some(self.time)),
            ("subject", subject.as_deref()),
            ("node", self.node),
            ("datacontenttype", Some("application/json")),
        ];
        text.push('{');
        // An attribute that is present has at least one character.
        for (name, value) in attributes {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let _ = write!(text, "\"{name}\":");
                write_string(value, text);
                text.push(',');
            }
        }
        text.push_str("\"data\":");
        self.write_object(text);
        text.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: MessageRow<'_> = MessageRow {
        position: 7,
        history: 2,
        time: "2026-11-29T21:00:00.000Z",
        resource: "page",
        person: Some("ANA"),
        id: Some("p1"),
        method: "PATCH",
        node: None,
        author: None,
        kind: None,
        addressee: None,
        data: Some("{\"a\":1}"),
    };

    #[test]
    fn an_event_has_each_attribute_that_has_a_value_and_the_message_as_its_data() {
        let plain = ROW.element(MessageShape::Plain).text;
        assert_eq!(
            ROW.element(MessageShape::CloudEvent).text,
            format!(
                "{{\"specversion\":\"1.0\",\"id\":\"7.2\",\"source\":\"/messages\",\"type\":\"page.patch\",\
                 \"time\":\"2026-11-29T21:00:00.000Z\",\"subject\":\"ANA/p1\",\"datacontenttype\":\"application/json\",\
                 \"data\":{plain}}}"
            )
        );
        let reset = MessageRow { person: None, id: None, method: "RESET", node: Some(""), ..ROW };
        let text = reset.element(MessageShape::CloudEvent).text;
        assert!(
            !text.starts_with("{\"node\"") && !text.contains("subject") && !text.contains("\"node\":\"\",\"datac"),
            "{text}"
        );
    }

    #[test]
    fn an_addressee_is_written_as_it_was_sent() {
        for (key, json) in [("node A B", r#"{"node":"A B"}"#), ("role lab", r#"{"role":"lab"}"#), ("all", r#""all""#)] {
            let row = MessageRow { kind: Some("x.y"), addressee: Some(key), ..ROW };
            let text = row.element(MessageShape::Plain).text;
            assert!(text.contains(&format!("\"to\":{json},\"data\"")) && text.contains("\"type\":\"x.y\""), "{text}");
        }
    }
}
