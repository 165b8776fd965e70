use fedgate_index::fields::Fields;
use serde_json::{Value, json};

use super::*;
use crate::format::AnswerFormat;
use crate::patient::{FhirSettings, PersonRecord};
use crate::search::{ParameterHandling, QueryPairs};

const BASE: &str = "https://hub.example.org/fhir";

/// The Bundle of a search that finds the people of some ids.
fn answered(query: &str, ids: &[(&str, EntryMode)], total: usize, next: Option<&str>) -> Value {
    let settings: FhirSettings =
        toml::from_str("identifier_system = 'urn:oid:1.2'\nidentifier_systems = { dni = 'urn:oid:1.3' }").unwrap();
    let fields = Fields::default();
    let mapping = FhirMapping { fields: &fields, settings: &settings, base: BASE };
    let document = json!({"lastname": "Mohr", "identifiers": [{"type": "dni", "value": "A1"}]});
    let request =
        SearchRequest::parse(&QueryPairs::parse(query.as_bytes()).unwrap(), ParameterHandling::Lenient).unwrap();
    let patients =
        ids.iter().map(|(id, mode)| (mapping.patient(&PersonRecord::new(id, &document)).unwrap(), *mode)).collect();
    let page = SearchPage { patients, total, next: next.map(str::to_owned) };
    serde_json::from_str(&page.resource(&request, &mapping).write(AnswerFormat::Json)).unwrap()
}

#[test]
fn iti_78_case_1_the_bundle_has_the_total_and_an_entry_for_each() {
    let bundle = answered("family=Mohr", &[("A", EntryMode::Match), ("B", EntryMode::Include)], 7, None);
    assert_eq!((&bundle["type"], &bundle["total"]), (&json!("searchset"), &json!(7)));
    let entries = bundle["entry"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["fullUrl"], format!("{BASE}/Patient/A"));
    let modes: Vec<&str> = entries.iter().map(|entry| entry["search"]["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["match", "include"]);
    assert_eq!(entries[0]["resource"]["identifier"].as_array().unwrap().len(), 2);
}

#[test]
fn iti_78_case_2_only_identifiers_of_the_wanted_systems_are_shown() {
    let bundle = answered("identifier=urn:oid:1.3%7C", &[("A", EntryMode::Match), ("B", EntryMode::Include)], 1, None);
    let shown = |at: usize| &bundle["entry"][at]["resource"]["identifier"];
    assert_eq!(*shown(0), json!([{"system": "urn:oid:1.3", "value": "A1"}]));
    assert_eq!(shown(1).as_array().unwrap().len(), 2);
}

#[test]
fn iti_78_case_3_nobody_found_is_an_empty_bundle() {
    let bundle = answered("family=Nobody", &[], 0, None);
    assert_eq!((bundle.get("entry"), &bundle["total"]), (None, &json!(0)));
}

#[test]
fn iti_78_case_4_a_system_that_is_not_known_is_a_warning() {
    let bundle = answered("identifier=urn:oid:7%7C,urn:oid:1.3%7C", &[], 0, None);
    let issues = bundle["entry"][0]["resource"]["issue"].as_array().unwrap();
    assert_eq!(issues.len(), 1);
    assert_eq!((&issues[0]["severity"], &issues[0]["code"]), (&json!("warning"), &json!("not-found")));
    assert_eq!(issues[0]["diagnostics"], "targetSystem not found");
    assert_eq!(bundle["entry"][0]["search"]["mode"], "outcome");
}

#[test]
fn links_have_the_parameters_that_were_applied_and_no_others() {
    let query = "family%3Aexact=Mohr+Gil&address-country=ES&_format=json&_count=2&_cursor=c1";
    let bundle = answered(query, &[("A", EntryMode::Match)], 9, Some("c 2"));
    let applied = "family%3Aexact=Mohr%20Gil&_format=json&_count=2";
    assert_eq!(
        bundle["link"],
        json!([
            {"relation": "self", "url": format!("{BASE}/Patient?{applied}&_cursor=c1")},
            {"relation": "next", "url": format!("{BASE}/Patient?{applied}&_cursor=c%202")}
        ])
    );
    let issue = &bundle["entry"][1]["resource"]["issue"][0];
    assert_eq!((&issue["code"], &issue["diagnostics"]), (&json!("not-supported"), &json!("address-country")));
}
