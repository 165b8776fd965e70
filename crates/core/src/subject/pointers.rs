//! The subject in a JSON document: in the body of a request, or in an answer.
//!
//! The one rule: every document of the text names its subject, in a place that every reader takes for the same. A
//! name that comes twice or in other letters, a list where a member is expected, and a value that is no id make the
//! whole text unclear.
//!
//! Places are JSON pointers (RFC 6901) in which `*` stands for every element of a list. A list at the top is a list
//! of documents. Of several places, each document has at least one, and those that it has count all. An element
//! that names nobody makes the text unclear; a text that names nobody at all is known as such.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::IdForms;
use crate::fields::equal_folded;

/// The most pointers of one route.
pub const MAX_POINTERS: usize = 16;
/// The most different ids that are read of one text.
const MAX_IDS: usize = 1024;

/// The places of a subject in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectPointers(PointerNode);

/// Where the pointers go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct PointerNode {
    /// Whether a pointer ends here.
    is_place: bool,
    members: Vec<(String, PointerNode)>,
    elements: Option<Box<PointerNode>>,
}

/// The subjects that a text names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedSubjects {
    ids: Vec<String>,
    is_unclear: bool,
    /// Whether the text is a list without elements.
    is_empty_list: bool,
    /// Whether the text has a place or an element of a list of the pointers.
    has_places: bool,
}

impl NamedSubjects {
    /// The ids, each once; empty if the text names nobody, none if it is unclear.
    pub fn ids(&self) -> Option<&[String]> {
        (!self.is_unclear).then_some(&self.ids)
    }

    /// Whether the text has a place of the pointers, or an element of a list that they go through.
    pub fn has_places(&self) -> bool {
        self.has_places
    }

    /// Whether the text is a list without elements, which shows nothing of anybody.
    pub fn is_empty_list(&self) -> bool {
        self.is_empty_list
    }

    fn add(&mut self, id: &str) {
        if self.ids.iter().any(|known| known == id) {
            return;
        }
        match self.ids.len() < MAX_IDS {
            true => self.ids.push(id.to_owned()),
            false => self.is_unclear = true,
        }
    }
}

impl SubjectPointers {
    /// Compiles pointers such as `/subject/reference` or `/entry/*/resource/subject/reference`.
    ///
    /// # Errors
    /// The first pointer that is malformed, lies within another, or differs from another in case alone; empty if there
    /// are none or too many.
    pub fn parse<'p>(pointers: &[&'p str]) -> Result<Self, &'p str> {
        if pointers.is_empty() || pointers.len() > MAX_POINTERS {
            return Err("");
        }
        let mut root = PointerNode::default();
        for pointer in pointers {
            let mut node = &mut root;
            for step in PointerStep::all(pointer).ok_or(*pointer)? {
                node = node.step(step).ok_or(*pointer)?;
            }
            node.is_place = true;
            if !root.has_no_place_inside_another() {
                return Err(pointer);
            }
        }
        Ok(Self(root))
    }

    /// Reads a whole text. Cost: one pass; memory for the ids alone.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn read(&self, text: &[u8], forms: &IdForms) -> serde_json::Result<NamedSubjects> {
        self.read_as(text, forms, true)
    }

    /// Reads one element of a list, which is a document, and never a list of them.
    ///
    /// # Errors
    /// It is not JSON.
    pub(super) fn read_element(&self, text: &[u8], forms: &IdForms) -> serde_json::Result<NamedSubjects> {
        self.read_as(text, forms, false)
    }

    fn read_as(&self, text: &[u8], forms: &IdForms, is_top: bool) -> serde_json::Result<NamedSubjects> {
        let mut named = NamedSubjects::default();
        let mut reader = serde_json::Deserializer::from_slice(text);
        DocumentReader { node: &self.0, forms, named: &mut named, is_top }.deserialize(&mut reader)?;
        reader.end()?;
        Ok(named)
    }
}

/// One step of a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PointerStep {
    /// To a member of this name.
    Member(String),
    /// To every element of a list.
    Elements,
}

impl PointerStep {
    /// The steps of a pointer; none if it is malformed.
    pub(super) fn all(pointer: &str) -> Option<Vec<Self>> {
        pointer.strip_prefix('/')?.split('/').map(Self::parse).collect()
    }

    fn parse(step: &str) -> Option<Self> {
        if step == "*" {
            return Some(Self::Elements);
        }
        let is_escaped =
            step.match_indices('~').all(|(at, _)| matches!(step.as_bytes().get(at + 1), Some(b'0' | b'1')));
        // A place in a list would be another one once an element is added before it.
        let is_index = step.bytes().all(|byte| byte.is_ascii_digit());
        let name = || step.replace("~1", "/").replace("~0", "~");
        (!step.is_empty() && is_escaped && !is_index).then(|| Self::Member(name()))
    }
}

