//! A request's body as a tree of elements, read from JSON or XML.
//!
//! The one rule: a body with two readings is refused, and so is one beyond the bounds, before anything is taken from
//! it. Called by `match_request`. Knows no resource.

mod json;
mod xml;

use crate::format::BodyFormat;
use crate::outcome::{Place, RequestFault};
use crate::values::is_text;

/// The most bytes of a body. A photo of a person fits in.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// How deeply a body may be nested. A Patient in Parameters needs eight levels.
const MAX_DEPTH: usize = 32;
/// The most elements of a body.
const MAX_ELEMENTS: usize = 4096;
/// The most bytes of an element's name. FHIR's longest has fewer than 64.
const MAX_NAME_BYTES: usize = 64;

/// An element, or the resource of the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReadElement {
    /// The name in the element around it.
    pub(crate) name: String,
    /// How often the form lets it occur.
    listed: Listed,
    /// The type of the resource, if it is one.
    pub(crate) resource: Option<String>,
    value: Option<Primitive>,
    pub(crate) children: Vec<ReadElement>,
}

/// Whether an element stands in a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Listed {
    /// JSON: it is the value itself.
    #[default]
    Alone,
    /// JSON: it is one of a list.
    InList,
    /// XML does not tell.
    Untold,
}

/// The value of a primitive element.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Primitive {
    /// A string of JSON, or any value of XML.
    Text(String),
    Bool(bool),
    Integer(i64),
    /// Any other number.
    Number,
}

/// Reads a body.
pub(crate) fn read(bytes: &[u8], format: BodyFormat) -> Result<ReadElement, RequestFault> {
    if bytes.len() > MAX_BODY_BYTES {
        return Err(RequestFault::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| RequestFault::Malformed)?;
    match format {
        BodyFormat::Json => json::read(text),
        BodyFormat::Xml => xml::read(text),
    }
}

/// Counts what the body has, and refuses what is beyond the bounds.
#[derive(Default)]
struct ElementBudget {
    elements: usize,
}

impl ElementBudget {
    fn element(&mut self, depth: usize) -> Result<(), RequestFault> {
        self.elements += 1;
        let fits = self.elements <= MAX_ELEMENTS && depth <= MAX_DEPTH;
        if fits { Ok(()) } else { Err(RequestFault::TooComplex) }
    }
}

/// A name of FHIR: letters, digits, and perhaps `_` before it.
fn is_name(name: &str) -> bool {
    let plain = name.strip_prefix('_').unwrap_or(name);
    (1..=MAX_NAME_BYTES).contains(&plain.len()) && plain.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl ReadElement {
    /// All elements of a name, where FHIR has a list.
    pub(crate) fn many<'a>(&'a self, name: &'a str, at: &str) -> Result<Vec<&'a Self>, RequestFault> {
        let found: Vec<&Self> = self.children.iter().filter(|child| child.name == name).collect();
        match found.iter().any(|child| child.listed == Listed::Alone) {
            true => Err(RequestFault::WrongType(place(at, name))),
            false => Ok(found),
        }
    }

    /// The element of a name, where FHIR has at most one.
    pub(crate) fn one(&self, name: &str, at: &str) -> Result<Option<&Self>, RequestFault> {
        let mut found = self.children.iter().filter(|child| child.name == name);
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(child), None) if child.listed != Listed::InList => Ok(Some(child)),
            _ => Err(RequestFault::WrongType(place(at, name))),
        }
    }

    /// The text of a member. An empty one counts as missing, because clients send them.
    pub(crate) fn text(&self, name: &str, at: &str) -> Result<Option<&str>, RequestFault> {
        match self.one(name, at)? {
            Some(child) => child.own_text(place(at, name)),
            None => Ok(None),
        }
    }

    /// The text of this element.
    pub(crate) fn own_text(&self, at: Place) -> Result<Option<&str>, RequestFault> {
        match &self.value {
            Some(Primitive::Text(text)) if text.trim().is_empty() => Ok(None),
            Some(Primitive::Text(text)) if is_text(text) => Ok(Some(text.trim())),
            Some(Primitive::Text(_)) => Err(RequestFault::BadValue(at)),
            // A primitive may have an extension instead of a value, in XML within the element.
            None if self.listed == Listed::Untold && self.children.iter().all(|child| child.name == "extension") => {
                Ok(None)
            }
            Some(Primitive::Bool(_) | Primitive::Integer(_) | Primitive::Number) | None => {
                Err(RequestFault::WrongType(at))
            }
        }
    }

    /// The truth value of a member.
    pub(crate) fn truth(&self, name: &str, at: &str) -> Result<Option<bool>, RequestFault> {
        let Some(child) = self.one(name, at)? else { return Ok(None) };
        match (&child.value, child.listed) {
            (Some(Primitive::Bool(truth)), _) => Ok(Some(*truth)),
            (Some(Primitive::Text(text)), Listed::Untold) if text == "true" => Ok(Some(true)),
            (Some(Primitive::Text(text)), Listed::Untold) if text == "false" => Ok(Some(false)),
            _ => Err(RequestFault::WrongType(place(at, name))),
        }
    }

    /// The whole number of a member.
    pub(crate) fn integer(&self, name: &str, at: &str) -> Result<Option<i64>, RequestFault> {
        let Some(child) = self.one(name, at)? else { return Ok(None) };
        let wrong = || RequestFault::WrongType(place(at, name));
        match (&child.value, child.listed) {
            (Some(Primitive::Integer(number)), _) => Ok(Some(*number)),
            (Some(Primitive::Text(text)), Listed::Untold) => {
                // One spelling: neither `+5` nor `007` (R4, 2.24.0.1, `integer`).
                let number = text.parse().ok().filter(|number: &i64| number.to_string() == *text);
                number.map(Some).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    /// Whether it has neither a value nor members.
    pub(crate) fn is_primitive(&self) -> bool {
        self.value.is_some()
    }

    /// Refuses an element that changes the meaning of others in a way that nobody here knows, at any level (R4, 2.4.1
    /// and 2.28.0.3). The depth of the recursion is that of the body.
    pub(crate) fn refuse_modifiers(&self, at: &str) -> Result<(), RequestFault> {
        for child in &self.children {
            let path = format!("{at}.{}", child.name);
            match child.name.as_str() {
                "modifierExtension" | "_modifierExtension" => {
                    return Err(RequestFault::UnknownModifierExtension(Place::of(&path)));
                }
                "implicitRules" | "_implicitRules" => return Err(RequestFault::ImplicitRules(Place::of(&path))),
                _ => child.refuse_modifiers(&path)?,
            }
        }
        Ok(())
    }
}

/// The place of a member.
pub(crate) fn place(at: &str, name: &str) -> Place {
    Place::of(&format!("{at}.{name}"))
}

#[cfg(test)]
mod tests;
