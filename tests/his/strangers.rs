//! Databases that these programs must not write to, although a configuration names them.

use std::fs;
use std::path::Path;
use std::process::Command;

use fedgate_base::config::PostgresConfig;
use rusqlite::Connection;

use crate::his::program::{configuration, configuration_on, fedhis};
use crate::support::postgres::Cluster;
use crate::support::{Scratch, postgres_text};

/// Exit code and output of a program, with all that it needs beside the store.
fn run(program: &str, arguments: &[&str], config: &Path) -> (Option<i32>, String) {
    let stock = std::env::current_dir().unwrap().join("policies/roles.cfg");
    let text = fs::read_to_string(config).unwrap();
    if !text.contains("[policy]") {
        let gateway = "[gateway]\nlisten = []\nlisten_plain = [\"127.0.0.1:0\"]\nadmin = []\n";
        fs::write(config, format!("{text}{gateway}[policy]\nroles = \"{}\"\n", stock.display())).unwrap();
    }
    let out = Command::new(program).args(arguments).arg("--config").arg(config).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn a_file_of_another_program_is_refused_by_all_and_not_a_byte_of_it_changes() {
    for (made, fault) in [
        (
            "CREATE TABLE moz_places (url TEXT); INSERT INTO moz_places VALUES ('x')",
            "tables of another program (`moz_places`)",
        ),
        (
            "PRAGMA application_id = 252006674; CREATE TABLE people (id TEXT PRIMARY KEY, data TEXT)",
            "another program (application id 252006674)",
        ),
        (
            "CREATE TABLE people (id INTEGER, name TEXT); CREATE TABLE orders (id INTEGER)",
            "tables of another program (`orders`, `people`)",
        ),
        ("CREATE TABLE people (name TEXT, age INTEGER)", "tables of another program (`people`)"),
        ("", "is no SQLite database, and so no store of fedgate"),
    ] {
        let scratch = Scratch::new();
        let config = configuration(&scratch.0);
        let file = scratch.0.join("his.db");
        match made {
            "" => fs::write(&file, "no database, but longer than the head of one would be".repeat(9)).unwrap(),
            made => Connection::open(&file).unwrap().execute_batch(made).unwrap(),
        }
        let before = fs::read(&file).unwrap();
        for (program, arguments) in [
            (crate::support::programs::fedhis(), &["migrate"][..]),
            (crate::support::programs::fedhis(), &["serve"]),
            (crate::support::programs::fedhis(), &["seed"]),
            (env!("CARGO_BIN_EXE_fedgate"), &["check"]),
            (env!("CARGO_BIN_EXE_fedgate"), &["serve"]),
            (env!("CARGO_BIN_EXE_fedgate"), &["account", "list"]),
        ] {
            let (code, told) = run(program, arguments, &config);
            let named = told.contains("fedgate.toml: `store.path` names `");
            assert!(code == Some(2) && told.contains(fault) && named, "{arguments:?}: {told}");
            assert!(!told.contains("fedhis migrate"), "{arguments:?}: {told}");
            assert_eq!(fs::read(&file).unwrap(), before, "{arguments:?}");
        }
    }
}

#[test]
fn a_store_of_before_the_mark_and_a_table_of_the_operators_beside_ours_are_no_strangers() {
    let scratch = Scratch::new();
    let config = configuration(&scratch.0);
    let open = || Connection::open(scratch.0.join("his.db")).unwrap();
    let mark = || open().query_row("PRAGMA application_id", [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(fedhis(&["migrate"], &config).status.success());
    let ours = mark();
    assert_ne!(ours, 0);
    open().execute_batch("PRAGMA application_id = 0; CREATE TABLE labs (n)").unwrap();
    assert!(fedhis(&["migrate"], &config).status.success());
    assert_eq!(mark(), ours);
    assert!(fedhis(&["seed"], &config).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_keeps_no_utf8_is_refused_before_anything_is_made_in_it() {
    let shared = Cluster::shared().database().await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("other{:x}", rand::random::<u64>());
        let create =
            format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
        postgres_text(&shared, &create).await;
        let uri = format!("{}dbname={name}", shared.uri.split("dbname=").next().unwrap());
        let scratch = Scratch::new();
        let config = configuration_on(&scratch.0, &uri);
        for (program, command) in
            [(crate::support::programs::fedhis(), "migrate"), (env!("CARGO_BIN_EXE_fedgate"), "check")]
        {
            let (code, told) = run(program, &[command], &config);
            assert_eq!(code, Some(2), "{told}");
            assert!(told.contains("fedgate.toml: `store.uri` leads to the database"), "{command}: {told}");
            assert!(told.contains(encoding) && told.contains("createdb -E UTF8"), "{command}: {told}");
        }
        let database = PostgresConfig { uri, ..shared.clone() };
        assert_eq!(postgres_text(&database, "SELECT count(*) FROM pg_class WHERE relname = 'people'").await, "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_migrate_learns_which_role_must_own_the_database() {
    let shared = Cluster::shared().database().await;
    let name = format!("plain{:x}", rand::random::<u64>());
    postgres_text(&shared, &format!("CREATE ROLE {name} LOGIN")).await;
    let scratch = Scratch::new();
    let config = configuration_on(&scratch.0, &shared.uri.replace("user=postgres", &format!("user={name}")));
    let (code, told) = run(crate::support::programs::fedhis(), &["migrate"], &config);
    assert_eq!(code, Some(2), "{told}");
    for part in ["fedgate.toml: `store.uri` names a role", "permission denied", "createdb -O ROLE", "ALTER DATABASE"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
