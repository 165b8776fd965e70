//! `fedgate policy`: what an operator sees, and the exit codes that scripts rely on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test panics to fail"
)]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[path = "policy_tools/cases.rs"]
mod cases;
#[path = "policy_tools/accounts.rs"]
mod accounts;

struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("fedgate-policy-{:x}", rand::random::<u128>()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.0.join(name), text).unwrap();
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
        "odd.cfg:4: `account` stands twice under `PATCH`",
        "odd.cfg:4: no route asks for `login` under `DELETE`, but under GET",
        "odd.cfg:5: role `r` stands on line 2 too",
        "odd.cfg:5: `global` of role `r` is true, not \"True\"",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert_eq!(policy(&["check", "--strict", &odd]).0, 1);
    assert_eq!(json(&["check", "--json", &odd])["warnings"].as_array().unwrap().len(), 8);
    assert_eq!(policy(&["check", "/nowhere/roles.cfg"]).0, 2);
}

#[test]
fn explain_tells_the_role_and_line_that_decide_or_what_each_role_lacks() {
    let ask = |roles: &str, method: &str, path: &str| {
        policy(&["explain", "--as", "DOC", "--roles", roles, "--policy", STOCK, method, path])
    };
    let (code, text, _) = ask("end_user,health_professional,nurse", "POST", "/password/ANA");
    assert_eq!(code, 0);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], "POST /password/ANA as DOC: denied, it is granted for one's own record alone");
    assert!(lines[2].starts_with("end_user") && lines[2].ends_with("own record alone (line 7)"), "{text}");
    assert!(lines[3].ends_with("does not list `password` under POST (role on line 12)"), "{text}");
    assert!(lines[4].ends_with("is not defined in the policy"), "{text}");
    assert!(ask("health_professional", "GET", "/people/X").1.contains("grants it for any record (line 15)"));
    assert!(ask("root", "PUT", "/people/X").1.contains("does not serve PUT (405)"));
    assert!(ask("root", "GET", "/").1.contains("public"));
    assert!(ask("root", "OPTIONS", "/people/X").1.contains("without asking the policy; the path serves GET, HEAD, "));
    assert!(ask("root", "OPTIONS", "/nowhere").1.contains("404 to everybody"));
    assert!(ask("", "GET", "/people/X").1.ends_with("\n  the account has no roles\n"));
    assert!(!ask("root,", "GET", "/people/X").1.contains("not defined"));
    assert!(ask("root", "GET", "/nowhere").1.contains("no route has this path"));
    assert_eq!(ask("root", "GET", "/people/../x").0, 2);
    let found =
        json(&["explain", "--json", "--as", "ANA", "--roles", "end_user", "--policy", STOCK, "GET", "/people/ANA"]);
    assert_eq!((found["decision"].as_str(), found["roles"][0]["line"].as_u64()), (Some("allow own"), Some(5)));
    assert_eq!(policy(&["explain", "--as", "ANA", "--roles", "x", "GET", "/"]).0, 2, "no policy is named");
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
        csv.starts_with("endpoint,method,end_user,health_professional,root\n")
            && csv.contains("\nperson,GET,own,global,global\n")
    );
    let found = json(&["matrix", STOCK, "--json"]);
    assert_eq!(found, json(&["matrix", STOCK, "--format", "json"]));
    let cell = serde_json::json!({ "role": "end_user", "endpoint": "person", "method": "GET", "reach": "own" });
    assert!(found["cells"].as_array().unwrap().contains(&cell));
}

