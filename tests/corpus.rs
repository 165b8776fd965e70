//! The attack corpus: bytes, what must become of them, and why (`tests/corpus/*.toml`). One line is printed for each.
//!
//! Whatever a case expects, one law holds for all: what the upstream saw (method, target, who called) is what the record
//! says was allowed, and nothing else was seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test panics to fail, and prints a line for each case"
)]

#[path = "gateway/fixture.rs"]
mod fixture;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fixture::{CANARY, Gateway, basic, find_header};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The attack, or the source of the rule.
    why: String,
    /// What is sent; see [`bytes`].
    send: String,
    status: u16,
    /// The reason in the record, where it matters.
    reason: Option<String>,
    /// How many requests the upstream sees.
    #[serde(default)]
    seen: usize,
    /// The target that it sees.
    target: Option<String>,
}

/// The bytes of a case: `{ana}`, `{doc}` and `{adm}` are `Authorization` lines, `{host}` a `Host` line, `{x:00ff}` bytes in
/// hex, `{repeat:3:ab}` repeats, `{length:abc}` counts.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = vec![];
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        out.extend(&rest.as_bytes()[..start]);
        // A brace that begins no placeholder is one of JSON.
        let Some(end) = rest[start..].find('}').map(|end| start + end) else { break };
        let inner = &rest[start + 1..end];
        let line = |account: &str| format!("Authorization: {}\r\n", basic(account, CANARY)).into_bytes();
        let found = match inner.split_once(':') {
            None => match inner {
                "ana" => Some(line("ANA")),
                "doc" => Some(line("DOC")),
                "adm" => Some(line("ADM")),
                "host" => Some(b"Host: hospital.example\r\n".to_vec()),
                _ => None,
            },
            Some(("x", hex)) => {
                let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
                Some(pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect())
            }
            Some(("repeat", rest)) => {
                let (count, text) = rest.split_once(':').unwrap();
                Some(text.repeat(count.parse().unwrap()).into_bytes())
            }
            Some(("length", text)) => Some(text.len().to_string().into_bytes()),
            Some(_) => None,
        };
        match found {
            Some(bytes) => out.extend(bytes),
            None => out.extend(&rest.as_bytes()[start..=end]),
        }
        rest = &rest[end + 1..];
    }
    out.extend(rest.as_bytes());
    out
}

/// What went wrong with a case, if anything.
fn run(gateway: &Gateway, case: &Case) -> Result<(), String> {
    // What a failed case has left is not this one's.
    while !gateway.no_record_waits() {}
    let before = gateway.upstream.seen().len();
    let mut bytes = bytes(&case.send);
    // So that the answer ends with the connection, where the case does not end it.
    if case.status == 200 {
        let line = b"Connection: close\r\n";
        let end = bytes.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
        bytes.splice(end..end, line.iter().copied());
    }
    let answer = gateway.send_and_close(&bytes);
    let fail = |what: String| Err(format!("{what}\n  answer: {answer:?}"));
    if answer.status != case.status {
        return fail(format!("status {}, not {}", answer.status, case.status));
    }
    let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if case.status == 400 && !closes {
        return fail("the connection is left open".into());
    }
    let Some((_, record)) = gateway.record_within(fixture::PATIENCE) else { return fail("no record".into()) };
    if record["status"] != case.status {
        return fail(format!("another status in the record: {record}"));
    }
    if case.reason.as_ref().is_some_and(|reason| record["reason"] != *reason) {
        return fail(format!("another reason in the record: {record}"));
    }
    if !gateway.no_record_waits() {
        return fail("more than one record".into());
    }
    let seen = gateway.upstream.seen().split_off(before);
    if seen.len() != case.seen {
        return fail(format!("the upstream saw {} requests: {seen:?}", seen.len()));
    }
    for request in &seen {
        agrees(request, &record, case.target.as_deref()).or_else(fail)?;
    }
    Ok(())
}

/// The law: what the upstream saw is what the record says was allowed.
fn agrees(request: &str, record: &Value, target: Option<&str>) -> Result<(), String> {
    let mut words = request.split(' ');
    let (method, seen) = (words.next().unwrap(), words.next().unwrap());
    let assertion = find_header(request, "fedgate-assertion").ok_or("no assertion")?;
    let payload = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).map_err(|error| error.to_string())?;
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    let path = seen.split('?').next().unwrap();
    if request.to_ascii_lowercase().contains("x-user") {
        return Err(format!("an identity that a client has sent: {request:?}"));
    }
    let agree = record["decision"] == "allow"
        && record["method"] == method
        && record["path"] == path
        && claims["path"] == path
        && claims["method"] == method
        && claims["sub"] == record["account"]
        && target.is_none_or(|target| target == seen);
    if agree { Ok(()) } else { Err(format!("the upstream saw {request:?}, the record says {record}")) }
}

#[test]
fn every_attack_of_the_corpus_is_met() {
    let mut files: Vec<_> = std::fs::read_dir("tests/corpus").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the corpus was found");
    let mut failures = 0;
    for file in files {
        let area = file.file_stem().unwrap().to_string_lossy().into_owned();
        let corpus: Corpus = toml::from_str(&std::fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(corpus.case.len() >= 15, "{area}: {} cases", corpus.case.len());
        let environment = [("FEDGATE_AUTHENTICATION_REJECTION_STEP_MS", "0")];
        let gateway = Gateway::start_as(&fixture::Setup { environment: &environment, ..Default::default() });
        for case in &corpus.case {
            let outcome = run(&gateway, case);
            let word = if outcome.is_ok() { "ok  " } else { "FAIL" };
            println!("{word} {area}: {} ({})", case.name.escape_debug(), case.why);
            if let Err(what) = outcome {
                println!("     {what}");
                failures += 1;
            }
        }
    }
    assert_eq!(failures, 0);
}
