//! The attack corpus: bytes, the required result, and the reason (`tests/corpus/*.toml`). It prints one line a
//! case.
//!
//! One law holds for every case. A request that the upstream saw (method, target, caller) is the request that the
//! record says was allowed, an independent reading of the policy allows it, and the upstream saw no other.

#[path = "policy_oracle/json.rs"]
mod json;
#[allow(dead_code, reason = "the policy's own tests use all of it")]
#[path = "policy_oracle/oracle.rs"]
mod oracle;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::{CANARY, Gateway, basic, find_header};
use crate::support::free_address;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    /// Routes that the gateway of this area has beside the built-in ones.
    #[serde(default)]
    routes: String,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    /// The attack, or the source of the rule.
    why: String,
    /// The bytes to send; see [`bytes`].
    send: String,
    status: u16,
    /// The reason in the record, where it matters.
    reason: Option<String>,
    /// The number of requests that the upstream sees.
    #[serde(default)]
    seen: usize,
    /// The target that the upstream sees.
    target: Option<String>,
}

/// The bytes of a case. `{ana}`, `{doc}` and `{adm}` are `Authorization` lines, `{host}` is a `Host` line,
/// `{x:00ff}` are bytes in hex, `{repeat:3:ab}` repeats, and `{length:abc}` counts.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = vec![];
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        out.extend(&rest.as_bytes()[..start]);
        // A brace that begins no placeholder belongs to JSON.
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

/// Runs a case, and returns what went wrong.
fn run(gateway: &Gateway, case: &Case) -> Result<(), String> {
    // Records that a failed case left behind do not belong to this one.
    while !gateway.no_record_waits() {}
    let before = gateway.upstream.seen().len();
    let mut bytes = bytes(&case.send);
    // Makes the answer end with the connection, if the case does not.
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
    let Some((_, record)) = gateway.record_within(crate::fixture::PATIENCE) else { return fail("no record".into()) };
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

/// The law: the request that the upstream saw is the one that the record says was allowed.
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
    // A failed request was admitted too: its client went away during the answer.
    let agree = (record["decision"] == "allow" || record["decision"] == "fail")
        && record["method"] == method
        && record["path"] == path
        && claims["path"] == path
        && claims["method"] == method
        && claims["sub"] == record["account"]
        && target.is_none_or(|target| target == seen);
    if !agree {
        return Err(format!("the upstream saw {request:?}, the record says {record}"));
    }
    oracle_allows(method, path, record)
}

/// An independent reading of the policy also allows it, for the record that the path names.
fn oracle_allows(method: &str, path: &str, record: &Value) -> Result<(), String> {
    if record["reason"] == "public" {
        return Ok(());
    }
    let policy = oracle::Policy::read(&std::fs::read("policies/roles.cfg").unwrap()).unwrap();
    let roles: Vec<String> = serde_json::from_value(record["roles"].clone()).map_err(|error| error.to_string())?;
    let decoded = |segment: &str| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned();
    // Elsewhere than in the path, the case says which query the upstream may see.
    let named = || record["subject.id"].as_str().map(str::to_owned);
    let subject = if path.starts_with("/q/") { named() } else { path.split('/').nth(2).map(decoded) };
    let ask = oracle::Ask {
        principal: record["account"].as_str().unwrap_or_default(),
        roles: &roles,
        method,
        endpoint: record["endpoint"].as_str().unwrap_or_default(),
        subject: subject.as_deref(),
        related: &[],
    };
    match policy.answer(&ask) {
        oracle::Answer::Own | oracle::Answer::Related | oracle::Answer::Global => Ok(()),
        denied => Err(format!("the oracle answers {denied:?} to {ask:?}; the record says {record}")),
    }
}

