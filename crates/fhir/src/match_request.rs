//! The body of `Patient/$match`: a Patient, or Parameters with one (R4, Patient-match; PDQm, 2:3.119.4.1.2).
//!
//! The one rule: what the index compares is read strictly, and all else is read over, except what could change its
//! meaning: modifier extensions and implicit rules are refused at any level. Called by the endpoint, with the form
//! that `Content-Type` names.

use fedgate_index::fields::{Demographics, Identifier, MAX_VALUE_BYTES, MAX_VALUES};

use crate::format::BodyFormat;
use crate::outcome::{Place, RequestFault};
use crate::patient::FhirMapping;
pub use crate::read::MAX_BODY_BYTES;
use crate::read::{ReadElement, place, read};
use crate::values::{AdministrativeGender, LogicalId, PartialDate};

/// The most candidates of an answer, and how many there are without `count`.
pub const MAX_MATCHES: usize = 100;
/// See [`MAX_MATCHES`].
pub const DEFAULT_MATCHES: usize = 20;

/// A question to the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchRequest {
    /// The person that is looked for.
    pub demographics: Demographics,
    /// The hub's own ids that the request states: these people are candidates, whatever else differs.
    pub own_ids: Vec<String>,
    /// Whether only certain matches are answered.
    pub only_certain: bool,
    /// The most matches that are answered.
    pub count: usize,
}

impl MatchRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// See [`RequestFault`]; all but [`RequestFault::TooLarge`] are 400.
    pub fn parse(bytes: &[u8], format: BodyFormat, mapping: &FhirMapping<'_>) -> Result<Self, RequestFault> {
        let body = read(bytes, format)?;
        match body.resource.as_deref() {
            Some("Patient") => {
                body.refuse_modifiers("Patient")?;
                let (demographics, own_ids) = person(&body, mapping)?;
                Ok(Self { demographics, own_ids, only_certain: false, count: DEFAULT_MATCHES })
            }
            Some("Parameters") => {
                body.refuse_modifiers("Parameters")?;
                Self::of_parameters(&body, mapping)
            }
            _ => Err(RequestFault::UnexpectedResource),
        }
    }

    fn of_parameters(body: &ReadElement, mapping: &FhirMapping<'_>) -> Result<Self, RequestFault> {
        const AT: &str = "Parameters.parameter";
        let (mut patient, mut only_certain, mut count) = (None, None, None);
        for parameter in body.many("parameter", "Parameters")? {
            let is_again = match parameter.text("name", AT)?.ok_or_else(|| RequestFault::Missing(place(AT, "name")))? {
                "resource" => {
                    only(parameter, "resource")?;
                    let missing = || RequestFault::Missing(place(AT, "resource"));
                    let resource = parameter.one("resource", AT)?.ok_or_else(missing)?;
                    patient.replace(resource).is_some()
                }
                "onlyCertainMatches" => {
                    only(parameter, "valueBoolean")?;
                    let truth = parameter.truth("valueBoolean", AT)?;
                    only_certain.replace(truth.ok_or_else(|| RequestFault::WrongType(Place::of(AT)))?).is_some()
                }
                "count" => {
                    only(parameter, "valueInteger")?;
                    let number = parameter.integer("valueInteger", AT)?;
                    count.replace(number.ok_or_else(|| RequestFault::WrongType(Place::of(AT)))?).is_some()
                }
                _ => return Err(RequestFault::UnknownOperationParameter),
            };
            if is_again {
                return Err(RequestFault::WrongType(Place::of(AT)));
            }
        }
        let patient = patient.filter(|patient| patient.resource.as_deref() == Some("Patient"));
        let (demographics, own_ids) = person(patient.ok_or(RequestFault::UnexpectedResource)?, mapping)?;
        let count = match count {
            None => DEFAULT_MATCHES,
            // FHIR's integer has 32 bits.
            Some(number) if (1..=i64::from(i32::MAX)).contains(&number) => {
                usize::try_from(number).map_or(MAX_MATCHES, |number| number.min(MAX_MATCHES))
            }
            Some(_) => return Err(RequestFault::BadValue(place(AT, "valueInteger"))),
        };
        Ok(Self { demographics, own_ids, only_certain: only_certain.unwrap_or(false), count })
    }
}

/// Refuses a parameter that has more than one value (R4, Parameters, inv-1).
fn only(parameter: &ReadElement, value: &str) -> Result<(), RequestFault> {
    const AT: &str = "Parameters.parameter";
    let is_known = |name: &str| name == value || matches!(name, "name" | "id" | "extension");
    match parameter.children.iter().find(|child| !is_known(&child.name)) {
        Some(other) => Err(RequestFault::WrongType(place(AT, &other.name))),
        None => Ok(()),
    }
}

