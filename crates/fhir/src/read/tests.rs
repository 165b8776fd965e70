use super::*;

fn read_json(text: &str) -> Result<ReadElement, RequestFault> {
    read(text.as_bytes(), BodyFormat::Json)
}

fn read_xml(text: &str) -> Result<ReadElement, RequestFault> {
    read(text.as_bytes(), BodyFormat::Xml)
}

#[test]
fn both_forms_of_a_resource_have_the_same_elements() {
    let json = read_json(
        r#"{"resourceType": "Parameters", "parameter": [
            {"name": "resource", "resource": {"resourceType": "Patient", "name": [{"family": "Bétz", "given": ["A", "B"]}]}},
            {"name": "count", "valueInteger": 3}, {"name": "onlyCertainMatches", "valueBoolean": true}]}"#,
    );
    let xml = read_xml(
        "\u{feff}<?xml version='1.0' encoding='utf-8'?><!-- c --><Parameters xmlns=\"http://hl7.org/fhir\">
         <parameter><name value='resource'/><resource><Patient><name><family value='B&#233;tz'/><given value='A'/>
         <given value='B'></given></name></Patient></resource></parameter>
         <parameter><name value=\"count\"/><valueInteger value=\"3\"/></parameter>
         <parameter><name value=\"onlyCertainMatches\"/><valueBoolean value=\"true\"/></parameter></Parameters>",
    );
    for body in [json.unwrap(), xml.unwrap()] {
        assert_eq!(body.resource.as_deref(), Some("Parameters"));
        let parameters = body.many("parameter", "").unwrap();
        let patient = parameters[0].one("resource", "").unwrap().unwrap();
        assert_eq!(patient.resource.as_deref(), Some("Patient"));
        let name = patient.many("name", "").unwrap()[0];
        assert_eq!(name.text("family", "").unwrap(), Some("Bétz"));
        let given: Vec<_> =
            name.many("given", "").unwrap().iter().map(|one| one.own_text(Place::of("")).unwrap().unwrap()).collect();
        assert_eq!(given, ["A", "B"]);
        assert_eq!(parameters[1].integer("valueInteger", "").unwrap(), Some(3));
        assert_eq!(parameters[2].truth("valueBoolean", "").unwrap(), Some(true));
    }
}

#[test]
fn a_body_with_two_readings_or_of_no_resource_is_refused() {
    use RequestFault::{Malformed, UnexpectedResource};
    for (text, fault) in [
        ("", Malformed),
        ("{", Malformed),
        ("[]", UnexpectedResource),
        ("{}", UnexpectedResource),
        (r#"{"resourceType": 1}"#, UnexpectedResource),
        (r#"{"resourceType": "A b"}"#, UnexpectedResource),
        (r#"{"resourceType": "Patient"} x"#, Malformed),
        (r#"{"resourceType": "Patient", "gender": "male", "gender": "female"}"#, Malformed),
        (r#"{"resourceType": "Patient", "gender": "male", "g\u0065nder": "female"}"#, Malformed),
        (r#"{"resourceType": "Patient", "resourceType": "Patient"}"#, Malformed),
        (r#"{"resourceType": "Patient", "name": null}"#, Malformed),
        (r#"{"resourceType": "Patient", "name": [[{}]]}"#, Malformed),
        (r#"{"resourceType": "Patient", "na me": 1}"#, Malformed),
        ("\u{feff}{\"resourceType\": \"Patient\"}", Malformed),
    ] {
        assert_eq!(read_json(text), Err(fault), "{text}");
    }
    let x = "xmlns=\"http://hl7.org/fhir\"";
    for (text, fault) in [
        (String::new(), Malformed),
        ("<Patient/>".into(), UnexpectedResource),
        ("<Patient xmlns=\"http://hl7.org\"/>".into(), UnexpectedResource),
        (format!("<Patient {x}>"), Malformed),
        (format!("<Patient {x}></Patent>"), Malformed),
        (format!("<Patient {x}/><Patient {x}/>"), Malformed),
        (format!("<Patient {x}>text</Patient>"), Malformed),
        (format!("<Patient {x}><![CDATA[x]]></Patient>"), Malformed),
        (format!("<!DOCTYPE Patient [<!ENTITY e 'x'>]><Patient {x}><id value='&e;'/></Patient>"), Malformed),
        (format!("<Patient {x}><id value='&e;'/></Patient>"), Malformed),
        (format!("<Patient {x}><id value='a' value='b'/></Patient>"), Malformed),
        (format!("<?xml version='1.0' encoding='latin1'?><Patient {x}/>"), Malformed),
        ("<f:Patient xmlns:f=\"http://hl7.org/fhir\"/>".into(), UnexpectedResource),
        (format!("<Patient {x}><name xmlns=\"urn:x\"/></Patient>"), UnexpectedResource),
    ] {
        assert_eq!(read_xml(&text), Err(fault), "{text}");
    }
    assert_eq!(read(b"\xff", BodyFormat::Json), Err(Malformed));
    // What JSON calls a list and a value are two things.
    let body = read_json(r#"{"resourceType": "Patient", "gender": ["male"], "name": {"family": "x"}}"#).unwrap();
    assert_eq!(body.text("gender", "Patient"), Err(RequestFault::WrongType(Place::of("Patient.gender"))));
    assert_eq!(body.many("name", "Patient"), Err(RequestFault::WrongType(Place::of("Patient.name"))));
}

#[test]
fn a_narrative_is_read_over_whatever_is_in_it() {
    let text = "<Patient xmlns=\"http://hl7.org/fhir\"><text><status value=\"generated\"/>\
        <div xmlns=\"http://www.w3.org/1999/xhtml\">a &amp; <b class=\"x\">b<br/></b>\
        <modifierExtension/></div></text><gender value=\"male\"/></Patient>";
    let body = read_xml(text).unwrap();
    assert_eq!(body.text("gender", "Patient"), Ok(Some("male")));
    body.refuse_modifiers("Patient").unwrap();
}

#[test]
fn bytes_depth_and_elements_have_bounds() {
    let json = |depth: usize| format!("{{\"resourceType\":\"Patient\"{}", ",\"a\":{\"b\":1".repeat(depth));
    let deep = json(MAX_DEPTH + 1) + &"}".repeat(MAX_DEPTH + 2);
    assert_eq!(read_json(&deep), Err(RequestFault::TooComplex));
    read_json(&(json(MAX_DEPTH - 1) + &"}".repeat(MAX_DEPTH))).unwrap();
    // No recursion follows the depth that a client chooses.
    assert_eq!(read_json(&"[".repeat(MAX_BODY_BYTES)), Err(RequestFault::TooComplex));
    let open = "<Patient xmlns=\"http://hl7.org/fhir\">".to_owned() + &"<a>".repeat(80_000);
    assert_eq!(read_xml(&open), Err(RequestFault::TooComplex));
    let many = format!("{{\"resourceType\":\"Patient\",\"given\":[{}1]}}", "1,".repeat(MAX_ELEMENTS));
    assert_eq!(read_json(&many), Err(RequestFault::TooComplex));
    let attributes: String = (0..20_000).map(|at| format!(" a{at}=''")).collect();
    let wide = format!("<Patient xmlns=\"http://hl7.org/fhir\"{attributes}/>");
    assert_eq!(read_xml(&wide), Err(RequestFault::TooComplex));
    let large = vec![b' '; MAX_BODY_BYTES + 1];
    assert_eq!(read(&large, BodyFormat::Json), Err(RequestFault::TooLarge));
}
