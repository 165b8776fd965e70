//! How messages are written: as a JSON list, as lines of JSON, as CloudEvents, or as an event stream; one alone as JSON or
//! as a CloudEvent.

use std::fmt::Write;

use http::HeaderMap;

use super::place::ReaderPlace;
use crate::accept;
use crate::store::MessageShape;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageFormat {
    /// A JSON list.
    List,
    /// One JSON object in each line (`application/x-ndjson`).
    Lines,
    /// A batch in the JSON format of CloudEvents 1.0.
    CloudEvents,
    /// An event stream without end (WHATWG HTML, "Server-sent events").
    EventStream,
    /// One message as a JSON object.
    One,
    /// One message in the JSON format of CloudEvents 1.0.
    OneEvent,
}

impl MessageFormat {
    /// The form of a list that a client accepts; the first that is named in `Accept`.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self::accepted(headers, &[Self::List, Self::Lines, Self::CloudEvents, Self::EventStream]).unwrap_or(Self::List)
    }

    /// The form of one message that a client accepts.
    pub(super) fn of_one(headers: &HeaderMap) -> Self {
        Self::accepted(headers, &[Self::One, Self::OneEvent]).unwrap_or(Self::One)
    }

    fn accepted(headers: &HeaderMap, known: &[Self]) -> Option<Self> {
        let types: Vec<&'static str> = known.iter().map(|format| format.media_type()).collect();
        let named = accept::first_named(headers, &types)?;
        known.iter().copied().find(|format| format.media_type() == named)
    }

    /// The shape in which the store writes a message for this form.
    pub(super) fn shape(self) -> MessageShape {
        match self {
            Self::List | Self::Lines | Self::EventStream | Self::One => MessageShape::Plain,
            Self::CloudEvents | Self::OneEvent => MessageShape::CloudEvent,
        }
    }

    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::List | Self::One => "application/json",
            Self::Lines => accept::JSON_LINES,
            Self::CloudEvents => "application/cloudevents-batch+json",
            Self::OneEvent => "application/cloudevents+json",
            Self::EventStream => "text/event-stream",
        }
    }

    /// The text before the first message, and after the last one.
    pub(super) fn frame(self) -> (&'static str, &'static str) {
        match self {
            Self::List | Self::CloudEvents => ("[", "]"),
            Self::Lines | Self::EventStream | Self::One | Self::OneEvent => ("", ""),
        }
    }

    /// Appends a message, whose text in the shape of this form is `message`, at a place.
    pub(super) fn write(self, text: &mut String, place: ReaderPlace, message: &str, is_first: bool) {
        if matches!(self, Self::List | Self::CloudEvents) && !is_first {
            text.push(',');
        }
        match self {
            Self::List | Self::CloudEvents | Self::One | Self::OneEvent => text.push_str(message),
            Self::Lines => {
                text.push_str(message);
                text.push('\n');
            }
            Self::EventStream => {
                // JSON of one line: neither database writes line breaks between the members.
                let _ = write!(text, "id: {place}\ndata: {message}\n\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    #[test]
    fn what_a_client_refuses_is_not_sent() {
        for (accept, format) in [
            ("text/event-stream", MessageFormat::EventStream),
            ("text/event-stream;q=0.1", MessageFormat::EventStream),
            ("text/event-stream;q=0", MessageFormat::List),
            ("text/event-stream; Q=0.000, application/x-ndjson", MessageFormat::Lines),
            ("text/html, */*", MessageFormat::List),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(MessageFormat::of(&headers), format, "{accept}");
        }
    }
}
