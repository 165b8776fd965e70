//! Places in a JSON text, as ranges of its bytes.
//!
//! The one rule: a place is where every reader of the text finds it. A name on the way that comes twice or in other
//! letters, and a value of another kind than the way goes through, make the text unclear. A place that is not there is
//! no fault.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::pointers::PointerStep;
use crate::fields::equal_folded;

/// The most steps of one place.
const MAX_STEPS: usize = 8;

/// A text in which a place has no single reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnclearPlace;

/// A JSON pointer (RFC 6901) in which `*` stands for every element of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonPlace(Box<[PointerStep]>);

/// The members of an object, or the elements of a list, as ranges of a text.
pub(super) struct Items {
    /// Each from the end of the comma before it, its name included.
    pub(super) whole: Vec<Range<usize>>,
    /// Their values alone.
    pub(super) values: Vec<Range<usize>>,
}

/// A place that was found.
pub(super) struct FoundPlace {
    /// Its value.
    pub(super) value: Range<usize>,
    /// The object or list that it is in, and which item of that it is; none for the text itself.
    pub(super) within: Option<(Items, usize)>,
}

impl JsonPlace {
    /// Parses a pointer such as `/link/*/url`.
    ///
    /// # Errors
    /// The pointer, which is none.
    pub fn parse(pointer: &str) -> Result<Self, &str> {
        let steps = PointerStep::all(pointer).filter(|steps| steps.len() <= MAX_STEPS).ok_or(pointer)?;
        Ok(Self(steps.into()))
    }

    /// Whether it goes through a list.
    pub fn has_list(&self) -> bool {
        self.0.contains(&PointerStep::Elements)
    }

    /// All such places in a text. Cost: one pass over the text for each step.
    pub(super) fn find(&self, text: &str) -> Result<Vec<FoundPlace>, UnclearPlace> {
        let mut found = Vec::new();
        find(&self.0, text, FoundPlace { value: 0..text.len(), within: None }, &mut found)?;
        Ok(found)
    }
}

fn find(way: &[PointerStep], text: &str, at: FoundPlace, found: &mut Vec<FoundPlace>) -> Result<(), UnclearPlace> {
    let Some((step, way)) = way.split_first() else {
        found.push(at);
        return Ok(());
    };
    match step {
        PointerStep::Member(name) => {
            let (items, names) = members(text, &at.value)?;
            let mut same = names.iter().enumerate().filter(|(_, known)| equal_folded(known, name));
            let Some((index, known)) = same.next() else { return Ok(()) };
            if known != name || same.next().is_some() {
                return Err(UnclearPlace);
            }
            let value = items.values.get(index).cloned().ok_or(UnclearPlace)?;
            find(way, text, FoundPlace { value, within: Some((items, index)) }, found)
        }
        PointerStep::Elements => elements(text, &at.value)?
            .values
            .into_iter()
            .try_for_each(|value| find(way, text, FoundPlace { value, within: None }, found)),
    }
}

/// The elements of the list that is this part of a text.
pub(super) fn elements(text: &str, part: &Range<usize>) -> Result<Items, UnclearPlace> {
    let RawElements(raw) = read(text, part)?;
    Ok(Items::of(text, part, raw.into_iter().map(RawValue::get)))
}

/// The members of the object that is this part of a text, and their names.
fn members(text: &str, part: &Range<usize>) -> Result<(Items, Vec<String>), UnclearPlace> {
    let RawMembers(raw) = read(text, part)?;
    let (names, values): (Vec<_>, Vec<_>) = raw.into_iter().unzip();
    Ok((Items::of(text, part, values.into_iter().map(RawValue::get)), names))
}

fn read<'t, T: Deserialize<'t>>(text: &'t str, part: &Range<usize>) -> Result<T, UnclearPlace> {
    serde_json::from_str(text.get(part.clone()).ok_or(UnclearPlace)?).map_err(|_| UnclearPlace)
}

impl Items {
    /// `values` are slices of `text`, within `part`.
    fn of<'t>(text: &str, part: &Range<usize>, values: impl Iterator<Item = &'t str>) -> Self {
        let (mut whole, mut ranges) = (Vec::new(), Vec::new());
        let opening = text.get(part.clone()).and_then(|part| part.find(['{', '['])).unwrap_or(0);
        let mut from = part.start + opening + 1;
        for value in values {
            let start = value.as_ptr().addr().saturating_sub(text.as_ptr().addr());
            let end = start + value.len();
            whole.push(from..end);
            ranges.push(start..end);
            let comma = text.get(end..part.end).and_then(|rest| rest.find(',')).unwrap_or(0);
            from = end + comma + 1;
        }
        Self { whole, values: ranges }
    }

    /// What is to be cut so that only these items are left: items, and the commas that are one too many.
    pub(super) fn cuts<'i>(&'i self, stays: impl Fn(usize) -> bool + 'i) -> impl Iterator<Item = Range<usize>> + 'i {
        let first = (0..self.whole.len()).find(|at| stays(*at));
        self.whole.iter().enumerate().flat_map(move |(at, item)| {
            let cut = (!stays(at)).then(|| item.clone());
            // A comma before an item that stays separates it from one before it that stays too.
            let has_comma = at > 0 && (!stays(at) || first == Some(at));
            let comma = has_comma.then(|| item.start - 1..item.start);
            comma.into_iter().chain(cut)
        })
    }
}

/// The elements of a list, as they are written.
struct RawElements<'t>(Vec<&'t RawValue>);

/// The members of an object, as they are written.
struct RawMembers<'t>(Vec<(String, &'t RawValue)>);

impl<'t> Deserialize<'t> for RawElements<'t> {
    fn deserialize<D: Deserializer<'t>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementsVisitor;
        impl<'t> Visitor<'t> for ElementsVisitor {
            type Value = Vec<&'t RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'t>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    elements.push(element);
                }
                Ok(elements)
            }
        }
        deserializer.deserialize_seq(ElementsVisitor).map(Self)
    }
}

impl<'t> Deserialize<'t> for RawMembers<'t> {
    fn deserialize<D: Deserializer<'t>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'t> Visitor<'t> for MembersVisitor {
            type Value = Vec<(String, &'t RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'t>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<Cow<'t, str>, &'t RawValue>()? {
                    members.push((name.into_owned(), value));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(MembersVisitor).map(Self)
    }
}
