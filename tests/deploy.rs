//! The composition, the manifests and the units that are shipped, held against their formats by tools that need no engine:
//! the compose schema, the schemas of Kubernetes, `systemd-analyze verify`; and the configurations within them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test panics to fail"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fedgate::config::Config;

/// What `tests/run` installs.
const TOOLS: &str = "target/test-tools/bin";
/// The directories that configurations name.
const PLACES: [&str; 2] = ["/etc/fedgate", "/run/secrets"];
/// What those hold that is read with the configuration.
const SECRETS: [&str; 5] =
    ["database.password", "database_password", "assertion.secret", "assertion_secret", "secrets/database.password"];

/// What a tool says that is content.
fn passes(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; tests/run installs it"));
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {text}");
    text.into_owned()
}

fn scratch() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("fedgate-deploy-{:x}", rand::random::<u128>()));
    fs::create_dir_all(dir.join("secrets")).unwrap();
    dir
}

fn files(dir: &str, kind: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = found.filter(|path| path.extension().is_some_and(|known| known == kind)).collect();
    assert!(!found.is_empty(), "{dir} has a .{kind}");
    found
}

#[test]
fn the_composition_is_one() {
    let tool = Path::new(TOOLS).join("check-jsonschema");
    passes(Command::new(tool).args(["--builtin-schema", "vendor.compose-spec", "docker/compose.yaml"]));
}

#[test]
fn the_manifests_are_of_kubernetes() {
    let tool = Path::new(TOOLS).join("kubernetes-validate");
    passes(Command::new(tool).arg("--strict").args(files("deploy/kubernetes", "yaml")));
}

#[test]
fn the_units_are_of_systemd() {
    let dir = scratch();
    let units = files("deploy/systemd", "service").into_iter().chain(files("deploy/systemd", "socket"));
    let copies = units.map(|unit| {
        let programs = Path::new(env!("CARGO_BIN_EXE_fedgate")).parent().unwrap().display().to_string();
        let copy = dir.join(unit.file_name().unwrap());
        fs::write(&copy, fs::read_to_string(&unit).unwrap().replace("/usr/bin/", &format!("{programs}/"))).unwrap();
        copy
    });
    // Keys that it does not know are told, and are no failure.
    let told = passes(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(copies));
    assert_eq!(told, "");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn no_unit_is_given_up_and_no_start_waits_for_the_database() {
    for unit in files("deploy/systemd", "service") {
        let text = fs::read_to_string(&unit).unwrap();
        let (head, service) = text.split_once("[Service]").unwrap();
        assert!(head.contains("\nStartLimitIntervalSec=0\n"), "{}", unit.display());
        assert!(service.contains("\nRestart=on-failure\n"), "{}", unit.display());
        let mut orders = service.lines().filter(|line| !line.starts_with('#'));
        assert!(!orders.any(|order| order.contains("fedgate check")), "{}: it asks the database", unit.display());
    }
}

/// The text of a block scalar `name: |` in YAML.
fn block(yaml: &str, name: &str) -> String {
    let mut lines = yaml.lines();
    let head = lines.find(|line| line.trim_end().ends_with(&format!("{name}: |"))).expect(name);
    let depth = |line: &str| line.len() - line.trim_start().len();
    lines
        .take_while(|line| line.trim().is_empty() || depth(line) > depth(head))
        .map(|line| format!("{}\n", line.trim_start()))
        .collect()
}

#[test]
fn the_configurations_within_them_are_understood() {
    let dir = scratch();
    SECRETS.iter().for_each(|secret| fs::write(dir.join(secret), "s".repeat(48)).unwrap());
    fs::write(dir.join("secrets/assertion.secret"), "s".repeat(48)).unwrap();
    let manifests = files("deploy/kubernetes", "yaml");
    let mut texts: Vec<_> =
        manifests.iter().map(|path| block(&fs::read_to_string(path).unwrap(), "fedgate.toml")).collect();
    texts.push(fs::read_to_string("docker/fedgate.toml").unwrap());
    for text in texts {
        let text = PLACES.iter().fold(text, |text, place| text.replace(place, &dir.display().to_string()));
        let file = dir.join("fedgate.toml");
        fs::write(&file, &text).unwrap();
        Config::load(&file).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    fs::remove_dir_all(dir).unwrap();
}
