//! A gateway that would be the second one with a process id file.

use std::process::Command;
use std::time::Instant;

use crate::fixture::{Gateway, PATIENCE, Place, Setup};
use crate::upgrade::{Replaceable, process};

#[test]
fn a_second_gateway_with_the_same_pid_file_refuses_to_start_until_the_first_has_ended() {
    let mut first = Replaceable::start(1);
    let pid_file = first.gateway.pid_file.clone().unwrap();
    let second = Place::prepare(&Setup { pid_file: Some(&pid_file), ..Setup::default() });
    let mut serve = Command::new(env!("CARGO_BIN_EXE_fedgate"));
    serve.args(["serve", "--config"]).arg(second.dir.join("fedgate.toml"));
    let out = serve.output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    let held = format!("the gateway of process {} runs and holds this file", first.gateway.child.id());
    assert!(out.status.code() == Some(1) && told.contains(&held) && told.contains("fedgate upgrade"), "{out:?}");
    assert!(!told.contains("listening on"), "it begins nothing: {told}");
    assert_eq!(first.read_pid().unwrap().as_raw_nonzero().get().cast_unsigned(), first.gateway.child.id());
    // Nor does it start while the file is missing: it was deleted, and is written again.
    for _ in 0..3 {
        std::fs::remove_file(&pid_file).unwrap();
        let out = Command::new("timeout")
            .arg("30")
            .arg(env!("CARGO_BIN_EXE_fedgate"))
            .args(serve.get_args())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && told.contains(&held), "{out:?}");
        let deadline = Instant::now() + PATIENCE;
        while first.read_pid().is_none() {
            assert!(Instant::now() < deadline, "the file is written again");
        }
    }
    // `check` reports it, and that it is no gateway of these addresses.
    let out = Command::new(env!("CARGO_BIN_EXE_fedgate")).arg("check").args(serve.get_args().skip(1)).output().unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    let elsewhere = format!("process {} holds `gateway.pid_file` and listens on no address", first.gateway.child.id());
    assert!(out.status.success() && told.contains(&elsewhere), "{told}");
    // A hand-over is no second gateway, and a killed gateway leaves a file that no process holds.
    let out = first.upgrade();
    assert!(out.status.success(), "{out:?}");
    let successor = first.read_pid().unwrap();
    let out = serve.output().unwrap();
    assert!(
        out.status.code() == Some(1) && String::from_utf8_lossy(&out.stderr).contains("holds this file"),
        "{out:?}"
    );
    process::kill(successor);
    first.gateway.kill();
    let gateway = Gateway::start_at(second, &[]);
    let deadline = Instant::now() + PATIENCE;
    while first.read_pid().is_none_or(|pid| pid.as_raw_nonzero().get().cast_unsigned() != gateway.child.id()) {
        assert!(Instant::now() < deadline, "the file does not name the gateway that runs");
    }
}
