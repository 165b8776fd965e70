//! An answer as one caller may see it: elements of a list left out, what tells their number too, links replaced.
//!
//! The one rule: every byte that is not left out or replaced stays as the service sent it. An element stays only if it
//! says clearly whom it concerns, and the caller may see all of them.

use std::ops::Range;

use super::place::{Items, JsonPlace, UnclearPlace, elements};
use super::{IdForms, SubjectPointers};

/// The step of a pointer to every element of a list.
const LIST: &str = "/*";

/// The edits of a route's answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerEdits {
    /// The list of which elements are left out for callers whose reach is limited.
    pub list: Option<FilteredList>,
    /// Members that tell how many elements there are; left out for the same callers.
    pub count: Box<[JsonPlace]>,
    /// Links to the service itself.
    pub links: Box<[JsonPlace]>,
}

/// A list, and where each of its elements names its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilteredList {
    place: JsonPlace,
    element: SubjectPointers,
}

impl FilteredList {
    /// The list that pointers such as `/entry/*/resource/id` go through; for pointers without a list, the text itself.
    /// None if they go through different lists.
    pub fn parse(pointers: &[&str]) -> Option<Self> {
        let is_within = pointers.first()?.contains(LIST);
        let split = |pointer: &&str| match pointer.split_once(LIST) {
            Some((list, element)) if is_within => Some((list.to_owned(), element.to_owned())),
            None if !is_within => Some((String::new(), (*pointer).to_owned())),
            Some(_) | None => None,
        };
        let split: Vec<_> = pointers.iter().map(split).collect::<Option<_>>()?;
        let (place, _) = split.first()?;
        if split.iter().any(|(list, _)| list != place) {
            return None;
        }
        let elements: Vec<_> = split.iter().map(|(_, element)| element.as_str()).collect();
        let element = SubjectPointers::parse(&elements).ok()?;
        let place = if place.is_empty() { JsonPlace::default() } else { JsonPlace::parse(place).ok()? };
        Some(Self { place, element })
    }
}

/// What is cut out of a text, and what is put in its place.
#[derive(Default)]
struct TextEdits(Vec<(Range<usize>, String)>);

impl TextEdits {
    fn cut(&mut self, parts: impl Iterator<Item = Range<usize>>) {
        self.0.extend(parts.map(|part| (part, String::new())));
    }

    /// The edited text; none if nothing changes. A part within one that was cut before is gone with it.
    fn apply(mut self, text: &str) -> Option<String> {
        self.0.sort_by_key(|(part, _)| (part.start, std::cmp::Reverse(part.end)));
        let (mut edited, mut at) = (String::with_capacity(text.len()), 0);
        for (part, new) in &self.0 {
            let Some(before) = text.get(at..part.start) else { continue };
            edited.push_str(before);
            edited.push_str(new);
            at = part.end;
        }
        edited.push_str(text.get(at..).unwrap_or_default());
        (!self.0.is_empty()).then_some(edited)
    }
}

impl AnswerEdits {
    /// Whether every caller sees the whole answer.
    pub(super) fn leaves_out_nothing(&self) -> bool {
        self.list.is_none() && self.count.is_empty()
    }

    /// The answer for a caller with a limited reach: `may_see` tells it of an id. None if nothing changes.
    ///
    /// # Errors
    /// A place has no single reading.
    pub(super) fn limited(
        &self,
        text: &str,
        forms: &IdForms,
        mut may_see: impl FnMut(&str) -> bool,
    ) -> Result<Option<String>, UnclearPlace> {
        let mut edits = TextEdits::default();
        if let Some(list) = &self.list {
            for found in list.place.find(text)? {
                let items = elements(text, &found.value)?;
                let stay: Vec<bool> = items
                    .values
                    .iter()
                    .map(|element| {
                        let element = text.get(element.clone()).unwrap_or_default();
                        let named = list.element.read_element(element.as_bytes(), forms);
                        let ids = named.as_ref().ok().and_then(|named| named.ids()).unwrap_or_default();
                        !ids.is_empty() && ids.iter().all(|id| may_see(id))
                    })
                    .collect();
                edits.cut(items.cuts(|at| stay.get(at) == Some(&true)));
            }
        }
        // Two of one object share commas, so they are cut together.
        let mut cut: Vec<(Items, Vec<usize>)> = Vec::new();
        for place in &self.count {
            for found in place.find(text)? {
                let Some((items, at)) = found.within else { continue };
                match cut.iter_mut().find(|(known, _)| known.whole == items.whole) {
                    Some((_, all)) => all.push(at),
                    None => cut.push((items, vec![at])),
                }
            }
        }
        for (items, all) in &cut {
            edits.cut(items.cuts(|at| !all.contains(&at)));
        }
        Ok(edits.apply(text))
    }

