//! `fedgate account disable --wait` and `fedgate status` with three gateways.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fixture::{CANARY, Gateway, PATIENCE, basic};
use crate::revocation::federation::Federation;

/// A command under the operator's role, of the configuration of a gateway.
fn as_operator(gateway: &Gateway, arguments: &[&str]) -> Command {
    let config = gateway.dir.join("fedgate.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let uri = text.split("uri = \"").nth(1).unwrap().split('"').next().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.args(arguments).arg("--config").arg(config);
    command.env("FEDGATE_STORE_URI", uri.replace("user=fedgate ", "user=fedgate_operator "));
    command
}

/// Runs an operator's command that succeeds, and returns its output, stderr last.
pub(crate) fn fedgate(gateway: &Gateway, arguments: &[&str]) -> (String, String) {
    let out = as_operator(gateway, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(out.stdout), text(out.stderr));
    assert!(out.status.success(), "{arguments:?}: {stdout}{stderr}");
    (stdout, stderr)
}

/// Waits until `fedgate status` is as expected, and returns its output.
fn status_becomes(gateway: &Gateway, is_so: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (text, _) = fedgate(gateway, &["status"]);
        if is_so(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "never so: {text}");
    }
}

/// Asks until the accounts can be read, which takes a suspended gateway a moment.
fn ask(gateway: &Gateway, account: &str) -> u16 {
    let authorization = format!("Authorization: {}\r\n", basic(account, CANARY));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = gateway.request("GET", "/people", "", &authorization).status;
        if status != 503 {
            return status;
        }
        assert!(Instant::now() < deadline, "the accounts cannot be read");
    }
}

/// How many gateways have such a lease, according to `status`.
fn leases(text: &str, lease: &str) -> usize {
    text.split_whitespace().filter(|word| *word == lease).count()
}

