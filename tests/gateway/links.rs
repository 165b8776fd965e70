//! Related persons before fedhis: what a relation reaches, and what it never reaches.

use std::process::Command;

use crate::gateway::same_persons::Stage;

/// The roles of `P0`: guardian of others, and an end user; all others are end users.
async fn prepare(stage: &Stage) {
    let file = stage.gateway.dir.join("roles.cfg");
    let mut policy: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let role = serde_json::json!({ "role": "guardian", "permissions": {
        "GET": ["person", "people", "book", "page", "messages", "password"], "POST": ["page", "password"],
        "PATCH": ["person", "account"], "global": "False", "related": "True",
    } });
    policy.as_array_mut().unwrap().push(role);
    std::fs::write(&file, policy.to_string()).unwrap();
    for n in 0..4 {
        let page = format!("/pols/P{n}/p{n}");
        assert_eq!(stage.status("POST", &page, &format!("P{n}"), &format!(r#"{{"id":"p{n}"}}"#)), 200);
    }
}

/// Runs `fedgate account`, and returns the object that it prints.
fn account(stage: &Stage, arguments: &[&str]) -> serde_json::Value {
    let config = stage.gateway.dir.join("fedgate.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    let out = command.arg("account").args(arguments).arg("--json").arg("--config").arg(config).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(out.status.success(), told.get("error").is_none(), "{told}");
    told
}

async fn a_guardian_reaches_the_record_of_a_related_person_and_nothing_of_its_account(stage: Stage) {
    prepare(&stage).await;
    account(&stage, &["roles", "P0", "guardian,end_user", "--force"]);
    stage.becomes("/pols/P1", "P0", 403);
    let told = account(&stage, &["relate", "P0", "P1", "--kind", "guardian", "--wait"]);
    assert_eq!((&told["done"], &told["relation"]["subject"]), (&"related".into(), &"P1".into()), "{told}");
    stage.becomes("/pols/P1", "P0", 200);
    for (method, path, account, body, status) in [
        ("GET", "/people/P1", "P0", "", 200),
        ("GET", "/pols/P1/p1", "P0", "", 200),
        ("POST", "/pols/P1/q1", "P0", r#"{"id":"q1"}"#, 200),
        ("PATCH", "/people/P1", "P0", r#"{"phone":"1"}"#, 200),
        ("GET", "/people/P0", "P0", "", 200),
        ("GET", "/pols/P0/p0", "P0", "", 200),
        // It goes one way, and to nobody else.
        ("GET", "/people/P0", "P1", "", 403),
        ("GET", "/people/P2", "P0", "", 403),
        ("GET", "/pols/P2/p1", "P0", "", 403),
        ("GET", "/people/p1", "P0", "", 403),
        // A page is found under its own person alone.
        ("GET", "/pols/P1/p0", "P0", "", 404),
        ("GET", "/pols/P0/p1", "P0", "", 404),
        // Only with the methods that the role is granted.
        ("DELETE", "/people/P1", "P0", "", 403),
        ("PATCH", "/pols/P1/p1", "P0", r#"{"a":1}"#, 403),
        // What is of an account stays with it.
        ("GET", "/password/P1", "P0", "", 403),
        ("POST", "/password/P1", "P0", "password=x", 403),
        ("PATCH", "/people/P1", "P0", r#"{"roles":["root"]}"#, 403),
        ("PATCH", "/people/P1", "P0", r#"{"active":false}"#, 403),
    ] {
        assert_eq!(stage.status(method, path, account, body), status, "{method} {path} {account} {body}");
    }
    // Where no person is named, own records are shown.
    assert!(!stage.gateway.get("/people", "P0").body.contains("phone"), "that of P1 has one");
    let messages = stage.gateway.get("/messages?after=0&limit=1000", "P0").body;
    assert!(messages.contains("\"p0\"") && !messages.contains("\"q1\"") && !messages.contains("\"P1\""), "{messages}");
    let recorded = loop {
        let record = stage.gateway.record();
        if record["path"] == "/pols/P1/p1" && record["account"] == "P0" && record["method"] == "GET" {
            break record;
        }
    };
    let told =
        [&recorded["decision"], &recorded["reason"], &recorded["subject.related"], &recorded["subject.same_person"]];
    assert_eq!(told, [&"allow".into(), &"own".into(), &true.into(), &serde_json::Value::Null]);

    // Another id of that person is reached as well, and a link is shown.
    stage.sql("INSERT INTO fedgate_same_persons (id, person) VALUES ('P1', 'P1'), ('P2', 'P1')").await;
    stage.becomes("/pols/P2", "P0", 200);
    stage.sql("DELETE FROM fedgate_same_persons").await;
    stage.becomes("/pols/P2", "P0", 403);
    assert_eq!(account(&stage, &["link", "P1", "fhir", "Patient/1"])["done"], "linked");
    assert_eq!(account(&stage, &["link", "P1", "fhir", "Patient/1"])["done"], "known");
    for refused in [
        &["link", "P0", "fhir", "Patient/1"][..],
        &["link", "P0", "FHIR", "Patient/2"],
        &["link", "P0", "fhir", " "],
        &["link", "P9", "fhir", "Patient/2"],
        &["relate", "P0", "P0", "--kind", "team"],
        &["relate", "P0", "P9", "--kind", "team"],
        &["relate", "P0", "P1", "--kind", "Team"],
        &["relate", "P0", "P1", "--kind", "team", "--until", "2001-01-01"],
        &["unrelate", "P0", "P2"],
        &["unlink", "P0", "fhir", "Patient/1"],
    ] {
        assert!(account(&stage, refused)["error"].is_string(), "{refused:?}");
    }
    let listed = account(&stage, &["links", "P1"]);
    assert_eq!(
        (&listed["links"][0]["id"], &listed["related_from"][0]["account"]),
        (&"Patient/1".into(), &"P0".into()),
        "{listed}"
    );
    assert_eq!(account(&stage, &["show", "P0"])["related_to"][0]["kind"], "guardian");
    let explained = Command::new(env!("CARGO_BIN_EXE_fedgate"))
        .args(["policy", "explain", "--as", "P0", "GET", "/pols/P1", "--config"])
        .arg(stage.gateway.dir.join("fedgate.toml"))
        .output()
        .unwrap();
    let explained = String::from_utf8(explained.stdout).unwrap();
    assert!(
        explained.contains("allowed, own records and those of related persons")
            && explained.contains("who is a related person"),
        "{explained}"
    );

    // It ends: by the role, and by the relation.
    account(&stage, &["roles", "P0", "end_user", "--wait"]);
    stage.becomes("/pols/P1", "P0", 403);
    account(&stage, &["roles", "P0", "guardian", "--force", "--wait"]);
    stage.becomes("/pols/P1", "P0", 200);
    account(&stage, &["unrelate", "P0", "P1", "--wait"]);
    assert_eq!(stage.status("GET", "/pols/P1", "P0", ""), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_reaches_the_record_of_a_related_person_and_nothing_of_its_account_on_postgres() {
    a_guardian_reaches_the_record_of_a_related_person_and_nothing_of_its_account(Stage::on_postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardian_reaches_the_record_of_a_related_person_and_nothing_of_its_account_on_sqlite() {
    a_guardian_reaches_the_record_of_a_related_person_and_nothing_of_its_account(Stage::on_sqlite().await).await;
}