    /// The answer with other links, where `lead` has one. None if nothing changes.
    ///
    /// # Errors
    /// A place has no single reading.
    pub fn lead(
        &self,
        text: &str,
        mut lead: impl FnMut(&str) -> Option<String>,
    ) -> Result<Option<String>, UnclearPlace> {
        let mut edits = TextEdits::default();
        for place in &self.links {
            for found in place.find(text)? {
                let written = text.get(found.value.clone()).unwrap_or_default();
                let Ok(link) = serde_json::from_str::<String>(written) else { continue };
                if let Some(Ok(new)) = lead(&link).map(|new| serde_json::to_string(&new)) {
                    edits.0.push((found.value, new));
                }
            }
        }
        Ok(edits.apply(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(pointers: &[&str], count: &[&str]) -> AnswerEdits {
        let count = count.iter().map(|pointer| JsonPlace::parse(pointer).unwrap()).collect();
        AnswerEdits { list: Some(FilteredList::parse(pointers).unwrap()), count, links: Box::default() }
    }

    /// The answer to a caller who may see 7 and 8.
    fn shown(edits: &AnswerEdits, text: &str) -> String {
        let forms = IdForms::parse(["Patient/{id}", "{id}"]).unwrap();
        match edits.limited(text, &forms, |id| matches!(id, "7" | "8")) {
            Ok(edited) => edited.unwrap_or_else(|| text.to_owned()),
            Err(UnclearPlace) => "unclear".to_owned(),
        }
    }

    #[test]
    fn elements_of_others_are_left_out_and_all_other_bytes_stay() {
        let bundle = edits(&["/entry/*/who"], &["/total", "/stats/n"]);
        for (text, expected) in [
            (r#"{ "entry" : [ {"who":"7"} ] }"#, r#"{ "entry" : [ {"who":"7"} ] }"#),
            (
                r#"{"entry":[{"who":"9"}, {"who":"7"} ,{"who":"9"}, { "who":"Patient/8","x":[1, 2]},{"who":"9"}]}"#,
                r#"{"entry":[ {"who":"7"} , { "who":"Patient/8","x":[1, 2]}]}"#,
            ),
            (r#"{"entry":[{"who":"7"},{"who":"9"}],"total":2}"#, r#"{"entry":[{"who":"7"}]}"#),
            (r#"{"total":2,"entry":[{"who":"9"}],"a":1.50}"#, r#"{"entry":[],"a":1.50}"#),
            (r#"{"a":0,"total": 2 , "entry":[{"who":"7"}]}"#, r#"{"a":0 , "entry":[{"who":"7"}]}"#),
            (r#"{"total":2}"#, "{}"),
            (r#"{"total":0,"stats":{"n":1,"m":"\u0041"},"z":[]}"#, r#"{"stats":{"m":"\u0041"},"z":[]}"#),
            (r#"{"t\u006ftal":2,"x":1}"#, r#"{"x":1}"#),
            // What is unclear is left out: nobody, somebody in two ways, a list, a text.
            (
                r#"{"entry":[{},{"who":7},{"who":"7","Who":"9"},{"who":"7","who":"7"},[{"who":"7"}],"7",null,{"who":["7"]},{"who":"7"}]}"#,
                r#"{"entry":[{"who":"7"}]}"#,
            ),
            (r#"{"entry":[{"who":"7,9"},{"who":"Patient/9"},{"w\u0068o":"7"}]}"#, r#"{"entry":[{"w\u0068o":"7"}]}"#),
            // Two lists, or none where one should be.
            (r#"{"entry":[{"who":"7"}],"entry":[{"who":"9"}]}"#, "unclear"),
            (r#"{"entry":[{"who":"7"}],"Entry":[{"who":"9"}]}"#, "unclear"),
            (r#"{"Entry":[{"who":"9"}]}"#, "unclear"),
            (r#"{"total":1,"Total":2}"#, "unclear"),
            (r#"{"entry":{"who":"9"}}"#, "unclear"),
            (r#"{"entry":null}"#, "unclear"),
            (r#"[{"who":"9"}]"#, "unclear"),
            (r#"{"entry":[{"who":"7"}]} x"#, "unclear"),
            (r#""9""#, "unclear"),
            ("", "unclear"),
        ] {
            assert_eq!(shown(&bundle, text), expected, "{text}");
        }
        let top = edits(&["/who", "/whom/id"], &[]);
        for (text, expected) in [
            (
                r#" [{"who":"9"},{"who":"7"}, {"whom":{"id":"8"}},{"who":"7","whom":{"id":"9"}}] "#,
                r#" [{"who":"7"}, {"whom":{"id":"8"}}] "#,
            ),
            (r#"[]"#, "[]"),
            (r#"[[{"who":"7"}],[]]"#, "[]"),
            (r#"{"who":"7"}"#, "unclear"),
        ] {
            assert_eq!(shown(&top, text), expected, "{text}");
        }
        // Every member of the text that tells a number, whichever is first.
        let all = edits(&["/entry/*/who"], &["/a", "/b", "/c"]);
        for text in [r#"{"a":1,"b":2,"c":3}"#, r#"{ "c":1 , "b":2}"#, r#"{"a":1}"#] {
            assert_eq!(shown(&all, text).replace(' ', ""), "{}", "{text}");
        }
        assert_eq!(shown(&all, r#"{"a":1,"x":0,"b":2,"y":0,"c":3}"#), r#"{"x":0,"y":0}"#);
    }

    #[test]
    fn pointers_of_a_filter_go_through_one_list() {
        for (pointers, is_one) in [
            (&["/entry/*/a", "/entry/*/b/*/c"][..], true),
            (&["/a", "/b/c"], true),
            (&["/*/a"], true),
            (&["/a/b/*/c"], true),
            (&["/entry/*/a", "/other/*/a"], false),
            (&["/entry/*/a", "/a"], false),
            (&["/*/a", "/a"], false),
            (&["/entry/*"], false),
            (&[], false),
        ] {
            assert_eq!(FilteredList::parse(pointers).is_some(), is_one, "{pointers:?}");
        }
    }

    #[test]
    fn links_are_replaced_and_all_other_bytes_stay() {
        let links = Box::new([JsonPlace::parse("/link/*/url").unwrap()]);
        let edits = AnswerEdits { links, ..AnswerEdits::default() };
        let lead = |link: &str| link.strip_prefix("http://his").map(|path| format!("https://\"gate{path}"));
        for (text, expected) in [
            (
                r#"{"link": [ {"relation":"next", "url": "http:\/\/his/a?b"}, {"url":"http://other/"}, {"url":7} ] }"#,
                Ok(Some(
                    r#"{"link": [ {"relation":"next", "url": "https://\"gate/a?b"}, {"url":"http://other/"}, {"url":7} ] }"#,
                )),
            ),
            (r#"{"entry":[{"url":"http://his/a"}]}"#, Ok(None)),
            (r#"{"link":[]}"#, Ok(None)),
            (r#"{"link":[{"url":"http://his/a","url":"http://his/b"}]}"#, Err(UnclearPlace)),
            (r#"{"link":{"url":"http://his/a"}}"#, Err(UnclearPlace)),
        ] {
            assert_eq!(edits.lead(text, lead), expected.map(|text| text.map(str::to_owned)), "{text}");
        }
    }
}
