//! The field guard in front of a stand-in that behaves like Thalamus, with the shipped example.

use std::time::Instant;

use serde_json::{Value, json};

use crate::fixture::{CANARY, Gateway, Place, Response, Setup, basic};
use crate::gateway::thalamus::{HASH, Thalamus};

/// A gateway with the example's upstream, which is the stand-in.
pub(crate) fn guarded() -> (Gateway, Thalamus) {
    let shipped = std::fs::read_to_string("examples/thalamus/fedgate.toml").unwrap();
    assert!(shipped.contains("thalamus_field_guard = true") && shipped.contains("upgrade_hashes = false"));
    start(
        &shipped[shipped.find("[[upstream]]").unwrap()..],
        "127.0.0.1:8080",
        ("FEDGATE_GATEWAY_THALAMUS_FIELD_GUARD", "true"),
    )
}

pub(crate) fn start(upstream: &str, address: &str, environment: (&str, &str)) -> (Gateway, Thalamus) {
    let thalamus = Thalamus::start();
    let place = Place::prepare(&Setup::default());
    let file = place.dir.join("fedgate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = &text[..text.find("[[upstream]]").unwrap()];
    assert!(upstream.contains(address));
    std::fs::write(&file, format!("{text}{}", upstream.replace(address, &thalamus.address.to_string()))).unwrap();
    (Gateway::start_at(place, &[environment, ("FEDGATE_GATEWAY_MAX_BODY_BYTES", "1048576")]), thalamus)
}

pub(crate) fn send(
    gateway: &Gateway,
    method: &str,
    target: &str,
    account: &str,
    headers: &str,
    body: &[u8],
) -> Response {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        basic(account, CANARY),
        body.len()
    );
    gateway.send(&[head.as_bytes(), body].concat())
}

pub(crate) fn chunked(gateway: &Gateway, method: &str, target: &str, account: &str, chunks: &[&[u8]]) -> Response {
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        basic(account, CANARY)
    )
    .into_bytes();
    for chunk in chunks.iter().copied().chain([&b""[..]]) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    gateway.send(&request)
}

