//! A person's document as a FHIR Patient: the one mapping, which docs/FHIR.md documents.
//!
//! The one rule: what FHIR does not allow is left out, and nothing is made up. A Patient conforms to the profile of
//! PDQm (`IHE.PDQm.Patient`): it has an identifier, each identifier has a system, and a link comes with `active`.
//! Called for every answer, and by the search, which compares what a Patient shows.

use std::collections::{BTreeMap, BTreeSet};

use fedgate_index::fields::{Demographics, FieldPointer, Fields, Identifier, MAX_VALUES};
use serde::Deserialize;
use serde_json::Value;

use crate::resource::{Group, Node, Resource};
use crate::values::is_text;
pub use crate::values::{
    AdministrativeGender, CalendarDay, LogicalId, PartialDate, SystemIdentifier, SystemUri, SystemUriError,
};

/// The system of an identifier that is itself an address (PDQm, profile of Patient, option 1).
const ADDRESS_SYSTEM: &str = "urn:ietf:rfc:3986";

/// The section `[fhir]` of the configuration, as far as this package reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FhirSettings {
    /// The system of the hub's own ids. Without it, a Patient is identified by its address.
    pub identifier_system: Option<SystemUri>,
    /// The systems that people's documents call by a short name, such as `dni`.
    pub identifier_systems: BTreeMap<String, SystemUri>,
}

/// What the mapping depends on.
#[derive(Debug, Clone, Copy)]
pub struct FhirMapping<'a> {
    /// Where documents hold the fields.
    pub fields: &'a Fields,
    /// The systems of identifiers.
    pub settings: &'a FhirSettings,
    /// The address of the FHIR endpoint, as clients see it, without a slash at its end.
    pub base: &'a str,
}

/// A stored person.
#[derive(Debug, Clone, Copy)]
pub struct PersonRecord<'a> {
    /// The hub's own id.
    pub id: &'a str,
    /// The document.
    pub document: &'a Value,
    /// The id of the person into whom this one was merged.
    pub replaced_by: Option<&'a str>,
    /// The ids of people who were merged into this one.
    pub replaces: &'a [String],
}

impl<'a> PersonRecord<'a> {
    /// A person who was never merged.
    #[must_use]
    pub fn new(id: &'a str, document: &'a Value) -> Self {
        Self { id, document, replaced_by: None, replaces: &[] }
    }
}

/// What a Patient shows of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatientFacts {
    /// The logical id.
    pub id: LogicalId,
    /// The hub's own id.
    pub own_id: String,
    /// The identifiers: the hub's first, then those of the document whose system is known.
    pub identifiers: Vec<SystemIdentifier>,
    /// Whether the record is in use; `None` if the document does not say.
    pub active: Option<bool>,
    /// The surnames.
    pub family: Option<String>,
    /// The given names: one for each element of a list, or one text.
    pub given: Vec<String>,
    /// Telephone numbers.
    pub phones: Vec<String>,
    /// The gender.
    pub gender: Option<AdministrativeGender>,
    /// The date of birth.
    pub birth_date: Option<PartialDate>,
    /// Whether the person has died.
    pub deceased: Option<bool>,
    /// The city.
    pub city: Option<String>,
    /// The postal code.
    pub postal_code: Option<String>,
    /// The person into whom this one was merged.
    pub replaced_by: Option<LogicalId>,
    /// The people who were merged into this one.
    pub replaces: Vec<LogicalId>,
}

