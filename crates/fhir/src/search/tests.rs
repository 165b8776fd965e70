use fedgate_index::fields::Fields;
use serde_json::{Value, json};

use super::*;
use crate::patient::{FhirMapping, FhirSettings, PersonRecord};

/// The people of PDQm's examples, in documents of the hub.
fn people() -> Vec<(&'static str, Value)> {
    vec![
        (
            "ALICE",
            json!({"name": ["Alice", "Mary"], "lastname": "Mohr", "gender": "f", "dob": "1958-01-30", "active": true,
                "phone": "+1 (555) 867-5309", "address": {"suburb": "Berlin", "postcode": "54321"},
                "identifiers": [{"type": "dni", "value": "A1"}, {"system": "urn:oid:9.9", "value": "A1"}]}),
        ),
        (
            "BOB",
            json!({"name": "Roberto José", "lastname": "Móhr García", "gender": "m", "dob": "1958-02", "active": false,
                "phone": ["600"], "address": {"suburb": "San José", "postcode": "5432"},
                "identifiers": [{"type": "dni", "value": "B2"}]}),
        ),
        ("C_1", json!({"name": "Carla", "lastname": "Betz", "dob": "1960"})),
    ]
}

fn search(query: &str) -> Result<SearchRequest, RequestFault> {
    SearchRequest::parse(&QueryPairs::parse(query.as_bytes()).unwrap(), ParameterHandling::Lenient)
}

/// The people whom a search finds.
fn found(query: &str) -> Vec<&'static str> {
    let request = search(query).unwrap_or_else(|fault| panic!("{query}: {fault}"));
    let settings: FhirSettings =
        toml::from_str("identifier_system = 'urn:oid:1.2'\nidentifier_systems = { dni = 'urn:oid:1.3' }").unwrap();
    let fields = Fields::default();
    let mapping = FhirMapping { fields: &fields, settings: &settings, base: "https://hub.example.org/fhir" };
    let is_found =
        |id: &str, document: &Value| request.accepts(&mapping.patient(&PersonRecord::new(id, document)).unwrap());
    people().into_iter().filter(|(id, document)| is_found(id, document)).map(|(id, _)| id).collect()
}

/// PDQm, test plan of the supplier: each parameter by itself, and the combinations that it names.
#[test]
fn iti_78_people_are_found_by_each_parameter_and_their_combinations() {
    #[rustfmt::skip]
    let cases: [(&str, &[&str]); 45] = [
        ("",                                        &["ALICE", "BOB", "C_1"]),
        ("_id=ALICE",                               &["ALICE"]),
        ("_id=alice",                               &[]),
        ("_id=hex.435f31",                          &["C_1"]),
        ("_id=C_1",                                 &[]),
        ("_id=ALICE,BOB",                           &["ALICE", "BOB"]),
        ("active=true",                             &["ALICE", "C_1"]),
        ("active=false",                            &["BOB"]),
        ("family=mohr",                             &["ALICE", "BOB"]),
        ("family=MO",                               &["ALICE", "BOB"]),
        ("family=garcia",                           &["BOB"]),
        ("family:exact=Mohr",                       &["ALICE"]),
        ("family:exact=mohr",                       &[]),
        ("family:contains=OHR",                     &["ALICE", "BOB"]),
        ("family=mohr,betz",                        &["ALICE", "BOB", "C_1"]),
        ("family=mohr&family=garcia",               &["BOB"]),
        ("given=alice",                             &["ALICE"]),
        ("given=mary",                              &["ALICE"]),
        ("given=jose",                              &["BOB"]),
        ("given:exact=Mary",                        &["ALICE"]),
        ("name=mar",                                &["ALICE"]),
        ("name=mohr",                               &["ALICE", "BOB"]),
        ("identifier=A1",                           &["ALICE"]),
        ("identifier=urn:oid:1.3|A1",               &["ALICE"]),
        ("identifier=urn:oid:1.3|B2",               &["BOB"]),
        ("identifier=urn:oid:1.2|C_1",              &["C_1"]),
        ("identifier=urn:oid:1.3|,urn:oid:9.9|",    &["ALICE", "BOB"]),
        ("identifier=urn:oid:1.3|&identifier=urn:oid:9.9|", &["ALICE"]),
        ("identifier=|A1",                          &[]),
        ("identifier=urn:oid:1.3|A1&identifier=urn:oid:9.9|A1", &["ALICE"]),
        ("telecom=%2B1-555-867-5309",               &["ALICE"]),
        ("telecom=15558675309",                     &["ALICE"]),
        ("telecom=phone|600",                       &["BOB"]),
        ("telecom=email|600",                       &[]),
        ("birthdate=1958-01-30",                    &["ALICE"]),
        ("birthdate=1958",                          &["ALICE", "BOB"]),
        ("birthdate=ge1958-02&birthdate=le1960",    &["BOB", "C_1"]),
        ("address=berlin",                          &["ALICE"]),
        ("address=543",                             &["ALICE", "BOB"]),
        ("address-city=jose",                       &["BOB"]),
        ("address-postalcode:exact=5432",           &["BOB"]),
        ("gender=female",                           &["ALICE"]),
        ("gender=http://hl7.org/fhir/administrative-gender|male", &["BOB"]),
        ("family=mohr&gender=female",               &["ALICE"]),
        ("birthdate=1958-02&family=mohr",           &["BOB"]),
    ];
    for (query, expected) in cases {
        assert_eq!(found(query), expected, "{query}");
    }
}

