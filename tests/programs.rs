//! Both programs as programs: what they take from the environment, how they start, and what ends them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test panics to fail"
)]

use std::process::{Command, Output};

fn fedgate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fedgate"))
}

fn fedhis() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fedhis"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_log_setting_that_cannot_be_read_is_refused_by_both_programs() {
    let run = |command: &mut Command, log: &str| command.env("FEDGATE_LOG", log).output().unwrap();
    for log in ["wrn", "bogus===", "info,", "fedgate=loud"] {
        for mut command in [fedgate(), fedhis()] {
            let output = run(command.args(["serve", "--config", "/nowhere/fedgate.toml"]), log);
            assert_eq!(output.status.code(), Some(2), "{log}");
            let said = stderr(&output);
            assert!(said.contains("FEDGATE_LOG") && said.contains("error, warn, info, debug, trace or off"), "{said}");
        }
    }
    for log in ["", "Warning", "OFF", "warn,fedgate::his=debug"] {
        for mut command in [fedgate(), fedhis()] {
            let said = stderr(&run(command.args(["serve", "--config", "/nowhere/fedgate.toml"]), log));
            assert!(said.contains("/nowhere/fedgate.toml") && !said.contains("FEDGATE_LOG"), "{log}: {said}");
        }
    }
}
