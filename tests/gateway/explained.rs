//! `fedgate policy explain` compared with the gateway: one decision for every request line.

use std::process::Command;

use serde_json::Value;

use crate::fixture::Gateway;

/// Parts of request lines: whole targets, then text that follows a path.
const TARGETS: [&str; 45] = [
    "/people/ANA",
    "/people/BOB",
    "/people",
    "/",
    "/nowhere",
    "/pols/ANA",
    "/pols/ANA/P1",
    "/password/ANA",
    "/login",
    "/people/",
    "//people",
    "/people/.",
    "/people/../x",
    "/people/%41NA",
    "/people/%2e",
    "/people/%2F",
    "/people/A%",
    "/people/ANA;x",
    "/people/A'NA",
    "/people/A\"",
    "/people/A<B>",
    "/people/A`",
    "/people/A|B",
    "/people/A\\B",
    "/people/ü",
    "/people/%C3%BC",
    "/people/u%CC%88",
    "/people/%FF",
    "*",
    "",
    "people",
    "http://hospital.example/people/ANA",
    "HTTP://Hospital.example:80/people/ANA?x",
    "https://hospital.example/people/BOB",
    "http://hospital.example",
    "http://hospital.example?x",
    "http://hospital.example//people",
    "http://hospital.example/people/../x",
    "http://hospital.example/people/\"",
    "http://hospital.example/people/ANA#x",
    "http://u@hospital.example/people/ANA",
    "http:///people/ANA",
    "ftp://hospital.example/people/ANA",
    "hospital.example:443",
    "/people/ANA#x",
];
const QUERIES: [&str; 9] = ["", "?", "?a=1", "?\"", "?<", "?a`", "?a|b{}^", "?ü", "?a\\b"];
const METHODS: [&str; 10] = ["GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "FOO", "get", "CONNECT", "G(T"];

fn explained(method: &str, target: &str) -> Value {
    let arguments =
        ["policy", "explain", "--json", "--as", "ANA", "--roles", "end_user", "--policy", "policies/roles.cfg"];
    let out = Command::new(env!("CARGO_BIN_EXE_fedgate")).args(arguments).args([method, target]).output().unwrap();
    assert!(out.status.success(), "{method} {target}: {out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn explain_gives_the_gateways_status_for_every_request_line() {
    let gateway = Gateway::start_with("", include_str!("../../policies/roles.cfg"));
    let lines = TARGETS.iter().map(|target| (*target).to_owned());
    let lines = lines.chain(QUERIES.iter().map(|query| format!("/people/ANA{query}"))).collect::<Vec<_>>();
    let mut differ = Vec::new();
    for (number, target) in lines.iter().enumerate() {
        // Each target with three of the methods, so that every pair of neighbours occurs.
        for turn in 0..3 {
            let method = METHODS[(number + turn * 3) % METHODS.len()];
            let told = explained(method, target)["status"].as_u64();
            let before = gateway.upstream.count();
            let status = u64::from(gateway.request(method, target, "ANA", "Content-Length: 0\r\n").status);
            let forwarded = gateway.upstream.count() > before;
            // The answer of the upstream cannot be predicted.
            if told != (!forwarded).then_some(status) {
                differ.push(format!("{method} {target}: told {told:?}, was {status}, forwarded: {forwarded}"));
            }
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}