/// The fields that the index compares, and the ids of the hub itself.
fn person(patient: &ReadElement, mapping: &FhirMapping<'_>) -> Result<(Demographics, Vec<String>), RequestFault> {
    const AT: &str = "Patient";
    let gender = patient.text("gender", AT)?;
    if gender.is_some_and(|code| AdministrativeGender::of_code(code).is_none()) {
        return Err(RequestFault::UnknownCode(place(AT, "gender")));
    }
    let birth_date = patient.text("birthDate", AT)?;
    if birth_date.is_some_and(|date| PartialDate::parse(date).is_none()) {
        return Err(RequestFault::BadValue(place(AT, "birthDate")));
    }
    // Not compared, but it must be of its type.
    patient.truth("active", AT)?;
    let (family, given) = name(patient)?;
    let (city, postal_code) = address(patient)?;
    let (own_ids, identifiers) = identifiers(patient, mapping)?;
    let demographics = Demographics {
        given,
        family,
        birth_date: birth_date.map(bounded),
        gender: gender.filter(|code| *code != "unknown").map(bounded),
        city,
        postal_code,
        phones: phones(patient)?,
        identifiers,
    };
    Ok((demographics, own_ids))
}

/// The elements of a name in the order in which their `use` makes them the person's own; those of equal use in theirs.
fn by_use<'a>(
    patient: &'a ReadElement,
    name: &'a str,
    uses: &[Option<&str>],
) -> Result<Vec<&'a ReadElement>, RequestFault> {
    let at = format!("Patient.{name}");
    let mut ranked = Vec::new();
    for element in patient.many(name, "Patient")? {
        if element.is_primitive() {
            return Err(RequestFault::WrongType(place("Patient", name)));
        }
        let used = element.text("use", &at)?;
        let rank = uses.iter().position(|known| *known == used).unwrap_or(uses.len());
        ranked.push((rank, element));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    Ok(ranked.into_iter().map(|(_, element)| element).collect())
}

type NameParts = (Option<String>, Option<String>);

/// Surnames and given names of the first name that has one of them.
fn name(patient: &ReadElement) -> Result<NameParts, RequestFault> {
    const AT: &str = "Patient.name";
    const USES: [Option<&str>; 6] =
        [Some("official"), Some("usual"), None, Some("nickname"), Some("maiden"), Some("old")];
    let mut first = (None, None);
    // Each is read, so that a fault in any is found.
    for name in by_use(patient, "name", &USES)? {
        let family = name.text("family", AT)?.map(bounded);
        let mut given = Vec::new();
        for part in name.many("given", AT)? {
            given.extend(part.own_text(place(AT, "given"))?);
        }
        if first == (None, None) {
            first = (family, Some(bounded(&given.join(" "))).filter(|given| !given.is_empty()));
        }
    }
    Ok(first)
}

/// City and postal code of the first address that has one of them.
fn address(patient: &ReadElement) -> Result<NameParts, RequestFault> {
    const AT: &str = "Patient.address";
    const USES: [Option<&str>; 6] = [Some("home"), None, Some("temp"), Some("work"), Some("billing"), Some("old")];
    let mut first = (None, None);
    for address in by_use(patient, "address", &USES)? {
        let parts = (address.text("city", AT)?, address.text("postalCode", AT)?);
        if first == (None, None) {
            first = (parts.0.map(bounded), parts.1.map(bounded));
        }
    }
    Ok(first)
}

/// The telephone numbers, except old ones.
fn phones(patient: &ReadElement) -> Result<Vec<String>, RequestFault> {
    const AT: &str = "Patient.telecom";
    const USES: [Option<&str>; 5] = [Some("mobile"), Some("home"), None, Some("work"), Some("temp")];
    let mut phones = Vec::new();
    for telecom in by_use(patient, "telecom", &USES)? {
        let is_phone = matches!(telecom.text("system", AT)?, Some("phone" | "sms"));
        let value = telecom.text("value", AT)?;
        let is_old = telecom.text("use", AT)? == Some("old");
        phones.extend(value.filter(|_| is_phone && !is_old).map(bounded));
    }
    phones.truncate(MAX_VALUES);
    Ok(phones)
}

/// The hub's own ids, and the identifiers of other systems under the names that documents have for them.
fn identifiers(
    patient: &ReadElement,
    mapping: &FhirMapping<'_>,
) -> Result<(Vec<String>, Vec<Identifier>), RequestFault> {
    const AT: &str = "Patient.identifier";
    const USES: [Option<&str>; 5] = [Some("official"), Some("usual"), None, Some("secondary"), Some("temp")];
    let (mut own_ids, mut others) = (Vec::new(), Vec::new());
    for identifier in by_use(patient, "identifier", &USES)? {
        let (system, value) = (identifier.text("system", AT)?, identifier.text("value", AT)?);
        let Some(value) = value else { continue };
        match mapping.own_id(system, value) {
            // An id without a logical id has no Patient.
            Some(own) if own_ids.len() >= MAX_VALUES || LogicalId::of(&own).is_none() => {}
            Some(own) => own_ids.push(own),
            None => {
                let system = system.map(|system| bounded(&mapping.inward(system)));
                others.push(Identifier { system, value: bounded(value) });
            }
        }
    }
    others.truncate(MAX_VALUES);
    Ok((own_ids, others))
}

/// A value as [`Demographics::take`] has it: cut at a character.
fn bounded(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_VALUE_BYTES)).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests;
