//! Changes of accounts in the records: one record each, however many gateways run, and the output of the commands.

use std::fs;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::{Value, json};

use crate::fixture::{Gateway, PATIENCE, Setup};

const FILE: (&str, &str) = ("FEDGATE_RECORDS_FILE", "records.jsonl");

fn account(gateway: &Gateway, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.arg("account").args(arguments).arg("--config").arg(gateway.dir.join("fedgate.toml")).output().unwrap()
}

/// The changes in a file of records.
fn changes(file: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| !line["event"].is_null()).collect()
}

fn outside(gateway: &Gateway, sql: &str) {
    let store = rusqlite::Connection::open(gateway.dir.join("test.db")).unwrap();
    store.busy_timeout(PATIENCE).unwrap();
    store.execute_batch(sql).unwrap();
}

#[test]
fn each_change_of_an_account_is_one_line_of_the_records_of_one_gateway() {
    let first = Gateway::start_as(&Setup { environment: &[FILE], ..Setup::default() });
    // A second gateway on the same store, with records of its own.
    let config = fs::read_to_string(first.dir.join("fedgate.toml")).unwrap();
    let lines: Vec<&str> =
        config.lines().filter(|line| !line.starts_with("listen") && !line.starts_with("admin")).collect();
    let beside = lines.join("\n").replace("[gateway]", "[gateway]\nlisten_plain = [\"127.0.0.1:0\"]\nadmin = []");
    fs::write(first.dir.join("second.toml"), beside).unwrap();
    let mut second = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    second.args(["serve", "--config"]).arg(first.dir.join("second.toml")).env(FILE.0, "second.jsonl");
    let mut second = second.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !first.dir.join("second.jsonl").exists() {
        assert!(second.try_wait().unwrap().is_none() && began.elapsed() < PATIENCE, "a second gateway runs");
        std::thread::yield_now();
    }
    for number in 0..20 {
        outside(&first, &format!("INSERT INTO people (id, data) VALUES ('P{number}', '{{\"roles\":[\"root\"]}}')"));
    }
    assert!(account(&first, &["roles", "ANA", "root"]).status.success());
    outside(&first, "BEGIN; DELETE FROM people WHERE id = 'DOC'; ROLLBACK");
    outside(&first, "UPDATE people SET data = json_set(data, '$.active', json('false')) WHERE id = 'ANA'");
    let files = [first.dir.join("records.jsonl"), first.dir.join("second.jsonl")];
    let began = Instant::now();
    let all = loop {
        let all: Vec<Value> = files.iter().flat_map(|file| changes(file)).collect();
        if all.len() >= 22 {
            break all;
        }
        assert!(began.elapsed() < PATIENCE, "{all:?}");
        std::thread::yield_now();
    };
    second.kill().unwrap();
    second.wait().unwrap();
    let mut ids: Vec<i64> = all.iter().map(|line| line["event.id"].as_i64().unwrap()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), all.len()), (22, 22), "none twice: {all:?}");
    let of_ana: Vec<&Value> = all.iter().filter(|line| line["account"] == "ANA").collect();
    let by_command = of_ana.iter().find(|line| line["via"] == "command").unwrap();
    assert_eq!(by_command["event"], "account_changed");
    assert_eq!((&by_command["roles.before"], &by_command["roles.after"]), (&json!(["end_user"]), &json!(["root"])));
    let outside = of_ana.iter().find(|line| line["via"] == "outside").unwrap();
    assert_eq!((&outside["active.before"], &outside["active.after"]), (&json!(true), &json!(false)));
    assert!(outside["actor"].is_null() && outside["roles.after"].is_null(), "{outside}");
    let counted = first.admin_get("/metrics").body.contains("fedgate_account_changes_total{via=");
    assert_eq!(counted, !changes(&files[0]).is_empty(), "each counts what it has recorded");
    // A line that is no request's record is none to `explain` either.
    let mut explain = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    let explained = explain.args(["explain", "P1", "--config"]).arg(first.dir.join("fedgate.toml")).env(FILE.0, FILE.1);
    assert_eq!(explained.output().unwrap().status.code(), Some(1));
}

#[test]
fn the_history_of_an_account_names_actors_and_no_text_of_it_controls_a_terminal() {
    let gateway = Gateway::start();
    assert!(account(&gateway, &["roles", "ANA", "root,health_professional"]).status.success());
    outside(
        &gateway,
        "INSERT INTO people (id, data) VALUES ('\u{1b}[31m', '{\"roles\":[\"\u{202e}toor\"],\"password\":\"secret-hash\"}')",
    );
    let out = account(&gateway, &["history", "ANA"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let [changed, created] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(changed.contains("ANA changed: roles [\"end_user\"] -> [\"root\",\"health_professional\"]"), "{changed}");
    assert!(changed.contains("(command)") && created.contains("created: roles none -> [\"end_user\"]"), "{text}");
    assert!(created.contains("password set"), "{created}");
    let all = account(&gateway, &["history"]).stdout;
    assert!(!all.contains(&0x1b) && !String::from_utf8_lossy(&all).contains('\u{202e}'));
    assert!(!String::from_utf8_lossy(&all).contains("secret-hash"));
    let told = account(&gateway, &["history", "--limit", "1", "--json"]).stdout;
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!((&told["events"][0]["via"], &told["events"][0]["what"]), (&"outside".into(), &"created".into()));
    let next = told["next"].as_i64().unwrap();
    let told = account(&gateway, &["history", "--before", &next.to_string(), "--json"]).stdout;
    let told: Value = serde_json::from_slice(&told).unwrap();
    assert_eq!((&told["events"][0]["account"], &told["next"]), (&"ANA".into(), &Value::Null));
    assert_eq!(told["events"][0]["roles"], json!({"before": ["end_user"], "after": ["root", "health_professional"]}));
    let nobody = account(&gateway, &["history", "NOBODY"]);
    assert!(
        nobody.status.success() && String::from_utf8_lossy(&nobody.stdout).contains("no change of NOBODY is on record")
    );
}
