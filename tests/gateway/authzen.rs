//! The Authorization API 1.0 of OpenID AuthZEN, on both stores: the core levels of its certification scenario (Basic,
//! Batch, Search) and Discovery. The levels that decide by `properties` of the question have no counterpart in
//! roles.cfg. The scenario's `read` and `write` are the methods GET and PUT here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::fixture::{Gateway, PATIENCE, Response, Setup, password_hash};
use crate::support::free_address;
use crate::support::postgres::Cluster;

/// Alice may read and write any record, Bob may read any, Carol may read her own.
const ROLES: &str = r#"[
  {"role": "writer", "permissions": {"GET": ["record"], "PUT": ["record"], "global": "True"}},
  {"role": "reader", "permissions": {"GET": ["record"], "global": "True"}},
  {"role": "patient", "permissions": {"GET": ["record"], "global": "False"}}
]"#;
const ROUTES: &str = r#"
[[route]]
path = "/records/{id}"
methods = ["GET", "PUT", "DELETE"]
endpoint = "record"
subject = "id"
upstream = "his"
"#;
const ENVIRONMENT: &[(&str, &str)] = &[("FEDGATE_GATEWAY_THALAMUS_ROUTES", "false")];

struct Asked {
    gateway: Gateway,
    address: SocketAddr,
}

/// The rows of the scenario: accounts, one of them switched off, and `record-1`, which is another id of Alice.
fn rows() -> Vec<String> {
    let hash = password_hash();
    let account = |id: &str, role: &str, active: bool| {
        format!(
            r#"INSERT INTO people (id, data) VALUES ('{id}', '{{"roles":["{role}"],"active":{active},"password":"{hash}"}}')"#
        )
    };
    let mut rows = vec![
        account("alice", "writer", true),
        account("bob", "reader", true),
        account("carol", "patient", true),
        account("gone", "writer", false),
        "INSERT INTO people (id, data) VALUES ('record-1', '{}')".to_owned(),
    ];
    rows.push(
        "INSERT INTO fedgate_same_persons (id, person) VALUES ('alice', 'alice'), ('record-1', 'alice')".to_owned(),
    );
    rows
}

impl Asked {
    fn start(database: Option<&str>, more: &str) -> Self {
        let address = free_address();
        let configuration = format!("{ROUTES}\n[beside]\nauthzen = [\"{address}\"]\n{more}\n");
        let setup = Setup {
            configuration: &configuration,
            policy: Some(ROLES),
            environment: ENVIRONMENT,
            database,
            ..Setup::default()
        };
        let gateway = std::thread::scope(|scope| scope.spawn(|| Gateway::start_as(&setup)).join().unwrap());
        Self { gateway, address }
    }

    async fn on_postgres() -> Self {
        let database = Cluster::shared().database_with_accounts(1, &password_hash()).await;
        let (client, connection) = tokio_postgres::connect(&database.uri, NoTls).await.unwrap();
        tokio::spawn(connection);
        for row in rows() {
            client.batch_execute(&row).await.unwrap();
        }
        Self::start(Some(&database.uri), "")
    }

    fn on_sqlite() -> Self {
        let asked = Self::start(None, "");
        let store = rusqlite::Connection::open(asked.gateway.dir.join("test.db")).unwrap();
        store.busy_timeout(PATIENCE).unwrap();
        rows().iter().for_each(|row| store.execute_batch(row).unwrap());
        asked
    }

    fn send(&self, method: &str, path: &str, extra: &str, body: &str) -> Response {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: pdp.example\r\n{extra}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(head.as_bytes());
        let mut received = vec![];
        let ended = stream.read_to_end(&mut received).is_ok();
        Response::parse(&received, ended)
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, "Content-Type: application/json\r\n", &body.to_string())
    }

    /// The answer to a question that is one.
    fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
        answer.json()
    }
}

fn right(subject: &str, action: &str, resource: &str) -> Value {
    json!({
        "subject": { "type": "user", "id": subject }, "action": { "name": action },
        "resource": { "type": "record", "id": resource },
    })
}

/// The question with a part replaced, or left out.
fn with(mut question: Value, part: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(question.as_object_mut().unwrap().remove(part)),
        value => question[part] = value,
    }
    question
}

const ONE: &str = "/access/v1/evaluation";
const SEVERAL: &str = "/access/v1/evaluations";

