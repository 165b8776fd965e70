//! The shipped example of another HIS, run as its README says.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::fixture::{Gateway, PATIENCE};
use crate::support::free_address;

struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_shipped_example_fronts_a_his_of_another_kind() {
    let program = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples/fhir");
    if !program.exists() {
        // Cargo builds examples along with the tests, but not when it is asked for this test alone.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "fhir"]);
        // With the variable of tests/timed, cargo would build everything again.
        let built = build.env_remove("RUSTC_BOOTSTRAP").status().unwrap();
        assert!(built.success());
    }
    let address = free_address();
    let _service = Service(Command::new(program).arg(address.to_string()).spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "the example does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let shipped = std::fs::read_to_string(Path::new("examples/fhir/fedgate.toml")).unwrap();
    let routes = &shipped[shipped.find("[[upstream]]").unwrap()..];
    let routes = routes.replace("127.0.0.1:8090", &address.to_string());
    let policy = std::fs::read_to_string("examples/fhir/roles.cfg").unwrap();
    assert!(shipped.contains("thalamus_routes = false") && routes.matches("[[route]]").count() == 4);
    let gateway = Gateway::start_in(&[("FEDGATE_GATEWAY_THALAMUS_ROUTES", "false")], &routes, &policy);
    #[rustfmt::skip]
    let cases = [
        ("/fhir/metadata",                "",    200), ("/fhir/Patient/ANA",             "",    401),
        ("/fhir/Patient/ESPGNU777ORG",    "ANA", 403), ("/fhir/Patient/ANA",             "ANA", 404), // allowed; not there
        ("/fhir/Patient/ANA/Observation", "ANA", 200), ("/fhir/Patient/DOC/Observation", "ANA", 403),
        ("/fhir/Patient",                 "ANA", 403), ("/fhir/Patient",                 "DOC", 200),
        ("/fhir/Patient/ESPGNU777ORG",    "DOC", 200), ("/people",                       "DOC", 404),
    ];
    for (target, account, status) in cases {
        assert_eq!(gateway.get(target, account).status, status, "{target} {account}");
    }
    assert_eq!(gateway.request("DELETE", "/fhir/Patient/ANA", "DOC", "").status, 405);
    assert!(gateway.get("/fhir/Patient", "DOC").body.contains("searchset"));
}
