//! The program reports its name and version. The suites at the root test the laws of the HIS.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::process::Command;

#[test]
fn the_program_says_its_name_and_its_version() {
    let told = Command::new(env!("CARGO_BIN_EXE_fedhis")).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), format!("fedhis {}\n", env!("CARGO_PKG_VERSION")));
}