fn basic(asked: &Asked) {
    for (subject, action, resource, expected) in [
        ("alice", "GET", "record-1", true),
        ("alice", "PUT", "record-1", true),
        ("bob", "GET", "record-1", true),
        ("bob", "PUT", "record-1", false),
        ("carol", "GET", "carol", true),
        ("carol", "GET", "record-1", false),
        ("carol", "PUT", "carol", false),
        ("gone", "GET", "record-1", false),
        ("nobody", "GET", "record-1", false),
        ("Alice", "GET", "record-1", false),
        ("alice", "DELETE", "record-1", false),
        ("alice", "get", "record-1", false),
        ("alice", "read", "record-1", false),
    ] {
        // The same as often as it is asked.
        for _ in 0..2 {
            let answer = asked.ask(ONE, &right(subject, action, resource));
            assert_eq!(answer, json!({ "decision": expected }), "{subject} {action} {resource}");
            let record = asked.gateway.record();
            let is_account = !["gone", "nobody", "Alice"].contains(&subject);
            let decision = if !is_account {
                "refuse"
            } else if expected {
                "allow"
            } else {
                "deny"
            };
            assert_eq!(record["decision"], decision, "{record}");
            assert_eq!((&record["account"], &record["endpoint"]), (&subject.into(), &"record".into()), "{record}");
            assert_eq!((&record["subject.id"], &record["path"]), (&resource.into(), &ONE.into()), "{record}");
        }
    }
    let permit = right("alice", "GET", "record-1");
    for question in [
        with(permit.clone(), "context", json!({ "time": "2025-06-27T18:03-07:00" })),
        with(permit.clone(), "future", json!({ "nested": true })),
        with(permit.clone(), "subject", json!({ "type": "user", "id": "alice", "properties": { "role": "x" } })),
    ] {
        assert_eq!(asked.ask(ONE, &question), json!({ "decision": true }), "{question}");
    }
    // What a question says of its subject grants nothing.
    let boast = json!({ "type": "user", "id": "bob", "properties": { "roles": ["writer"] } });
    assert_eq!(asked.ask(ONE, &with(right("bob", "PUT", "1"), "subject", boast)), json!({ "decision": false }));
    for kind in ["group", "USER"] {
        let subject = json!({ "type": kind, "id": "alice" });
        assert_eq!(asked.ask(ONE, &with(permit.clone(), "subject", subject)), json!({ "decision": false }), "{kind}");
    }
    let other = json!({ "type": "unknown", "id": "record-1" });
    assert_eq!(asked.ask(ONE, &with(permit.clone(), "resource", other)), json!({ "decision": false }));
    for (part, value) in [
        ("subject", Value::Null),
        ("action", Value::Null),
        ("resource", Value::Null),
        ("subject", json!({ "id": "alice" })),
        ("subject", json!({ "type": "user" })),
        ("action", json!({})),
        ("resource", json!({ "id": "record-1" })),
        ("resource", json!({ "type": "record" })),
        ("subject", json!("alice")),
        ("action", json!({ "name": 123 })),
    ] {
        let question = with(permit.clone(), part, value);
        assert_eq!(asked.post(ONE, &question).status, 400, "{question}");
    }
    let text = permit.to_string();
    for (extra, body) in [
        ("Content-Type: text/plain\r\n", text.as_str()),
        ("", text.as_str()),
        ("Content-Type: application/json\r\n", "{"),
        ("Content-Type: application/json\r\n", ""),
    ] {
        assert_eq!(asked.send("POST", ONE, extra, body).status, 400, "{extra} {body}");
    }
    let with_id = "Content-Type: application/json\r\nX-Request-ID: bfe9eb29-ab87\r\n";
    for body in [text.as_str(), "{"] {
        let answer = asked.send("POST", ONE, with_id, body);
        assert_eq!(answer.header("x-request-id").as_deref(), Some("bfe9eb29-ab87"), "{body}");
    }
    assert!(asked.post(ONE, &permit).header("x-request-id").is_some());
    let json = "Content-Type: application/json\r\n";
    for (method, path, extra, status) in [
        ("PUT", ONE, json, 405),
        ("GET", SEVERAL, "", 405),
        ("POST", "/access/v1/nothing", json, 404),
        ("POST", ONE, "Content-Type: application/json\r\nOrigin: http://pdp.example\r\n", 403),
        ("POST", ONE, "Content-Type: application/json\r\nSec-Fetch-Site: same-origin\r\n", 403),
    ] {
        let body = if method == "GET" { "" } else { &text };
        assert_eq!(asked.send(method, path, extra, body).status, status, "{method} {path} {extra}");
    }
    let large = with(permit, "context", json!("x".repeat(300_000)));
    assert_eq!(asked.post(ONE, &large).status, 413);
}

