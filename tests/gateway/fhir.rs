//! The shipped example of another HIS, run as its README says: a careless FHIR service, which shows and changes
//! whatever it is asked for. No question of a patient may show or change another person's record.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fixture::{CANARY, Gateway, PATIENCE, Response, basic};
use crate::gateway::fields::send;
use crate::gateway::tls::connect_h2;
use crate::support::free_address;

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The example's service, and the gateway with its routes; ANA, a patient, has an observation and a document there.
fn fronted() -> (Service, SocketAddr, Gateway) {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/fhir");
    if !program.exists() {
        // Cargo builds examples along with the tests, but not when it is asked for this test alone.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "fhir"]);
        // With the variable of tests/timed, cargo would build everything again.
        let built = build.env_remove("RUSTC_BOOTSTRAP").status().unwrap();
        assert!(built.success());
    }
    let address = free_address();
    let service = Service(Command::new(program).arg(address.to_string()).spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "the example does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let shipped = std::fs::read_to_string(Path::new("examples/fhir/fedgate.toml")).unwrap();
    let routes = &shipped[shipped.find("[[upstream]]").unwrap()..];
    let routes = routes.replace("127.0.0.1:8090", &address.to_string());
    let policy = std::fs::read_to_string("examples/fhir/roles.cfg").unwrap();
    assert!(shipped.contains("thalamus_routes = false"));
    let gateway = Gateway::start_in(&[("FEDGATE_GATEWAY_THALAMUS_ROUTES", "false")], &routes, &policy);
    for (path, resource) in [
        ("Patient/ANA", json!({ "resourceType": "Patient" })),
        ("Observation/ana-1", observation("Patient/ANA")),
        ("Observation/nobodys", json!({ "resourceType": "Observation" })),
        ("DocumentReference/ana-d", observation("Patient/ANA")),
    ] {
        directly(address, "PUT", &format!("/fhir/{path}"), &resource.to_string());
    }
    (service, address, gateway)
}

fn observation(reference: &str) -> Value {
    json!({ "resourceType": "Observation", "status": "final", "subject": { "reference": reference }, "code": { "text": "pulse" } })
}

/// Asks the service past the gateway.
fn directly(address: SocketAddr, method: &str, target: &str, body: &str) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    Response::parse(&received, true)
}

/// Everything that the service holds.
fn held(address: SocketAddr) -> Vec<String> {
    let kinds = ["Patient", "Observation", "Encounter", "DocumentReference"];
    kinds.map(|kind| directly(address, "GET", &format!("/fhir/{kind}"), "").body).into()
}

