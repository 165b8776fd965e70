use serde_json::json;

use super::*;
use crate::format::AnswerFormat;

const BASE: &str = "https://hub.example.org/fhir";

fn settings() -> FhirSettings {
    toml::from_str("identifier_system = 'urn:oid:1.2'\nidentifier_systems = { dni = 'urn:oid:1.3' }").unwrap()
}

/// The Patient of a document, as JSON.
fn shown(settings: &FhirSettings, record: &PersonRecord<'_>) -> Value {
    let fields = Fields::default();
    let mapping = FhirMapping { fields: &fields, settings, base: BASE };
    let text = mapping.patient(record).unwrap().resource(&mapping, None).write(AnswerFormat::Json);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn each_field_of_a_document_has_its_element() {
    let document = json!({
        "id": "ESPGNU777ORG", "name": ["Ana", "María"], "lastname": "Betz Gil", "dob": "1985-10-04", "gender": "f",
        "address": {"suburb": "Las Palmas", "postcode": 35001}, "phone": ["+34 928 1", {"value": "600"}],
        "active": true, "deceased": false,
        "identifiers": [{"type": "dni", "value": "1Z"}, {"system": "https://x.org/id", "value": 7}, "no system",
            {"system": "passport", "value": "unknown system"}],
        "roles": ["end_user"], "password": "secret"
    });
    assert_eq!(
        shown(&settings(), &PersonRecord::new("ESPGNU777ORG", &document)),
        json!({
            "resourceType": "Patient",
            "id": "ESPGNU777ORG",
            "identifier": [{"system": "urn:oid:1.2", "value": "ESPGNU777ORG"}, {"system": "urn:oid:1.3", "value": "1Z"},
                {"system": "https://x.org/id", "value": "7"}],
            "active": true,
            "name": [{"family": "Betz Gil", "given": ["Ana", "María"]}],
            "telecom": [{"system": "phone", "value": "+34 928 1"}, {"system": "phone", "value": "600"}],
            "gender": "female",
            "birthDate": "1985-10-04",
            "deceasedBoolean": false,
            "address": [{"city": "Las Palmas", "postalCode": "35001"}]
        })
    );
}

#[test]
fn what_fhir_does_not_allow_is_left_out_and_nothing_is_made_up() {
    let document = json!({
        "name": "A\u{0}", "lastname": "", "dob": "1985-02-30", "gender": "?", "active": "yes", "deceased": 0,
        "address": "1 Main Street", "phone": 7.5, "identifiers": {"value": "1"}
    });
    let expected = json!({
        "resourceType": "Patient", "id": "hex.785f79",
        // PDQm, profile of Patient, option 1: without a system of its own, the address identifies.
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": "https://hub.example.org/fhir/Patient/hex.785f79"}]
    });
    assert_eq!(shown(&FhirSettings::default(), &PersonRecord::new("x_y", &document)), expected);
    for document in [json!(null), json!([]), json!({"name": {"first": "Ana"}, "dob": "04/10/1985"})] {
        assert_eq!(shown(&FhirSettings::default(), &PersonRecord::new("x_y", &document)), expected);
    }
    let fields = Fields::default();
    let mapping = FhirMapping { fields: &fields, settings: &FhirSettings::default(), base: BASE };
    assert_eq!(mapping.patient(&PersonRecord::new(&"_".repeat(40), &document)), None);
}

#[test]
fn dates_may_be_known_in_part() {
    for (dob, shown_as) in [
        (json!("1985"), json!("1985")),
        (json!(1985), json!("1985")),
        (json!("1985-10"), json!("1985-10")),
        (json!("1985-13"), Value::Null),
        (json!(""), Value::Null),
        (json!("1985-10-04T00:00:00Z"), Value::Null),
    ] {
        let patient = shown(&settings(), &PersonRecord::new("A", &json!({"dob": dob})));
        assert_eq!(patient["birthDate"], shown_as, "{dob}");
    }
}

#[test]
fn a_gender_is_a_letter_or_a_word_that_the_index_knows() {
    for (gender, code) in [
        ("f", json!("female")),
        ("Mujer", json!("female")),
        ("M", json!("male")),
        ("varón", json!("male")),
        ("other", json!("other")),
        ("Unknown", json!("unknown")),
        ("?", Value::Null),
        ("female or male", Value::Null),
    ] {
        let patient = shown(&settings(), &PersonRecord::new("A", &json!({"gender": gender})));
        assert_eq!(patient["gender"], code, "{gender}");
    }
}

/// PDQm, profile of Patient: a merged record is not in use and names its survivor, and a link comes with `active`.
#[test]
fn iti_78_a_merged_record_is_not_active_and_is_replaced_by_its_survivor() {
    let document = json!({"active": true});
    let merged = PersonRecord { replaced_by: Some("B_1"), ..PersonRecord::new("A", &document) };
    let patient = shown(&settings(), &merged);
    assert_eq!(patient["active"], false);
    let survivor = "https://hub.example.org/fhir/Patient/hex.425f31";
    assert_eq!(patient["link"], json!([{"other": {"reference": survivor}, "type": "replaced-by"}]));
    let document = json!({});
    let replaces = ["A".to_owned()];
    let patient = shown(&settings(), &PersonRecord { replaces: &replaces, ..PersonRecord::new("B_1", &document) });
    assert_eq!(patient["active"], true);
    let merged = "https://hub.example.org/fhir/Patient/A";
    assert_eq!(patient["link"], json!([{"other": {"reference": merged}, "type": "replaces"}]));
}

#[test]
fn a_table_of_settings_with_a_fault_is_refused() {
    for table in ["identifier_system = 'dni'", "identifier_systems = { dni = '' }", "other = 1"] {
        assert!(toml::from_str::<FhirSettings>(table).is_err(), "{table}");
    }
}

#[test]
fn the_hubs_own_id_is_known_by_its_system_or_its_address() {
    let fields = Fields::default();
    let (named, plain) = (settings(), FhirSettings::default());
    let with_system = FhirMapping { fields: &fields, settings: &named, base: BASE };
    let without = FhirMapping { settings: &plain, ..with_system };
    let address = format!("{BASE}/Patient/hex.785f79");
    for (mapping, system, value, own) in [
        (with_system, Some("urn:oid:1.2"), "x_y", Some("x_y")),
        (with_system, Some("urn:oid:1.3"), "x_y", None),
        (with_system, Some("urn:ietf:rfc:3986"), address.as_str(), Some("x_y")),
        (without, Some("urn:ietf:rfc:3986"), &address, Some("x_y")),
        (without, Some("urn:ietf:rfc:3986"), "https://other.example.org/fhir/Patient/A", None),
        (without, None, &address, None),
    ] {
        assert_eq!(mapping.own_id(system, value).as_deref(), own, "{system:?} {value}");
    }
}
