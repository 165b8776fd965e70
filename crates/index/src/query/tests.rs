use super::*;
use crate::fields::{Demographics, Fields};
use serde_json::json;

const ID: &str = "ESPGNU777ORG";

fn ana() -> FoldedPerson {
    FoldedPerson::of(&Demographics::take(
        &Fields::default(),
        &json!({"name": "Ana María", "lastname": "de la Cruz García", "dob": "1985-10-04", "gender": "f",
            "phone": "+34 952 123 456", "identifiers": ["12345678-Z"]}),
    ))
}

fn rank(text: &str) -> Option<Rank> {
    Query::parse(text).unwrap().rank(ID, &ana())
}

#[test]
fn every_part_must_fit_in_any_order() {
    for (text, fits) in [
        ("ana", true),
        ("Ana Maria de la Cruz Garcia", true),
        ("garcia ana", true),
        ("cruz-garcia", true),
        ("del cruz", true),
        ("an ana", false),
        ("mar ana", true),
        ("gracia cruz", true),
        ("ana 1985", true),
        ("ana 1985-10", true),
        ("ana 19851004", true),
        ("1985-10-04", true),
        ("ana f", true),
        ("espgnu777org", true),
        ("ESPGNU", true),
        ("12345678z", true),
        ("952123456", true),
        ("+34952123456", true),
        ("de la", true),
        ("ana ruiz", false),
        ("ana 1986", false),
        ("ana m", true),
        ("ana male", false),
        ("ana ana", false),
        ("ITAPYT999HON", false),
    ] {
        assert_eq!(rank(text).is_some(), fits, "{text}");
    }
}

#[test]
fn the_better_fit_has_the_higher_rank() {
    let order = ["ESPGNU777ORG", "ana garcia 1985-10-04", "ana garcia 1985", "ana garcia", "ana gar", "gracia"];
    let scores: Vec<u32> = order.iter().map(|text| rank(text).unwrap().score).collect();
    assert!(scores.is_sorted_by(|better, worse| better > worse), "{scores:?}");
    let other = FoldedPerson::of(&Demographics { given: Some("Ana".into()), ..Default::default() });
    let query = Query::parse("ana").unwrap();
    assert!(query.rank("X", &other).unwrap().score > rank("ana").unwrap().score, "fewer other names");
}

#[test]
fn what_has_matched_is_reported() {
    let found = rank("gracia mar 1985 f ESPGNU777ORG").unwrap().found;
    let found: Vec<_> = found.iter().map(|found| (found.part, found.field, found.how)).collect();
    assert_eq!(
        found,
        [
            (0, Some(FieldName::Family), WordMatch::Error),
            (1, Some(FieldName::Given), WordMatch::Prefix),
            (2, Some(FieldName::BirthDate), WordMatch::Exact),
            (3, Some(FieldName::Gender), WordMatch::Exact),
            (4, None, WordMatch::Exact),
        ]
    );
}

#[test]
fn a_query_has_a_bound_and_says_something() {
    for (text, error) in [
        (String::new(), QueryError::Empty),
        (" - ' ".into(), QueryError::Empty),
        ("x".repeat(MAX_QUERY_BYTES + 1), QueryError::TooLong),
        ("a ".repeat(MAX_QUERY_PARTS + 1), QueryError::TooLong),
        ("a-b-c-d-e f-g-h-i".into(), QueryError::TooLong),
    ] {
        assert_eq!(Query::parse(&text), Err(error), "{text}");
    }
}