/// Reads of a patient: the target, the status, and how many resources a search shows.
const READS: &[(&str, u16, Option<usize>)] = &[
    ("/fhir/metadata", 200, None),
    ("/fhir/Patient/ANA", 200, None),
    ("/fhir/Patient", 200, Some(1)),
    ("/fhir/Patient?_id=ANA", 200, Some(1)),
    ("/fhir/Patient?_count=9", 200, Some(1)),
    ("/fhir/Patient?_id=ESPGNU777ORG", 403, None),
    ("/fhir/Patient?_id=ANA,ESPGNU777ORG", 403, None),
    ("/fhir/Patient?_id=ANA&_id=ESPGNU777ORG", 403, None),
    ("/fhir/Patient?name=Betz", 403, None),
    ("/fhir/Patient?_has:Observation:patient:code=pulse", 403, None),
    ("/fhir/Patient?_summary=count", 403, None),
    ("/fhir/Patient/ESPGNU777ORG", 403, None),
    ("/fhir/Patient/ana", 403, None),
    ("/fhir/Patient/%41NA", 400, None),
    ("/fhir/Patient/ANA/_history", 404, None),
    ("/fhir/Patient/$everything", 404, None),
    ("/fhir/Patient/_search", 404, None),
    ("/fhir/Patient/ANA/$everything", 404, None),
    ("/fhir", 404, None),
    ("/fhir/$graphql", 404, None),
    ("/fhir/Group", 404, None),
    ("/fhir/Observation", 200, Some(1)),
    ("/fhir/Observation?", 200, Some(1)),
    ("/fhir/Observation?code=pulse", 200, Some(1)),
    ("/fhir/Observation?code=weight", 200, Some(0)),
    ("/fhir/Observation?patient=ANA", 200, Some(1)),
    ("/fhir/Observation?patient=Patient/ANA", 200, Some(1)),
    ("/fhir/Observation?patient=Patient%2FANA&_count=3", 200, Some(1)),
    ("/fhir/Observation?subject=Patient/ANA", 200, Some(1)),
    ("/fhir/Observation?patient=ANA&subject=Patient/ANA", 200, Some(1)),
    ("/fhir/Observation?patient=ESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient=Patient/ESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient=ANA&subject=ESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient=ANA&patient=ESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient=ANA,ESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient=ANA%2CESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient=", 403, None),
    ("/fhir/Observation?patient", 403, None),
    ("/fhir/Observation?patient=http://127.0.0.1/fhir/Patient/ANA", 403, None),
    ("/fhir/Observation?p%61tient=ESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient=ANA&p%61tient=ESPGNU777ORG", 403, None),
    ("/fhir/Observation?Patient=ESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient:Patient=ESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient.name=Betz", 403, None),
    ("/fhir/Observation?subject.identifier=x", 403, None),
    ("/fhir/Observation?patient=ANA&_include=Observation:patient", 403, None),
    ("/fhir/Observation?patient=ANA&_revinclude=Provenance:target", 403, None),
    ("/fhir/Observation?patient=ANA&_has:Group:member:_id=1", 403, None),
    ("/fhir/Observation?patient=ANA&_filter=x", 403, None),
    ("/fhir/Observation?patient=ANA&_summary=count", 403, None),
    ("/fhir/Observation?patient=ANA&_elements=code", 403, None),
    ("/fhir/Observation?patient=ANA&_format=xml", 403, None),
    ("/fhir/Observation?patient=ANA&code:in=x", 403, None),
    ("/fhir/Observation?patient=ANA;patient=ESPGNU777ORG", 403, None),
    ("/fhir/Observation?patient=ANA&%5Fcount=1", 403, None),
    ("/fhir/Observation?patient=ANA%00", 403, None),
    ("/fhir/Observation?patient=%41NA", 200, Some(1)),
    ("/fhir/Observation?patient=+ANA", 403, None),
    ("/fhir/Observation?patient=%zz", 403, None),
    ("/fhir/Observation/ana-1", 200, None),
    ("/fhir/Observation/ana-1?_summary=text", 403, None),
    ("/fhir/Observation/espgnu777org-1", 404, None),
    ("/fhir/Observation/nobodys", 404, None),
    ("/fhir/Observation/none", 404, None),
    ("/fhir/Observation/ana-1/_history/1", 404, None),
    ("/fhir/Encounter", 200, Some(0)),
    ("/fhir/Encounter?patient=ANA", 200, Some(0)),
    ("/fhir/Encounter?patient=ITAPYT999HON", 403, None),
    ("/fhir/Encounter/itapyt999hon-1", 404, None),
    ("/fhir/DocumentReference", 200, Some(1)),
    ("/fhir/DocumentReference?subject=Patient/ANA&type=x", 200, Some(1)),
    ("/fhir/DocumentReference?subject=Patient/ITAPYT999HON", 403, None),
    ("/fhir/DocumentReference/ana-d", 200, None),
    ("/fhir/DocumentReference/itapyt999hon-2", 404, None),
];

/// Nothing of another person.
fn shows_nobody_else(answer: &str) -> bool {
    let answer = answer.to_lowercase();
    !["espgnu777org", "itapyt999hon", "betz", "cordara", "nobodys"].iter().any(|of_others| answer.contains(of_others))
}

