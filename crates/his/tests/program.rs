//! The program says who it is. The laws of the HIS are held by the suites at the top of the tree, against both programs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::process::Command;

#[test]
fn the_program_says_its_name_and_its_version() {
    let told = Command::new(env!("CARGO_BIN_EXE_fedhis")).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), format!("fedhis {}\n", env!("CARGO_PKG_VERSION")));
}
