//! The names of sessions at the database.

use std::process::{Child, Command, Output};

use tokio::runtime::Runtime;

use crate::fixture::{Gateway, Setup, password_hash};
use crate::scripted::until;
use crate::support::postgres::Cluster;
use crate::support::postgres_text;

/// A process that ends with the test, however the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn sessions_are_called_after_their_program_unless_the_connection_string_has_a_name() {
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(Cluster::shared().database_with_accounts(1, &password_hash()));
    let ask = |question: &str| runtime.block_on(postgres_text(&database, question));
    let gateway = Gateway::start_as(&Setup { database: Some(&database.uri), ..Setup::default() });
    let command = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg("--config").arg(gateway.dir.join("fedgate.toml"));
        command.env("FEDGATE_HIS_LISTEN", format!("unix:{}", gateway.dir.join("his.sock").display()));
        command
    };
    let (fedgate, fedhis) = (env!("CARGO_BIN_EXE_fedgate"), crate::support::programs::fedhis());
    let _his = Running(command(fedhis, &["serve"]).spawn().unwrap());
    until("both programs have sessions of their names", || {
        let names = "SELECT string_agg(DISTINCT application_name, ',' ORDER BY application_name) FROM pg_stat_activity \
                     WHERE datname = current_database() AND application_name LIKE 'fed%'";
        ask(names) == "fedgate,fedhis"
    });
    let people = gateway.dir.join("people.json");
    let import = |id: &str| {
        std::fs::write(&people, format!("{{\"id\":\"{id}\"}}")).unwrap();
        command(fedhis, &["import", "people", people.to_str().unwrap()])
    };
    let done = |out: Output| assert!(out.status.success(), "{out:?}");
    done(import("ONE").output().unwrap());
    done(command(fedgate, &["account", "disable", "ONE"]).output().unwrap());
    let named = format!("{} application_name=night-shift", database.uri);
    done(import("TWO").env("FEDGATE_STORE_URI", named).output().unwrap());
    let told = "SELECT string_agg(account || ' ' || application, ',' ORDER BY id) FROM fedgate_account_events \
                WHERE account IN ('ONE', 'TWO')";
    assert_eq!(ask(told), "ONE fedhis import,ONE fedgate account,TWO night-shift");
    let shown = command(fedgate, &["account", "history", "TWO"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("application night-shift"), "{shown}");
    let shown = command(fedgate, &["account", "history", "ONE"]).output().unwrap();
    assert!(!String::from_utf8(shown.stdout).unwrap().contains("application"), "our own names say nothing more");
}
