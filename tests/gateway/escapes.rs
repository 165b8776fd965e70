//! Text from outside reaches a terminal only as text, whatever its source and whichever program shows it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use fedgate_core::escape::is_unseen;

use crate::fixture::{Gateway, PATIENCE, Place, Setup, basic};
use crate::support::programs::fedhis;

const FEDGATE: &str = env!("CARGO_BIN_EXE_fedgate");
/// Colours, reverses the direction, hides, and begins a line of its own.
const EVIL: &str = "x\u{1b}[31m\u{202e}y\u{200b}\u{9b}2J\u{7f}\nfedgate: all is well\r";

/// The lines that a program has printed, all of which must be its own.
fn lines(out: &Output, of: &str) -> Vec<String> {
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in &lines {
        assert!(!line.contains(is_unseen), "{of}: {line:?}");
        assert!(!line.starts_with("fedgate: all is well"), "{of}: a line that is not ours: {text}");
    }
    lines
}

/// Runs a program with hostile text in its input, and checks that it shows the text escaped.
fn shows(program: &str, arguments: &[&str], environment: &[(&str, &str)]) {
    let of = format!("{program} {arguments:?} {environment:?}");
    let out = Command::new(program).args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).output();
    let lines = lines(&out.unwrap(), &of);
    assert!(lines.iter().any(|line| line.contains("\\u{1b}[31m\\u{202e}y\\u{200b}")), "{of}: {lines:#?}");
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path: PathBuf = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn what_arguments_files_and_the_environment_hold_is_shown_as_text() {
    let place = Place::prepare(&Setup::default());
    let config = place.dir.join("fedgate.toml").display().to_string();
    let plain = std::fs::read_to_string(&config).unwrap();
    let nowhere = format!("/nowhere/{EVIL}");
    // Arguments: a command, an option, a value, a path.
    for program in [FEDGATE, fedhis()] {
        shows(program, &[EVIL], &[]);
        shows(program, &["serve", &format!("--{EVIL}")], &[]);
        shows(program, &["serve", "--config", &nowhere], &[]);
        shows(program, &["--config", &nowhere, "serve"], &[]);
        // The environment: the log, a value of a key, the value of a list, a path.
        shows(program, &["serve", "--config", &config], &[("FEDGATE_LOG", EVIL)]);
        shows(program, &["serve", "--config", &config], &[("FEDGATE_STORE_KIND", EVIL)]);
        shows(program, &["serve", "--config", &config], &[("FEDGATE_GATEWAY_LISTEN", EVIL)]);
        shows(program, &["serve", "--config", &config], &[("FEDGATE_STORE_PATH", &nowhere)]);
        // The file: a key, a value, a section.
        let quoted = format!("\"{}\"", EVIL.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<String>());
        for text in
            [format!("{quoted} = 1\n{plain}"), format!("{plain}\nhost = {quoted}\n"), format!("[{quoted}]\n{plain}")]
        {
            let file = write(&place.dir, "evil.toml", &text);
            shows(program, &["serve", "--config", &file], &[]);
        }
    }
    shows(FEDGATE, &["check", "--config", &config], &[("FEDGATE_RECORDS_FILE", &nowhere)]);
    shows(FEDGATE, &["check", "--config", &config], &[(&format!("FEDGATE_{}", EVIL.replace('\n', "")), "1")]);
    shows(FEDGATE, &["policy", "check", &nowhere], &[]);
    shows(FEDGATE, &["explain", EVIL, "--records", &nowhere, "--config", &config], &[]);
    shows(FEDGATE, &["demo", "--listen", EVIL], &[]);
    shows(FEDGATE, &["demo", "--dir", &format!("/proc/{EVIL}")], &[]);
    shows(fedhis(), &["import", "people", &nowhere, "--config", &config], &[]);
    shows(fedhis(), &["import", EVIL, "x", "--config", &config], &[]);
    let evil = format!("[{{\"role\": {}, \"permissions\": {{\"GET\": [\"login\"]}}}}]", serde_json::json!(EVIL));
    shows(FEDGATE, &["policy", "check", &write(&place.dir, "evil.cfg", &evil)], &[]);
    std::fs::remove_dir_all(&place.dir).unwrap();
}

#[test]
fn what_the_database_holds_is_shown_as_text() {
    let place = Place::prepare(&Setup::default());
    let config = place.dir.join("fedgate.toml").display().to_string();
    let store = rusqlite::Connection::open(place.dir.join("test.db")).unwrap();
    store
        .execute("INSERT INTO people (id, data) VALUES (?1, json_object('id', ?1, 'active', json('true')))", [EVIL])
        .unwrap();
    let report = serde_json::json!({ "id": EVIL, "place": EVIL, "policy": EVIL, "policy_fault": EVIL }).to_string();
    let seen = "INSERT INTO fedgate_instances SELECT ?1, unixepoch('subsec') * 1000, 1, ?2";
    let is_listed = store.execute(seen, [EVIL, &report]).is_ok();
    drop(store);
    shows(FEDGATE, &["account", "list", "--config", &config], &[]);
    shows(FEDGATE, &["account", "show", EVIL, "--config", &config], &[]);
    if is_listed {
        shows(FEDGATE, &["status", "--config", &config], &[]);
    }
    for (program, command) in [(FEDGATE, "check"), (fedhis(), "migrate")] {
        let out = Command::new(program).args([command, "--config", &config]).output().unwrap();
        lines(&out, command);
    }
    // Refused records are written to another file, which people read.
    let people = write(&place.dir, "people.jsonl", &format!("{}\n", serde_json::json!({ "id": EVIL, "roles": 1 })));
    let out = Command::new(fedhis()).args(["import", "people", &people, "--config", &config]).output().unwrap();
    lines(&out, "import");
    let refused = std::fs::read_to_string(format!("{people}.refused.jsonl")).unwrap();
    assert!(!refused.trim_end().contains(is_unseen), "{refused:?}");
    std::fs::remove_dir_all(&place.dir).unwrap();
}

#[test]
fn what_clients_and_certificates_say_is_shown_as_text_in_log_and_records() {
    let began = Instant::now();
    let gateway = Gateway::start();
    let encoded: String = EVIL.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let evil_header = format!("X-Y: {}\r\n", EVIL.replace(['\n', '\r'], ""));
    for (target, headers) in [
        (format!("/people/{encoded}"), String::new()),
        ("/people/\u{202e}".to_owned(), String::new()),
        (format!("/people?{encoded}"), format!("Authorization: {}\r\n", basic(EVIL, "x"))),
        ("/login".to_owned(), evil_header),
    ] {
        let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        let record = gateway.record_line();
        assert!(!record.contains(is_unseen), "{target}: {record:?}");
    }
    // A policy that contains it, which is logged.
    let policy = serde_json::json!([{ "role": "r", "permissions": { "GET": [EVIL] } }]).to_string();
    std::fs::write(gateway.dir.join("roles.cfg"), policy).unwrap();
    gateway.logged("\\u{1b}[31m\\u{202e}y", began, PATIENCE).expect("the log tells of it");
    assert!(gateway.whole_log().iter().all(|line| !line.contains(is_unseen)), "{:?}", gateway.whole_log());
}