impl PointerNode {
    /// The node of the next step.
    fn step(&mut self, step: PointerStep) -> Option<&mut Self> {
        let PointerStep::Member(name) = step else { return Some(self.elements.get_or_insert_default()) };
        let at = match self.members.iter().position(|(known, _)| equal_folded(known, &name)) {
            // In other letters it would never be found.
            Some(at) if self.members.get(at).is_none_or(|(known, _)| *known != name) => return None,
            Some(at) => at,
            None => {
                self.members.push((name, Self::default()));
                self.members.len() - 1
            }
        };
        self.members.get_mut(at).map(|(_, node)| node)
    }

    fn has_no_place_inside_another(&self) -> bool {
        let is_leaf = self.members.is_empty() && self.elements.is_none();
        self.is_place == is_leaf
            && self.members.iter().all(|(_, node)| node.has_no_place_inside_another())
            && self.elements.iter().all(|node| node.has_no_place_inside_another())
    }
}

/// Reads one document: the text, or an element of a list.
struct DocumentReader<'a> {
    node: &'a PointerNode,
    forms: &'a IdForms,
    named: &'a mut NamedSubjects,
    is_top: bool,
}

/// Reads one value of a document.
struct ValueReader<'a, 'f> {
    node: &'a PointerNode,
    forms: &'a IdForms,
    named: &'a mut NamedSubjects,
    /// How many places and elements of lists the document has.
    found: &'f mut usize,
    /// Whether a list here is a list of documents.
    may_be_list: bool,
}

impl<'de> DeserializeSeed<'de> for DocumentReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let mut found = 0;
        let Self { node, forms, named, is_top } = self;
        ValueReader { node, forms, named, found: &mut found, may_be_list: is_top }.deserialize(deserializer)?;
        // Of a whole text the reader decides, who sees that it has no ids.
        named.is_unclear |= found == 0 && !is_top;
        named.has_places |= found > 0;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for ValueReader<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl ValueReader<'_, '_> {
    /// A value that is neither a text nor a container.
    fn other<E>(self) -> Result<(), E> {
        self.named.is_unclear = true;
        Ok(())
    }
}

