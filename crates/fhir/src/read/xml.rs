//! Elements from XML (R4, 2.6.2).
//!
//! quick-xml reads the text; this module builds the tree, with a stack of its own. It knows neither document types nor
//! entities, and refuses a document that has them. Names with a prefix are refused, too: FHIR's namespace must be the
//! default one.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::{ElementBudget, Listed, Primitive, ReadElement, is_name};
use crate::outcome::RequestFault;
use crate::resource::FHIR_NAMESPACE;

/// The namespace of a narrative, which is read over.
const XHTML_NAMESPACE: &str = "http://www.w3.org/1999/xhtml";
/// The most attributes of an element. Those of FHIR have three at most.
const MAX_ATTRIBUTES: usize = 16;

pub(super) fn read(text: &str) -> Result<ReadElement, RequestFault> {
    let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut tree = XmlTree::default();
    loop {
        match reader.read_event().map_err(|_| RequestFault::Malformed)? {
            Event::Start(tag) => tree.open(&tag)?,
            Event::Empty(tag) => {
                tree.open(&tag)?;
                tree.close()?;
            }
            Event::End(_) => tree.close()?,
            // White space between elements.
            Event::Text(text) if text.trim_ascii().is_empty() => {}
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) if tree.is_in_narrative() => {}
            Event::Comment(_) | Event::PI(_) => {}
            Event::Decl(declaration) if tree.is_at_start() => match declaration.encoding() {
                None => {}
                Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") => {}
                Some(_) => return Err(RequestFault::Malformed),
            },
            // A document type could define entities.
            Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) | Event::Decl(_) | Event::DocType(_) => {
                return Err(RequestFault::Malformed);
            }
            Event::Eof => return tree.resource(),
        }
    }
}

/// The elements that are open, and the resource once it is whole.
#[derive(Default)]
struct XmlTree {
    open: Vec<ReadElement>,
    whole: Option<ReadElement>,
    /// How many elements of a narrative are open.
    narrative: usize,
    budget: ElementBudget,
}

impl XmlTree {
    fn is_in_narrative(&self) -> bool {
        self.narrative > 0
    }

    fn is_at_start(&self) -> bool {
        self.open.is_empty() && self.whole.is_none()
    }

    fn open(&mut self, tag: &BytesStart<'_>) -> Result<(), RequestFault> {
        self.budget.element(self.open.len() + self.narrative)?;
        if self.narrative > 0 {
            self.narrative += 1;
            return Ok(());
        }
        let name = tag.name().into_inner();
        let attributes = attributes(tag)?;
        match attributes.namespace.as_deref() {
            Some(XHTML_NAMESPACE) if name == "div" && !self.open.is_empty() => {
                self.narrative = 1;
                return Ok(());
            }
            Some(FHIR_NAMESPACE) => {}
            None if !self.open.is_empty() => {}
            _ => return Err(RequestFault::UnexpectedResource),
        }
        if !is_name(name) || name.starts_with('_') || self.whole.is_some() {
            return Err(RequestFault::Malformed);
        }
        let value = attributes.value.map(Primitive::Text);
        self.open.push(ReadElement { name: name.to_owned(), listed: Listed::Untold, value, ..ReadElement::default() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), RequestFault> {
        if self.narrative > 0 {
            self.narrative -= 1;
            return Ok(());
        }
        let mut element = self.open.pop().ok_or(RequestFault::Malformed)?;
        // A resource stands in its own element, whose name is its type.
        if let ([inner], true) =
            (element.children.as_slice(), matches!(element.name.as_str(), "resource" | "contained"))
            && inner.name.starts_with(|sign: char| sign.is_ascii_uppercase())
            && let Some(inner) = element.children.pop()
        {
            element = ReadElement { resource: Some(inner.name), children: inner.children, ..element };
        }
        match self.open.last_mut() {
            Some(around) => around.children.push(element),
            None => self.whole = Some(element),
        }
        Ok(())
    }

    fn resource(self) -> Result<ReadElement, RequestFault> {
        match self.whole {
            Some(element) if self.open.is_empty() => {
                Ok(ReadElement { resource: Some(element.name), name: String::new(), ..element })
            }
            _ => Err(RequestFault::Malformed),
        }
    }
}

#[derive(Default)]
struct XmlAttributes {
    namespace: Option<String>,
    value: Option<String>,
}

fn attributes(tag: &BytesStart<'_>) -> Result<XmlAttributes, RequestFault> {
    let mut found = XmlAttributes::default();
    for (at, attribute) in tag.attributes().enumerate() {
        let attribute = attribute.map_err(|_| RequestFault::Malformed)?;
        if at >= MAX_ATTRIBUTES {
            return Err(RequestFault::TooComplex);
        }
        let text = || {
            let text = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| RequestFault::Malformed)?;
            Ok(Some(text.into_owned()))
        };
        match attribute.key.into_inner() {
            "xmlns" => found.namespace = text()?,
            "value" => found.value = text()?,
            // The address of an extension, the id of an element, and where a schema is: nothing that is asked for.
            _ => {}
        }
    }
    Ok(found)
}