fn batch(asked: &Asked) {
    let evaluations = |question: &Value| asked.ask(SEVERAL, question)["evaluations"].clone();
    let decisions = |question: &Value| -> Vec<bool> {
        evaluations(question).as_array().unwrap().iter().map(|one| one["decision"].as_bool().unwrap()).collect()
    };
    let record = |id: &str| json!({ "resource": { "type": "record", "id": id } });
    let alice = json!({ "type": "user", "id": "alice" });
    let read = json!({ "name": "GET" });
    let both = json!({ "subject": alice, "action": read, "evaluations": [record("record-1"), record("record-2")] });
    assert_eq!(decisions(&both), [true, true]);
    let actions = json!([{ "action": { "name": "GET" } }, { "action": { "name": "PUT" } }]);
    let bob = json!({ "type": "user", "id": "bob" });
    let ordered = json!({ "subject": bob, "resource": { "type": "record", "id": "record-1" }, "evaluations": actions });
    assert_eq!(evaluations(&ordered), json!([{ "decision": true }, { "decision": false }]));
    let whole = json!({ "evaluations": [right("alice", "GET", "record-1"), right("bob", "PUT", "record-1")] });
    assert_eq!(decisions(&whole), [true, false]);
    let context = json!({
        "subject": alice, "action": read, "context": { "time": "1" },
        "evaluations": [record("record-1"), { "resource": { "type": "record", "id": "record-2" }, "context": {} }],
    });
    assert_eq!(decisions(&context), [true, true]);
    let lacking = json!({ "subject": alice, "action": read, "evaluations": [record("record-1"), {}] });
    let answers = evaluations(&lacking);
    assert_eq!(answers[0], json!({ "decision": true }));
    assert_eq!((&answers[1]["decision"], &answers[1]["context"]["error"]["status"]), (&false.into(), &400.into()));
    for question in
        [right("alice", "GET", "record-1"), with(right("alice", "GET", "record-1"), "evaluations", json!([]))]
    {
        assert_eq!(asked.ask(SEVERAL, &question), json!({ "decision": true }));
    }
    let mixed = json!([
        right("alice", "GET", "1"),
        right("bob", "PUT", "1"),
        right("bob", "GET", "1"),
        right("bob", "DELETE", "1"),
    ]);
    for (semantic, expected) in [
        ("execute_all", &[true, false, true, false][..]),
        ("deny_on_first_deny", &[true, false]),
        ("permit_on_first_permit", &[true]),
    ] {
        let question = json!({ "evaluations": mixed, "options": { "evaluations_semantic": semantic } });
        assert_eq!(decisions(&question), expected, "{semantic}");
    }
    let unknown = json!({ "evaluations": mixed, "options": { "evaluations_semantic": "any" } });
    assert_eq!(asked.post(SEVERAL, &unknown).status, 400);
    let many = |count: usize| json!({ "subject": alice, "action": read, "evaluations": vec![record("1"); count] });
    assert_eq!(decisions(&many(100)).len(), 100);
    assert_eq!(asked.post(SEVERAL, &many(101)).status, 400);
}