#[test]
fn diff_tells_what_changes_and_exits_1_when_access_widens_unless_it_is_meant() {
    let files = Files::new();
    let stock = std::fs::read_to_string(STOCK).unwrap();
    let wider = files.write(
        "wider.cfg",
        &stock.replace(
            "\"DELETE\": [],\n      \"global\": \"True\"",
            "\"DELETE\": [\"page\"],\n      \"global\": \"True\"",
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

/// A policy of many roles, whose names begin as is given.
fn crowd(name: &str) -> String {
    let role = |number| format!(r#"{{"role": "{name}{number}", "permissions": {{"GET": ["person"]}}}}"#);
    format!("[{}]", (0..20_000).map(role).collect::<Vec<_>>().join(",\n"))
}

#[test]
fn names_do_not_control_the_terminal() {
    let files = Files::new();
    let file = files.write("odd.cfg", &crowd(r"a\n\u001b[31m").replace("person", r"per\u0007son"));
    let (_, table, _) = policy(&["matrix", &file]);
    assert_eq!(table.lines().count(), 2);
    assert!(table.contains(r"  a\n\u{1b}[31m0  a") && table.contains("\nper\\u{7}son  GET     own  "), "{table:.200}");
    let roles = "\u{1b}[31m";
    let (_, text, _) =
        policy(&["explain", "--as", "A\nB", "--roles", roles, "--policy", STOCK, "GET", "/people/\u{1b}"]);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let (_, csv, _) = policy(&["matrix", "--format", "csv", &file]);
    assert!(csv.starts_with("endpoint,method,a\\n\\u{1b}[31m0,a\\n"), "{csv:.60?}");
}

/// A policy whose names turn the direction of what follows, have no width, or begin as a formula does.
const DISGUISED: &str = r#"[
 {"role": "\u202enimda", "permissions": {"GET": ["per\u200bson", "=1+1", "+1,\"x\""], "P\u2028T": ["page"]}}]"#;

#[test]
fn a_policy_under_review_cannot_disguise_itself() {
    let files = Files::new();
    let file = files.write("disguised.cfg", DISGUISED);
    let cases = files.write(
        "c.toml",
        "[[case]]\nname = \"\u{2066}n\"\nas = \"A\u{200d}\"\nroles = [\"\u{202e}nimda\"]\nrequest = \"GET /people/X\"\nexpect = \"allow\"\n",
    );
    let explain = ["explain", "--as", "A\u{202e}", "--roles", "\u{202e}nimda", "--policy", &file, "GET", "/login"];
    for arguments in [
        &["check", &file][..],
        &["matrix", &file],
        &["matrix", &file, "--format", "csv"],
        &["matrix", &file, "--json"],
        &["diff", STOCK, &file],
        &["diff", &file, STOCK, "--json"],
        &["test", &file, "--cases", &cases],
        &["test", &file, "--cases", &cases, "--json"],
        &explain,
        &[&explain[..], &["--json"]].concat(),
        &["check", "/nowhere/\u{202e}"],
    ] {
        let (_, text, complaint) = policy(arguments);
        let unseen = |c: char| fedgate::escape::is_unseen(c) && c != '\n';
        assert!(!text.contains(unseen) && !complaint.contains(unseen), "{arguments:?}: {text:?} {complaint:?}");
        assert!(text.contains("202e") || text.contains("2066") || complaint.contains("202e"), "{text} {complaint}");
    }
    // Programs read the names as they are.
    let cells = json(&["matrix", &file, "--json"])["cells"].as_array().unwrap().clone();
    assert!(cells.iter().any(|cell| cell["role"] == "\u{202e}nimda" && cell["endpoint"] == "per\u{200b}son"));
    let (_, csv, _) = policy(&["matrix", &file, "--format", "csv"]);
    assert!(csv.contains("\n'=1+1,GET,own\n") && csv.contains("\n\"'+1,\"\"x\"\"\",GET,own\n"), "{csv}");
}

#[test]
fn a_fault_tells_no_more_of_a_name_than_a_line_holds() {
    let files = Files::new();
    let long = "\u{202e}é".repeat(100_000);
    for (entry, told) in [
        (format!(r#"{{"role": "r", "permissions": {{}}, "{long}": 1}}"#), "unknown field `\\u{202e}é"),
        (format!(r#"{{"role": "r", "permissions": {{"{long}": 1}}}}"#), "`\\u{202e}é"),
        (format!(r#"{{"role": "r", "permissions": {{"{long}": [], "{long}": []}}}}"#), "duplicate key `\\u{202e}é"),
        (format!(r#"{{"role": "r", "permissions": "{long}"}}"#), "invalid type: string \"\\u{202e}é"),
        (format!(r#"{{"role": "r", "permissions": {{"global": "{long}"}}}}"#), "`global` is \"\\u{202e}é"),
    ] {
        let (code, _, complaint) = policy(&["check", &files.write("long.cfg", &format!("[{entry}]"))]);
        assert!(code == 2 && complaint.contains(told) && complaint.contains('…'), "{complaint:.400}");
        assert!(complaint.chars().count() < 1000, "{complaint}");
    }
    let of_role = format!(r#"[{{"role": "r", "permissions": {{"{long}": ["{}"]}}}}]"#, "n".repeat(256));
    let (code, text, _) = policy(&["check", &files.write("odd.cfg", &of_role)]);
    assert!(code == 0 && text.contains("is no method that is judged") && text.len() < 1500, "{text}");
}

#[test]
fn nothing_is_read_but_regular_files() {
    let files = Files::new();
    let fifo = files.0.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let fifo = fifo.display().to_string();
    files.write("secret", &"k".repeat(40));
    let config = files.write("fedgate.toml", "[assertion]\nsecret_file = \"secret\"\n");
    for path in [fifo.as_str(), "/dev/zero"] {
        for arguments in [
            &["policy", "check", path][..],
            &["policy", "check", STOCK, "--config", path],
            &["policy", "test", STOCK, "--cases", path],
            &["policy", "explain", "--as", "A", "--roles", "root", "--policy", path, "GET", "/people"],
            &["explain", "r1", "--config", &config, "--records", path],
            &["status", "--config", path],
        ] {
            let (code, _, complaint) = fedgate(arguments);
            assert!(code != 0 && complaint.contains("no regular file"), "{arguments:?}: {complaint}");
        }
    }
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
    // Nor does it hide what was found out.
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
        &[&ask[..], &[STOCK, "GET", "/people/../x"]].concat(),
        &["explain", "--json", "--as", "ANA", "GET", "/people"],
    ] {
        assert_eq!(told(arguments).0, None);
    }
}
