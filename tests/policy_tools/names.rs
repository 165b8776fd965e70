//! Names and files that are made to mislead: they control no terminal, hide nothing, and keep no command waiting.

use crate::policy_tools::{Files, STOCK, crowd, fedgate, json, policy};

#[test]
fn names_do_not_control_the_terminal() {
    let files = Files::new();
    let file = files.write("odd.cfg", &crowd(r"a\n\u001b[31m").replace("person", r"per\u0007son"));
    let (_, table, _) = policy(&["matrix", &file]);
    assert!(table.lines().count() < 50, "none begins a line");
    assert!(
        table.contains(r"  a\n\u{1b}[31m0  a") && table.contains("\nper\\u{7}son       GET     own  "),
        "{table:.200}"
    );
    let roles = "\u{1b}[31m";
    let (_, text, _) =
        policy(&["explain", "--as", "A\nB", "--roles", roles, "--policy", STOCK, "GET", "/people/\u{1b}"]);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let (_, csv, _) = policy(&["matrix", "--format", "csv", &file]);
    assert!(csv.starts_with("endpoint,method,asked,a\\n\\u{1b}[31m0,a\\n"), "{csv:.60?}");
}

/// A policy whose names reverse the direction of text, have no width, or begin like a formula.
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
        let unseen = |c: char| fedgate_core::escape::is_unseen(c) && c != '\n';
        assert!(!text.contains(unseen) && !complaint.contains(unseen), "{arguments:?}: {text:?} {complaint:?}");
        assert!(text.contains("202e") || text.contains("2066") || complaint.contains("202e"), "{text} {complaint}");
    }
    // Programs read the names as they are.
    let cells = json(&["matrix", &file, "--json"])["cells"].as_array().unwrap().clone();
    assert!(cells.iter().any(|cell| cell["role"] == "\u{202e}nimda" && cell["endpoint"] == "per\u{200b}son"));
    let (_, csv, _) = policy(&["matrix", &file, "--format", "csv"]);
    assert!(csv.contains("\n'=1+1,GET,no,own\n") && csv.contains("\n\"'+1,\"\"x\"\"\",GET,no,own\n"), "{csv}");
}

#[test]
fn a_fault_shows_no_more_of_a_name_than_a_line_holds() {
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
            assert!(code != 0 && complaint.contains("not a regular file"), "{arguments:?}: {complaint}");
        }
    }
}
