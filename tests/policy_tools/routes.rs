//! A policy beside the routes: requests that no role is granted, grants that no request needs, and cases without a
//! meaning.

use serde_json::{Value, json};

use crate::policy_tools::{Files, STOCK, json as told, policy};

/// A configuration with one route and no others, and without any secret.
fn labs(files: &Files) -> String {
    files.write(
        "fedgate.toml",
        "[gateway]\nthalamus_routes = false\n[[route]]\npath = \"/labs/{id}\"\nmethods = [\"GET\", \"PUT\"]\nendpoint = \"labs\"\n\
         subject = \"id\"\nupstream = \"his\"\n",
    )
}

/// `labs` granted to two roles, one of which is also granted methods that no route has.
const LABS: &str = r#"[
 {"role": "doctor", "permissions": {"GET": ["labs"], "DELETE": ["labs"], "HEAD": ["labs"], "global": "True"}},
 {"role": "patient", "permissions": {"GET": ["labs"]}}]"#;

#[test]
fn the_matrix_shows_ungranted_permissions_and_unasked_ones() {
    let files = Files::new();
    let (config, file) = (labs(&files), files.write("labs.cfg", LABS));
    let found = told(&["matrix", &file, "--json", "--config", &config]);
    let cell = |role, method, reach, asked| json!({ "role": role, "endpoint": "labs", "method": method, "reach": reach, "asked": asked });
    let cells = [
        cell("doctor", "DELETE", "global", false),
        cell("doctor", "GET", "global", true),
        cell("patient", "GET", "own", true),
    ];
    assert_eq!(found["cells"], json!(cells));
    assert_eq!(found["ungranted"], json!([{ "endpoint": "labs", "method": "PUT" }]));
    let unjudged = |method| json!({ "role": "doctor", "endpoint": "labs", "method": method });
    assert_eq!(found["unjudged"], json!([unjudged("DELETE"), unjudged("HEAD")]));

    let (_, table, _) = policy(&["matrix", &file, "--config", &config]);
    let rows: Vec<String> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    #[rustfmt::skip]
    assert_eq!(rows, [
        "endpoint method doctor patient",
        "labs DELETE global - no route asks for it",
        "labs GET global own",
        "labs PUT - - no role is granted it",
    ]);
    let (_, csv, _) = policy(&["matrix", &file, "--config", &config, "--format", "csv"]);
    assert_eq!(
        csv,
        "endpoint,method,asked,doctor,patient\nlabs,DELETE,no,global,-\nlabs,GET,yes,global,own\nlabs,PUT,yes,-,-\n"
    );
    // Without a configuration, the routes of Thalamus count.
    let found = told(&["matrix", &file, "--json"]);
    assert_eq!(found["unjudged"].as_array().unwrap().len(), 4, "{found}");
    assert!(found["ungranted"].as_array().unwrap().contains(&json!({ "endpoint": "login", "method": "GET" })));
    let stock = told(&["matrix", STOCK, "--json"]);
    // Webhooks are off until an operator sets their key, and nobody is granted to change them.
    let webhooks = json!([{ "endpoint": "messages", "method": "PATCH" }]);
    assert_eq!((&stock["ungranted"], &stock["unjudged"]), (&webhooks, &json!([])));
}

#[test]
fn the_diff_shows_which_changes_a_request_can_reach() {
    let files = Files::new();
    let (config, old) = (labs(&files), files.write("old.cfg", LABS));
    let new =
        files.write("new.cfg", &LABS.replace("[\"labs\"], \"DELETE\": [\"labs\"]", "[\"labs\"], \"PUT\": [\"labs\"]"));
    let asked = |arguments: &[&str]| -> Vec<(Value, Value)> {
        let found = told(&[&["diff", "--json", &old, &new], arguments].concat());
        let changes = found["changes"].as_array().unwrap().clone();
        changes.iter().map(|change| (change["method"].clone(), change["asked"].clone())).collect()
    };
    assert_eq!(asked(&["--config", &config]), [(json!("DELETE"), json!(false)), (json!("PUT"), json!(true))]);
    assert_eq!(asked(&[]), [(json!("DELETE"), json!(false)), (json!("PUT"), json!(false))]);
    let (code, text, _) = policy(&["diff", &old, &new, "--config", &config]);
    assert_eq!(code, 1);
    let lines: Vec<&str> = text.lines().take(2).collect();
    assert_eq!(
        lines,
        ["- doctor loses DELETE labs, any record (no route asks for it)", "+ doctor gains PUT labs, any record"]
    );
    let one = files.write("one.cfg", &LABS.replace("\"DELETE\": [\"labs\"], ", ""));
    assert!(policy(&["diff", &old, &one]).1.ends_with(": 1 change, 0 of them wider\n"));
}