impl FhirMapping<'_> {
    /// What a Patient shows of a person. `None` if the person's id has no logical id ([`LogicalId::of`]).
    #[must_use]
    pub fn patient(&self, record: &PersonRecord<'_>) -> Option<PatientFacts> {
        let taken = Demographics::take(self.fields, record.document);
        let id = LogicalId::of(record.id)?;
        let own = self.own_identifier(record.id, &id);
        let others = taken.identifiers.iter().filter_map(|identifier| self.outward(identifier));
        let is_merged = record.replaced_by.is_some();
        let stated = record.document.get("active").and_then(Value::as_bool);
        // The profile of PDQm asks for `active` beside a link (invariant iti-pdqm-linkstatus). FHIR's default is true.
        let linked = (!record.replaces.is_empty()).then_some(stated.unwrap_or(true));
        Some(PatientFacts {
            identifiers: own.into_iter().chain(others).collect(),
            active: if is_merged { Some(false) } else { linked.or(stated) },
            family: taken.family.filter(|text| is_text(text)),
            given: given_names(&self.fields.given, record.document, taken.given),
            phones: taken.phones.into_iter().filter(|phone| is_text(phone)).collect(),
            gender: taken.gender.as_deref().and_then(AdministrativeGender::of_document),
            birth_date: taken.birth_date.as_deref().and_then(PartialDate::parse),
            deceased: record.document.get("deceased").and_then(Value::as_bool),
            city: taken.city.filter(|text| is_text(text)),
            postal_code: taken.postal_code.filter(|text| is_text(text)),
            replaced_by: record.replaced_by.and_then(LogicalId::of),
            replaces: record.replaces.iter().filter_map(|own| LogicalId::of(own)).collect(),
            own_id: record.id.to_owned(),
            id,
        })
    }

    /// The address of a Patient.
    pub(crate) fn address(&self, id: &LogicalId) -> String {
        format!("{}/Patient/{id}", self.base)
    }

    /// The hub's own id as an identifier.
    fn own_identifier(&self, own: &str, id: &LogicalId) -> Option<SystemIdentifier> {
        match &self.settings.identifier_system {
            Some(system) => is_text(own).then(|| SystemIdentifier { system: system.clone(), value: own.to_owned() }),
            None => {
                let system = SystemUri::parse(ADDRESS_SYSTEM).ok()?;
                Some(SystemIdentifier { system, value: self.address(id) })
            }
        }
    }

    /// An identifier of a document with the URI of its system. `None` if that is not known: a Patient of PDQm has no
    /// identifier without one.
    fn outward(&self, identifier: &Identifier) -> Option<SystemIdentifier> {
        let name = identifier.system.as_deref()?;
        let known = self.settings.identifier_systems.get(name).cloned();
        let system = known.or_else(|| SystemUri::parse(name).ok())?;
        is_text(&identifier.value).then(|| SystemIdentifier { system, value: identifier.value.clone() })
    }

    /// The name that documents have for a system.
    pub(crate) fn inward(&self, system: &str) -> String {
        let names = &self.settings.identifier_systems;
        names.iter().find(|(_, uri)| uri.as_str() == system).map_or(system, |(name, _)| name).to_owned()
    }

    /// The hub's own id that an identifier states, if it is one of the hub.
    pub(crate) fn own_id(&self, system: Option<&str>, value: &str) -> Option<String> {
        match (&self.settings.identifier_system, system?) {
            (Some(own), system) if own.as_str() == system => (!value.contains('\0')).then(|| value.to_owned()),
            (_, ADDRESS_SYSTEM) => {
                let path = value.strip_prefix(self.base)?.strip_prefix("/Patient/")?;
                LogicalId::own(path)
            }
            _ => None,
        }
    }

    /// Whether the hub knows a system by its configuration.
    pub(crate) fn is_known_system(&self, system: &str) -> bool {
        let own = self.settings.identifier_system.as_ref().map_or(ADDRESS_SYSTEM, SystemUri::as_str);
        own == system || self.settings.identifier_systems.values().any(|known| known.as_str() == system)
    }
}

/// The given names one by one, where the document has a list.
fn given_names(at: &FieldPointer, document: &Value, joined: Option<String>) -> Vec<String> {
    let one = |value: &Value| value.as_str().map(str::trim).filter(|text| is_text(text)).map(str::to_owned);
    match at.find(document) {
        // Only if nothing of the list was cut.
        Some(Value::Array(names)) if names.len() <= MAX_VALUES => {
            let names: Vec<String> = names.iter().filter_map(one).collect();
            let is_whole = joined.is_some_and(|joined| joined == names.join(" "));
            if is_whole { names } else { Vec::new() }
        }
        _ => joined.into_iter().filter(|text| is_text(text)).collect(),
    }
}

impl PatientFacts {
    /// The resource, with the identifiers of some systems only, or of all.
    #[must_use]
    pub fn resource(&self, mapping: &FhirMapping<'_>, systems: Option<&BTreeSet<String>>) -> Resource {
        let is_wanted = |system: &SystemUri| systems.is_none_or(|systems| systems.contains(system.as_str()));
        let identifiers = self.identifiers.iter().filter(|identifier| is_wanted(&identifier.system));
        let text = |text: &String| Node::Text(text.clone());
        let name =
            Group::default().maybe_text("family", self.family.as_deref()).list("given", self.given.iter().map(text));
        let address = Group::default()
            .maybe_text("city", self.city.as_deref())
            .maybe_text("postalCode", self.postal_code.as_deref());
        let members = Group::default()
            .text("id", self.id.as_str())
            .list("identifier", identifiers.map(identifier_node))
            .maybe_bool("active", self.active)
            .list("name", element(name))
            .list("telecom", self.phones.iter().map(|phone| phone_node(phone)))
            .maybe_text("gender", self.gender.map(AdministrativeGender::code))
            .maybe_text("birthDate", self.birth_date.map(|date| date.to_string()))
            .maybe_bool("deceasedBoolean", self.deceased)
            .list("address", element(address))
            .list("link", self.links(mapping));
        Resource::new("Patient", members)
    }

    fn links(&self, mapping: &FhirMapping<'_>) -> Vec<Node> {
        let link = |id: &LogicalId, kind: &str| {
            let other = Group::default().text("reference", mapping.address(id));
            Node::Group(Group::default().with("other", Node::Group(other)).text("type", kind))
        };
        let survivor = self.replaced_by.iter().map(|id| link(id, "replaced-by"));
        survivor.chain(self.replaces.iter().map(|id| link(id, "replaces"))).collect()
    }
}

fn element(group: Group) -> Option<Node> {
    (!group.is_empty()).then_some(Node::Group(group))
}

fn identifier_node(identifier: &SystemIdentifier) -> Node {
    let SystemIdentifier { system, value } = identifier;
    Node::Group(Group::default().text("system", system.as_str()).text("value", value.as_str()))
}

fn phone_node(phone: &str) -> Node {
    Node::Group(Group::default().text("system", "phone").text("value", phone))
}

#[cfg(test)]
mod tests;