#[test]
fn an_operator_waits_until_all_gateways_have_applied_a_change_and_learns_of_a_silent_one() {
    let federation = Federation::with_accounts(2);
    let gateways = federation.gateways();
    assert!(gateways.iter().all(|gateway| ask(gateway, "P0") == 200 && ask(gateway, "P1") == 200));
    status_becomes(&gateways[0], |text| text.contains("3 run, all under policy") && leases(text, "valid") == 3);
    // An old report says nothing about a lease, long before the gateway counts as gone.
    gateways[1].signal(Signal::STOP);
    let text = status_becomes(&gateways[0], |text| leases(text, "unknown") > 0);
    let (json, _) = fedgate(&gateways[0], &["status", "--json"]);
    gateways[1].signal(Signal::CONT);
    assert_eq!(leases(&text, "valid"), 2, "{text}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let mut told: Vec<&str> =
        json["instances"].as_array().unwrap().iter().map(|one| one["lease"].as_str().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, ["unknown", "valid", "valid"], "{json}");

    let (text, warnings) = fedgate(&gateways[0], &["account", "disable", "P0", "--wait"]);
    let statuses = gateways.iter().map(|gateway| ask(gateway, "P0")).collect::<Vec<_>>();
    assert_eq!(statuses, [401; 3], "it returned when all had applied it: {text}");
    assert!(text.contains("3 gateways have applied it, ") && warnings.is_empty(), "{text}{warnings}");
    let (told, _) = fedgate(&gateways[0], &["account", "enable", "P0", "--wait", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["done"], told["silent"].as_array().map(Vec::len)), (&"enabled".into(), Some(0)), "{told}");
    let applied: BTreeSet<&str> =
        told["applied"].as_array().unwrap().iter().map(|one| one["place"].as_str().unwrap()).collect();
    assert_eq!(applied.len(), 3, "{told}");
    println!("revocation, account disable --wait: {}", text.lines().last().unwrap());

    // A suspended gateway cannot report that it has applied the change. Its lease ends, and the command names it.
    gateways[1].signal(Signal::STOP);
    let began = Instant::now();
    let (text, warnings) = fedgate(&gateways[0], &["account", "disable", "P1", "--wait"]);
    let took = began.elapsed();
    gateways[1].signal(Signal::CONT);
    assert!(text.contains("2 gateways have applied it, "), "{text}{warnings}");
    let place = gateways[1].tls_address.to_string();
    assert!(warnings.contains(&place) && warnings.contains("its lease ended at 20"), "{warnings}");
    assert!(took > Duration::from_secs(1), "not before its lease had ended: {took:?}");
    status_becomes(&gateways[0], |text| leases(text, "valid") == 3);
    gateways[1].signal(Signal::STOP);
    let (told, warnings) = fedgate(&gateways[0], &["account", "enable", "P1", "--wait", "--json"]);
    gateways[1].signal(Signal::CONT);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let silent = &told["silent"][0];
    assert!(silent["place"].as_str().unwrap().contains(&place), "{told}");
    assert!(silent["lease_ended_at"].as_str().unwrap().starts_with("20") && warnings.is_empty(), "{told}{warnings}");
    assert!(told["after_ms"].as_u64().unwrap() >= 1000 && told["warnings"].as_array().unwrap().len() == 1, "{told}");
    fedgate(&gateways[0], &["account", "disable", "P1", "--wait"]);
    println!("revocation, account disable --wait with one gateway stopped: {}", text.lines().last().unwrap());
    assert_eq!(gateways.iter().map(|gateway| ask(gateway, "P1")).collect::<Vec<_>>(), [401; 3]);

    let policy = std::fs::read_to_string(gateways[2].dir.join("roles.cfg")).unwrap();
    std::fs::write(gateways[2].dir.join("roles.cfg"), policy.replace("\"DELETE\": [", "\"DELETE\": [\"page\", "))
        .unwrap();
    let text = status_becomes(&gateways[0], |text| text.contains("3 run under 2 different policies"));
    // A line for each gateway, and one below it for its caches.
    assert_eq!(text.lines().count(), 9, "{text}");
}

#[test]
fn an_instance_that_was_silent_for_long_is_waited_for_as_long_as_it_may_admit() {
    let federation = Federation::with_accounts(1);
    // Cached rights may be used for 8 s after the last confirmation.
    let gateways = federation.gateways_in(&[("FEDGATE_AUTHENTICATION_SERVE_CACHED_FOR_SECONDS", "7")]);
    assert!(gateways.iter().all(|gateway| ask(gateway, "P0") == 200));
    status_becomes(&gateways[0], |text| text.contains("3 run, all under policy"));
    gateways[1].signal(Signal::STOP);
    let stopped = Instant::now();
    let text = status_becomes(&gateways[0], |text| text.contains("2 run, all under policy"));
    assert_eq!((leases(&text, "valid"), leases(&text, "unknown")), (2, 1), "{text}");
    let (text, warnings) = fedgate(&gateways[0], &["account", "disable", "P0", "--wait"]);
    let took = stopped.elapsed();
    gateways[1].signal(Signal::CONT);
    assert!(text.contains("2 gateways have applied it, "), "{text}{warnings}");
    let place = gateways[1].tls_address.to_string();
    let named = |words: &str| warnings.lines().any(|line| line.contains(&place) && line.contains(words));
    assert!(named("does not answer; waiting until 20") && named("did not answer; its lease ended at 20"), "{warnings}");
    assert!(took > Duration::from_secs(7), "not before its lease had ended: {took:?}");
    assert_eq!(gateways.iter().map(|gateway| ask(gateway, "P0")).collect::<Vec<_>>(), [401; 3]);
}

#[test]
fn an_unlock_or_a_new_password_ends_the_wait_after_typing_errors_and_operators_see_waits() {
    let federation = Federation::with_accounts(3);
    let gateways = federation.gateways();
    let wrong = |gateway: &Gateway, account: &str, guess: u32| {
        let authorization = format!("Authorization: {}\r\n", basic(account, &format!("wrong {guess}")));
        gateway.request("GET", "/people", "", &authorization).status
    };
    let right = |gateway: &Gateway| ask(gateway, "P0");
    gateways.iter().for_each(|gateway| assert_eq!(ask(gateway, "P1"), 200));
    // Until the wait is some seconds long, at two of them.
    let mistype = |account: &'static str| {
        std::thread::scope(|scope| {
            for gateway in &gateways[..2] {
                scope.spawn(move || {
                    let deadline = Instant::now() + PATIENCE;
                    let mut looked_at = 0;
                    for guess in 0.. {
                        looked_at += u32::from(wrong(gateway, account, guess) == 401);
                        if looked_at == 8 {
                            break;
                        }
                        assert!(Instant::now() < deadline, "{looked_at} were looked at");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
            }
        });
    };
    mistype("P0");
    assert_eq!(gateways[..2].iter().map(right).collect::<Vec<_>>(), [429; 2]);
    let show = || -> serde_json::Value {
        serde_json::from_str(&fedgate(&gateways[2], &["account", "show", "P0", "--json"]).0).unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let places: BTreeSet<String> =
            show()["waits"].as_array().unwrap().iter().map(|one| one["place"].as_str().unwrap().to_owned()).collect();
        if !places.is_empty() {
            assert!(!places.iter().any(|place| place.contains(&gateways[2].tls_address.to_string())), "{places:?}");
            break;
        }
        assert!(Instant::now() < deadline, "nobody is told to wait");
    }
    // The last reports are still of the moment before.
    fedgate(&gateways[2], &["account", "unlock", "P0"]);
    assert_eq!(show()["waits"], serde_json::json!([]));
    mistype("P0");
    let (told, _) = fedgate(&gateways[2], &["account", "unlock", "P0", "--wait", "--json"]);
    assert_eq!(gateways.iter().map(right).collect::<Vec<_>>(), [200; 3], "{told}");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["done"], told["applied"].as_array().map(Vec::len)), (&"unlocked".into(), Some(3)), "{told}");
    assert_eq!(show()["waits"], serde_json::json!([]), "an ended wait is told no more");
    // A new password ends it as well.
    mistype("P2");
    assert_eq!(gateways[..2].iter().map(|gateway| ask(gateway, "P2")).collect::<Vec<_>>(), [429; 2]);
    let mut passwd = as_operator(&gateways[2], &["account", "passwd", "P2", "--wait"]);
    let mut passwd = passwd.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    passwd.stdin.take().unwrap().write_all(b"another password\n").unwrap();
    let out = passwd.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && told.contains("3 gateways have applied it"), "{told}");
    let authorization = format!("Authorization: {}\r\n", basic("P2", "another password"));
    let asked = gateways.iter().map(|gateway| gateway.request("GET", "/people", "", &authorization).status);
    assert_eq!(asked.collect::<Vec<_>>(), [200; 3], "it waits nowhere");
}