#[test]
fn a_case_that_cannot_mean_what_it_says_is_warned_of() {
    let files = Files::new();
    let case = |name: &str, role: &str, asks: &str, expect: &str| {
        format!("[[case]]\nname = \"{name}\"\nas = \"A\"\nroles = [\"{role}\"]\nexpect = \"{expect}\"\n{asks}\n")
    };
    let run = |cases: &[String]| {
        let cases = files.write("c.toml", &cases.concat());
        let (code, text, complaint) = policy(&["test", STOCK, "--cases", &cases]);
        let found = told(&["test", STOCK, "--cases", &cases, "--json"]);
        (code, text, complaint, found["warnings"].clone())
    };
    let of = |endpoint: &str| format!("method = \"GET\"\nendpoint = \"{endpoint}\"");
    let sound = [
        case("a", "end_user", &of("page"), "allow own"),
        case("b", "end_user", &of("account"), "deny"),
        case("c", "nobody", &of("page"), "deny no_role"),
    ];
    assert_eq!(run(&sound), (0, "3 passed, 0 failed\n".into(), String::new(), json!([])));
    for (cases, name, warning) in [
        (vec![case("a", "end_user", &of("pages"), "deny")], "a", "no route asks for endpoint `pages`"),
        (
            vec![case("a", "end_user", &of("Page"), "deny")],
            "a",
            "no route asks for endpoint `Page` (did you mean `page`? names are compared exactly)",
        ),
        (
            vec![case("a", "End_user", &of("page"), "deny")],
            "a",
            "the policy defines no role `End_user` (did you mean `end_user`? names are compared exactly)",
        ),
        (vec![sound[0].clone(), sound[0].clone()], "a", "another case has this name"),
    ] {
        let (code, text, complaint, warnings) = run(&cases);
        assert!(code == 0 && !text.contains("warning"), "{text}");
        assert_eq!(complaint, format!("fedgate: warning: case `{name}`: {warning}"));
        assert_eq!(warnings, json!([{ "case": name, "warning": warning }]));
    }
    let (code, _, complaint, warnings) = run(&[case("a", "end_user", "[case.only]\npagse = [\"GET\"]", "allow")]);
    assert!(code == 1 && complaint.ends_with(" are not met"), "{complaint}");
    assert_eq!(warnings[0]["warning"], "no route asks for endpoint `pagse`");
    let (code, _, complaint, _) = run(&[case("a", "end_user", &of("page"), "deny")]);
    assert!(code == 1 && complaint.contains("1 expectation of ") && complaint.ends_with(" is not met"), "{complaint}");
    assert_eq!(told(&["test", STOCK, "--json"])["warnings"], json!([]), "those that are shipped mean what they say");
}

#[test]
fn check_warns_of_what_only_thalamus_would_fail_at() {
    let files = Files::new();
    let file = files.write("p.cfg", "[\n {\"role\": \"r\", \"permissions\": {\"GET\": [\"person\"]}}]");
    let (code, text, _) = policy(&["check", "--strict", &file]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("p.cfg:2: role `r` has no `POST`, `PATCH`, `DELETE`: Thalamus would answer 500"), "{text}");
    assert!(text.contains("p.cfg:2: role `r` has no `global`: Thalamus would answer 500"), "{text}");
    assert!(
        text.contains("p.cfg: 1 role, fingerprint ") && text.ends_with("2 remarks about Thalamus on the same file\n"),
        "{text}"
    );
    let found = told(&["check", &file, "--json"]);
    assert_eq!((&found["warnings"], found["thalamus"].as_array().map(Vec::len)), (&json!([]), Some(2)), "{found}");
    assert_eq!(told(&["check", STOCK, "--json"])["thalamus"], json!([]));
}
