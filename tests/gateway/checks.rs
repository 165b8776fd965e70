//! `fedgate check` does what serving does and reports every fault, also while a gateway runs.

use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use crate::fixture::{Gateway, Place, Setup};
use crate::gateway::certificate_checks::check;
use crate::support::free_address;
use crate::support::postgres::Cluster;

fn json(dir: &std::path::Path, environment: &[(&str, &str)]) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.args(["check", "--json", "--config"]).arg(dir.join("fedgate.toml"));
    let out = command.envs(environment.iter().copied()).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
    (out.status.code(), value)
}

fn holds(list: &Value, words: &str) -> bool {
    list.as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains(words))
}

#[test]
fn every_fault_is_reported_whatever_part_has_it() {
    let place = Place::prepare(&Setup::default());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let roles =
        "[{\"role\": \"a\", \"permissions\": {\"GET\": 1}},\n{\"role\": \"b\", \"permissions\": {\"global\": 1}}]";
    std::fs::write(place.dir.join("roles.cfg"), roles).unwrap();
    std::fs::write(place.dir.join("cert.pem"), "").unwrap();
    let environment = [
        ("FEDGATE_GATEWAY_ADMIN", address.as_str()),
        ("FEDGATE_CORS_ALLOWED_ORIGINS", "nowhere"),
        ("FEDGATE_RECORDS_FILE", "/nowhere/records"),
        ("FEDGATE_STORE_PATH", "/nowhere/store.db"),
        ("FEDGATE_POLICY_HISTORY", "cert.key/history"),
        ("FEDGATE_RECORD_FILE", "x"),
    ];
    let (code, told) = json(&place.dir, &environment);
    assert_eq!((code, &told["valid"]), (Some(2), &Value::Bool(false)), "{told}");
    for words in [
        "environment: `FEDGATE_CORS_ALLOWED_ORIGINS` holds `nowhere`",
        "roles.cfg: line 1",
        "roles.cfg: line 2",
        "cert.pem: holds no certificate",
        "`records.file` is set by FEDGATE_RECORDS_FILE",
        "`store.path` is set by FEDGATE_STORE_PATH",
        "Address already in use",
        "`gateway.admin` is set by FEDGATE_GATEWAY_ADMIN",
    ] {
        assert!(holds(&told["faults"], words), "{words}: {told:#}");
    }
    assert!(holds(&told["warnings"], "`FEDGATE_RECORD_FILE` means nothing"), "{told:#}");
    assert!(holds(&told["warnings"], "cert.key/history: this user may not write there"), "{told:#}");
    assert!(told["error"].as_str().unwrap().ends_with("7 faults, listed in `faults`"), "{told:#}");
    let (code, text) = check(&place, &environment);
    assert!(code == 2 && text.lines().last().unwrap().ends_with("7 faults, listed above"), "{text}");
    drop(taken);
    let place = Place::prepare(&Setup::default());
    let (code, told) = json(&place.dir, &[]);
    assert_eq!((code, &told["valid"], told["faults"].as_array().unwrap().len()), (Some(0), &Value::Bool(true), 0));
    assert!(told["certificates"][0]["valid_to"].is_string() && told["database"]["schema"].is_number(), "{told:#}");
}

#[test]
fn a_check_by_root_says_that_the_gateway_is_run_by_another_user() {
    let place = Place::prepare(&Setup::default());
    let records = place.dir.join("records");
    std::fs::create_dir(&records).unwrap();
    let file = records.join("records.jsonl").display().to_string();
    let warns = || holds(&json(&place.dir, &[("FEDGATE_RECORDS_FILE", &file)]).1["warnings"], "this runs as root");
    assert!(!warns(), "the directory is this user's");
    // Any other user sees what may be read as it is.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&records, Some(65534), None).unwrap();
        assert!(warns());
    }
}

#[test]
fn a_fault_of_one_key_hides_none_of_what_other_keys_name() {
    let place = Place::prepare(&Setup::default());
    let config = place.dir.join("fedgate.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let route = "\n[[route]]\npath = \"/x/{a}\"\nmethods = [\"GTE\"]\nendpoint = \"x\"\nupstream = \"nobody\"\n";
    std::fs::write(&config, text + route).unwrap();
    std::fs::remove_file(place.dir.join("cert.pem")).unwrap();
    let environment = [("FEDGATE_TLS_EXPIRY_WARNING_DAYS", "-1"), ("FEDGATE_GATEWAY_BOGUS", "1")];
    let (code, told) = json(&place.dir, &environment);
    for words in
        ["FEDGATE_TLS_EXPIRY_WARNING_DAYS", "FEDGATE_GATEWAY_BOGUS", "cert.pem", "`nobody`", "`GTE` is no method"]
    {
        assert!(holds(&told["faults"], words), "{words}: {told:#}");
    }
    assert_eq!((code, told["faults"].as_array().unwrap().len()), (Some(2), 5), "{told:#}");
}

#[test]
fn a_gateway_that_runs_is_not_in_its_own_way_and_another_program_is() {
    let pid_file = std::env::temp_dir().join(format!("fedgate-check-{:x}", rand::random::<u128>()));
    let gateway = Gateway::start_as(&Setup { pid_file: Some(&pid_file), ..Setup::default() });
    let deadline = std::time::Instant::now() + crate::fixture::PATIENCE;
    while !pid_file.exists() {
        assert!(std::time::Instant::now() < deadline, "no process id was written");
    }
    let (code, told) = json(&gateway.dir, &[]);
    assert_eq!((code, &told["running"]), (Some(0), &Value::from(gateway.child.id())), "{told:#}");
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap().trim(), gateway.child.id().to_string(), "it is as it was");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("{},{}", gateway.address, taken.local_addr().unwrap());
    let (code, told) = json(&gateway.dir, &[("FEDGATE_GATEWAY_LISTEN_PLAIN", &more)]);
    assert_eq!((code, told["faults"].as_array().unwrap().len()), (Some(1), 1), "{told:#}");
    assert!(holds(&told["faults"], &format!("cannot listen on {}", taken.local_addr().unwrap())), "{told:#}");
    // Without the file the running gateway is recognized by its admin listener.
    let (code, told) = json(&gateway.dir, &[("FEDGATE_GATEWAY_PID_FILE", "")]);
    assert_eq!(code, Some(0), "{told:#}");
    // Nor is it in the way if the file names another admin address by now, with or without its process id.
    let moved = crate::support::free_address().to_string();
    for pid_file in [None, Some(("FEDGATE_GATEWAY_PID_FILE", ""))] {
        let environment: Vec<_> = pid_file.into_iter().chain([("FEDGATE_GATEWAY_ADMIN", moved.as_str())]).collect();
        let (code, told) = json(&gateway.dir, &environment);
        assert!(code == Some(0) && !holds(&told["warnings"], "cannot listen on"), "{told:#}");
    }
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    let _ = std::fs::remove_file(pid_file);
}

