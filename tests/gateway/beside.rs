//! A gateway on the database of a Thalamus that continues to run.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use fedgate_base::config::{PostgresConfig, StoreConfig};
use fedgate_base::db::{Database, schema};
use fedgate_core::password;
use tokio::runtime::Runtime;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic};
use crate::support::postgres::Cluster;
use crate::support::postgres_text;

/// 43 letters in 86 bytes, of which Thalamus has hashed 72.
const CYRILLIC: &str = "пароль-пароль-пароль-пароль-пароль-пароль-п";

/// A database that Thalamus left, migrated, with three people who have one password, and one who has a long one.
async fn database_of_thalamus() -> PostgresConfig {
    let config = Cluster::shared().database().await;
    let hash = |clear: &[u8]| bcrypt::hash_with_salt(clear, 4, [7; 16]).unwrap().to_string();
    let (hash, long) = (hash(CANARY.as_bytes()), hash(&CYRILLIC.as_bytes()[..72]));
    let person = |id: &str, hash: &str| {
        format!(
            "INSERT INTO people (id, data) VALUES ('{id}', '{{\"roles\":[\"health_professional\"],\"password\":\"{hash}\"}}');"
        )
    };
    let people = ["P0", "P1", "P2"].map(|id| person(id, &hash)).concat() + &person("LONG", &long);
    let table = format!("CREATE TABLE people (id varchar PRIMARY KEY, data jsonb); {people}");
    postgres_text(&config, &table).await;
    schema::migrate(&Database::open(&StoreConfig::Postgres(config.clone())).await.unwrap()).await.unwrap();
    config
}

struct Federation {
    database: PostgresConfig,
    runtime: Runtime,
}

impl Federation {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let database = runtime.block_on(database_of_thalamus());
        Self { database, runtime }
    }

    fn gateway(&self, configuration: &str) -> Gateway {
        Gateway::start_as(&Setup { configuration, database: Some(&self.database.uri), ..Setup::default() })
    }

    fn hash(&self, id: &str) -> String {
        let select = format!("SELECT data ->> 'password' FROM people WHERE id = '{id}'");
        self.runtime.block_on(postgres_text(&self.database, &select))
    }
}

fn logs_in(gateway: &Gateway, id: &str, password: &str) -> bool {
    let authorization = format!("Authorization: {}\r\n", basic(id, password));
    gateway.request("GET", "/people", "", &authorization).status == 200
}

/// The output of a command that receives `input`.
fn fedgate(gateway: &Gateway, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    command.args(arguments).arg("--config").arg(gateway.dir.join("fedgate.toml")).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    (out.status.success(), text.into_owned())
}

#[test]
fn logins_leave_the_hashes_of_a_thalamus_alone_until_the_operator_cuts_over() {
    let federation = Federation::new();
    let (thalamus, long) = (federation.hash("P0"), federation.hash("LONG"));
    let beside = federation.gateway("");
    assert!(logs_in(&beside, "P0", CANARY) && !logs_in(&beside, "P0", "wrong"));
    assert!(logs_in(&beside, "LONG", CYRILLIC), "as Thalamus reads it");
    assert!(!logs_in(&beside, "LONG", &CYRILLIC.replacen('п', "Б", 1)));

    let cut_over = federation.gateway("[authentication]\nupgrade_hashes = true\n");
    // Both are upgraded after the login. A hash that is not upgraded by now was left alone.
    assert!(logs_in(&cut_over, "P1", CANARY));
    let deadline = Instant::now() + PATIENCE;
    while !federation.hash("P1").starts_with("$argon2id$") {
        assert!(Instant::now() < deadline, "the hash was not replaced");
        std::thread::yield_now();
    }
    assert_eq!((federation.hash("P0"), federation.hash("LONG")), (thalamus, long.clone()));
    // If a password is longer than its hash can hold, its end cannot be verified. Such a hash stays until it is set
    // again.
    assert!(logs_in(&cut_over, "LONG", CYRILLIC) && logs_in(&cut_over, "P0", CANARY));
    while !federation.hash("P0").starts_with("$argon2id$") {
        assert!(Instant::now() < deadline, "the hash was not replaced");
        std::thread::yield_now();
    }
    assert_eq!(federation.hash("LONG"), long);
}

#[test]
fn commands_write_hashes_that_a_thalamus_reads_and_check_names_accounts_that_it_could_not_log_in() {
    let federation = Federation::new();
    let gateway = federation.gateway("");
    let (_, told) = fedgate(&gateway, &["check"], "");
    assert!(told.contains("passwords      bcrypt as Thalamus reads it, because a Thalamus made this"), "{told}");
    assert!(!told.contains("could not log in"), "{told}");
    let fits = "x".repeat(72);
    let (is_done, told) = fedgate(&gateway, &["account", "passwd", "P0"], &format!("{fits}\n"));
    assert!(is_done, "{told}");
    let stored = federation.hash("P0");
    assert!(stored.starts_with("$2b$12$") && password::verify(&stored, fits.as_bytes()), "{stored}");
    let (is_done, told) = fedgate(&gateway, &["account", "add", "NEW"], &format!("{fits}\n"));
    assert!(is_done && federation.hash("NEW").starts_with("$2b$12$"), "{told}");
    let (is_done, told) = fedgate(&gateway, &["hash-password"], &format!("{fits}\n"));
    assert!(is_done && told.starts_with("$2b$12$"), "{told}");
    for command in [&["account", "passwd", "P0"][..], &["account", "add", "LONGER"], &["hash-password"]] {
        let (is_done, told) = fedgate(&gateway, command, &format!("{fits}x\n"));
        assert!(!is_done && told.contains("has 73 bytes") && told.contains("reads 72: take a shorter one"), "{told}");
    }
    assert_eq!(federation.hash("P0"), stored, "nothing was written");
    let (_, told) = fedgate(&gateway, &["account", "show", "P0"], "");
    assert!(told.contains("password  bcrypt\n"), "{told}");

    // The operator cuts over, and returns to Thalamus.
    let cut_over = federation.gateway("[authentication]\nupgrade_hashes = true\n");
    assert!(fedgate(&cut_over, &["account", "passwd", "P0"], &format!("{fits}x\n")).0);
    let (_, told) = fedgate(&gateway, &["account", "show", "P0"], "");
    assert!(told.contains("argon2id; cannot log in to a Thalamus until a new password is set"), "{told}");
    let (_, told) = fedgate(&gateway, &["check"], "");
    assert!(told.contains("a Thalamus on this database could not log in 1 account"), "{told}");
    assert!(fedgate(&gateway, &["account", "passwd", "P0"], &format!("{fits}\n")).0);
    assert!(federation.hash("P0").starts_with("$2b$12$"));
    assert!(!fedgate(&gateway, &["check"], "").1.contains("could not log in"));
}
