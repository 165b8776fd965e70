//! `fedgate check` looks at each replica, and warns of those that the HIS would not read.

use std::process::Command;

use serde_json::Value;

use crate::fixture::{Place, Setup};
use crate::support::postgres::Cluster;
use crate::support::postgres_text;

#[test]
fn a_replica_that_would_not_be_read_is_warned_of_with_the_reason() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (primary, elsewhere) = (Cluster::start(), Cluster::start());
    let [database, other] = [(); 2].map(|()| runtime.block_on(primary.database_with_accounts(1, "")));
    let twin = runtime.block_on(elsewhere.database_with_accounts(1, ""));
    let (standby, stranger) = (primary.standby(), elsewhere.standby());
    runtime.block_on(postgres_text(&database, "INSERT INTO people VALUES ('LATE', '{}')"));
    runtime.block_on(standby.follow(&database));
    let nowhere = "host=/nowhere user=postgres dbname=test0";
    let uris: [&str; 5] =
        [&standby.moved(&database).uri, &database.uri, &standby.moved(&other).uri, &stranger.moved(&twin).uri, nowhere];
    let place = Place::prepare(&Setup { database: Some(&database.uri), ..Setup::default() });
    let check = |uris: &[&str], pool_size: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
        command.args(["check", "--json", "--config"]).arg(place.dir.join("fedgate.toml"));
        command.env("FEDGATE_STORE_READ_URIS", uris.join(",")).env("FEDGATE_STORE_POOL_SIZE", pool_size);
        let out = command.output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let told: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
        assert_eq!(out.status.code(), Some(0), "a replica is no fault: {told:#}");
        told
    };
    let told = check(&uris, "16");
    let replicas = told["replicas"].as_array().unwrap();
    assert_eq!((replicas.len(), &replicas[0]["problem"]), (5, &Value::Null), "{told:#}");
    assert_eq!(replicas[0]["needed"], 36, "{told:#}");
    assert!(replicas[0]["lag_bytes"].is_u64(), "{told:#}");
    let warned = |told: &Value, words: &str| {
        told["warnings"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains(words))
    };
    for words in [
        "number 2 of `store.read_uris` is not read: it takes writes, so it is no standby",
        "number 3 of `store.read_uris` is not read: it leads to another database than `store.uri`",
        "number 4 of `store.read_uris` is not read: it is a server of another cluster",
        "number 5 of `store.read_uris` is not read: ",
    ] {
        assert!(warned(&told, words), "{words}: {told:#}");
    }
    assert!(!warned(&told, "number 1 of") && !warned(&told, "may open"), "{told:#}");
    // One more at the primary for each HIS, and for the one that replaces it.
    assert_eq!(told["connections"]["needed"], 80, "{told:#}");
    let told = check(&uris[..1], "250");
    assert!(warned(&told, "number 1 of `store.read_uris` has 397 connections for programs"), "{told:#}");
}
