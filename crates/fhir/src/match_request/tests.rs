use fedgate_index::fields::Fields;
use serde_json::{Value, json};

use super::*;
use crate::patient::FhirSettings;

fn settings() -> FhirSettings {
    toml::from_str("identifier_system = 'urn:oid:1.2'\nidentifier_systems = { dni = 'urn:oid:1.3' }").unwrap()
}

fn parsed(bytes: &[u8], format: BodyFormat) -> Result<MatchRequest, RequestFault> {
    let (fields, settings) = (Fields::default(), settings());
    let mapping = FhirMapping { fields: &fields, settings: &settings, base: "https://hub.example.org/fhir" };
    MatchRequest::parse(bytes, format, &mapping)
}

fn parse(body: &Value) -> Result<MatchRequest, RequestFault> {
    parsed(body.to_string().as_bytes(), BodyFormat::Json)
}

fn patient() -> Value {
    json!({
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:1.2", "value": "ESPGNU777ORG"}, {"system": "urn:oid:1.3", "value": "1Z"},
            {"value": "9"}, {"system": "urn:x"}],
        "name": [{"use": "old", "family": "Alt"}, {"family": "Betz", "given": ["Ana", "", "María"]}],
        "telecom": [{"system": "phone", "value": "600"}, {"system": "email", "value": "a@b.c"},
            {"system": "phone", "use": "old", "value": "1"}],
        "gender": "female", "birthDate": "1985-10",
        "address": [{"use": "work", "city": "Telde"}, {"use": "home", "city": "Las Palmas", "postalCode": "35001"}],
        "photo": [{"data": "AAAA"}], "extension": [{"url": "urn:unknown", "valueString": "x"}]
    })
}

fn parameters(patient: &Value, others: &[Value]) -> Value {
    let mut parameter = vec![json!({"name": "resource", "resource": patient})];
    parameter.extend_from_slice(others);
    json!({"resourceType": "Parameters", "parameter": parameter})
}

/// PDQm, test plan of the supplier: a raw Patient, or Parameters with one.
#[test]
fn iti_119_a_raw_patient_is_parameters_with_nothing_else() {
    let raw = parse(&patient()).unwrap();
    assert_eq!(raw, parse(&parameters(&patient(), &[])).unwrap());
    let Demographics { given, family, birth_date, gender, city, postal_code, phones, identifiers } = raw.demographics;
    assert_eq!(
        [given, family, birth_date, gender, city, postal_code].map(Option::unwrap),
        ["Ana María", "Betz", "1985-10", "female", "Las Palmas", "35001"]
    );
    assert_eq!(phones, ["600"]);
    let identifiers: Vec<_> = identifiers.iter().map(|one| (one.system.as_deref(), one.value.as_str())).collect();
    assert_eq!(identifiers, [(Some("dni"), "1Z"), (None, "9")]);
    assert_eq!(raw.own_ids, ["ESPGNU777ORG"]);
    assert_eq!((raw.only_certain, raw.count), (false, DEFAULT_MATCHES));
}

#[test]
fn iti_119_options_are_read_in_both_forms() {
    let count = |number: Value| json!({"name": "count", "valueInteger": number});
    let certain = json!({"name": "onlyCertainMatches", "valueBoolean": true});
    let both = parse(&parameters(&patient(), &[certain.clone(), count(json!(3))])).unwrap();
    assert_eq!((both.only_certain, both.count), (true, 3));
    assert_eq!(parse(&parameters(&patient(), &[count(json!(100_000))])).unwrap().count, MAX_MATCHES);
    let xml = br#"<Parameters xmlns="http://hl7.org/fhir">
        <parameter><name value="resource"/><resource><Patient><name><family value="Betz"/></name>
        <birthDate value="1985"/></Patient></resource></parameter>
        <parameter><name value="count"/><valueInteger value="3"/></parameter>
        <parameter><name value="onlyCertainMatches"/><valueBoolean value="true"/></parameter></Parameters>"#;
    let read = parsed(xml, BodyFormat::Xml).unwrap();
    assert_eq!((read.only_certain, read.count), (true, 3));
    assert_eq!(read.demographics.family.as_deref(), Some("Betz"));
    assert_eq!(read.demographics.birth_date.as_deref(), Some("1985"));
    let number = |number: &str| {
        let text = String::from_utf8_lossy(xml).replace("value=\"3\"", &format!("value=\"{number}\""));
        parsed(text.as_bytes(), BodyFormat::Xml).map(|request| request.count)
    };
    assert_eq!(number("7"), Ok(7));
    for wrong in ["+5", "007", " 7", "7.0", ""] {
        assert_eq!(number(wrong), Err(RequestFault::WrongType(Place::of("Parameters.parameter.valueInteger"))));
    }
}