#[test]
fn a_patient_reads_her_own_record_and_no_question_shows_another() {
    let (_service, address, gateway) = fronted();
    let before = held(address);
    for (target, status, shown) in READS {
        let answer = gateway.get(target, "ANA");
        assert_eq!(answer.status, *status, "{target}: {}", answer.body);
        assert!(shows_nobody_else(&answer.body), "{target}: {}", answer.body);
        if let Some(shown) = shown {
            let entries = answer.json()["entry"].as_array().map_or(0, Vec::len);
            assert_eq!(entries, *shown, "{target}: {}", answer.body);
        }
        let head = gateway.request("HEAD", target, "ANA", "");
        assert_eq!((head.status, head.body.as_str()), (*status, ""), "HEAD {target}");
        // Nobody learns nothing, and a professional whatever the service says.
        let anonymous = gateway.get(target, "").status;
        let is_public = *target == "/fhir/metadata";
        assert_eq!(
            anonymous,
            if is_public {
                200
            } else if *status == 400 {
                400
            } else {
                401
            },
            "{target}"
        );
        let professional = gateway.get(target, "DOC").status;
        let directly = directly(address, "GET", target, "").status;
        let expected = if *status == 400 || gateway_has_none(target) { *status } else { directly };
        assert_eq!(professional, expected, "{target}");
    }
    assert_eq!(held(address), before);
}

/// Whether no route has a path.
fn gateway_has_none(target: &str) -> bool {
    ["_history", "$", "_search", "/fhir/Group"].iter().any(|part| target.contains(part)) || target == "/fhir"
}