/// The areas of the corpus, each with its cases.
fn areas() -> Vec<(String, Corpus)> {
    let mut files: Vec<_> = std::fs::read_dir("tests/corpus").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the corpus was found");
    let read = |file: &std::path::PathBuf| {
        let area = file.file_stem().unwrap().to_string_lossy().into_owned();
        let corpus: Corpus = toml::from_str(&std::fs::read_to_string(file).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(corpus.case.len() >= 15, "{area}: {} cases", corpus.case.len());
        (area, corpus)
    };
    files.iter().map(read).collect()
}

fn start(routes: &str) -> Gateway {
    let environment = [("FEDGATE_AUTHENTICATION_REJECTION_STEP_MS", "0")];
    let setup = crate::fixture::Setup { environment: &environment, configuration: routes, ..Default::default() };
    Gateway::start_as(&setup)
}

#[test]
fn every_attack_of_the_corpus_is_met() {
    let mut failures = 0;
    for (area, Corpus { routes, case: cases }) in areas() {
        let gateway = start(&routes);
        for case in &cases {
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

/// A proxy of another product in front of a gateway.
struct Front {
    name: &'static str,
    address: SocketAddr,
    child: Child,
}

impl Front {
    fn haproxy(dir: &Path, gateway: SocketAddr) -> Self {
        let (address, file) = (free_address(), dir.join("haproxy.cfg"));
        let text = format!(
            "defaults\n mode http\n timeout connect 2s\n timeout client 2s\n timeout server 2s\nfrontend f\n bind {address}\n \
             default_backend b\nbackend b\n http-reuse always\n server g {gateway}\n"
        );
        std::fs::write(&file, text).unwrap();
        Self::start("haproxy", address, Command::new("haproxy").arg("-db").arg("-f").arg(file))
    }

    fn nginx(dir: &Path, gateway: SocketAddr) -> Self {
        let (address, file) = (free_address(), dir.join("nginx.conf"));
        let place = dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/nginx_{kind};\n"))
            .concat();
        let text = format!(
            "daemon off;\npid {place}/nginx.pid;\nerror_log /dev/null;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
             client_header_timeout 2s;\nclient_body_timeout 2s;\nkeepalive_timeout 2s;\n\
             upstream g {{ server {gateway}; keepalive 8; }}\n\
             server {{ listen {address}; location / {{ proxy_pass http://g; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_request_buffering off; \
             proxy_read_timeout 2s; }} }} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        Self::start("nginx", address, Command::new("nginx").arg("-c").arg(file))
    }

    fn start(name: &'static str, address: SocketAddr, command: &mut Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("these tests need {name}: {error}"));
        let front = Self { name, address, child };
        let deadline = Instant::now() + crate::fixture::PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "{name} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        front
    }

    /// Sends bytes, closes the sending half, and waits until the proxy has answered or given up.
    fn send(&self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(crate::fixture::PATIENCE)).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut vec![]);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // nginx stops its workers only on SIGTERM.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn behind_haproxy_and_nginx_no_case_becomes_two_requests_nor_one_that_was_not_judged() {
    let gateway = start("");
    let fronts = [Front::haproxy(&gateway.dir, gateway.address), Front::nginx(&gateway.dir, gateway.address)];
    let mut sent = vec![];
    for (area, corpus) in areas().iter().filter(|(area, _)| ["smuggling", "headers", "path"].contains(&area.as_str())) {
        for (case, front) in corpus.case.iter().flat_map(|case| fronts.iter().map(move |front| (case, front))) {
            // Each request carries its number, so that late ones are recognized. A smuggled request has none.
            let (mut bytes, line) = (bytes(&case.send), format!("X-Trace-Id: {}\r\n", sent.len()));
            if let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
                bytes.splice(end + 2..end + 2, line.bytes());
            }
            front.send(&bytes);
            sent.push(format!("{}, {area}: {}", front.name, case.name));
        }
    }
    // Once this request is answered and recorded, all earlier ones are recorded or given up.
    assert_eq!(gateway.request("GET", "/people/ANA", "ANA", "X-Trace-Id: last\r\n").status, 200);
    let (mut records, mut counts, mut failures) = (HashMap::new(), vec![0; sent.len()], 0);
    let mut attacks = gateway.upstream.seen();
    attacks.retain(|request| find_header(request, "x-trace-id").as_deref() != Some("last"));
    for request in &attacks {
        let id = find_header(request, "x-request-id").unwrap();
        while !records.contains_key(&id) {
            let record = gateway.record();
            records.insert(record["request.id"].as_str().unwrap().to_owned(), record);
        }
        let number = find_header(request, "x-trace-id").and_then(|number| number.parse::<usize>().ok());
        let is_first = number.is_some_and(|number| std::mem::replace(&mut counts[number], 1) == 0);
        if let (true, Ok(())) = (is_first, agrees(request, &records[&id], None)) {
            continue;
        }
        println!(
            "FAIL behind {}\n  {request:?}\n  {}",
            number.map_or("no number", |number| &sent[number]),
            records[&id]
        );
        failures += 1;
    }
    let passed_on = attacks.len();
    println!("behind HAProxy and nginx: {} attacks, {passed_on} became one request, none became two", sent.len());
    assert_eq!(failures, 0);
    assert!(passed_on > 20, "harmless ones pass: {passed_on}");
}
