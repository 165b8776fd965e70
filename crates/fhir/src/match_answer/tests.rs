use fedgate_index::fields::{Demographics, Fields};
use serde_json::{Value, json};

use super::*;
use crate::format::AnswerFormat;
use crate::patient::{FhirSettings, PersonRecord};

const BASE: &str = "https://hub.example.org/fhir";

fn request(only_certain: bool, count: usize) -> MatchRequest {
    MatchRequest { demographics: Demographics::default(), own_ids: Vec::new(), only_certain, count }
}

/// The answer about candidates of an id, a score, a grade, and perhaps the survivor of their merge.
fn answered(request: &MatchRequest, found: &[(&str, f64, Grade, Option<&str>)]) -> Value {
    answered_with(request, found, None)
}

fn answered_with(
    request: &MatchRequest,
    found: &[(&str, f64, Grade, Option<&str>)],
    issue: Option<OutcomeIssue>,
) -> Value {
    let (fields, settings) = (Fields::default(), FhirSettings::default());
    let mapping = FhirMapping { fields: &fields, settings: &settings, base: BASE };
    let document = json!({"name": "Ana"});
    let candidates = found.iter().map(|(id, score, grade, replaced_by)| MatchCandidate {
        patient: mapping
            .patient(&PersonRecord { replaced_by: *replaced_by, ..PersonRecord::new(id, &document) })
            .unwrap(),
        score: *score,
        grade: *grade,
    });
    let answer = MatchAnswer::of(request, candidates.collect());
    let answer = issue.into_iter().fold(answer, MatchAnswer::with_issue);
    let bundle: Value = serde_json::from_str(&answer.resource(&mapping).write(AnswerFormat::Json)).unwrap();
    assert_eq!((&bundle["resourceType"], &bundle["type"]), (&json!("Bundle"), &json!("searchset")));
    bundle
}

/// The people of an answer, in its order, with score and grade.
fn people_of(bundle: &Value) -> Vec<(String, f64, String)> {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let patients = entries.iter().filter(|entry| entry["resource"]["resourceType"] == "Patient").map(|entry| {
        assert_eq!(entry["search"]["mode"], "match");
        assert_eq!(entry["search"]["extension"][0]["url"], MATCH_GRADE);
        let id = entry["resource"]["id"].as_str().unwrap();
        assert_eq!(entry["fullUrl"], format!("{BASE}/Patient/{id}"));
        let grade = entry["search"]["extension"][0]["valueCode"].as_str().unwrap();
        (id.to_owned(), entry["search"]["score"].as_f64().unwrap(), grade.to_owned())
    });
    patients.collect()
}

fn ids_of(bundle: &Value) -> Vec<String> {
    people_of(bundle).into_iter().map(|(id, ..)| id).collect()
}

use Grade::{Certain, CertainlyNot, Possible, Probable};

#[test]
fn iti_119_case_1_one_match_has_a_score_and_a_grade() {
    let bundle = answered(&request(false, 20), &[("A", 0.98, Probable, None)]);
    assert_eq!(people_of(&bundle), [("A".to_owned(), 0.98, "probable".to_owned())]);
    assert_eq!(bundle["total"], 1);
}

#[test]
fn iti_119_case_2_several_matches_come_from_most_to_least_likely() {
    let found = [("B", 0.5, Possible, None), ("C", 0.99, Certain, None), ("A", 0.5, Possible, None)];
    let bundle = answered(&request(false, 20), &found);
    assert_eq!(ids_of(&bundle), ["C", "A", "B"]);
    // A score is from 0 to 1, whatever the index says, and only certainty is 1.
    let odd = [("A", f64::NAN, Possible, None), ("B", 7.0, Certain, None), ("C", 0.999_999, Certain, None)];
    let scores: Vec<f64> = people_of(&answered(&request(false, 20), &odd)).into_iter().map(|(_, s, _)| s).collect();
    assert_eq!(scores, [1.0, 0.9999, 0.0]);
}

#[test]
fn iti_119_case_3_only_certain_matches_has_the_certain_one() {
    let found = [("A", 0.97, Probable, None), ("B", 0.999, Certain, None)];
    let bundle = answered(&request(true, 20), &found);
    assert_eq!(people_of(&bundle), [("B".to_owned(), 0.999, "certain".to_owned())]);
}

#[test]
fn iti_119_case_4_only_certain_matches_without_a_certain_one_is_empty() {
    let bundle = answered(&request(true, 20), &[("A", 0.97, Probable, None)]);
    assert_eq!((bundle.get("entry"), &bundle["total"]), (None, &json!(0)));
}

#[test]
fn iti_119_case_5_several_certain_ones_that_are_not_linked_are_none() {
    let found = [("A", 0.999, Certain, None), ("B", 0.998, Certain, None)];
    let bundle = answered(&request(true, 20), &found);
    assert_eq!((ids_of(&bundle).len(), &bundle["total"]), (0, &json!(0)));
    let issue = &bundle["entry"][0]["resource"]["issue"][0];
    assert_eq!((&issue["severity"], &issue["code"]), (&json!("information"), &json!("multiple-matches")));
    // Merged records are one person.
    let merged = [("A", 0.999, Certain, Some("B")), ("B", 0.998, Certain, None)];
    assert_eq!(ids_of(&answered(&request(true, 20), &merged)), ["A", "B"]);
    // Without the option they are an answer.
    assert_eq!(ids_of(&answered(&request(false, 20), &found)), ["A", "B"]);
}

#[test]
fn iti_119_case_6_no_more_than_count_and_the_most_likely() {
    let found = [("A", 0.5, Possible, None), ("B", 0.9, Probable, None), ("C", 0.7, Possible, None)];
    let bundle = answered(&request(false, 2), &found);
    assert_eq!(ids_of(&bundle), ["B", "C"]);
    assert_eq!(bundle["total"], 3);
}

#[test]
fn iti_119_case_7_nobody_found_is_an_empty_bundle() {
    for found in [&[][..], &[("A", 0.001, CertainlyNot, None)]] {
        let bundle = answered(&request(false, 20), found);
        assert_eq!((bundle.get("entry"), &bundle["total"]), (None, &json!(0)));
    }
}

#[test]
fn iti_119_case_8_a_merged_record_is_not_active() {
    let bundle = answered(&request(false, 20), &[("A", 0.9, Probable, Some("B"))]);
    assert_eq!(bundle["entry"][0]["resource"]["active"], false);
    assert_eq!(bundle["entry"][0]["resource"]["link"][0]["type"], "replaced-by");
}

#[test]
fn iti_119_case_10_a_warning_stands_beside_the_matches() {
    let warning = OutcomeIssue::new(IssueSeverity::Warning, IssueCode::TooCostly, "some candidates were not compared");
    let bundle = answered_with(&request(false, 20), &[("A", 0.9, Probable, None)], Some(warning));
    assert_eq!((ids_of(&bundle), &bundle["total"]), (vec!["A".to_owned()], &json!(1)));
    let entry = &bundle["entry"][1];
    assert_eq!(entry["search"]["mode"], "outcome");
    assert_eq!(entry["resource"]["issue"][0]["severity"], "warning");
}