fn search(asked: &Asked) {
    let ids = |answer: &Value, name: &str| -> Vec<String> {
        answer["results"].as_array().unwrap().iter().map(|one| one[name].as_str().unwrap().to_owned()).collect()
    };
    let subjects = "/access/v1/search/subject";
    let question = with(right("", "GET", "record-1"), "subject", json!({ "type": "user" }));
    let found = asked.ask(subjects, &question);
    assert_eq!(ids(&found, "id"), ["alice", "bob"], "nobody inactive, and nobody who may read but her own");
    assert_eq!(found["results"][0]["type"], "user");
    assert_eq!(found["page"]["next_token"], "");
    assert_eq!(ids(&asked.ask(subjects, &with(question.clone(), "context", json!({}))), "id").len(), 2);
    // Page by page, each looks at one account.
    let (mut token, mut all, mut pages) = (String::new(), vec![], 0);
    loop {
        let page = json!({ "limit": 1, "token": token });
        let answer = asked.ask(subjects, &with(question.clone(), "page", page));
        all.extend(ids(&answer, "id"));
        token = answer["page"]["next_token"].as_str().unwrap().to_owned();
        pages += 1;
        if token.is_empty() {
            break;
        }
        assert!(pages < 50, "{answer}");
    }
    assert_eq!(all, ["alice", "bob"]);
    let resources = "/access/v1/search/resource";
    let own = |subject: &str, action: &str| with(right(subject, action, ""), "resource", json!({ "type": "record" }));
    assert_eq!(ids(&asked.ask(resources, &own("alice", "GET")), "id"), ["alice", "record-1"]);
    assert_eq!(ids(&asked.ask(resources, &own("carol", "GET")), "id"), ["carol"]);
    assert_eq!(asked.ask(resources, &own("carol", "PUT"))["results"], json!([]));
    let page = asked.ask(resources, &with(own("alice", "GET"), "page", json!({ "limit": 1 })));
    assert_eq!((ids(&page, "id"), &page["page"]["next_token"]), (vec!["alice".to_owned()], &"alice".into()));
    let page = asked.ask(resources, &with(own("alice", "GET"), "page", json!({ "token": "alice" })));
    assert_eq!((ids(&page, "id"), &page["page"]["next_token"]), (vec!["record-1".to_owned()], &"".into()));
    let actions = "/access/v1/search/action";
    let what = |subject: &str, resource: &str| with(right(subject, "", resource), "action", Value::Null);
    for (subject, resource, expected) in [
        ("alice", "record-1", &["GET", "PUT"][..]),
        ("bob", "record-1", &["GET"]),
        ("carol", "record-1", &[]),
        ("gone", "record-1", &[]),
        ("nonexistent-user", "record-1", &[]),
    ] {
        assert_eq!(ids(&asked.ask(actions, &what(subject, resource)), "name"), expected, "{subject}");
    }
    for question in [
        with(question.clone(), "subject", json!({ "type": "spaceship" })),
        with(question.clone(), "resource", json!({ "type": "spaceship", "id": "1" })),
        with(question.clone(), "action", json!({ "name": "fly" })),
    ] {
        assert_eq!(asked.ask(subjects, &question)["results"], json!([]), "{question}");
    }
    for (path, question) in [
        (subjects, with(question.clone(), "action", Value::Null)),
        (subjects, with(question, "resource", json!({ "type": "record" }))),
        (resources, with(own("alice", "GET"), "subject", Value::Null)),
        (resources, with(own("alice", "GET"), "subject", json!({ "type": "user" }))),
        (actions, with(what("alice", "1"), "resource", Value::Null)),
    ] {
        assert_eq!(asked.post(path, &question).status, 400, "{path} {question}");
    }
}

fn discovery(asked: &Asked) {
    let answer = asked.send("GET", "/.well-known/authzen-configuration", "", "");
    assert_eq!((answer.status, answer.header("content-type").as_deref()), (200, Some("application/json")));
    let told = answer.json();
    assert_eq!(told["policy_decision_point"], "http://pdp.example");
    for (name, path) in [
        ("access_evaluation_endpoint", ONE),
        ("access_evaluations_endpoint", SEVERAL),
        ("search_subject_endpoint", "/access/v1/search/subject"),
        ("search_resource_endpoint", "/access/v1/search/resource"),
        ("search_action_endpoint", "/access/v1/search/action"),
    ] {
        assert_eq!(told[name], format!("http://pdp.example{path}"), "{name}");
    }
}

#[test]
fn the_core_levels_of_authzen_hold_on_sqlite() {
    let asked = Asked::on_sqlite();
    basic(&asked);
    batch(&asked);
    search(&asked);
    discovery(&asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_core_levels_of_authzen_hold_on_postgres() {
    let asked = Asked::on_postgres().await;
    basic(&asked);
    batch(&asked);
    search(&asked);
    discovery(&asked);
}

#[test]
fn a_service_that_is_not_named_gets_no_decision_and_a_revoked_right_ends_within_the_bound() {
    let asked = Asked::start(None, "networks = [\"192.0.2.1\"]");
    let answer = asked.post(ONE, &right("alice", "GET", "1"));
    assert_eq!((answer.status, answer.json()["code"].as_str()), (403, Some("proxy_unknown")));
    assert_eq!(asked.gateway.record()["reason"], "proxy_unknown");
    let asked = Asked::on_sqlite();
    let permit = right("alice", "GET", "record-1");
    assert_eq!(asked.ask(ONE, &permit)["decision"], true);
    let store = rusqlite::Connection::open(asked.gateway.dir.join("test.db")).unwrap();
    store.busy_timeout(PATIENCE).unwrap();
    store
        .execute_batch("UPDATE people SET data = json_set(data, '$.active', json('false')) WHERE id = 'alice'")
        .unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while asked.ask(ONE, &permit)["decision"] == true {
        assert!(std::time::Instant::now() < deadline, "still permitted");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