/// PDQm, test plan of the supplier: 400 without any Patient; and extensions that are not known are no fault.
#[test]
fn iti_119_an_unrecognized_modifier_extension_is_400_at_any_level() {
    let extension = json!([{"url": "urn:x", "valueBoolean": true}]);
    for at in ["", "/name/0", "/name/1", "/address/0", "/telecom/1", "/identifier/0", "/photo/0", "/extension/0"] {
        let mut body = patient();
        let place = body.pointer_mut(at).unwrap();
        place["modifierExtension"] = extension.clone();
        for body in [body.clone(), parameters(&body, &[])] {
            let fault = parse(&body).unwrap_err();
            assert!(matches!(fault, RequestFault::UnknownModifierExtension(_)), "{at}: {fault}");
            assert_eq!(fault.status(), 400);
        }
    }
    let mut contained = patient();
    contained["contained"] = json!([{"resourceType": "Organization", "modifierExtension": extension}]);
    assert!(matches!(parse(&contained), Err(RequestFault::UnknownModifierExtension(_))));
    let with_option = json!({"name": "count", "valueInteger": 1, "modifierExtension": extension});
    assert!(matches!(parse(&parameters(&patient(), &[with_option])), Err(RequestFault::UnknownModifierExtension(_))));
    let xml = br#"<Patient xmlns="http://hl7.org/fhir"><name><modifierExtension url="urn:x"/></name></Patient>"#;
    let fault = parsed(xml, BodyFormat::Xml).unwrap_err();
    assert_eq!(fault, RequestFault::UnknownModifierExtension(Place::of("Patient.name.modifierExtension")));
    let empty = json!({"resourceType": "Patient", "modifierExtension": []});
    assert!(matches!(parse(&empty), Err(RequestFault::UnknownModifierExtension(_))));
    let mut implicit = patient();
    implicit["implicitRules"] = json!("urn:rules");
    assert!(matches!(parse(&implicit), Err(RequestFault::ImplicitRules(_))));
    parse(&patient()).unwrap();
}

/// PDQm, 2:3.119.4.1.3, case 9: a failure code and an OperationOutcome.
#[test]
fn iti_119_case_9_wrong_types_and_values_are_400() {
    #[rustfmt::skip]
    let cases = [
        // member      value                                code
        ("gender",     json!("f"),                          "code-invalid"),
        ("gender",     json!(["female"]),                   "structure"),
        ("gender",     json!(1),                            "structure"),
        ("birthDate",  json!("1985-02-30"),                 "value"),
        ("birthDate",  json!("04/10/1985"),                 "value"),
        ("birthDate",  json!(1985),                         "structure"),
        ("active",     json!("true"),                       "structure"),
        ("name",       json!({"family": "Betz"}),           "structure"),
        ("name",       json!(["Betz"]),                     "structure"),
        ("name",       json!([{"family": ["Betz"]}]),       "structure"),
        ("name",       json!([{"family": {"a": 1}}]),       "structure"),
        ("name",       json!([{"given": "Ana"}]),           "structure"),
        ("name",       json!([{"given": [1]}]),             "structure"),
        ("name",       json!([{"family": "a\u{1}"}]),       "value"),
        ("address",    json!([{"city": true}]),             "structure"),
        ("telecom",    json!([{"system": "phone", "value": 600}]), "structure"),
        ("identifier", json!("1"),                          "structure"),
        ("name",       Value::Null,                         "structure"),
    ];
    for (member, value, code) in cases {
        let mut body = patient();
        body[member] = value.clone();
        let fault = parse(&body).unwrap_err();
        assert_eq!(fault.status(), 400, "{member} {value}");
        let answer = fault.resource().write(crate::format::AnswerFormat::Json);
        assert!(answer.contains(&format!(r#""severity":"error","code":"{code}""#)), "{member} {value}: {answer}");
    }
}

#[test]
fn iti_119_parameters_are_those_of_the_profile() {
    let one = |parameter: Value| parameters(&patient(), &[parameter]);
    for body in [
        one(json!({"name": "other", "valueString": "x"})),
        one(json!({"name": "resource", "resource": patient()})),
        one(json!({"name": "count", "valueString": "3"})),
        one(json!({"name": "count", "valueInteger": "3"})),
        one(json!({"name": "count", "valueInteger": 1.5})),
        one(json!({"name": "count", "valueInteger": 0})),
        one(json!({"name": "count", "valueInteger": -1})),
        one(json!({"name": "count", "valueInteger": 3_000_000_000_u64})),
        one(json!({"name": "onlyCertainMatches", "valueBoolean": "true"})),
        one(json!({"valueBoolean": true})),
        one(json!({"name": "count", "valueInteger": 1, "valueString": "2"})),
        one(json!({"name": "count", "valueInteger": 1, "part": [{"name": "x"}]})),
        json!({"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": patient(), "valueCode": "x"}]}),
        parameters(&json!({"resourceType": "Person"}), &[]),
        json!({"resourceType": "Parameters"}),
        json!({"resourceType": "Parameters", "parameter": [{"name": "resource"}]}),
        json!({"resourceType": "Parameters", "parameter": {"name": "resource", "resource": patient()}}),
        json!({"resourceType": "Bundle"}),
    ] {
        assert_eq!(parse(&body).map_err(|fault| fault.status()), Err(400), "{body}");
    }
}

#[test]
fn what_is_taken_has_the_bounds_of_documents() {
    let many: Vec<Value> = (0..300).map(|at| json!({"system": "phone", "value": format!("{at}")})).collect();
    let long = json!({"resourceType": "Patient", "name": [{"family": "é".repeat(1000)}], "telecom": many,
        "identifier": (0..300).map(|at| json!({"value": format!("{at}")})).collect::<Vec<_>>()});
    let taken = parse(&long).unwrap().demographics;
    assert_eq!(taken.family.unwrap().len(), MAX_VALUE_BYTES);
    assert_eq!((taken.phones.len(), taken.identifiers.len()), (MAX_VALUES, MAX_VALUES));
    let own = |value: String| json!({"system": "urn:oid:1.2", "value": value});
    let ids: Vec<Value> = (0..300).map(|at| own(format!("A{at}"))).chain([own("A".repeat(1000))]).collect();
    let stated = parse(&json!({"resourceType": "Patient", "identifier": ids})).unwrap().own_ids;
    assert_eq!((stated.len(), stated[0].as_str()), (MAX_VALUES, "A0"));
    let long = json!({"resourceType": "Patient", "identifier": [own("A".repeat(1000))]});
    assert_eq!(parse(&long).unwrap().own_ids, Vec::<String>::new());
}