#[test]
fn another_gateway_that_holds_the_addresses_is_in_the_way_whoever_answers_there() {
    let other = Gateway::start();
    let place = Place::prepare(&Setup::default());
    let both = [("FEDGATE_GATEWAY_LISTEN", &other.address), ("FEDGATE_GATEWAY_ADMIN", &other.admin)];
    for taken in [&both[..], &both[..1], &both[1..]] {
        let taken: Vec<_> = taken.iter().map(|(variable, address)| (*variable, address.to_string())).collect();
        for pid_file in ["", "a.pid"] {
            let mut environment: Vec<_> = taken.iter().map(|(variable, value)| (*variable, value.as_str())).collect();
            environment.push(("FEDGATE_GATEWAY_PID_FILE", pid_file));
            let (code, told) = json(&place.dir, &environment);
            assert_eq!(code, Some(1), "{told:#}");
            let faults = told["faults"].as_array().unwrap();
            let is_taken = |fault: &Value| fault.as_str().is_some_and(|fault| fault.contains("cannot listen on"));
            assert!(faults.len() == taken.len() && faults.iter().all(is_taken), "{told:#}");
        }
    }
    assert_eq!(other.admin_get("/readyz").status, 200);
}

#[test]
fn an_error_of_status_is_json_where_json_was_asked_for() {
    let out = Command::new(env!("CARGO_BIN_EXE_fedgate")).args(["status", "--json", "--config", "none.toml"]).output();
    let out = out.unwrap();
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(out.status.code() == Some(2) && told["error"].as_str().unwrap().contains("none.toml"), "{out:?}");
}

#[test]
fn a_server_that_cannot_be_reached_is_a_warning() {
    let nobody = free_address();
    let more = format!("[[upstream]]\nname = \"lab\"\nservers = [\"{nobody}\"]\n");
    let place = Place::prepare(&Setup { configuration: &more, ..Setup::default() });
    let (code, told) = json(&place.dir, &[]);
    assert_eq!(code, Some(0), "{told:#}");
    let words = format!("upstream `lab`: server `{nobody}` cannot be reached now");
    assert!(holds(&told["warnings"], &words) && !holds(&told["warnings"], "upstream `his`"), "{told:#}");
}

#[test]
fn a_disk_of_the_records_with_less_room_than_the_reserve_is_a_warning() {
    let place = Place::prepare(&Setup::default());
    let file = place.dir.join("records.jsonl");
    for (reserve, is_told) in [("1000000000", true), ("1", false)] {
        let environment = [("FEDGATE_RECORDS_FILE", file.to_str().unwrap()), ("FEDGATE_RECORDS_RESERVE_MIB", reserve)];
        let (code, told) = json(&place.dir, &environment);
        assert_eq!((code, &told["valid"]), (Some(0), &Value::Bool(true)), "{told}");
        assert_eq!(holds(&told["warnings"], "less than `records.reserve_mib`"), is_told, "{told}");
    }
}

#[test]
fn the_connections_of_all_programs_are_counted_against_those_of_postgresql() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(Cluster::shared().database_with_accounts(1, ""));
    let place = Place::prepare(&Setup { database: Some(&database.uri), ..Setup::default() });
    let (code, told) = json(&place.dir, &[("FEDGATE_STORE_POOL_SIZE", "16")]);
    // The cluster of the tests has 400 connections.
    let expected = serde_json::json!({ "needed": 78, "usable": 397, "max": 400, "gateways": 1, "his": 1 });
    assert_eq!((code, &told["connections"]), (Some(0), &expected), "{told:#}");
    assert!(!holds(&told["warnings"], "may open"), "{told:#}");
    let name = database.uri.split("dbname=").nth(1).unwrap();
    let limited = format!("DROP INDEX fedgate_people_dob; ALTER DATABASE {name} CONNECTION LIMIT 50");
    runtime.block_on(crate::support::postgres_text(&database, &limited));
    let (code, told) = json(&place.dir, &[("FEDGATE_STORE_POOL_SIZE", "16")]);
    assert_eq!(code, Some(0), "{told:#}");
    assert!(holds(&told["warnings"], "may open 78 connections, and PostgreSQL has 50 for them"), "{told:#}");
    assert!(holds(&told["warnings"], "set `store.pool_size` to 9 in all programs"), "{told:#}");
    assert!(holds(&told["warnings"], "no usable index `fedgate_people_dob`; run `fedhis migrate`"), "{told:#}");
}
