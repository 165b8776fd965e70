//! Elements from JSON (R4, 2.6.3).
//!
//! serde_json reads the text; this module builds the tree. So a name that occurs twice in one object, which two readers
//! read differently, is seen and refused.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{ElementBudget, Listed, Primitive, ReadElement, is_name};
use crate::outcome::RequestFault;

pub(super) fn read(text: &str) -> Result<ReadElement, RequestFault> {
    let mut reading = JsonReading { budget: ElementBudget::default(), fault: None };
    let mut source = serde_json::Deserializer::from_str(text);
    let value = JsonSeed { reading: &mut reading, depth: 0 }.deserialize(&mut source);
    match (value, source.end()) {
        (Ok(JsonValue::Object(element)), Ok(())) if element.resource.is_some() => Ok(element),
        (Ok(_), Ok(())) => Err(RequestFault::UnexpectedResource),
        _ => Err(reading.fault.unwrap_or(RequestFault::Malformed)),
    }
}

struct JsonReading {
    budget: ElementBudget,
    /// Why the reading ended, as serde's errors are texts.
    fault: Option<RequestFault>,
}

/// A value, before it is known whether it is a member or one of a list.
enum JsonValue {
    Null,
    Primitive(Primitive),
    Object(ReadElement),
    List(Vec<JsonValue>),
}

struct JsonSeed<'a> {
    reading: &'a mut JsonReading,
    depth: usize,
}

impl JsonSeed<'_> {
    fn refuse<E: Error>(&mut self, fault: RequestFault) -> E {
        self.reading.fault.get_or_insert(fault);
        E::custom("refused")
    }
}

impl<'de> DeserializeSeed<'de> for JsonSeed<'_> {
    type Value = JsonValue;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<JsonValue, D::Error> {
        // Before the recursion, so that its depth is bounded.
        match self.reading.budget.element(self.depth) {
            Ok(()) => deserializer.deserialize_any(self),
            Err(fault) => Err(self.refuse(fault)),
        }
    }
}

impl<'de> Visitor<'de> for JsonSeed<'_> {
    type Value = JsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<JsonValue, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<JsonValue, E> {
        Ok(JsonValue::Primitive(Primitive::Bool(truth)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<JsonValue, E> {
        Ok(JsonValue::Primitive(Primitive::Integer(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<JsonValue, E> {
        Ok(JsonValue::Primitive(i64::try_from(number).map_or(Primitive::Number, Primitive::Integer)))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<JsonValue, E> {
        Ok(JsonValue::Primitive(Primitive::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<JsonValue, E> {
        Ok(JsonValue::Primitive(Primitive::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<JsonValue, A::Error> {
        let mut list = Vec::new();
        while let Some(value) =
            elements.next_element_seed(JsonSeed { reading: &mut *self.reading, depth: self.depth + 1 })?
        {
            list.push(value);
        }
        Ok(JsonValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<JsonValue, A::Error> {
        let mut element = ReadElement::default();
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !is_name(&name) || !names.insert(name.clone()) {
                return Err(self.refuse(RequestFault::Malformed));
            }
            let seed = JsonSeed { reading: &mut *self.reading, depth: self.depth + 1 };
            let value = members.next_value_seed(seed)?;
            if let Err(fault) = add_member(&mut element, &name, value) {
                return Err(self.refuse(fault));
            }
        }
        Ok(JsonValue::Object(element))
    }
}

fn add_member(element: &mut ReadElement, name: &str, value: JsonValue) -> Result<(), RequestFault> {
    match value {
        JsonValue::Primitive(Primitive::Text(kind)) if name == "resourceType" => {
            // The name becomes part of places.
            element.resource = Some(kind).filter(|kind| is_name(kind));
            if element.resource.is_some() { Ok(()) } else { Err(RequestFault::UnexpectedResource) }
        }
        _ if name == "resourceType" => Err(RequestFault::UnexpectedResource),
        JsonValue::List(values) => {
            // FHIR has no empty lists. One of modifiers is refused as any other: a reader may see it as one.
            if name == "modifierExtension" {
                element.children.push(ReadElement { name: name.to_owned(), ..ReadElement::default() });
            }
            for value in values {
                match value {
                    // The place of a value that only its extension, or only its own list, has.
                    JsonValue::Null => {}
                    JsonValue::List(_) => return Err(RequestFault::Malformed),
                    value => element.children.push(child(name, Listed::InList, value)?),
                }
            }
            Ok(())
        }
        value => {
            element.children.push(child(name, Listed::Alone, value)?);
            Ok(())
        }
    }
}

fn child(name: &str, listed: Listed, value: JsonValue) -> Result<ReadElement, RequestFault> {
    let name = name.to_owned();
    match value {
        JsonValue::Primitive(value) => Ok(ReadElement { name, listed, value: Some(value), ..ReadElement::default() }),
        JsonValue::Object(element) => Ok(ReadElement { name, listed, ..element }),
        // FHIR has null in lists only (R4, 2.6.3).
        JsonValue::Null | JsonValue::List(_) => Err(RequestFault::Malformed),
    }
}
