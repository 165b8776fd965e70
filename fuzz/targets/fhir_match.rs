//! Bodies of `$match`: an accepted one has one reading and is within its bounds, and a Patient that is written means
//! the same in JSON and in XML.
#![no_main]

use fedgate_fhir::format::{AnswerFormat, BodyFormat};
use fedgate_fhir::match_request::{MAX_MATCHES, MatchRequest};
use fedgate_fhir::patient::{FhirMapping, FhirSettings, PersonRecord};
use fedgate_index::fields::{Demographics, Fields, MAX_VALUE_BYTES, MAX_VALUES};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| {
    let (fields, settings) = (Fields::default(), FhirSettings::default());
    let mapping = FhirMapping { fields: &fields, settings: &settings, base: "https://hub.example.org/fhir" };
    if let Some(request) = read(bytes, BodyFormat::Json, &mapping) {
        // A generic JSON parser reads the same body.
        let body: Value = serde_json::from_slice(bytes).expect("it is JSON");
        assert!(matches!(body["resourceType"].as_str(), Some("Patient" | "Parameters")), "{body}");
        assert!(!has_modifier(&body), "a modifier extension was accepted");
        let again = body.to_string();
        assert_eq!(read(again.as_bytes(), BodyFormat::Json, &mapping), Some(request), "written again");
    }
    if let Some(request) = read(bytes, BodyFormat::Xml, &mapping) {
        assert!(std::str::from_utf8(bytes).is_ok_and(|text| !text.contains("<!DOCTYPE")), "{request:?}");
    }
});

fn read(bytes: &[u8], format: BodyFormat, mapping: &FhirMapping<'_>) -> Option<MatchRequest> {
    let first = MatchRequest::parse(bytes, format, mapping);
    assert_eq!(first, MatchRequest::parse(bytes, format, mapping));
    let request = match first {
        Ok(request) => request,
        Err(fault) => {
            assert!((400..500).contains(&fault.status()));
            return None;
        }
    };
    assert!(request.count <= MAX_MATCHES && request.own_ids.len() <= MAX_VALUES);
    assert!(request.own_ids.iter().all(|id| id.len() <= MAX_VALUE_BYTES));
    bounded(&request.demographics);
    round_trip(&request.demographics, mapping);
    Some(request)
}

fn bounded(person: &Demographics) {
    let Demographics { given, family, birth_date, gender, city, postal_code, phones, identifiers } = person;
    let one = [given, family, birth_date, gender, city, postal_code].into_iter().flatten();
    let many = phones.iter().chain(identifiers.iter().map(|identifier| &identifier.value));
    for text in one.chain(many).chain(identifiers.iter().filter_map(|identifier| identifier.system.as_ref())) {
        assert!(text.len() <= MAX_VALUE_BYTES && !text.trim().is_empty(), "{text:?}");
        assert!(!text.contains(|sign: char| sign.is_control() && !"\t\r\n".contains(sign)), "{text:?}");
    }
    assert!(phones.len() <= MAX_VALUES && identifiers.len() <= MAX_VALUES);
}

/// The person as a stored document, as a Patient of both forms, and read again.
fn round_trip(person: &Demographics, mapping: &FhirMapping<'_>) {
    let identifiers: Vec<Value> =
        person.identifiers.iter().map(|one| json!({"system": one.system, "value": one.value})).collect();
    let document = json!({
        "name": person.given, "lastname": person.family, "dob": person.birth_date, "gender": person.gender,
        "address": {"suburb": person.city, "postcode": person.postal_code}, "phone": person.phones,
        "identifiers": identifiers
    });
    let facts = mapping.patient(&PersonRecord::new("ANA", &document)).expect("the id is plain");
    let patient = facts.resource(mapping, None);
    let [as_json, as_xml] =
        [(AnswerFormat::Json, BodyFormat::Json), (AnswerFormat::Xml, BodyFormat::Xml)].map(|(answer, body)| {
            let written = patient.write(answer);
            MatchRequest::parse(written.as_bytes(), body, mapping).unwrap_or_else(|fault| panic!("{fault}: {written}"))
        });
    assert_eq!(as_json, as_xml);
    assert_eq!(as_json.own_ids, ["ANA"]);
    let Demographics { given, family, birth_date, city, postal_code, phones, .. } = as_json.demographics;
    assert_eq!((given, family, birth_date), (person.given.clone(), person.family.clone(), person.birth_date.clone()));
    assert_eq!((city, postal_code, phones), (person.city.clone(), person.postal_code.clone(), person.phones.clone()));
}

fn has_modifier(value: &Value) -> bool {
    match value {
        Value::Array(elements) => elements.iter().any(has_modifier),
        Value::Object(members) => {
            members.contains_key("modifierExtension")
                || members.contains_key("implicitRules")
                || members.values().any(has_modifier)
        }
        _ => false,
    }
}
