//! `fedgate policy`: the output for operators, and the exit codes that scripts rely on.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[path = "policy_tools/cases.rs"]
mod cases;
#[path = "policy_tools/accounts.rs"]
mod accounts;
#[path = "policy_tools/explain.rs"]
mod explain;
#[path = "policy_tools/names.rs"]
mod names;
#[path = "policy_tools/routes.rs"]
mod routes;

struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("fedgate-policy-{:x}", rand::random::<u128>()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// Writes a file for its owner alone, as secrets are kept.
    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
        std::fs::set_permissions(self.0.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Exit code, stdout, last line of stderr.
fn fedgate(arguments: &[&str]) -> (i32, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_fedgate")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let complaint = text(out.stderr).lines().last().unwrap_or_default().to_owned();
    (out.status.code().unwrap(), text(out.stdout), complaint)
}

fn policy(arguments: &[&str]) -> (i32, String, String) {
    fedgate(&[&["policy"], arguments].concat())
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&policy(arguments).1).unwrap()
}

const STOCK: &str = "policies/roles.cfg";

#[test]
fn check_names_line_and_key_of_a_fault_and_what_is_hardly_meant() {
    let files = Files::new();
    assert_eq!(policy(&["check", STOCK]).0, 0);
    assert!(policy(&["check", STOCK]).1.ends_with("nothing to remark\n"));
    let broken = files.write("broken.cfg", "[\n {\"role\": \"r\",\n  \"permissions\": {\"GET\": \"person\"}}]");
    let (code, _, complaint) = policy(&["check", &broken]);
    assert_eq!(code, 2);
    assert!(
        complaint.contains("broken.cfg: line 3: ") && complaint.contains("`GET` of role `r` must be a list"),
        "{complaint}"
    );
    let odd = files.write(
        "odd.cfg",
        r#"[
 {"role": "r", "permissions": {"GET": ["person", "persn"],
   "HEAD": ["person"], "get": ["person"],
   "PATCH": ["account", "account"], "DELETE": ["login"]}},
 {"role": "r", "permissions": {"GET": ["people"], "global": true}}
]"#,
    );
    let (code, text, _) = policy(&["check", &odd]);
    assert_eq!(code, 0);
    for expected in [
        "odd.cfg:2: no route leads to endpoint `persn`",
        "odd.cfg:3: `HEAD` of role `r` is no method that is judged",
        "odd.cfg:3: `get` of role `r`",
        "odd.cfg:4: role `r` may write its own roles",
        "odd.cfg:4: `account` occurs twice under `PATCH`",
        "odd.cfg:4: no route asks for `login` under `DELETE`, but under GET",
        "odd.cfg:5: role `r` is also on line 2",
        "odd.cfg:5: `global` of role `r` is true, not \"True\"",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert_eq!(policy(&["check", "--strict", &odd]).0, 1);
    assert_eq!(json(&["check", "--json", &odd])["warnings"].as_array().unwrap().len(), 8);
    assert_eq!(policy(&["check", "/nowhere/roles.cfg"]).0, 2);
}

#[test]
fn an_empty_policy_is_called_empty_and_nothing_to_remark_means_that_nothing_was_printed() {
    let files = Files::new();
    for text in ["", " \n"] {
        let (code, _, complaint) = policy(&["check", &files.write("none.cfg", text)]);
        assert!(code == 2 && complaint.contains("none.cfg: file is empty; write the roles into it"), "{complaint}");
        assert!(complaint.contains("a running one keeps its last good policy"), "{complaint}");
    }
    let methods = r#""POST": [], "PATCH": [], "DELETE": [], "global": "False""#;
    let noted =
        files.write("noted.cfg", &format!(r#"[{{"role": "r", "permissions": {{"GET": ["person"], {methods}}}}}]"#));
    let (code, text, _) = policy(&["check", "--strict", &noted]);
    let told = text.contains("no role is granted `account`") && text.ends_with(", 1 note\n");
    assert!(code == 0 && told && !text.contains("nothing to remark"), "{text}");
}

#[test]
fn matrix_shows_each_cell_in_three_formats() {
    let (_, table, _) = policy(&["matrix", STOCK]);
    let row = |start: &str| {
        table
            .lines()
            .find(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ") == start)
            .unwrap()
            .split_whitespace()
            .skip(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(row("endpoint method"), "end_user health_professional root");
    assert_eq!(row("person GET"), "own global global");
    assert_eq!(row("person DELETE"), "- - global");
    let (_, csv, _) = policy(&["matrix", STOCK, "--format", "csv"]);
    assert!(
        csv.starts_with("endpoint,method,asked,end_user,health_professional,root\n")
            && csv.contains("\nperson,GET,yes,own,global,global\n")
    );
    let found = json(&["matrix", STOCK, "--json"]);
    assert_eq!(found, json(&["matrix", STOCK, "--format", "json"]));
    let cell =
        serde_json::json!({ "role": "end_user", "endpoint": "person", "method": "GET", "reach": "own", "asked": true });
    assert!(found["cells"].as_array().unwrap().contains(&cell));
}

#[test]
fn a_matrix_that_is_too_large_to_read_is_written_for_machines_alone() {
    let files = Files::new();
    let role = |n| format!(r#"{{"role": "r{n}", "permissions": {{"GET": ["e{n}"]}}}}"#);
    let large = files.write("large.cfg", &format!("[{}]", (0..2000).map(role).collect::<Vec<_>>().join(",")));
    for format in ["table", "csv"] {
        let (code, text, complaint) = policy(&["matrix", &large, "--format", format]);
        assert_eq!((code, text.as_str()), (2, ""));
        assert!(complaint.contains("rows of 2000 roles are more than the 1000000 cells"), "{complaint}");
    }
    assert_eq!(json(&["matrix", &large, "--json"])["cells"].as_array().unwrap().len(), 2000);
}

#[test]
fn diff_shows_changes_and_exits_1_when_access_widens_unless_allowed() {
    let files = Files::new();
    let stock = std::fs::read_to_string(STOCK).unwrap();
    let wider = files.write(
        "wider.cfg",
        &stock.replace(
            "\"DELETE\": [\"messages\"],\n      \"global\": \"True\"",
            "\"DELETE\": [\"messages\", \"page\"],\n      \"global\": \"True\"",
        ),
    );
    let (code, text, complaint) = policy(&["diff", STOCK, &wider]);
    assert_eq!((code, text.lines().next().unwrap()), (1, "+ health_professional gains DELETE page, any record"));
    assert!(complaint.contains("--allow-wider"));
    assert_eq!(policy(&["diff", STOCK, &wider, "--allow-wider"]).0, 0);
    let (code, text, _) = policy(&["diff", &wider, STOCK]);
    assert_eq!((code, text.lines().next().unwrap()), (0, "- health_professional loses DELETE page, any record"));
    let global = files.write("global.cfg", &stock.replacen("\"False\"", "\"True\"", 1));
    let (code, text, _) = policy(&["diff", STOCK, &global]);
    assert!(code == 1 && text.contains("+ end_user: GET person widens from own record to any record"), "{text}");
    assert_eq!(json(&["diff", "--json", &global, STOCK])["wider"], 0);
    let same = files.write("same.cfg", &format!("{stock}\n\n"));
    let (code, text, _) = policy(&["diff", STOCK, &same]);
    assert!(code == 0 && text.ends_with("nothing changes\n"));
}

/// A policy of many roles whose names begin with `name`.
fn crowd(name: &str) -> String {
    let role = |number| format!(r#"{{"role": "{name}{number}", "permissions": {{"GET": ["person"]}}}}"#);
    format!("[{}]", (0..20_000).map(role).collect::<Vec<_>>().join(",\n"))
}

#[test]
fn a_reader_that_has_read_enough_is_no_fault() {
    let files = Files::new();
    let file = files.write("crowd.cfg", &crowd("role"));
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
        let command = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 8]).unwrap();
        let out = child.wait_with_output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    assert_eq!(run(&["policy", "matrix", &file]), (0, String::new()));
    // Nor does a closed pipe hide the result.
    let (code, complaint) = run(&["policy", "diff", STOCK, &file]);
    assert!(code == 1 && complaint.contains("--allow-wider") && !complaint.contains("pipe"), "{complaint}");
}

#[test]
fn a_question_that_cannot_be_answered_is_one_object_for_machines() {
    let files = Files::new();
    let broken = files.write("broken.cfg", "[\n {}]");
    let unmet = files.write("empty.cases.toml", "case = []");
    let told = |arguments: &[&str]| {
        let (code, text, complaint) = policy(arguments);
        assert!(code == 2 && complaint.starts_with("fedgate: ") && text.lines().count() == 1, "{arguments:?}: {text}");
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found.as_object().unwrap().len(), 2, "{text}");
        (found["file"].as_str().map(str::to_owned), found["error"].as_str().unwrap().to_owned())
    };
    let ask = ["explain", "--json", "--as", "ANA", "--roles", "root", "--policy"];
    for arguments in [
        &["check", "--json", &broken][..],
        &[&ask[..], &[&broken, "GET", "/people"]].concat(),
        &["matrix", "--json", &broken],
        &["matrix", "--format", "json", &broken],
        &["diff", "--json", STOCK, &broken],
        &["test", "--json", &broken],
    ] {
        let (file, error) = told(arguments);
        assert!(file.as_ref() == Some(&broken) && error.starts_with("line 2: missing field `role`"), "{error}");
    }
    let (file, error) = told(&["test", "--json", STOCK, "--cases", &unmet]);
    assert_eq!((file.as_ref(), error.as_str()), (Some(&unmet), "there are no cases"), "no cases prove nothing");
    assert_eq!(told(&["matrix", "--json", "/nowhere"]).0.as_deref(), Some("/nowhere"));
    for arguments in [
        &["check", "--json", STOCK, "--config", "/nowhere"][..],
        &["explain", "--json", "--as", "ANA", "GET", "/people"],
    ] {
        assert_eq!(told(arguments).0, None);
    }
}
