//! Anonymous callers, however many requests they send: their records are bounded, every request is counted, and
//! every request id leads to a record. Requests of known callers have records of their own.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use fedgate::observe::merged_id;
use rand::Rng;
use rustix::process::Signal;
use serde_json::Value;

use crate::fixture::{CANARY, Gateway, PATIENCE, Place, Setup, basic, find_header};
use crate::gateway::explain::{explain, explain_now};
use crate::gateway::http2::{END_HEADERS, END_STREAM, HEADERS, block_of, frame, open, read};
use crate::scripted::until;
use crate::support::keepalive::{Connection, get};

/// Twelve a minute, which allows sixty at once.
const SLOW: [(&str, &str); 2] =
    [("FEDGATE_RECORDS_FILE", "records.jsonl"), ("FEDGATE_RECORDS_ANONYMOUS_OF_SOURCE_PER_MINUTE", "12")];
const AT_ONCE: usize = 60;
/// How many more a slow machine may add: one every five seconds, and those that begin a run.
const MORE: usize = 20;
/// How often the gateway is killed. `FEDGATE_TEST_KILLS` overrides it.
const KILLS: u32 = 6;

fn records(gateway: &Gateway) -> Vec<Value> {
    let text = std::fs::read_to_string(gateway.dir.join("records.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The ids of the answers to anonymous requests, one connection each where `bytes` end it.
fn refused(gateway: &Gateway, bytes: &str, count: usize, status: u16) -> Vec<String> {
    let ask = || {
        let answer = gateway.send(bytes.as_bytes());
        assert_eq!(answer.status, status, "{answer:?}");
        let id = answer.header("x-request-id").unwrap();
        assert!(answer.body.contains(&id) || status == 401, "the body tells the same id: {answer:?}");
        id
    };
    std::iter::repeat_with(ask).take(count).collect()
}

fn stop(gateway: &mut Gateway) {
    // Silent connections are not waited for.
    gateway.signal(Signal::INT);
    until("the gateway stops", || gateway.child.try_wait().unwrap().is_some());
}

#[test]
fn a_flood_of_refusals_is_one_record_with_a_count_that_each_of_its_ids_leads_to() {
    let mut gateway = Gateway::start_as(&Setup { environment: &SLOW, ..Default::default() });
    let request = |more: &str| format!("GET /people/ANA HTTP/1.1\r\nHost: a\r\n{more}Connection: close\r\n\r\n");
    let mut ids = refused(&gateway, &request(""), 200, 401);
    // Refusals of the guard, of the pipeline, of a claimed account; and over HTTP/2.
    ids.extend(refused(&gateway, &request("bad header\r\n"), 30, 400));
    ids.extend(refused(&gateway, "GET /people/../x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 30, 400));
    let malformed = format!("Authorization: {}\r\n", "Basic !");
    ids.extend(refused(&gateway, &request(&malformed), 30, 401));
    let mut stream = open(&gateway);
    for number in 0..30 {
        let stream_id = number * 2 + 1;
        stream
            .write_all(&frame(HEADERS, END_HEADERS | END_STREAM, stream_id, &block_of("GET", "/people/../x", &[])))
            .unwrap();
        read(&mut stream, |kind, number| kind == HEADERS && number == stream_id);
    }
    // Refusals of a known person, a read and a write.
    let known: Vec<_> =
        std::iter::repeat_with(|| gateway.get("/people/DOC", "ANA").header("x-request-id").unwrap()).take(90).collect();
    gateway.request("POST", "/pols/ANA/1", "ANA", "Content-Length: 0\r\n");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 290, "each has an id of its own");
    let written = records(&gateway);
    assert!(written.len() <= AT_ONCE + MORE + 91, "{} records", written.len());
    assert_eq!(
        written.iter().filter(|record| known.contains(&record["request.id"].as_str().unwrap().into())).count(),
        90
    );
    assert!(gateway.admin_get("/metrics").body.contains("fedgate_refusals_total{reason=\"no_credential\"} 200"));
    // Before it is counted, and after.
    let merged = ids.last().unwrap();
    let told = explain(&gateway.dir, merged, &[]);
    assert!(told.0 == 0 && told.1.contains("merging began") && told.1.contains(merged), "{} {}", told.1, told.2);
    stop(&mut gateway);
    let written = records(&gateway);
    let total: u64 = written.iter().map(|record| record["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(total, 320 + 91, "each is counted once");
    for (number, id) in ids.iter().enumerate() {
        let own = written.iter().any(|record| record["request.id"] == id.as_str());
        let merged = merged_id(id)
            .is_some_and(|(ids, _)| written.iter().any(|record| record["merged"] == ids && record["count"].is_u64()));
        assert!(own || merged, "{number}: {id}");
    }
    let told = explain(&gateway.dir, merged, &[]);
    assert!(told.0 == 0 && told.1.contains("requests from 127.0.0.1 have this one record"), "{} {}", told.1, told.2);
    let parsed = explain(&gateway.dir, merged, &["--json"]).json();
    assert_eq!((parsed["records"].as_array().unwrap().len(), &parsed["named"]), (1, &"merged".into()), "{parsed}");
    assert!(parsed["record"]["count"].as_u64().unwrap() >= 200);
    // An id that was never given out.
    let forged = format!("{}{:012x}", merged_id(merged).unwrap().0, 100_000);
    assert_eq!(explain_now(&gateway.dir, &forged, &[]).0, 1);
}

#[test]
fn what_is_allowed_to_anybody_is_merged_too_and_known_to_the_service_by_the_same_id() {
    let gateway = Gateway::start_as(&Setup { environment: &SLOW, ..Default::default() });
    let mut connection = Connection::to(gateway.address);
    let mut id = String::new();
    for _ in 0..100 {
        let answer = connection.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(answer.status, 200);
        id = answer.request_id;
        assert_eq!(connection.ask(b"OPTIONS /people HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().status, 200);
    }
    let seen = gateway.upstream.seen();
    assert_eq!(find_header(seen.last().unwrap(), "x-request-id"), Some(id.clone()));
    // The flood hides no other refusal.
    assert_eq!(gateway.get("/people/ANA", "").status, 401);
    until("the refusal", || records(&gateway).iter().any(|record| record["status"] == 401));
    until("the run", || explain(&gateway.dir, &id, &[]).1.contains("merging began"));
    let written = records(&gateway);
    assert!(written.len() <= AT_ONCE + MORE, "{} records", written.len());
    let metrics = gateway.admin_get("/metrics").body;
    assert!(metrics.contains("fedgate_requests_total{decision=\"allow\",status=\"200\"} 100"), "{metrics}");
}

#[test]
fn no_id_of_an_answered_refusal_leads_nowhere_after_a_kill() {
    let kills = std::env::var("FEDGATE_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    // One at once, so that nearly all are merged.
    let environment = [SLOW[0], (SLOW[1].0, "1")];
    let mut gateway = Gateway::start_as(&Setup { environment: &environment, ..Default::default() });
    let (mut answered, mut merged, mut killed) = (0, 0, 0);
    // On a busy machine, a kill may come before anything is merged; then others follow.
    while killed < kills || (merged == 0 && killed < 10 * kills) {
        killed += 1;
        let address = gateway.address;
        let ids = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..3).map(|_| scope.spawn(move || flood(address))).collect();
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(1..150)));
            gateway.kill();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
        });
        let written = records(&gateway);
        for id in ids {
            answered += 1;
            let begun = |(ids, _)| written.iter().any(|record| record["merged"] == ids);
            let own = written.iter().any(|record| record["request.id"] == id.as_str());
            merged += u32::from(!own);
            assert!(own || merged_id(&id).is_some_and(begun), "{id}");
        }
        gateway.start_again(&environment);
    }
    println!("kill -9, {killed} times: {answered} refusals answered, {merged} of them merged, each with a record");
    assert!(merged > 0);
}

/// The ids of answers until the gateway is gone.
fn flood(address: SocketAddr) -> Vec<String> {
    if TcpStream::connect(address).is_err() {
        return vec![];
    }
    let mut connection = Connection::to(address);
    let ask = || connection.ask(b"GET /people/ANA HTTP/1.1\r\nHost: a\r\n\r\n").ok();
    let answers = std::iter::repeat_with(ask).map_while(|answer| answer);
    answers.inspect(|answer| assert_eq!(answer.status, 401)).map(|answer| answer.request_id).collect()
}

#[test]
fn on_a_disk_that_is_nearly_full_anonymous_callers_share_one_record_and_others_have_theirs() {
    // More than any disk has.
    let environment = [SLOW[0], ("FEDGATE_RECORDS_RESERVE_MIB", "1000000000")];
    let mut gateway = Gateway::start_as(&Setup { environment: &environment, ..Default::default() });
    assert!(gateway.logged("the disk of the records is nearly full", Instant::now() - PATIENCE, PATIENCE).is_some());
    let ids = refused(&gateway, "GET / HTTP/1.1\r\nbad\r\n\r\n", 10, 400);
    for _ in 0..10 {
        assert_eq!(gateway.get("/people/DOC", "ANA").status, 403);
        assert_eq!(gateway.request("POST", "/pols/ANA/1", "ANA", "Content-Length: 0\r\n").status, 200);
    }
    let written = records(&gateway);
    assert_eq!(written.len(), 21, "{written:?}");
    let ready = gateway.admin_get("/readyz");
    assert_eq!((ready.status, &ready.json()["records"]["scarce"]), (200, &true.into()));
    let metrics = gateway.admin_get("/metrics").body;
    assert!(
        metrics.contains("fedgate_records_scarce 1") && metrics.contains("fedgate_records_merged_total 9"),
        "{metrics}"
    );
    assert!(!metrics.contains("fedgate_records_free_bytes 0\n"));
    stop(&mut gateway);
    assert!(explain(&gateway.dir, &ids[9], &[]).1.contains("9 requests from 127.0.0.1 have this one record"));
}

#[test]
fn while_nothing_can_be_recorded_the_refusals_of_it_fill_no_memory_and_each_is_counted() {
    let place = Place::prepare(&Setup::default());
    let records = place.dir.join("records.jsonl");
    std::os::unix::fs::symlink("/dev/full", &records).unwrap();
    let mut gateway = Gateway::start_at(place, &SLOW);
    assert_eq!(gateway.get("/people/DOC", "ANA").status, 503);
    let mut connection = Connection::to(gateway.address);
    let request = get("/people/ANA", &basic("ANA", CANARY));
    let statuses: Vec<_> = (0..400).map(|_| connection.ask(&request).unwrap().status).collect();
    assert!(statuses.iter().all(|status| *status == 503));
    std::fs::remove_file(&records).unwrap();
    until("served again", || gateway.get("/people/ANA", "ANA").status == 200);
    stop(&mut gateway);
    let written = crate::gateway::merging::records(&gateway);
    assert!(written.len() < AT_ONCE + MORE + 20, "{} records", written.len());
    let refused = written.iter().filter(|record| record["reason"] == "not_recorded");
    assert!(refused.map(|record| record["count"].as_u64().unwrap_or(1)).sum::<u64>() >= 400);
}

#[test]
fn without_a_rate_each_refusal_has_its_record() {
    let environment = [
        SLOW[0],
        (SLOW[1].0, "0"),
        ("FEDGATE_RECORDS_ANONYMOUS_PER_MINUTE", "0"),
        ("FEDGATE_RECORDS_RESERVE_MIB", "0"),
        ("FEDGATE_RECORDS_DURABLE", "false"),
    ];
    let mut gateway = Gateway::start_as(&Setup { environment: &environment, ..Default::default() });
    let ids = refused(&gateway, "GET /people/ANA HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 700, 401);
    stop(&mut gateway);
    let written = records(&gateway);
    assert!(ids.iter().zip(&written).all(|(id, record)| record["request.id"] == id.as_str()));
    assert_eq!(written.len(), 700);
}
