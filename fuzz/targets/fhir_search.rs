//! Searches for Patients: an accepted one is within its bounds, says what it ignores, and is what its link says.
#![no_main]

use fedgate_fhir::format::{AnswerFormat, BodyFormat};
use fedgate_fhir::patient::{FhirMapping, FhirSettings, PatientFacts, PersonRecord};
use fedgate_fhir::search::{MAX_PAGE, ParameterHandling, QueryPairs, SearchCriterion, SearchRequest, TextTest};
use fedgate_fhir::search_answer::{EntryMode, SearchPage};
use fedgate_index::fields::Fields;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| {
    // Headers are read from any bytes, too.
    let header = std::str::from_utf8(bytes).ok();
    let _ = AnswerFormat::choose(header, header);
    let _ = (BodyFormat::of(header), ParameterHandling::of(header), AnswerFormat::choose(None, header));

    let Ok(pairs) = QueryPairs::parse(bytes) else { return };
    let lenient = SearchRequest::parse(&pairs, ParameterHandling::Lenient);
    let strict = SearchRequest::parse(&pairs, ParameterHandling::Strict);
    let Ok(request) = lenient else {
        assert!(strict.is_err(), "strict handling accepts less");
        return;
    };
    assert_eq!(strict.is_ok(), request.ignored.is_empty(), "strict handling refuses what is ignored");
    assert!(request.count <= MAX_PAGE);

    let (fields, settings) = (Fields::default(), FhirSettings::default());
    let mapping = FhirMapping { fields: &fields, settings: &settings, base: "https://hub.example.org/fhir" };
    let document = json!({
        "name": "Ana María", "lastname": "García-Pérez", "dob": "1985-10", "gender": "f", "phone": "+34 928",
        "address": {"suburb": "Las Palmas", "postcode": "35001"}, "active": true,
        "identifiers": [{"system": "urn:oid:1.2", "value": "A|1,2"}]
    });
    let somebody = mapping.patient(&PersonRecord::new("ANA", &document)).expect("the id is plain");
    let nobody = mapping.patient(&PersonRecord::new("B", &json!({}))).expect("the id is plain");
    all_criteria_count(&request, &somebody);
    all_criteria_count(&request, &nobody);
    for criterion in &request.criteria {
        texts_say_something(criterion);
    }
    let page = SearchPage { patients: vec![(somebody, EntryMode::Match)], total: 1, next: Some("n=1&".to_owned()) };
    let bundle = page.resource(&request, &mapping);
    let written: Value = serde_json::from_str(&bundle.write(AnswerFormat::Json)).expect("JSON");
    let links = written["link"].as_array().expect("links").iter();
    for (link, cursor) in links.zip([request.cursor.as_deref(), Some("n=1&")]) {
        let (_, query) = link["url"].as_str().expect("a text").split_once('?').expect("a query");
        let pairs = QueryPairs::parse(query.as_bytes()).expect("it was written");
        let again = SearchRequest::parse(&pairs, ParameterHandling::Strict).expect("what was applied is known");
        assert_eq!((&again.criteria, again.count), (&request.criteria, request.count), "{query}");
        assert_eq!(again.cursor.as_deref(), cursor);
    }
});

/// A person fulfils a search if each criterion alone is fulfilled.
fn all_criteria_count(request: &SearchRequest, person: &PatientFacts) {
    let alone = |criterion: &SearchCriterion| {
        let mut one = request.clone();
        one.criteria = vec![criterion.clone()];
        one.accepts(person)
    };
    assert_eq!(request.accepts(person), request.criteria.iter().all(alone));
}

/// A text that would be the beginning of every name finds everybody.
fn texts_say_something(criterion: &SearchCriterion) {
    let (SearchCriterion::Family(tests)
    | SearchCriterion::Given(tests)
    | SearchCriterion::Name(tests)
    | SearchCriterion::Address(tests)
    | SearchCriterion::City(tests)
    | SearchCriterion::PostalCode(tests)) = criterion
    else {
        return;
    };
    for test in tests {
        let (TextTest::Begins(text) | TextTest::Contains(text) | TextTest::Is(text)) = test;
        assert!(!text.trim().is_empty(), "{criterion:?}");
    }
}
