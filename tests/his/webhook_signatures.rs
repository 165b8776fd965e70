//! Signatures of webhooks, verified by other people's code; the operator's commands; and `kill -9`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::his::program::{configuration, fedhis};
use crate::support::receiver::{Receiver, status};
use crate::support::{His, write_private};

const PATIENCE: Duration = Duration::from_secs(60);
/// Where `tests/run` puts the tools of tests.
const TOOLS: &str = "target/test-tools";

/// The configuration of a program that may send to a receiver, on the store of a service.
fn sending_configuration(his: &His, receiver: &Receiver) -> std::path::PathBuf {
    let directory = &his.scratch.0;
    let path = configuration(directory);
    write_private(&directory.join("webhooks.key"), "a secret of webhooks, thirty-two bytes\n");
    let policy = r#"[{"role": "node", "permissions": {"GET": ["messages"], "global": "True"}}]"#;
    std::fs::write(directory.join("roles.cfg"), policy).unwrap();
    let text = std::fs::read_to_string(&path).unwrap()
        + &format!(
            "webhook_key_file = \"webhooks.key\"\nwebhook_ca_file = \"{}\"\nwebhook_allowed_networks = [\"127.0.0.1\", \"::1\"]\n\
             [policy]\nroles = \"roles.cfg\"\n",
            receiver.ca_file().display()
        );
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs a command and returns what it prints as JSON.
fn told(arguments: &[&str], config: &Path) -> Value {
    let out = fedhis(arguments, config);
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// A program that serves, and is killed with this value.
struct Served(std::process::Child);

impl Served {
    fn start(config: &Path, socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let mut command = Command::new(crate::support::programs::fedhis());
        command.args(["serve", "--config"]).arg(config).stdin(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_are_verified_by_the_code_of_others() {
    let (his, receiver) = (His::on_sqlite().await, Receiver::start().await);
    let config = sending_configuration(&his, &receiver);
    his.person("NODE", r#"{"roles":["node"]}"#).await;
    let added = told(
        &["relay", "endpoints", "add", "NODE", &receiver.url("/"), "--signature", "v1", "--signature", "v1a", "--json"],
        &config,
    );
    let id = added["id"].as_str().unwrap();
    let _served = Served::start(&config, &his.scratch.0.join("his.sock"));
    his.page("NODE", "p1", r#"{"id":"p1","text":"äöü € \u0041 \"x\" <&>"}"#).await;
    his.page("NODE", "p2", &json!({ "id": "p2", "text": "x".repeat(200_000) }).to_string()).await;
    until("the first two", || receiver.received().len() >= 2).await;
    // The former keys still verify what is signed with both.
    let rotated = told(&["relay", "endpoints", "rotate", id, "--show-private", "--json"], &config);
    assert_eq!(rotated["keys"].as_array().unwrap().len(), 3, "{rotated}");
    his.page("NODE", "p3", r#"{"id":"p3"}"#).await;
    until("the third", || receiver.received().len() >= 3).await;
    let received: Vec<Value> = receiver
        .received()
        .iter()
        .map(|one| {
            let headers: serde_json::Map<String, Value> =
                one.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            json!({ "headers": headers, "body": String::from_utf8(one.body.clone()).unwrap() })
        })
        .collect();
    let file = his.scratch.0.join("received.json");
    std::fs::write(&file, json!({ "keys": added["keys"], "received": received }).to_string()).unwrap();
    let tools = Path::new(TOOLS);
    let python = Some(tools.join("bin/python")).filter(|python| python.exists()).unwrap_or_else(|| "python3".into());
    let by_python = verified(Command::new(python).arg("tests/webhooks/verify.py").arg(&file));
    assert!(by_python.contains("hmac 3\n"), "{by_python}");
    let node = Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok();
    let node_modules = std::path::absolute(tools).unwrap();
    let by_node = if node {
        verified(Command::new("node").arg("tests/webhooks/verify.mjs").arg(&file).arg(node_modules))
    } else {
        String::new()
    };
    for (who, is_there) in [
        ("PyPI's standardwebhooks", by_python.contains("standardwebhooks 3\n")),
        ("PyPI's cryptography", by_python.contains("cryptography 3\n")),
        ("npm's standardwebhooks", by_node.contains("standardwebhooks 3\n")),
        ("node:crypto", by_node.contains("node:crypto 3\n")),
    ] {
        if !is_there {
            println!("NOT VERIFIED by {who}, which is not at hand (tests/run installs it)");
        }
    }
}

fn verified(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_relay_manage_webhooks_and_say_what_is_wrong() {
    let (his, receiver) = (His::on_sqlite().await, Receiver::start().await);
    let config = sending_configuration(&his, &receiver);
    his.person("NODE", r#"{"roles":["node"]}"#).await;
    let failed = |arguments: &[&str], code: i32, words: &str| {
        let out = fedhis(arguments, &config);
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(code) && told.contains(words), "{arguments:?} {:?}: {told}", out.status);
    };
    let url = receiver.url("/");
    failed(&["relay", "endpoints", "add", "NOBODY", &url], 1, "there is no account NOBODY");
    failed(&["relay", "endpoints", "add", "NODE", "http://a.example/"], 2, "https://node.example.org");
    failed(&["relay", "endpoints", "add", "NODE", &url, "--resource", "x"], 2, "`resource` has a value");
    failed(&["relay", "endpoints", "add", "NODE", &url, "--after", "99"], 1, "no message has that position yet");
    failed(&["relay", "endpoints", "remove", "wh_x"], 1, "there is no webhook wh_x");
    failed(&["relay", "replay", "wh_x", "1"], 1, "there is no webhook wh_x");
    failed(&["relay", "replay", "wh_x"], 2, "<POSITIONS>");
    assert_eq!(told(&["relay", "status", "--json"], &config)["last"], 1);
    let added = told(&["relay", "endpoints", "add", "NODE", &url, "--resource", "page", "--json"], &config);
    let id = added["id"].as_str().unwrap();
    assert!(added["keys"].as_array().unwrap().len() == 1 && added["keys"][0].as_str().unwrap().starts_with("whsec_"));
    let listed = told(&["relay", "endpoints", "list", "NODE", "--json"], &config);
    assert_eq!(
        (&listed[0]["id"], &listed[0]["account"], &listed[0]["resource"]),
        (&json!(id), &json!("NODE"), &json!("page"))
    );
    assert_eq!(told(&["relay", "endpoints", "list", "OTHER", "--json"], &config), json!([]));
    failed(&["relay", "status"], 1, "1 webhooks are served by no process");
    his.sql("UPDATE fedgate_webhooks SET state = 'ended', reason = 'a test', position = 1").await;
    his.sql(&format!("INSERT INTO fedgate_deliveries (webhook, position, lane, state, problem) VALUES ('{id}', 1, 'person NODE', 'dead', 'it\u{1b}[31m')")).await;
    let out = fedhis(&["relay", "dead"], &config);
    let dead = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && dead.contains(&format!("{id} 1 (person NODE)")) && !dead.contains('\u{1b}'),
        "{dead}"
    );
    let status = told(&["relay", "status", "--json"], &config);
    assert_eq!((&status["ended"], &status["dead"], &status["faults"]), (&json!(1), &json!(1), &json!([])));
    failed(&["relay", "replay", id, "999999"], 1, "has no dead letters of these positions");
    assert_eq!(told(&["relay", "replay", id, "--all", "--json"], &config)["replayed"], 1);
    told(&["relay", "endpoints", "resume", id, "--json"], &config);
    let served = Served::start(&config, &his.scratch.0.join("his.sock"));
    until("the replayed message", || receiver.received().len() == 1).await;
    assert_eq!(receiver.received()[0].id(), "NODE");
    drop(served);
    told(&["relay", "endpoints", "remove", id, "--json"], &config);
    assert_eq!(told(&["relay", "dead", "--json"], &config), json!([]));
    // Without the secret, the commands say what is missing.
    let text = std::fs::read_to_string(&config).unwrap().replace("webhook_key_file = \"webhooks.key\"\n", "");
    std::fs::write(&config, text).unwrap();
    failed(&["relay", "endpoints", "add", "NODE", &url], 2, "`his.webhook_key_file` is not set");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_loses_no_message_and_reorders_none_of_a_person() {
    let (his, receiver) = (His::on_sqlite().await, Receiver::start().await);
    let config = sending_configuration(&his, &receiver);
    his.person("NODE", r#"{"roles":["node"]}"#).await;
    let persons = ["P0", "P1", "P2"];
    for person in persons {
        his.person(person, "{}").await;
    }
    told(&["relay", "endpoints", "add", "NODE", &receiver.url("/"), "--resource", "page", "--json"], &config);
    receiver.answer(|_| {
        // Some attempts are on their way whenever the program is killed.
        std::thread::sleep(Duration::from_millis(3));
        status("200 OK")
    });
    let socket = his.scratch.0.join("his.sock");
    let mut written = 0;
    for kill in 0..6 {
        let served = Served::start(&config, &socket);
        for _ in 0..10 {
            for person in persons {
                his.page(person, &format!("{person}-{written:03}"), &format!(r#"{{"id":"{person}-{written:03}"}}"#))
                    .await;
            }
            written += 1;
        }
        let so_far = receiver.received().len();
        until("some more", || receiver.received().len() > so_far + kill).await;
        drop(served);
        // As if the lease of the killed program had ended.
        his.sql("UPDATE fedgate_webhooks SET owned_until = 0").await;
    }
    let _served = Served::start(&config, &socket);
    let distinct = || receiver.received().iter().map(|one| one.id()).collect::<BTreeSet<_>>();
    until("all of them", || distinct().len() == written * persons.len()).await;
    for person in persons {
        let mut first_seen: Vec<String> = vec![];
        for id in receiver.received().iter().map(|one| one.id()).filter(|id| id.starts_with(person)) {
            if first_seen.contains(&id) {
                // What is repeated is the last one that was sent.
                assert_eq!(first_seen.last(), Some(&id));
            } else {
                assert!(first_seen.last().is_none_or(|last| *last < id), "{id} after {first_seen:?}");
                first_seen.push(id);
            }
        }
    }
    let distinct_ids: BTreeSet<String> =
        receiver.received().iter().map(|one| one.header("webhook-id").to_owned()).collect();
    assert_eq!(distinct_ids.len(), written * persons.len(), "a repeated message has the id that it had");
}