#[test]
fn what_cannot_be_applied_is_400_or_ignored_and_said_so() {
    for query in [
        "gender=f",
        "active=yes",
        "birthdate=yesterday",
        "birthdate=1958-01-30T10:00:00Z",
        "identifier=a|b|c",
        "family=,",
        "telecom=|",
        "_count=-1",
        "_count=many",
        &format!("family=a{}", ",a".repeat(MAX_VALUES)),
        &"family=a&".repeat(MAX_VALUES + 1),
        "family=%CC%81",
        "given:contains=%CC%81",
        "gender=urn:x|female",
        "gender=|female",
    ] {
        assert!(matches!(search(query), Err(RequestFault::BadParameter(_))), "{query}");
    }
    for query in [
        "family:text=x",
        "gender:not=male",
        "birthdate:missing=true",
        "family:=x",
        "birthdate:exact=1958",
        "identifier:contains=A",
    ] {
        assert!(matches!(search(query), Err(RequestFault::UnknownModifier(_))), "{query}");
    }
    let request = search("address-country=ES&family=&_sort=family&family=x&a%0Ab=1").unwrap();
    assert_eq!(request.ignored, ["address-country", "family", "_sort", "a?b"]);
    assert_eq!(request.criteria.len(), 1);
    let pairs = QueryPairs::parse(b"family=x&address-country=ES").unwrap();
    let strict = SearchRequest::parse(&pairs, ParameterHandling::Strict).unwrap_err();
    assert!(matches!(&strict, RequestFault::UnknownParameter(name) if name.as_str() == "address-country"));
    assert_eq!(strict.status(), 400);
    let empty = QueryPairs::parse(b"family=").unwrap();
    assert!(matches!(SearchRequest::parse(&empty, ParameterHandling::Strict), Err(RequestFault::BadParameter(_))));
}

#[test]
fn prefer_is_strict_only_if_it_says_so() {
    use ParameterHandling::{Lenient, Strict};
    for (prefer, handling) in [
        (None, Lenient),
        (Some("handling=lenient"), Lenient),
        (Some("return=minimal, Handling=\"strict\"; x=y"), Strict),
        (Some("handling=strict"), Strict),
        (Some("strict"), Lenient),
    ] {
        assert_eq!(ParameterHandling::of(prefer), handling, "{prefer:?}");
    }
}

#[test]
fn a_page_has_a_bound_and_a_post_counts_with_its_query() {
    assert_eq!(search("").unwrap().count, DEFAULT_PAGE);
    assert_eq!(search("_count=0").unwrap().count, 0);
    assert_eq!(search("_count=4000000000").unwrap().count, MAX_PAGE);
    let request = search("_cursor=abc&_format=xml").unwrap();
    assert_eq!((request.cursor.as_deref(), request.format.as_deref()), (Some("abc"), Some("xml")));
    let pairs = QueryPairs::parse(b"family=a").unwrap().and(QueryPairs::parse(b"given=b").unwrap());
    assert_eq!(SearchRequest::parse(&pairs, ParameterHandling::Lenient).unwrap().criteria.len(), 2);
}

/// PDQm, 2:3.78.4.1.2.3.
#[test]
fn iti_78_systems_alone_say_which_identifiers_are_shown() {
    let systems = |query: &str| search(query).unwrap().systems().map(|systems| systems.into_iter().collect::<Vec<_>>());
    assert_eq!(systems("identifier=urn:a|,urn:b|&family=x"), Some(vec!["urn:a".to_owned(), "urn:b".to_owned()]));
    assert_eq!(systems("identifier=urn:a|,urn:b|1"), None);
    assert_eq!(systems("identifier=1"), None);
    assert_eq!(systems("family=x"), None);
}
