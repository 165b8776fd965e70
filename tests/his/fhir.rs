//! FHIR: the people of the hub as Patients, for whoever may see them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Actor, His, Reply, own, professional};

const PATIENCE: Duration = Duration::from_secs(30);

const ANA: &str = r#"{"name":"Ana María","lastname":"García Zubizarreta","dob":"1985-10-04","gender":"f",
    "address":{"suburb":"Las Palmas","postcode":"35001"},"phone":"+34 928 123 456"}"#;

/// A request with a content type, and the resource that answers it.
async fn posted(his: &His, actor: &Actor, target: &str, kind: &str, body: &str) -> (Reply, Value) {
    let reply = his.request(actor, "POST", target).header("content-type", kind).body(body).send().await;
    let value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
    (reply, value)
}

async fn matched(his: &His, actor: &Actor, body: &Value) -> Value {
    let (reply, value) = posted(his, actor, "/fhir/Patient/$match", "application/fhir+json", &body.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    value
}

fn patient() -> Value {
    json!({
        "resourceType": "Patient", "name": [{"family": "García Zubizarreta", "given": ["Ana", "María"]}],
        "gender": "female", "birthDate": "1985-10-04", "address": [{"city": "Las Palmas", "postalCode": "35001"}],
    })
}

/// The ids and grades of a Bundle.
fn grades(bundle: &Value) -> Vec<(String, String)> {
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let grade = |entry: &Value| (text(&entry["resource"]["id"]), text(&entry["search"]["extension"][0]["valueCode"]));
    entries.iter().filter(|entry| entry["search"]["mode"] == "match").map(grade).collect()
}

/// Waits until a `$match` finds these, in this order.
async fn awaited(his: &His, body: &Value, expected: &[(&str, &str)]) -> Value {
    let began = Instant::now();
    loop {
        let bundle = matched(his, &professional(), body).await;
        let found = grades(&bundle);
        if found.iter().map(|(id, grade)| (id.as_str(), grade.as_str())).eq(expected.iter().copied()) {
            return bundle;
        }
        assert!(began.elapsed() < PATIENCE, "{expected:?}: {bundle}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

crate::on_both_stores! {
    async fn a_patient_is_matched_read_and_nobody_beyond_reach_is_there(his) {
        his.person("ANA", ANA).await;
        his.person("ANA%202", ANA).await;
        let bundle = awaited(&his, &patient(), &[("ANA", "certain"), ("hex.414e412032", "certain")]).await;
        assert_eq!(bundle["total"], 2);
        let full = bundle["entry"][0]["fullUrl"].as_str().unwrap();
        assert!(full.ends_with("/fhir/Patient/ANA"), "{full}");
        // An own id that is stated tells one from the other.
        let mut stated = patient();
        stated["identifier"] = json!([{"system": "urn:ietf:rfc:3986", "value": full}]);
        let bundle = matched(&his, &professional(), &stated).await;
        assert_eq!(grades(&bundle)[0], ("ANA".to_owned(), "certain".to_owned()), "{bundle}");
        assert_ne!(grades(&bundle).get(1).map_or("", |(_, grade)| grade), "certain", "{bundle}");
        // Scope `own`: the others are not there.
        assert_eq!(grades(&matched(&his, &own("ANA"), &stated).await).len(), 1);
        assert_eq!(grades(&matched(&his, &own("EVE"), &stated).await).len(), 0);
        let reply = his.get(&own("ANA 2"), "/fhir/Patient/hex.414e412032").await;
        assert_eq!((reply.status, reply.json()["name"][0]["family"].as_str()), (200, Some("García Zubizarreta")));
        for (actor, id) in [(own("ANA"), "hex.414e412032"), (own("ANA"), "NOBODY"), (professional(), "NOBODY"), (professional(), "hex.41")] {
            let reply = his.get(&actor, &format!("/fhir/Patient/{id}")).await;
            assert_eq!((reply.status, reply.json()["resourceType"].as_str()), (404, Some("OperationOutcome")), "{id}");
            assert_eq!(reply.json()["issue"][0]["code"], "not-found");
        }
    }

    async fn every_answer_is_a_resource_in_the_form_that_is_asked_for(his) {
        his.person("ANA", ANA).await;
        let xml = his.request(&professional(), "GET", "/fhir/Patient/ANA").header("accept", "application/fhir+xml").send().await;
        assert_eq!(xml.header("content-type").unwrap(), "application/fhir+xml; charset=utf-8");
        assert!(xml.text().starts_with("<?xml") || xml.text().starts_with("<Patient"), "{}", xml.text());
        assert_eq!(his.get(&professional(), "/fhir/Patient/ANA?_format=xml").await.text(), xml.text());
        assert_eq!(his.get(&professional(), "/fhir/Patient/ANA?_format=turtle").await.status, 406);
        let metadata = his.get(&professional(), "/fhir/metadata").await;
        assert_eq!((metadata.status, metadata.json()["resourceType"].as_str()), (200, Some("CapabilityStatement")));
        for (kind, body, status, code) in [
            ("text/plain", "{}", 415, "not-supported"),
            ("application/fhir+json", "{", 400, "structure"),
            ("application/fhir+json", r#"{"resourceType":"Observation"}"#, 400, "structure"),
            ("application/fhir+json", r#"{"resourceType":"Patient","gender":"f"}"#, 400, "code-invalid"),
        ] {
            let (reply, value) = posted(&his, &professional(), "/fhir/Patient/$match", kind, body).await;
            assert_eq!((reply.status, value["issue"][0]["code"].as_str()), (status, Some(code)), "{body} {value}");
        }
        let large = format!(r#"{{"resourceType":"Patient","x":"{}"}}"#, "x".repeat(300 * 1024));
        let (reply, value) = posted(&his, &professional(), "/fhir/Patient/$match", "application/fhir+json", &large).await;
        assert_eq!((reply.status, value["issue"][0]["code"].as_str()), (413, Some("too-long")));
        let reply = his.request(&professional(), "DELETE", "/fhir/Patient/ANA").send().await;
        assert_eq!((reply.status, reply.json()["resourceType"].as_str()), (405, Some("OperationOutcome")));
    }

    async fn people_are_searched_by_each_parameter_and_paged(his) {
        for n in 0..5 {
            his.person(Box::leak(format!("P{n}").into_boxed_str()), &format!(r#"{{"name":"Eva","lastname":"O'Neil","dob":"1990-01-0{}","gender":"f"}}"#, n + 1)).await;
        }
        his.person("ANA", &ANA.replacen('{', r#"{"identifiers":[{"system":"urn:oid:1.3","value":"12345678Z"}],"#, 1)).await;
        awaited(&his, &patient(), &[("ANA", "certain")]).await;
        // Whoever was stored before the index knew how keys are made is found later.
        his.indexed().await;
        let found = async |query: &str| {
            let reply = his.get(&professional(), &format!("/fhir/Patient?{query}")).await;
            assert_eq!(reply.status, 200, "{query} {}", reply.text());
            let bundle = reply.json();
            let ids: Vec<String> = grades(&bundle).into_iter().map(|(id, _)| id).collect();
            (ids.join(" "), bundle)
        };
        for (query, expected) in [
            ("family=zubi", "ANA"), ("family=Garc%C3%ADa%20Zub", "ANA"), ("name=mar", "ANA"), ("given=ana&birthdate=1985", "ANA"),
            ("birthdate=1985-10-04", "ANA"), ("birthdate=ge1990-01-03", "P2 P3 P4"), ("identifier=12345678Z", "ANA"),
            ("identifier=urn%3Aoid%3A1.3%7C12345678Z", "ANA"), ("identifier=urn%3Aoid%3A1.4%7C12345678Z", ""),
            ("telecom=%2B34928123456", "ANA"), ("address-city=palmas", "ANA"), ("_id=ANA,P3,NOBODY", "ANA P3"),
            ("family=neil&birthdate=1990-01-02", "P1"), ("family=o'neil&_count=200", "P0 P1 P2 P3 P4"), ("family=nobody", ""),
            ("family:contains=bizar", "ANA"), ("family:exact=Garc%C3%ADa%20Zubizarreta", "ANA"), ("gender=female&given=ana", "ANA"),
            ("identifier=http%3A%2F%2F127.0.0.1%2FANA", ""), ("active=true&name=zubizarreta", "ANA"), ("", "ANA P0 P1 P2 P3 P4"),
        ] {
            assert_eq!(found(query).await.0, expected, "{query}");
        }
        let by_form = his.request(&professional(), "POST", "/fhir/Patient/_search")
            .header("content-type", "application/x-www-form-urlencoded").body("family=zubi&_format=json").send().await;
        assert_eq!((by_form.status, grades(&by_form.json()).len()), (200, 1), "{}", by_form.text());
        for (query, pages) in [("_count=2", 3), ("family=neil&_count=2", 3), ("given=eva&family:contains=nei&_count=2", 3), ("gender=female&_count=4", 2)] {
            let (mut query, mut seen, mut count) = (query.to_owned(), vec![], 0);
            loop {
                let (_, bundle) = found(&query).await;
                seen.extend(grades(&bundle).into_iter().map(|(id, _)| id));
                count += 1;
                let links = bundle["link"].as_array().unwrap();
                let Some(next) = links.iter().find(|link| link["relation"] == "next") else { break };
                query = next["url"].as_str().unwrap().split_once('?').unwrap().1.to_owned();
                assert!(count < 5, "{query}");
            }
            let expected: &[&str] = if query.contains("eva") || query.contains("family") { &["P0", "P1", "P2", "P3", "P4"] } else { &["ANA", "P0", "P1", "P2", "P3", "P4"] };
            assert_eq!((seen.iter().map(String::as_str).collect::<Vec<_>>(), count), (expected.to_vec(), pages), "{query}");
        }
        let own_bundle = his.get(&own("P1"), "/fhir/Patient?family=neil").await.json();
        assert_eq!((grades(&own_bundle).len(), &own_bundle["total"]), (1, &json!(1)));
        assert_eq!(his.get(&own("P1"), "/fhir/Patient?_id=P2").await.json()["total"], 0);
        assert_eq!(his.get(&professional(), "/fhir/Patient?birthdate=soon").await.json()["issue"][0]["code"], "value");
    }

    async fn an_old_record_names_its_survivor_and_is_no_match(his) {
        his.person("ANA", ANA).await;
        his.person("OLD", ANA).await;
        awaited(&his, &patient(), &[("ANA", "certain"), ("OLD", "certain")]).await;
        his.sql("INSERT INTO fedgate_same_persons (id, person) VALUES ('ANA', 'ANA'), ('OLD', 'ANA')").await;
        let bundle = matched(&his, &professional(), &patient()).await;
        assert_eq!(grades(&bundle), [("ANA".to_owned(), "certain".to_owned())]);
        assert_eq!(bundle["entry"][0]["resource"]["link"][0]["type"], "replaces");
        let old = his.get(&professional(), "/fhir/Patient/OLD").await.json();
        assert_eq!((&old["active"], &old["link"][0]["type"]), (&json!(false), &json!("replaced-by")));
        assert!(old["link"][0]["other"]["reference"].as_str().unwrap().ends_with("/fhir/Patient/ANA"));
        let found = his.get(&professional(), "/fhir/Patient?family=zubizarreta").await.json();
        assert_eq!(grades(&found).len(), 1);
        let by_id = his.get(&professional(), "/fhir/Patient?_id=OLD").await.json();
        assert_eq!(by_id["entry"][0]["resource"]["active"], false);
    }

    async fn a_match_that_could_not_compare_all_says_so(his) {
        let rows: Vec<String> = (0..310).map(|n| format!("('P{n:03}', '{ANA}')")).collect();
        his.sql(&format!("INSERT INTO people (id, data) VALUES {}", rows.join(","))).await;
        let began = Instant::now();
        loop {
            let bundle = matched(&his, &professional(), &patient()).await;
            let last = bundle["entry"].as_array().and_then(|entries| entries.last().cloned()).unwrap_or_default();
            if last["resource"]["issue"][0]["code"] == "too-costly" {
                assert_eq!((grades(&bundle).len(), &last["search"]["mode"]), (20, &json!("outcome")));
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{bundle}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn without_the_switch_nothing_is_served(his) {
        let off = his.with(|config| config.fhir.enabled = false).await;
        for path in ["/fhir/metadata", "/fhir/Patient/ANA"] {
            let reply = off.get(&professional(), path).await;
            assert_eq!((reply.status, reply.json()["code"].as_str()), (404, Some("not_found")), "{path}");
        }
    }
}