/// The body of an answer in chunks.
fn unchunked(answer: &Response) -> String {
    assert!(answer.complete && answer.header("content-length").is_none(), "{answer:?}");
    let (mut rest, mut body) = (answer.body.as_str(), String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    body
}

pub(crate) fn code(answer: &Response) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn the_shipped_example_is_a_configuration() {
    let place = Place::prepare(&Setup::default());
    let shipped = std::fs::read_to_string("examples/thalamus/fedgate.toml").unwrap();
    let file = place.dir.join("example.toml");
    std::fs::write(&file, shipped.replace("/etc/fedgate/assertion.secret", "secret")).unwrap();
    let config = fedgate_base::config::Config::load_with(&file, std::iter::empty()).unwrap();
    let upstream = config.upstreams.first().unwrap();
    assert!(config.gateway.thalamus_field_guard && config.gateway.thalamus_routes);
    assert!(
        upstream.forward_authorization && !upstream.assertion && config.authentication.hashes.upgraded == Some(false)
    );
    std::fs::remove_dir_all(&place.dir).unwrap();
}

/// Forbidden to callers without `account`: under POST and PATCH, in any spelling.
#[rustfmt::skip]
const ASSIGNMENTS: &[&str] = &[
    r#"{"roles":["root"]}"#, r#"{"name":"x","active":false}"#, r#"{"password":"$2b$31$x"}"#, r#"{"id":"EVE"}"#,
    r#"{"ro\u006ces":["root"]}"#, r#"{"\u0072\u006f\u006c\u0065\u0073":["root"]}"#, r#"{"Roles":["root"]}"#,
    r#"{"name":"a","name":"b","roles":[],"roles":["root"]}"#, r#"{"id":"ANA","id":"EVE"}"#,
    r#"{"a":{"b":[1,2,{"c":"d"}]},"p\u0061ssword":7}"#,
];

#[test]
fn mass_assignment_without_the_permission_is_refused_whole() {
    let (gateway, thalamus) = guarded();
    let before = thalamus.state().people.clone();
    for (method, target, account) in
        [("PATCH", "/people/ANA", "ANA"), ("PATCH", "/people/BOB", "DOC"), ("POST", "/people/NEW", "DOC")]
    {
        for body in ASSIGNMENTS {
            // Not even the caller's own id, which the path has, covers for another member.
            let answer = send(&gateway, method, target, account, "", body.as_bytes());
            assert_eq!(code(&answer), (403, "member_not_permitted".into()), "{method} {target} {body}");
            let record = gateway.record();
            assert_eq!(
                (&record["decision"], &record["reason"], &record["status"]),
                (&json!("deny"), &json!("member_not_permitted"), &json!(403))
            );
            // No caller may write a password by PATCH.
            let is_for_nobody = method == "PATCH" && body.contains("ssword");
            assert_eq!(record["lacks"], if is_for_nobody { Value::Null } else { json!("account") }, "{method} {body}");
            assert_eq!((&record["account"], &record["endpoint"]), (&json!(account), &json!("person")));
            let parts: Vec<_> = body.as_bytes().chunks(1).collect();
            assert_eq!(chunked(&gateway, method, target, account, &parts).status, 403, "{body}");
            gateway.record();
        }
    }
    assert_eq!(thalamus.state().people, before, "nothing was written");
    assert_eq!(thalamus.state().connections, 0, "nothing was even asked");
    let metrics = gateway.admin_get("/metrics").body;
    assert!(metrics.contains(&format!("\nfedgate_members_refused_total {}\n", 6 * ASSIGNMENTS.len())), "{metrics}");
}

#[test]
fn a_body_with_no_or_two_readings_is_refused_before_it_is_forwarded() {
    let (gateway, thalamus) = guarded();
    let utf16: Vec<u8> = r#"{"roles":["root"]}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    #[rustfmt::skip]
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("", "[".repeat(10_000).into_bytes(), 422, "not_an_object"),
        ("", format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes(), 400, "json_too_deep"),
        ("", format!("{{\"a\":{}}}", "9".repeat(1_000_000)).into_bytes(), 422, "json_number_too_long"),
        ("", br#"{"a":[1e1000]}"#.to_vec(), 422, "json_number_too_long"),
        ("", br#"{"a":"\ud800"}"#.to_vec(), 400, "json_not_text"),
        ("", br#"{"roles\u0000":["root"]}"#.to_vec(), 400, "json_not_text"),
        ("", b"\xef\xbb\xbf{\"roles\":[\"root\"]}".to_vec(), 400, "not_utf8"),
        ("", b"{\"a\":\"\xff\"}".to_vec(), 400, "not_utf8"),
        ("", utf16.clone(), 400, "malformed_json"),
        ("Content-Type: application/json; charset=utf-16\r\n", utf16, 415, "unsupported_media_type"),
        ("Content-Type: application/json; charset=utf-7\r\n", br#"{"+AHI-oles":1}"#.to_vec(), 415, "unsupported_media_type"),
        ("", b"{}{\"roles\":[\"root\"]}".to_vec(), 400, "malformed_json"),
        ("", b"{\"a\":1".to_vec(), 400, "malformed_json"),
        ("", b"{\"a\":NaN}".to_vec(), 400, "malformed_json"),
        ("", b"\"roles=root\"".to_vec(), 422, "not_an_object"),
        ("Content-Type: application/x-www-form-urlencoded\r\n", b"roles=root".to_vec(), 415, "unsupported_media_type"),
        ("Content-Type: multipart/form-data; boundary=x\r\n", b"{}".to_vec(), 415, "unsupported_media_type"),
        ("Content-Encoding: gzip\r\n", b"\x1f\x8b".to_vec(), 415, "unsupported_media_type"),
    ];
    for (headers, body, status, expected) in cases {
        // Also for callers who may write accounts: a guarded route accepts only JSON.
        for account in ["ANA", "ADM"] {
            let answer = send(&gateway, "PATCH", "/people/ANA", account, headers, &body);
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            assert_eq!(code(&answer), (status, expected.to_owned()), "{headers}{shown}");
        }
    }
    assert_eq!(thalamus.state().connections, 0);
}

#[test]
fn writes_of_the_federations_clients_and_of_permitted_callers_pass() {
    let (gateway, thalamus) = guarded();
    // No Content-Type, JSON in ASCII, the own id in it, and deeper members with guarded names.
    let person = br#"{"name":"Ann\u00e9","lastname":"B","id":"NEW1","creation_info":{"user":"x","id":7,"roles":[]}}"#;
    assert_eq!(send(&gateway, "POST", "/people/NEW1", "DOC", "", person).status, 200);
    assert_eq!(thalamus.person("NEW1").unwrap()["roles"], json!(["end_user"]));
    assert_eq!(thalamus.person("NEW1").unwrap()["name"], "Anné");
    let patch = br#" {"lastname" : "C", "modification_info":{"id":1}} "#;
    assert_eq!(send(&gateway, "PATCH", "/people/ANA", "ANA", "Content-Type: application/json\r\n", patch).status, 200);
    assert_eq!(thalamus.person("ANA").unwrap()["lastname"], "C");
    // Thalamus has its own answer for this one.
    assert_eq!(send(&gateway, "PATCH", "/people/ANA", "ANA", "", br#"{"id":"ANA"}"#).status, 422);
    let chunks: &[&[u8]] = &[b"{\"town", b"\":\"Gran Canaria\"", b"}"];
    assert_eq!(chunked(&gateway, "PATCH", "/people/ANA", "ANA", chunks).status, 200);
    assert_eq!(thalamus.person("ANA").unwrap()["town"], "Gran Canaria");
    assert_eq!(send(&gateway, "PATCH", "/people/BOB", "ADM", "", br#"{"roles":["root"],"active":false}"#).status, 200);
    assert_eq!(thalamus.person("BOB").unwrap()["roles"], json!(["root"]));
    let account = br#"{"roles":["root"],"password":"gnusolidario"}"#;
    assert_eq!(send(&gateway, "POST", "/people/NEW2", "ADM", "", account).status, 200);
    // By PATCH it would be stored in clear text.
    assert_eq!(send(&gateway, "PATCH", "/people/BOB", "ADM", "", br#"{"password":"x"}"#).status, 403);
    assert_eq!(thalamus.person("BOB").unwrap()["password"], HASH);
    // Without a body nothing can be assigned.
    assert_eq!(send(&gateway, "PATCH", "/people/ANA", "ANA", "", b"").status, 500);
    let continued = send(&gateway, "PATCH", "/people/ANA", "ANA", "Expect: 100-continue\r\n", br#"{"a":1}"#);
    assert_eq!((continued.status, thalamus.person("ANA").unwrap()["a"].clone()), (100, json!(1)), "then 200");
}

#[test]
fn a_body_that_is_no_object_reaches_no_person_and_no_page() {
    let (gateway, thalamus) = guarded();
    let before = thalamus.state().people.clone();
    for (method, target) in
        [("PATCH", "/people/ANA"), ("POST", "/people/NEW"), ("PATCH", "/pols/ANA/p1"), ("POST", "/pols/ANA/p1")]
    {
        for account in ["ANA", "ADM"] {
            if (method, account) == ("POST", "ANA") && target.starts_with("/people") {
                continue;
            }
            for body in ["[1]", r#" [{"name":"x"}]"#, r#"[{"roles":["root"]}]"#, "1", "null", r#""x""#] {
                let answer = send(&gateway, method, target, account, "", body.as_bytes());
                assert_eq!(code(&answer), (422, "not_an_object".into()), "{method} {target} {account} {body}");
            }
        }
    }
    assert_eq!(thalamus.state().people, before, "nothing was written");
    assert_eq!(thalamus.state().connections, 0, "nothing was even asked");
    assert_eq!(send(&gateway, "PATCH", "/people/ANA", "ANA", "", br#"{"list":[1,[2]]}"#).status, 200);
}

#[test]
fn bodies_of_any_length_are_held_whole() {
    let (gateway, thalamus) = guarded();
    for length in [1, 4_000, 65_535, 65_536, 65_537, 70_000, 131_072, 200_001, 1_000_000] {
        let text = "x".repeat(length);
        let body = json!({ "text": text }).to_string();
        let answer = send(&gateway, "PATCH", "/people/ANA", "ANA", "", body.as_bytes());
        assert_eq!(answer.status, 200, "{length}: {answer:?}");
        assert_eq!(thalamus.person("ANA").unwrap()["text"], text, "{length}");
        let (asked, late) = (thalamus.state().heads.len(), format!("{{\"text\":\"{text}\",\"roles\":[\"root\"]}}"));
        let answer = send(&gateway, "PATCH", "/people/ANA", "ANA", "", late.as_bytes());
        assert_eq!(answer.status, 403, "{length}: {answer:?}");
        assert_eq!(thalamus.state().heads.len(), asked);
    }
    let long = json!({ "text": "x".repeat(1 << 20) }).to_string();
    assert_eq!(send(&gateway, "PATCH", "/people/ANA", "ANA", "", long.as_bytes()).status, 413);
    let parts: Vec<_> = long.as_bytes().chunks(16_000).collect();
    assert_eq!(code(&chunked(&gateway, "PATCH", "/people/ANA", "ANA", &parts)), (411, "length_required".into()));
    let short = json!({ "text": "y".repeat(60_000) }).to_string();
    let parts: Vec<_> = short.as_bytes().chunks(999).collect();
    assert_eq!(chunked(&gateway, "PATCH", "/people/ANA", "ANA", &parts).status, 200);
    assert_eq!(thalamus.person("ANA").unwrap()["text"], "y".repeat(60_000));
}

#[test]
fn a_body_that_ends_too_early_reaches_nobody() {
    let (gateway, thalamus) = guarded();
    let head = format!(
        "PATCH /people/ANA HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nContent-Length: 400\r\n\r\n",
        basic("ANA", CANARY)
    );
    {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
        stream.write_all(format!("{head}{{\"name\":\"half\"}}").as_bytes()).unwrap();
    }
    let record = gateway.record();
    assert_eq!((&record["decision"], &record["reason"]), (&json!("fail"), &json!("client_gone")));
    assert_eq!(thalamus.state().connections, 0);
}

#[test]
fn no_answer_holds_a_password_hash() {
    let (gateway, thalamus) = guarded();
    let expected = |id: &str| {
        let mut person = thalamus.person(id).unwrap();
        person.as_object_mut().unwrap().remove("password");
        person
    };
    let answer = gateway.request("GET", "/people/ANA", "ANA", "Accept-Encoding: gzip\r\nRange: bytes=0-9\r\n");
    assert_eq!(serde_json::from_str::<Value>(&unchunked(&answer)).unwrap(), expected("ANA"));
    let head = thalamus.state().heads.last().unwrap().to_ascii_lowercase();
    assert!(head.contains("\r\naccept-encoding: identity\r\n") && !head.contains("\r\nrange:"), "{head}");
    assert!(head.contains("\r\nauthorization: basic "), "Thalamus asks for the password itself");
    let answer = gateway.get("/people", "DOC");
    assert_eq!(
        serde_json::from_str::<Value>(&unchunked(&answer)).unwrap(),
        json!([[expected("ANA")], [expected("BOB")]])
    );
    let answer = gateway.get("/people/NONE", "DOC");
    assert_eq!((answer.status, unchunked(&answer).as_str()), (404, "\"\""));
    assert_eq!(unchunked(&gateway.get("/people/BARE", "DOC")), "{}", "without a type it is JSON or nothing");
    let tagged = gateway.get("/people/TAGGED", "DOC");
    assert_eq!(unchunked(&tagged), r#"{"a":1}"#);
    for name in ["etag", "digest", "accept-ranges", "server"] {
        assert_eq!(tagged.header(name), None, "{name}");
    }
    for (id, status) in [("HTML", 502), ("GZIP", 502), ("PART", 502), ("BROKEN", 502), ("CRASH", 500)] {
        let answer = gateway.get(&format!("/people/{id}"), "DOC");
        assert_eq!(answer.status, status, "{id}");
        assert!(!answer.body.contains("$2b$") && answer.complete, "{id}: {answer:?}");
        if status == 502 {
            assert_eq!(code(&answer).1, "answer_withheld");
        }
    }
    let head = gateway.request("HEAD", "/people/ANA", "ANA", "");
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, None, ""));
    let cut = gateway.get("/people/CUT", "DOC");
    assert!(!cut.complete && !cut.body.contains("password"), "a list that is cut short does not look whole");
    let old = gateway.send(
        format!("GET /people/ANA HTTP/1.0\r\nHost: a\r\nAuthorization: {}\r\n\r\n", basic("ANA", CANARY)).as_bytes(),
    );
    assert_eq!(serde_json::from_str::<Value>(&old.body).unwrap(), expected("ANA"), "{old:?}");
    let metrics = gateway.admin_get("/metrics").body;
    assert!(
        !metrics.contains("\nfedgate_members_removed_total 0\n")
            && metrics.contains("\nfedgate_members_removed_total ")
    );
}

#[test]
fn a_list_of_ten_megabytes_streams_without_its_hashes() {
    let (gateway, thalamus) = guarded();
    let person =
        |n: usize| json!({ "id": format!("P{n}"), "name": "x".repeat(400), "password": HASH, "roles": ["end_user"] });
    thalamus.state().people.extend((0..20_000).map(|n| (format!("P{n:05}"), person(n))));
    let began = Instant::now();
    let body = unchunked(&gateway.get("/people", "DOC"));
    let rows: Vec<Value> = serde_json::from_str(&body).unwrap();
    assert!(
        rows.len() == 20_002 && body.len() > 8 << 20 && !body.contains("password"),
        "{} in {:?}",
        body.len(),
        began.elapsed()
    );
}

#[test]
fn keep_alive_goes_on_after_refusals_and_filtered_answers() {
    use std::io::{Read, Write};
    let (gateway, _thalamus) = guarded();
    let authorization = basic("ANA", CANARY);
    let patch = |body: &str| {
        format!(
            "PATCH /people/ANA HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let get = format!("GET /people/ANA HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n");
    let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
    stream.set_read_timeout(Some(crate::fixture::PATIENCE)).unwrap();
    for (request, status, end) in [
        (patch(r#"{"roles":["root"],"rest":"xxxxxxxx"}"#), 403, "}"),
        (get.clone(), 200, "0\r\n\r\n"),
        (patch(r#"{"name":"A"}"#), 200, "null\r\n0\r\n\r\n"),
        (get, 200, "0\r\n\r\n"),
    ] {
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        while !(answer.contains("\r\n\r\n") && answer.ends_with(end)) {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "{request} {answer}");
            answer.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(!answer.contains("$2b$"), "{answer}");
    }
}

#[test]
fn a_route_of_the_operators_own_guards_what_it_names() {
    let upstream = "[[upstream]]\nname = \"his\"\naddress = \"127.0.0.1:1\"\nassertion = false\n\
        [[route]]\npath = \"/people/{id}\"\nmethods = [\"GET\", \"PATCH\"]\nendpoint = \"person\"\nsubject = \"id\"\nupstream = \"his\"\n\
        hide = [\"password\", \"name\"]\n\
        [[route.guard]]\nmembers = [\"town\"]\npermission = \"account\"\nanywhere = true\n";
    let (gateway, _thalamus) = start(upstream, "127.0.0.1:1", ("FEDGATE_GATEWAY_THALAMUS_ROUTES", "false"));
    let patch = |account: &str, body: &str| send(&gateway, "PATCH", "/people/ANA", account, "", body.as_bytes()).status;
    assert_eq!(patch("ANA", r#"{"a":[{"b":{"Town":1}}]}"#), 403);
    assert_eq!(patch("ADM", r#"{"a":[{"b":{"town":1}}]}"#), 200);
    assert_eq!(patch("ANA", r#"{"roles":["x"]}"#), 200);
    let seen: Value = serde_json::from_str(&unchunked(&gateway.get("/people/ANA", "ANA"))).unwrap();
    assert_eq!(seen, json!({ "id": "ANA", "active": true, "roles": ["x"], "a": [{ "b": { "town": 1 } }] }));
}

#[test]
fn http2_is_guarded_as_http1_is() {
    let (gateway, thalamus) = guarded();
    let long = |member: &str| format!("{{\"text\":\"{}\",\"{member}\":1}}", "x".repeat(150_000));
    #[rustfmt::skip]
    let cases = [
        // method, body, whether its length is declared, status
        ("PATCH", r#"{"town":"A"}"#.to_owned(),    true,  200), ("PATCH", r#"{"town":"B"}"#.to_owned(),    false, 200),
        ("PATCH", r#"{"ro\u006ces":1}"#.to_owned(), true,  403), ("PATCH", r#"{"ro\u006ces":1}"#.to_owned(), false, 403),
        ("PATCH", long("other"),                   true,  200), ("PATCH", long("roles"),                   true,  403),
        ("PATCH", long("other"),                   false, 411), ("GET",   String::new(),                   false, 200),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut sender = crate::gateway::tls::connect_h2(&gateway).await.ready().await.unwrap();
        for (method, body, is_declared, status) in cases {
            let request = http::Request::builder().method(method).uri("https://localhost/people/ANA");
            let mut request = request.header("authorization", basic("ANA", CANARY));
            if is_declared {
                request = request.header("content-length", body.len());
            }
            let (answer, mut stream) = sender.send_request(request.body(()).unwrap(), body.is_empty()).unwrap();
            if !body.is_empty() {
                // A refusal may come before the whole body is sent.
                let _ = stream.send_data(body.clone().into(), true);
            }
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), status, "{method} {}", body.len());
            let (mut received, mut data) = (Vec::new(), answer.into_body());
            while let Some(part) = data.data().await {
                let part = part.unwrap();
                data.flow_control().release_capacity(part.len()).unwrap();
                received.extend_from_slice(&part);
            }
            if method == "GET" {
                let person: Value = serde_json::from_slice(&received).unwrap();
                assert_eq!((&person["town"], &person["password"]), (&json!("B"), &Value::Null));
            }
            sender = sender.ready().await.unwrap();
        }
        let request =
            http::Request::get("https://localhost/people/CRASH").header("authorization", basic("DOC", CANARY));
        let (answer, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 500);
        let mut data = answer.into_body();
        while let Some(part) = data.data().await {
            assert_eq!(part.unwrap(), "", "an error page shows nothing");
        }
    });
    let person = thalamus.person("ANA").unwrap();
    assert_eq!((&person["roles"], person["text"].as_str().unwrap().len()), (&json!(["end_user"]), 150_000));
}