impl<'de> Visitor<'de> for ValueReader<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        match (self.node.is_place, self.forms.read(text)) {
            (true, Some(id)) => {
                *self.found += 1;
                self.named.add(id);
                Ok(())
            }
            (true, None) | (false, _) => self.other(),
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.other()
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.other()
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        self.other()
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.other()
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.other()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { node, forms, named, found, .. } = self;
        if node.is_place || (node.elements.is_some() && node.members.is_empty()) {
            named.is_unclear = true;
        }
        let mut seen = 0_u64;
        while let Some(MemberName(name)) = map.next_key()? {
            // In other letters it is the same member to some services.
            match node.members.iter().position(|(known, _)| equal_folded(known, &name)) {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(at) => {
                    let bit = 1_u64 << at.min(63);
                    let is_exact = node.members.get(at).is_some_and(|(known, _)| *known == name);
                    named.is_unclear |= seen & bit != 0 || !is_exact;
                    seen |= bit;
                    let Some((_, node)) = node.members.get(at) else { continue };
                    map.next_value_seed(ValueReader { node, forms, named, found, may_be_list: false })?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { node, forms, named, found, may_be_list } = self;
        let of_elements = match &node.elements {
            Some(node) => &**node,
            None if may_be_list => node,
            None => {
                named.is_unclear = true;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
        };
        let before = *found;
        while list.next_element_seed(DocumentReader { node: of_elements, forms, named, is_top: false })?.is_some() {
            *found += 1;
        }
        named.is_empty_list |= may_be_list && *found == before;
        Ok(())
    }
}

/// A member's name, decoded.
#[derive(Deserialize)]
struct MemberName(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pointers: &[&str], text: &str) -> Option<Vec<String>> {
        let forms = IdForms::parse(["Patient/{id}", "{id}"]).unwrap();
        let named = SubjectPointers::parse(pointers).unwrap().read(text.as_bytes(), &forms).ok()?;
        named.ids().map(<[String]>::to_vec)
    }

    #[test]
    fn a_document_names_its_subject_or_is_unclear() {
        let one = &["/subject/reference"][..];
        let some = |ids: &[&str]| Some(ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
        for (text, expected) in [
            (r#"{"subject": {"reference": "Patient/7"}}"#, some(&["7"])),
            (
                r#"{"s\u0075bject": {"reference": "Pati\u0065nt/7", "display": "x"}, "n": [{"subject": 1}]}"#,
                some(&["7"]),
            ),
            (r#"[{"subject": {"reference": "7"}}, {"subject": {"reference": "Patient/8"}}]"#, some(&["7", "8"])),
            (r#"[{"subject": {"reference": "7"}}, {}]"#, None),
            ("[]", some(&[])),
            ("[{}]", None),
            (r#"[[{"subject": {"reference": "7"}}]]"#, None),
            ("{}", some(&[])),
            (r#"{"x": "subject"}"#, some(&[])),
            (r#"{"subject": {}}"#, some(&[])),
            (r#"{"subject": null}"#, None),
            (r#"{"subject": "Patient/7"}"#, None),
            (r#"{"subject": {"reference": null}}"#, None),
            (r#"{"subject": {"reference": 7}}"#, None),
            (r#"{"subject": {"reference": ["Patient/7"]}}"#, None),
            (r#"{"subject": [{"reference": "Patient/7"}]}"#, None),
            (r#"{"subject": {"reference": {"reference": "7"}}}"#, None),
            (r#"{"subject": {"reference": "Patient/7"}, "subject": {"reference": "Patient/7"}}"#, None),
            (r#"{"subject": {"reference": "Patient/7", "reference": "Patient/8"}}"#, None),
            (r#"{"subject": {"reference": "Patient/7"}, "Subject": {"reference": "Patient/8"}}"#, None),
            (r#"{"subject": {"reference": "Patient/7", "REFERENCE": "Patient/7"}}"#, None),
            (r#"{"subject": {"reference": "Patient/7"}, "ſubject": 1}"#, None),
            (r#"{"subject": {"reference": "Group/7"}}"#, None),
            (r##"{"subject": {"reference": "#p"}}"##, None),
            (r#"{"subject": {"identifier": {"value": "7"}}}"#, some(&[])),
            ("7", None),
            ("null", None),
            (r#""Patient/7""#, None),
            (r#"{"subject": {"reference": "Patient/7"}} x"#, None),
            (r#"{"subject": {"reference": "Patient/7"}"#, None),
            ("", None),
        ] {
            assert_eq!(read(one, text), expected, "{text}");
        }
        let two = &["/subject/reference", "/patient/reference"][..];
        for (text, expected) in [
            (r#"{"patient": {"reference": "7"}}"#, some(&["7"])),
            (r#"{"patient": {"reference": "7"}, "subject": {"reference": "8"}}"#, some(&["7", "8"])),
            ("{}", some(&[])),
        ] {
            assert_eq!(read(two, text), expected, "{text}");
        }
        let bundle = &["/entry/*/resource/subject/reference", "/entry/*/resource/patient/reference"][..];
        for (text, expected) in [
            (r#"{"entry": [{"resource": {"subject": {"reference": "7"}}}]}"#, some(&["7"])),
            (
                r#"{"entry": [{"resource": {"subject": {"reference": "7"}}}, {"resource": {"patient": {"reference": "8"}}}]}"#,
                some(&["7", "8"]),
            ),
            (r#"{"entry": []}"#, some(&[])),
            (r#"{"total": 0}"#, some(&[])),
            (r#"{"entry": [{"resource": {}}]}"#, None),
            (r#"{"entry": [{}]}"#, None),
            (r#"{"entry": [[]]}"#, None),
            (r#"{"entry": {"resource": {"subject": {"reference": "7"}}}}"#, None),
            (r#"{"entry": null}"#, None),
            (r#"{"entry": [], "Entry": []}"#, None),
        ] {
            assert_eq!(read(bundle, text), expected, "{text}");
        }
        let either = &["/subject/reference", "/entry/*/resource/subject/reference"][..];
        assert_eq!(read(either, r#"{"entry": []}"#), some(&[]));
        assert_eq!(read(either, r#"{"total": 3}"#), some(&[]));
        let empty = |text: &str| {
            SubjectPointers::parse(one).unwrap().read(text.as_bytes(), &IdForms::plain()).unwrap().is_empty_list()
        };
        assert!(empty("[]") && !empty("{}") && !empty(r#"[{"subject": {"reference": "7"}}]"#));
        let starred = SubjectPointers::parse(&["/*/a"]).unwrap();
        let starred = |text: &[u8]| starred.read(text, &IdForms::plain()).unwrap().is_empty_list();
        assert!(starred(b"[]") && !starred(b"{}") && !starred(br#"[{"a": "7"}]"#));
    }

    #[test]
    fn pointers_that_are_none_are_refused() {
        for faulty in ["subject", "/", "/a//b", "/a/0/b", "/a~2", "/a~"] {
            assert_eq!(SubjectPointers::parse(&[faulty]), Err(faulty));
        }
        assert_eq!(SubjectPointers::parse(&[]), Err(""));
        assert_eq!(SubjectPointers::parse(&["/x", "/a", "/a/b"]), Err("/a/b"));
        assert_eq!(SubjectPointers::parse(&["/a/b", "/A/c"]), Err("/A/c"));
        assert!(SubjectPointers::parse(&["/a~1b/~0", "/*/a"]).is_ok());
    }
}
