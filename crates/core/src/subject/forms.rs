//! The spellings of a person's id in one service, such as `7`, `Patient/7` and `https://fhir.example/Patient/7`.
//!
//! The one rule: a value that could be read as two ids, or as a list, a search or another resource, is no id.

use crate::path::MAX_ID_BYTES;

/// The place of the id in a form.
const PLACE: &str = "{id}";
/// The most forms of one route.
pub const MAX_FORMS: usize = 16;

/// The spellings of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdForms(Box<[IdForm]>);

/// One spelling: the text before the id, and the text after it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct IdForm {
    before: Box<str>,
    after: Box<str>,
}

impl IdForms {
    /// Parses forms such as `Patient/{id}`; the first one is how an id is written.
    ///
    /// # Errors
    /// The first form that does not have `{id}` once; empty if there are no forms or too many.
    pub fn parse<'f>(forms: impl IntoIterator<Item = &'f str>) -> Result<Self, &'f str> {
        let mut parsed = Vec::new();
        for form in forms {
            let Some((before, after)) = form.split_once(PLACE) else { return Err(form) };
            if after.contains(PLACE) || form.chars().any(|character| character.is_control() || character == ' ') {
                return Err(form);
            }
            parsed.push(IdForm { before: before.into(), after: after.into() });
        }
        if parsed.is_empty() || parsed.len() > MAX_FORMS { Err("") } else { Ok(Self(parsed.into())) }
    }

    /// The id alone, without anything around it.
    pub fn plain() -> Self {
        Self(Box::new([IdForm { before: "".into(), after: "".into() }]))
    }

    /// The id that a value names; none if it names none, or not clearly.
    pub fn read<'v>(&self, value: &'v str) -> Option<&'v str> {
        let mut read = self.0.iter().filter_map(|form| {
            let id = value.strip_prefix(&*form.before)?.strip_suffix(&*form.after)?;
            is_id(id).then_some(id)
        });
        let first = read.next()?;
        // With the forms `{id}` and `P-{id}`, `P-7` has two readings.
        read.all(|other| other == first).then_some(first)
    }

    /// A value that names this id; none if it could be read as something else.
    pub fn write(&self, id: &str) -> Option<String> {
        let form = self.0.first()?;
        let value = [&*form.before, id, &*form.after].concat();
        (self.read(&value) == Some(id)).then_some(value)
    }
}

/// Whether a text can be nothing but an id. In queries of FHIR and others, `,` `|` `$` and `\` have meanings of their
/// own, and `/` leads to another resource.
fn is_id(text: &str) -> bool {
    let is_plain = |character: char| match character {
        '-' | '.' | '_' | '~' | '@' => true,
        // Signs without a width, and those that change the direction of the text around them.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => false,
        '\0'..='\u{7f}' => character.is_ascii_alphanumeric(),
        other => !other.is_control() && !other.is_whitespace(),
    };
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.chars().all(is_plain) && !text.chars().all(|dot| dot == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_in_every_form_and_never_in_two_ways() {
        let forms = IdForms::parse(["Patient/{id}", "{id}", "https://f.example/Patient/{id}"]).unwrap();
        for (value, expected) in [
            ("7", Some("7")),
            ("Patient/7", Some("7")),
            ("https://f.example/Patient/7", Some("7")),
            ("Patient/7/_history/2", None),
            ("patient/7", None),
            ("Group/7", None),
            ("https://other.example/Patient/7", None),
            ("7,8", None),
            ("Patient/7,Patient/8", None),
            ("http://s|7", None),
            ("7 ", None),
            ("7\0", None),
            ("..", None),
            ("Patient/", None),
            ("", None),
            ("ÑU-ß.1_x", Some("ÑU-ß.1_x")),
            ("हिन्दी", Some("हिन्दी")),
            ("7\u{200b}", None),
            ("7\u{a0}", None),
            ("O'BRIEN", None),
            ("A+B", None),
            ("*", None),
            ("7\\,8", None),
            ("7%2C8", None),
        ] {
            assert_eq!(forms.read(value), expected, "{value}");
        }
        assert_eq!(forms.write("7").as_deref(), Some("Patient/7"));
        assert_eq!(forms.write("7,8"), None);
        let several = IdForms::parse(["{id}", "P-{id}"]).unwrap();
        assert_eq!((several.read("P-7"), several.read("7")), (None, Some("7")));
        assert!(IdForms::plain().read(&"a".repeat(MAX_ID_BYTES + 1)).is_none());
        for faulty in ["Patient/", "{id}{id}", "a {id}"] {
            assert_eq!(IdForms::parse([faulty]), Err(faulty));
        }
        assert_eq!(IdForms::parse([]), Err(""));
    }
}