#[test]
fn a_patient_writes_her_own_record_alone() {
    let (_service, address, gateway) = fronted();
    let before = held(address);
    let own = observation("Patient/ANA").to_string();
    let others = observation("Patient/ESPGNU777ORG").to_string();
    let json_type = "Content-Type: application/fhir+json\r\n";
    for (method, target, body, status) in [
        ("POST", "/fhir/Observation", others.as_str(), 403),
        ("POST", "/fhir/Observation", "{}", 403),
        ("POST", "/fhir/Observation", "", 403),
        ("POST", "/fhir/Observation", "[]", 403),
        ("POST", "/fhir/Observation", "7", 422),
        ("POST", "/fhir/Observation", "{", 400),
        (
            "POST",
            "/fhir/Observation",
            r#"{"subject":{"reference":"Patient/ANA"},"subject":{"reference":"Patient/BOB"}}"#,
            403,
        ),
        (
            "POST",
            "/fhir/Observation",
            r#"{"subject":{"reference":"Patient/ANA"},"Subject":{"reference":"Patient/BOB"}}"#,
            403,
        ),
        ("POST", "/fhir/Observation", r#"{"subject":{"reference":"Patient/ANA","reference":"Patient/BOB"}}"#, 403),
        ("POST", "/fhir/Observation", r#"{"subject":{"reference":"ANA"}}"#, 403),
        ("POST", "/fhir/Observation", r#"{"subject":{"identifier":{"value":"ANA"}}}"#, 403),
        ("POST", "/fhir/Observation", r#"{"subject":[{"reference":"Patient/ANA"}]}"#, 403),
        (
            "POST",
            "/fhir/Observation",
            r#"[{"subject":{"reference":"Patient/ANA"}},{"subject":{"reference":"Patient/BOB"}}]"#,
            403,
        ),
        ("POST", "/fhir/Observation?patient=ANA", own.as_str(), 403),
        ("POST", "/fhir/Observation", r#"{"id":"espgnu777org-1","subject":{"reference":"Patient/ANA"}}"#, 403),
        ("POST", "/fhir/Observation", r#"{"subject":{"reference":"Patient/ANA"},"I\u0064":"espgnu777org-1"}"#, 403),
        ("PUT", "/fhir/Observation", own.as_str(), 405),
        ("PATCH", "/fhir/Observation/ana-1", own.as_str(), 405),
        ("POST", "/fhir/Patient/$merge", own.as_str(), 404),
        ("POST", "/fhir/Observation/_search", "patient=ESPGNU777ORG", 404),
        ("POST", "/fhir", own.as_str(), 404),
        // The stored one is another's, the new one hers; and the other way about.
        ("PUT", "/fhir/Observation/espgnu777org-1", own.as_str(), 404),
        ("PUT", "/fhir/Observation/ana-1", others.as_str(), 403),
        ("PUT", "/fhir/Observation/ana-1", "{}", 403),
        ("PUT", "/fhir/Observation/nobodys", own.as_str(), 404),
        ("PUT", "/fhir/Observation/none", own.as_str(), 404),
        ("PUT", "/fhir/Observation/ana-1?upsert=1", own.as_str(), 403),
        ("DELETE", "/fhir/Observation/espgnu777org-1", "", 404),
        ("DELETE", "/fhir/Observation/nobodys", "", 404),
        ("PUT", "/fhir/Patient/ANA", "{}", 403),
    ] {
        let answer = send(&gateway, method, target, "ANA", json_type, body.as_bytes());
        assert_eq!(answer.status, status, "{method} {target} {body}: {}", answer.body);
        assert!(shows_nobody_else(&answer.body), "{method} {target}: {}", answer.body);
        assert_eq!(held(address), before, "{method} {target} {body}");
    }
    for (headers, status) in [
        ("Content-Type: application/json-patch+json\r\n", 415),
        ("Content-Type: application/fhir+xml\r\n", 415),
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", 415),
        ("Content-Type: application/json\r\nIf-None-Exist: patient=ESPGNU777ORG\r\n", 403),
    ] {
        let answer = send(&gateway, "POST", "/fhir/Observation", "ANA", headers, own.as_bytes());
        assert_eq!(answer.status, status, "{headers}: {}", answer.body);
        assert_eq!(held(address), before, "{headers}");
    }
    // Hers pass: a new one, a change, and the end of it.
    let made = send(&gateway, "POST", "/fhir/Observation", "ANA", json_type, own.as_bytes());
    assert_eq!(made.status, 201, "{}", made.body);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let target = format!("/fhir/Observation/{id}");
    assert_eq!(send(&gateway, "PUT", &target, "ANA", json_type, own.as_bytes()).status, 200);
    assert_eq!(gateway.get(&target, "ANA").status, 200);
    assert_eq!(send(&gateway, "DELETE", &target, "ANA", "", b"").status, 204);
    assert_eq!(held(address), before);
    // A professional writes for anybody.
    assert_eq!(send(&gateway, "POST", "/fhir/Observation", "DOC", json_type, others.as_bytes()).status, 201);
}

/// The link to the next page, as a target of the gateway.
fn next(answer: &Response) -> Option<String> {
    let answer = answer.json();
    let url = answer["link"].as_array()?.iter().find(|link| link["relation"] == "next")?["url"].as_str()?.to_owned();
    Some(url.strip_prefix("http://hospital.example").expect("a link to the gateway").to_owned())
}

#[test]
fn links_to_further_pages_lead_back_to_the_gateway_and_serve_their_caller_alone() {
    let (_service, address, gateway) = fronted();
    for number in 2..=5 {
        let target = format!("/fhir/Observation/ana-{number}");
        directly(address, "PUT", &target, &observation("Patient/ANA").to_string());
    }
    let first = gateway.get("/fhir/Observation?_count=2", "ANA");
    assert!(!first.body.contains(&address.to_string()), "{}", first.body);
    assert!(first.header("etag").is_none() && !first.body.contains("total"), "{}", first.body);
    let (mut shown, mut at) = (Vec::new(), Some("/fhir/Observation?_count=2".to_owned()));
    while let Some(target) = at {
        let answer = gateway.get(&target, "ANA");
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        assert_eq!(gateway.request("HEAD", &target, "ANA", "").status, 200, "{target}");
        let entries = answer.json()["entry"].as_array().unwrap().clone();
        shown.extend(entries.iter().map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned()));
        at = next(&answer);
    }
    assert_eq!(shown, ["ana-1", "ana-2", "ana-3", "ana-4", "ana-5"]);

    let signed = next(&first).unwrap();
    assert!(signed.starts_with("/fhir/Observation?fedgate_page="), "{signed}");
    let middle = signed.len() / 2;
    let other = if &signed[middle..=middle] == "A" { "B" } else { "A" };
    let altered = format!("{}{other}{}", &signed[..middle], &signed[middle + 1..]);
    // The example's service puts the question into the link, so the professional's needs no signature.
    let professionals = next(&gateway.get("/fhir/Observation?_count=2", "DOC")).unwrap();
    assert_eq!(professionals, "/fhir/Observation?_count=2&_offset=2");
    for (target, account, status, code) in [
        (signed.as_str(), "DOC", 403, "page_link_invalid"),
        (&altered, "ANA", 403, "page_link_invalid"),
        (&signed[..signed.len() - 4], "ANA", 403, "page_link_invalid"),
        ("/fhir/Observation?fedgate_page=", "ANA", 403, "page_link_invalid"),
        ("/fhir/Observation?fedgate_page=", "DOC", 403, "page_link_invalid"),
        (&signed.replace("Observation", "Encounter"), "ANA", 403, "page_link_invalid"),
        (&signed.replace("Observation", "Observation/ana-1"), "ANA", 403, "not_permitted"),
        (&format!("{signed}&_count=1"), "ANA", 403, "not_permitted"),
        (&signed.replace("fedgate", "%66edgate"), "ANA", 403, "not_permitted"),
        (&professionals, "ANA", 403, "not_permitted"),
    ] {
        let answer = gateway.get(target, account);
        assert_eq!(answer.status, status, "{account} {target}: {}", answer.body);
        assert_eq!(answer.json()["code"], code, "{account} {target}: {}", answer.body);
    }
    assert_eq!(gateway.get(&signed, "").status, 401);
    // What the page shows is judged like the first one: a resource that has become another's is gone from it.
    directly(address, "PUT", "/fhir/Observation/ana-3", &observation("Patient/ESPGNU777ORG").to_string());
    let answer = gateway.get(&signed, "ANA");
    assert_eq!(answer.status, 200);
    assert!(shows_nobody_else(&answer.body), "{}", answer.body);
}

#[test]
fn many_requests_in_one_reach_no_service() {
    let (_service, address, gateway) = fronted();
    let before = held(address);
    for kind in ["batch", "transaction"] {
        let request = json!({ "method": "DELETE", "url": "Observation/espgnu777org-1" });
        let bundle = json!({ "resourceType": "Bundle", "type": kind, "entry": [{ "request": request }] }).to_string();
        for (target, account, status) in [
            ("/fhir", "ANA", 404),
            ("/fhir?_format=json", "ANA", 404),
            ("/fhir/", "ANA", 400),
            ("/fhir", "DOC", 404),
            ("/fhir/Bundle", "DOC", 404),
            ("/fhir/Observation", "ANA", 403),
        ] {
            let answer =
                send(&gateway, "POST", target, account, "Content-Type: application/fhir+json\r\n", bundle.as_bytes());
            assert_eq!(answer.status, status, "{kind} {account} {target}: {}", answer.body);
            assert_eq!(held(address), before, "{kind} {account} {target}");
        }
    }
}

#[test]
fn records_name_the_person_that_was_found() {
    let (_service, _, gateway) = fronted();
    let own = observation("Patient/ANA").to_string();
    let json_type = "Content-Type: application/json\r\n";
    let question = |method: &str, target: &str, body: &str| {
        send(&gateway, method, target, "ANA", json_type, body.as_bytes());
        let record = gateway.record();
        let word = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", word("decision"), word("reason"), word("subject.id"))
    };
    for (method, target, body, expected) in [
        ("GET", "/fhir/Observation", "", "allow own ANA"),
        ("GET", "/fhir/Observation?patient=BOB", "", "deny not_own BOB"),
        ("GET", "/fhir/Observation?patient=ANA&_has:x=1", "", "deny not_bound -"),
        ("GET", "/fhir/Observation/ana-1", "", "allow own ANA"),
        ("GET", "/fhir/Observation/espgnu777org-1", "", "refuse other_record -"),
        ("GET", "/fhir/Observation/nobodys", "", "refuse not_bound -"),
        ("POST", "/fhir/Observation", &own, "allow own ANA"),
        ("POST", "/fhir/Observation", "{}", "deny not_bound -"),
        ("POST", "/fhir/Observation", r#"{"subject":{"reference":"Patient/BOB"}}"#, "deny not_own BOB"),
    ] {
        assert_eq!(question(method, target, body), expected, "{method} {target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_the_same_is_found() {
    let (_service, _, gateway) = tokio::task::spawn_blocking(fronted).await.unwrap();
    let mut sender = connect_h2(&gateway).await;
    for (target, status, _) in READS.iter().filter(|(target, ..)| !target.contains('\0')) {
        let request = http::Request::get(format!("https://localhost{target}"))
            .header("authorization", basic("ANA", CANARY))
            .body(())
            .unwrap();
        sender = sender.ready().await.unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status().as_u16(), *status, "{target}");
        let mut body = answer.into_body();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            let _ = body.flow_control().release_capacity(data.len());
            text.extend_from_slice(&data);
        }
        assert!(shows_nobody_else(&String::from_utf8_lossy(&text)), "{target}");
    }
}
