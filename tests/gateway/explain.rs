//! `fedgate explain REQUEST-ID`: the result of a request, and the policy's part in it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fedgate::history;
use fedgate_core::policy::PolicySet;
use serde_json::{Value, json};

use crate::fixture::{Gateway, PATIENCE, Place, Setup};

const RECORDED: [(&str, &str); 1] = [("FEDGATE_RECORDS_FILE", "records.jsonl")];

/// The output of a command: exit code, stdout, stderr.
pub(crate) struct Told(pub(crate) i32, pub(crate) String, pub(crate) String);

impl Told {
    /// The one object on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.1).unwrap()
    }
}

fn fedgate(arguments: &[&str]) -> Told {
    let out = Command::new(env!("CARGO_BIN_EXE_fedgate")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Told(out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

/// Explains a request by the records and the configuration in a directory.
/// Explains a request that was answered. Records that no answer waits for are written some milliseconds later.
pub(crate) fn explain(dir: &Path, id: &str, options: &[&str]) -> Told {
    let began = Instant::now();
    loop {
        let told = explain_now(dir, id, options);
        if !told.2.contains("no record of request") {
            return told;
        }
        assert!(began.elapsed() < PATIENCE, "{}", told.2);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Explains what is recorded now.
pub(crate) fn explain_now(dir: &Path, id: &str, options: &[&str]) -> Told {
    let (config, records) = (dir.join("fedgate.toml"), dir.join("records.jsonl"));
    let (config, records) = (config.display().to_string(), records.display().to_string());
    fedgate(&[&["explain", id, "--config", &config, "--records", &records], options].concat())
}

/// The files of a gateway, and one record `r1`: an allowed PATCH of the caller's own record, except for these
/// members.
fn recorded(configuration: &str, members: Value) -> Place {
    let place = Place::prepare(&Setup { configuration, ..Setup::default() });
    let stock = PolicySet::parse(&std::fs::read("policies/roles.cfg").unwrap()).unwrap();
    let mut record = json!({
        "time": "2026-11-24T05:30:59.000001Z", "request.id": "r1", "client.ip": "127.0.0.1", "method": "PATCH",
        "path": "/people/ANA", "account": "ANA", "roles": ["end_user"], "endpoint": "person", "subject.id": "ANA",
        "decision": "allow", "reason": "own", "status": 200, "duration_us": 9, "policy": stock.fingerprint(),
    });
    record.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    std::fs::write(place.dir.join("records.jsonl"), format!("{record}\n")).unwrap();
    place
}

#[test]
fn a_missing_record_is_reported_with_other_places_to_look() {
    let place = recorded("", json!({}));
    let Told(code, _, complaint) = explain_now(&place.dir, "r2", &[]);
    assert!(code == 1 && complaint.contains("a file that was moved away is named with --records FILE"), "{complaint}");
    let Told(code, _, complaint) = explain_now(&place.dir, "", &[]);
    assert!(code == 2 && complaint.contains("the request id is empty"), "{complaint}");
}

#[test]
fn a_recorded_decision_is_explained_under_the_policy_that_made_it() {
    let policy = std::fs::read_to_string("policies/roles.cfg").unwrap();
    let gateway = Gateway::start_in(&RECORDED, "", &policy);
    let denied = gateway.get("/people/DOC", "ANA").header("x-request-id").unwrap();
    let refused = gateway.get("/people/DOC", "").header("x-request-id").unwrap();
    // The policy changes, and an earlier decision is still explained by the earlier policy.
    let old = gateway.record()["policy"].as_str().unwrap().to_owned();
    let kept = gateway.dir.join("policy-history").join(format!("{old}.cfg"));
    let deadline = Instant::now() + PATIENCE;
    while !kept.exists() {
        assert!(Instant::now() < deadline, "the policy is not kept");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::write(gateway.dir.join("roles.cfg"), policy.replace("\"False\"", "\"True\"")).unwrap();
    let Told(code, text, _) = explain(&gateway.dir, &denied, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("GET /people/DOC by ANA: deny (not_own), status 403"), "{text}");
    assert!(
        text.contains("end_user") && text.contains("only for the caller's own record (line 5)") && text.contains(&old),
        "{text}"
    );
    assert!(explain(&gateway.dir, &refused, &[]).1.contains("the policy was not asked"));
    let parsed = |id: &str| explain(&gateway.dir, id, &["--json"]).json();
    let told = parsed(&denied);
    assert_eq!((&told["record"]["request.id"], &told["record"]["status"]), (&denied.as_str().into(), &403.into()));
    assert_eq!((&told["replay"]["decision"], &told["replay"]["as"]), (&"deny not_own".into(), &"ANA".into()), "{told}");
    assert!(parsed(&refused)["replay"].is_null());
    assert_eq!(explain_now(&gateway.dir, "00000000000000000000000000000000", &[]).0, 1);
}

#[test]
fn what_is_legal_is_recorded_whole_and_explained() {
    let place = Place::prepare(&Setup::default());
    let config = place.dir.join("fedgate.toml").display().to_string();
    // Only the last of many roles grants.
    let mut roles: Vec<String> = (0..80).map(|number| format!("nurse_of_ward_{number:06}")).collect();
    roles.push("end_user".into());
    assert_eq!(fedgate(&["account", "roles", "ANA", &roles.join(","), "--force", "--config", &config]).0, 0);
    let gateway = Gateway::start_at(place, &RECORDED);
    let long = "x".repeat(2_048 - "/pols/DOC/".len());
    for (path, status, word) in [
        ("/people/ANA".to_owned(), 200, "allowed, own"),
        (format!("/pols/DOC/{long}"), 403, "denied, the role grants it"),
    ] {
        let answer = gateway.get(&path, "ANA");
        assert_eq!(answer.status, status);
        let record = gateway.record();
        assert_eq!((&record["roles"], &record["path"], &record["cut"]), (&json!(roles), &json!(path), &Value::Null));
        let told = explain(&gateway.dir, &answer.header("x-request-id").unwrap(), &[]);
        assert!(told.0 == 0 && told.1.contains(word), "{} {}", told.1, told.2);
    }
}

#[test]
fn what_was_cut_is_not_replayed() {
    let place = Place::prepare(&Setup::default());
    let config = place.dir.join("fedgate.toml").display().to_string();
    let mut roles: Vec<String> = (0..300).map(|number| format!("nurse_of_ward_{number:06}")).collect();
    roles.push("end_user".into());
    assert_eq!(fedgate(&["account", "roles", "ANA", &roles.join(","), "--force", "--config", &config]).0, 0);
    let gateway = Gateway::start_at(place, &RECORDED);
    let answer = gateway.get("/people/ANA", "ANA");
    assert_eq!((answer.status, gateway.record()["cut"].clone()), (200, json!(["roles"])));
    let id = answer.header("x-request-id").unwrap();
    let Told(code, text, complaint) = explain(&gateway.dir, &id, &[]);
    assert!(code == 1 && text.contains("allow (own), status 200") && !text.contains("denied"), "{text}");
    assert!(complaint.contains("cut, was roles") && complaint.contains("fedgate policy explain --as"), "{complaint}");
    let told = explain(&gateway.dir, &id, &["--json"]);
    assert_eq!((told.0, &told.json()["replay"], &told.json()["record"]["status"]), (1, &Value::Null, &json!(200)));
    assert!(told.json()["error"].as_str().unwrap().contains("is not replayed"));
    // The parts that the message names do decide.
    let options = ["--as", "ANA", "--config", &config, "GET", "/people/ANA"];
    let told = fedgate(&[&["policy", "explain"][..], &options].concat());
    assert!(told.1.contains("allowed, own records"), "{}", told.1);
}

#[test]
fn a_replay_that_differs_from_the_record_is_reported_with_possible_causes() {
    let version = "another version of fedgate has decided, or the record was changed";
    let lead = "led the request to `patient` of ANA, and lead it to `person` of ANA";
    #[rustfmt::skip]
    let cases = [
        (json!({ "decision": "deny", "reason": "not_granted", "status": 403 }), version),
        (json!({ "reason": "global" }), version),
        (json!({ "roles": [] }), version),
        (json!({ "decision": "fail", "reason": "upstream_timeout", "status": 504, "roles": ["x"] }), version),
        (json!({ "decision": "deny", "reason": "member_not_permitted", "lacks": "page", "status": 403 }), version),
        (json!({ "endpoint": "patient", "reason": "global" }), lead),
        (json!({ "path": "/nowhere" }), "led the request to `person` of ANA, and lead it to no endpoint"),
    ];
    for (members, cause) in cases {
        let place = recorded("", members);
        let Told(code, _, complaint) = explain(&place.dir, "r1", &[]);
        assert_eq!((code, complaint.lines().count()), (1, 1), "{complaint}");
        assert!(complaint.contains("the replay differs from the record: ") && complaint.contains(cause), "{complaint}");
        let told = explain(&place.dir, "r1", &["--json"]);
        assert!(
            told.0 == 1 && told.json()["error"].as_str().unwrap().contains(cause) && told.json()["replay"].is_object()
        );
        std::fs::remove_dir_all(&place.dir).unwrap();
    }
}

#[test]
fn a_refusal_of_the_upstream_is_distinct_from_one_of_the_policy() {
    let gateway = Gateway::start_in(&RECORDED, "", &std::fs::read_to_string("policies/roles.cfg").unwrap());
    let ask = |method: &str, path: &str, account: &str| {
        let answer = gateway.request(method, path, account, "");
        assert_eq!(answer.status, 403);
        let id = answer.header("x-request-id").unwrap();
        let (told, parsed) = (explain(&gateway.dir, &id, &[]), explain(&gateway.dir, &id, &["--json"]).json());
        assert_eq!(told.0, 0, "{}", told.2);
        (told.1, parsed)
    };
    let (text, told) = ask("PATCH", "/people/forbidden", "DOC");
    assert!(text.contains("allowed, any record") && text.contains("the upstream refused it"), "{text}");
    assert!(text.contains("the permission `account` under PATCH is not granted"), "{text}");
    assert_eq!(told["refused_by"], "service");
    assert_eq!(told["permissions"], json!([{ "permission": "account", "granted": false }]));
    assert!(ask("PATCH", "/people/forbidden", "ADM").0.contains("the permission `account` under PATCH is granted"));
    let (text, told) = ask("GET", "/people/forbidden", "DOC");
    assert!(text.contains("the upstream refused it") && !text.contains("the permission"), "{text}");
    assert_eq!(told["permissions"], json!([]));
}

#[test]
fn members_that_need_a_permission_are_listed() {
    let guard = "[[route]]\npath = \"/wards/{person_id}\"\nmethods = [\"PUT\"]\nendpoint = \"person\"\n\
                 subject = \"person_id\"\nupstream = \"his\"\n\
                 [[route.guard]]\nmembers = [\"beds\", \"town\"]\npermission = \"planning\"\n";
    let policy = r#"[{"role": "end_user", "permissions": {"PUT": ["person"], "PATCH": ["person"]}}]"#;
    let told = |members: Value| {
        let place = recorded(guard, json!({ "method": "PUT", "path": "/wards/ANA" }));
        std::fs::write(place.dir.join("roles.cfg"), policy).unwrap();
        let records = place.dir.join("records.jsonl");
        let mut record: Value = serde_json::from_str(&std::fs::read_to_string(&records).unwrap()).unwrap();
        record["policy"] = PolicySet::parse(policy.as_bytes()).unwrap().fingerprint().into();
        record.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        std::fs::write(&records, record.to_string()).unwrap();
        let told = (explain(&place.dir, "r1", &[]), explain(&place.dir, "r1", &["--json"]).json());
        assert_eq!(told.0.0, 0, "{} {}", told.0.1, told.0.2);
        std::fs::remove_dir_all(&place.dir).unwrap();
        (told.0.1, told.1)
    };
    let (text, parsed) = told(json!({ "status": 403 }));
    assert!(text.contains("the permission `planning` under PUT is not granted"), "{text}");
    assert_eq!(parsed["permissions"], json!([{ "permission": "planning", "granted": false }]));
    let denied = |lacks: Value| {
        let mut members = json!({ "decision": "deny", "reason": "member_not_permitted", "status": 403 });
        members["lacks"] = lacks;
        told(members).0
    };
    assert!(denied(json!("planning")).contains("a member that needs `planning` under PUT, which no role grants"));
    assert!(denied(Value::Null).contains("a member that nobody may write"));
    let (text, _) = told(json!({ "decision": "refuse", "reason": "malformed_json", "status": 400 }));
    assert!(text.contains("allowed by the policy; it failed later (malformed_json)"), "{text}");
}

#[test]
fn a_kept_policy_that_differs_from_its_name_is_reported() {
    let place = recorded("", json!({ "policy": "0123456789abcdef" }));
    let kept = history::path_of(&place.dir.join("policy-history"), "0123456789abcdef");
    std::fs::create_dir(kept.parent().unwrap()).unwrap();
    let complaint = || {
        let Told(code, _, complaint) = explain(&place.dir, "r1", &[]);
        assert_eq!((code, complaint.lines().count()), (1, 1), "{complaint}");
        complaint
    };
    assert!(complaint().contains("policy 0123456789abcdef is neither in force nor kept in"));
    let stock = std::fs::read("policies/roles.cfg").unwrap();
    let fingerprint = PolicySet::parse(&stock).unwrap().fingerprint().to_owned();
    for (content, damage) in [(&b""[..], "file is empty"), (&stock, fingerprint.as_str())] {
        std::fs::write(&kept, content).unwrap();
        let told = complaint();
        assert!(
            told.contains(&kept.display().to_string()) && told.contains("is not the policy that its name says"),
            "{told}"
        );
        assert!(told.contains(damage), "{told}");
    }
    std::fs::remove_dir_all(&place.dir).unwrap();
}

#[test]
fn an_error_is_one_line_and_one_object() {
    let place = recorded("", json!({}));
    let file = |name: &str| place.dir.join(name).display().to_string();
    let config = file("fedgate.toml");
    let (nowhere, records) = (file("nowhere"), file("records.jsonl"));
    #[rustfmt::skip]
    let cases: [(&[&str], i32, &str); 4] = [
        (&["r1", "--config", &nowhere],                          2, &nowhere),
        (&["r1", "--config", &config],                           2, &config),
        (&["r1", "--config", &config, "--records", &nowhere],    1, &nowhere),
        (&["none", "--config", &config, "--records", &records],  1, &records),
    ];
    for (arguments, code, about) in cases {
        let told = fedgate(&[&["explain", "--json"], arguments].concat());
        assert_eq!((told.0, told.2.lines().count()), (code, 1), "{}", told.2);
        assert_eq!(told.json()["file"], about);
        assert_eq!(told.2, format!("fedgate: {}\n", told.json()["error"].as_str().unwrap()));
    }
    // A missing store is reported once.
    std::fs::remove_file(place.dir.join("test.db")).unwrap();
    let told = fedgate(&["policy", "explain", "--as", "ANA", "--config", &config, "GET", "/people/ANA"]);
    assert!(told.0 != 0 && told.2.matches("no such table").count() <= 1, "{}", told.2);
    std::fs::remove_dir_all(&place.dir).unwrap();
}

#[test]
fn every_record_of_an_id_is_shown_and_no_client_chooses_the_key() {
    let place = Place::prepare(&Setup::default());
    let config = place.dir.join("fedgate.toml");
    let gateway = Gateway::start_at(place, &RECORDED);
    let ask = |path: &str, chosen: &str| {
        let answer = gateway.request("GET", path, "ANA", &format!("X-Request-Id: {chosen}\r\n"));
        assert_eq!(answer.header("x-correlation-id").as_deref(), Some(chosen));
        answer.header("x-request-id").unwrap()
    };
    let first = ask("/people/ANA", "ward-7/12");
    let second = ask("/people/DOC", "ward-7/12");
    // A request that copies the id of another one.
    let thief = ask("/pols/ANA/1", &first);
    assert!([&second, &thief].into_iter().all(|id| *id != first && id.len() == 32));
    for _ in 0..3 {
        gateway.record();
    }
    std::fs::rename(gateway.dir.join("records.jsonl"), gateway.dir.join("records.jsonl.1")).unwrap();
    std::fs::write(gateway.dir.join("records.jsonl-20261101.xz"), b"\xfd7zXZ\0not read").unwrap();
    let third = ask("/people/DOC", "ward-7/12");
    let config = ["--config".to_owned(), config.display().to_string()];
    let told = |id: &str, options: &[&str]| {
        let own = [&["explain", id, &config[0], &config[1]][..], options].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
        let out = command.args(own).env(RECORDED[0].0, RECORDED[0].1).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Told(out.status.code().unwrap(), text(out.stdout), text(out.stderr))
    };
    // In both files, in their order.
    let Told(code, text, _) = told("ward-7/12", &[]);
    assert!(code == 0 && text.starts_with("3 records of ward-7/12"), "{text}");
    let at = |id: &str| {
        text.find(&format!("its client called it ward-7/12; its own id is {id}"))
            .unwrap_or_else(|| panic!("{id}: {text}"))
    };
    assert!(at(&first) < at(&second) && at(&second) < at(&third));
    assert!(text.matches("denied").count() == 2 && text.contains("allowed, own records"), "each is replayed: {text}");
    let parsed = told("ward-7/12", &["--json"]).json();
    let ids: Vec<&str> =
        parsed["records"].as_array().unwrap().iter().map(|one| one["record"]["request.id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&first, &second, &third]);
    assert_eq!(
        (&parsed["record"], &parsed["records"][0]["named"]),
        (&parsed["records"][2]["record"], &json!("by_client"))
    );
    assert_eq!(parsed["records"][0]["replay"]["decision"], "allow own");
    // A copied id is distinguished from its owner.
    let text = told(&first, &[]).1;
    assert!(
        text.starts_with(&format!("2 records of {first}")) && text.contains(&format!("its own id is {thief}")),
        "{text}"
    );
    let Told(code, _, complaint) = told("nobody-chose-it", &[]);
    assert!(
        code == 1 && complaint.contains("20261101.xz (it is compressed by xz") && complaint.contains("records.jsonl.1"),
        "{complaint}"
    );
    // Of several records of one request, the last one counts.
    let file = gateway.dir.join("twice.jsonl");
    let line = std::fs::read_to_string(gateway.dir.join("records.jsonl.1")).unwrap();
    let line = line.lines().next().unwrap();
    std::fs::write(&file, format!("{}\n{line}\n", line.replace("\"roles\":[\"end_user\"]", "\"roles\":[]"))).unwrap();
    let Told(code, text, _) = explain(&gateway.dir, &first, &["--records", &file.display().to_string()]);
    assert!(code == 0 && text.contains("a later record of the same request counts"), "{text}");
}

#[test]
fn a_record_of_the_same_person_under_another_id_was_the_callers_own() {
    for (is_same, expected) in [(true, 0), (false, 1)] {
        let members = json!({ "path": "/people/OLD", "subject.id": "OLD", "subject.same_person": is_same });
        let place = recorded("", members);
        let Told(code, text, complaint) = explain(&place.dir, "r1", &[]);
        assert_eq!((code, text.contains("which is the same person")), (expected, is_same), "{text}{complaint}");
    }
}
