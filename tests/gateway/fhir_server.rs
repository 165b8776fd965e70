//! The shipped example in front of a real FHIR R4 server, Medplum's engine: several hundred questions of each caller,
//! compared with a plain rule that a program apart from this code applies to what the server holds.
//!
//! `tests/fhir_schema --install` installs the engine. Where it cannot be had, the test says so and checks nothing.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::fixture::{CANARY, Gateway};

/// The engine, once it listens.
struct FhirServer {
    child: Child,
    address: String,
}

impl FhirServer {
    /// Starts it, if it is installed.
    fn start() -> Option<Self> {
        let modules = std::env::current_dir().unwrap().join("target/test-tools/fhir/node_modules");
        if !modules.join("@medplum/fhir-router").exists() {
            eprintln!("npm's @medplum/fhir-router is not installed: nothing is asked of a real FHIR server");
            return None;
        }
        let mut command = Command::new("node");
        command.arg("tests/fhir/server.mjs").arg(modules).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Some(Self { child, address: address.trim().to_owned() })
    }
}

impl Drop for FhirServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_fhir_server_shows_each_caller_what_a_plain_rule_allows() {
    let Some(server) = FhirServer::start() else { return };
    let shipped = std::fs::read_to_string(Path::new("examples/fhir/fedgate.toml")).unwrap();
    let routes = &shipped[shipped.find("[[upstream]]").unwrap()..];
    let routes = routes.replace("127.0.0.1:8090", &server.address);
    let policy = std::fs::read_to_string("examples/fhir/roles.cfg").unwrap();
    let gateway = Gateway::start_in(&[("FEDGATE_GATEWAY_THALAMUS_ROUTES", "false")], &routes, &policy);
    let mut ask = Command::new("python3");
    ask.arg("tests/fhir/ask.py").args([&gateway.address.to_string(), &server.address, CANARY]);
    // Who may see whose records.
    ask.args(["-=", "ANA=ANA", "DOC=*"]);
    let asked = ask.output().unwrap();
    let told = String::from_utf8_lossy(&asked.stdout).into_owned() + &String::from_utf8_lossy(&asked.stderr);
    println!("{told}");
    assert!(asked.status.success(), "{told}");
}
