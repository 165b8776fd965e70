//! One record for each request, whatever its result.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic, find_header};

/// The records are in a file, on disk before the answers that they describe.
const DURABLE: [(&str, &str); 1] = [("FEDGATE_RECORDS_FILE", "records.jsonl")];
/// How often the gateway is killed. `FEDGATE_TEST_KILLS` overrides it.
const KILLS: u32 = 12;

#[test]
fn each_request_leaves_one_record_of_caller_action_and_reason() {
    let gateway = Gateway::start();
    #[rustfmt::skip]
    let cases = [
        // target, account, extra, decision, reason, status, account of the record, endpoint, subject
        ("/people/ANA",      "ANA", "",                              "allow",  "own",             200, Some("ANA"), Some("person"), Some("ANA")),
        ("/people/ANA",      "DOC", "",                              "allow",  "global",          200, Some("DOC"), Some("person"), Some("ANA")),
        ("/people",          "DOC", "",                              "allow",  "global",          200, Some("DOC"), Some("people"), None),
        ("/",                "",    "",                              "allow",  "public",          200, None,        None,           None),
        ("/people/DOC",      "ANA", "",                              "deny",   "not_own",         403, Some("ANA"), Some("person"), Some("DOC")),
        ("/people",          "ANA", "",                              "deny",   "not_granted",     403, Some("ANA"), Some("people"), None),
        ("/people/ANA",      "",    "",                              "refuse", "no_credential",  401, None,        None,           None),
        ("/people/ANA",      "OFF", "",                              "refuse", "inactive_account", 401, Some("OFF"), None,          None),
        ("/people/ANA",      "NO1", "",                              "refuse", "unknown_account", 401, Some("NO1"), None,           None),
        ("/people/../x",     "ANA", "",                              "refuse", "dot_segment", 400, None, None,           None),
        ("/nowhere",         "ANA", "",                              "refuse", "not_found", 404, Some("ANA"), None,          None),
        ("/pols/ANA/hang",   "ANA", "",                              "fail",   "upstream_timeout", 504, Some("ANA"), Some("page"),  Some("ANA")),
    ];
    for (target, account, extra, decision, reason, status, recorded, endpoint, subject) in cases {
        let answer = gateway.request("GET", target, account, extra);
        let record = gateway.record();
        assert_eq!(
            (record["decision"].as_str(), record["reason"].as_str()),
            (Some(decision), Some(reason)),
            "{target}: {record}"
        );
        assert_eq!((answer.status, record["status"].as_u64()), (status, Some(status.into())), "{record}");
        assert_eq!(
            (record["account"].as_str(), record["endpoint"].as_str(), record["subject.id"].as_str()),
            (recorded, endpoint, subject)
        );
        assert_eq!(record["request.id"].as_str(), answer.header("x-request-id").as_deref());
        assert_eq!((record["client.ip"].as_str(), record["method"].as_str()), (Some("127.0.0.1"), Some("GET")));
        assert_eq!(record["path"].as_str(), target.split('?').next());
        assert_eq!(record["policy"].as_str().map(str::len), Some(16));
        assert!(record["time"].is_string() && record["duration_us"].is_u64());
    }
    assert!(gateway.no_record());
}

#[test]
fn a_wrong_password_and_untrusted_text_stay_out_of_the_records_or_in_their_place() {
    let gateway = Gateway::start();
    gateway.request("GET", "/people/ANA", "", &format!("Authorization: {}\r\n", basic("ANA", &format!("x{CANARY}"))));
    assert_eq!(gateway.record()["reason"], "wrong_password");
    gateway.request("GET", "/people?token=canary-b1rd", "ANA", "");
    assert_eq!(gateway.record()["path"], "/people", "queries may hold names, and are not recorded");
    gateway.request("GET", "/%0aDENY%20user=bob", "ANA", "");
    assert_eq!(gateway.record()["path"], "/%0aDENY%20user=bob");
    gateway.request("GET", "/people/ANA", "", &format!("Authorization: {}\r\n", basic("A\u{2028}B", "x")));
    assert_eq!(gateway.record()["account"], "A\u{2028}B");
    gateway.request("OPTIONS", "/people", "", "");
    let options = gateway.record();
    assert_eq!((options["decision"].as_str(), options["reason"].as_str()), (Some("answer"), Some("options")));
    gateway.request("TRACE", "/people", "", "");
    assert_eq!(gateway.record()["reason"], "method_not_allowed");
}

#[test]
fn a_password_appears_nowhere_however_much_is_logged() {
    let environment = [("FEDGATE_LOG", "trace"), DURABLE[0]];
    let gateway = Gateway::start_as(&Setup { environment: &environment, ..Default::default() });
    let body = format!("Content-Length: {}\r\nConnection: close\r\n\r\n{CANARY}", CANARY.len());
    for account in ["ANA", "DOC", "OFF", "NO1"] {
        gateway.get("/people/ANA", account);
        gateway.get(&format!("/people/ANA?password={CANARY}"), account);
        gateway.request("POST", "/pols/ANA/1", account, &body);
        gateway.request("GET", "/people/ANA", account, "bad header\r\n");
    }
    assert!(gateway.logged("listening on", Instant::now() - PATIENCE, PATIENCE).is_some());
    while gateway.record_within(Duration::from_millis(200)).is_some() {}
    for path in ["/readyz", "/metrics", "/version", "/livez"] {
        assert!(!gateway.admin_get(path).body.contains(CANARY));
    }
    assert!(!std::fs::read_to_string(gateway.dir.join("records.jsonl")).unwrap().contains(CANARY));
    // The log is searched when the gateway is dropped.
}

/// Request id and status of an answer whose head has arrived.
fn acknowledged(address: SocketAddr, request: &str) -> Option<(String, u64)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut answer = vec![];
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer);
    let (head, _) = answer.split_once("\r\n\r\n")?;
    Some((find_header(head, "x-request-id")?, head.split(' ').nth(1)?.parse().ok()?))
}

#[test]
fn no_record_of_a_write_or_a_refusal_that_was_answered_is_lost_by_a_kill() {
    let kills = std::env::var("FEDGATE_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut gateway = Gateway::start_as(&Setup { environment: &DURABLE, ..Default::default() });
    let ana = format!("Authorization: {}\r\n", basic("ANA", CANARY));
    let request = |line: &str, more: &str| format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n");
    let requests = [
        (200, request("POST /pols/ANA/1", &format!("{ana}Content-Length: 4\r\n")) + "true"),
        (403, request("GET /people/DOC", &ana)),
        (401, request("GET /people/DOC", "")),
        (400, request("GET /people/DOC", "bad header\r\n")),
    ];
    let mut answered = BTreeMap::new();
    // However slow the machine is, each kind was answered before the first kill.
    let kinds = Mutex::new(BTreeSet::new());
    for _ in 0..kills {
        let address = gateway.address;
        let told = std::thread::scope(|scope| {
            let client = |(status, request): &(u64, String)| {
                let (status, request, kinds) = (*status, request.clone(), &kinds);
                move || {
                    let all = std::iter::repeat_with(|| acknowledged(address, &request)).map_while(|told| told);
                    let note = |told: &(String, u64)| {
                        assert_eq!(told.1, status);
                        kinds.lock().unwrap().insert(status);
                    };
                    all.inspect(note).collect::<Vec<_>>()
                }
            };
            let clients: Vec<_> = requests.iter().map(|request| scope.spawn(client(request))).collect();
            let deadline = Instant::now() + PATIENCE;
            while kinds.lock().unwrap().len() < requests.len() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(rand::rng().random_range(1..120)));
            gateway.kill();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
        });
        answered.extend(told);
        gateway.start_again(&DURABLE);
    }
    let file = std::fs::read_to_string(gateway.dir.join("records.jsonl")).unwrap();
    let mut recorded = BTreeMap::<String, Vec<u64>>::new();
    // A line that a kill has cut short is a line of its own.
    for record in file.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        recorded
            .entry(record["request.id"].as_str().unwrap().into())
            .or_default()
            .push(record["status"].as_u64().unwrap());
    }
    let lost: Vec<_> = answered.iter().filter(|(id, status)| recorded.get(*id) != Some(&vec![**status])).collect();
    println!("kill -9, {kills} times: {} writes and refusals answered, records of {} lost", answered.len(), lost.len());
    assert!(lost.is_empty(), "{lost:?}");
    for (status, _) in &requests {
        assert!(answered.values().any(|told| told == status), "there were answers {status}");
    }
    assert!(recorded.values().all(|times| times.len() == 1), "each request has one record");
}

#[test]
fn only_an_answer_that_broke_off_is_said_to_have() {
    let route = "[[upstream]]\nname = \"gone\"\naddress = \"127.0.0.1:1\"\n[[route]]\npath = \"/gone\"\nmethods = [\"GET\", \"POST\"]\nendpoint = \"login\"\nupstream = \"gone\"\n";
    let policy = std::fs::read_to_string("policies/roles.cfg").unwrap();
    let gateway = Gateway::start_in(&DURABLE, route, &policy);
    let began = Instant::now();
    let chunk =
        format!("Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1000\r\n{}\r\n0\r\n\r\n", "x".repeat(4096));
    for (status, code, method, target, more) in [
        (502, "upstream_unreachable", "GET", "/gone", ""),
        (502, "upstream_unreachable", "POST", "/pols/ANA/garbage", "Content-Length: 0\r\n"),
        (413, "body_too_large", "POST", "/pols/ANA/1", &chunk),
    ] {
        let answer = gateway.request(method, target, "ANA", more);
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{method} {target}");
        assert_eq!(gateway.record()["status"], status);
    }
    assert_eq!(gateway.logged("broke off", began, Duration::from_millis(200)), None);
    // The head was forwarded, and is recorded. The rest does not arrive.
    let short = gateway.request("POST", "/pols/ANA/short", "ANA", "Content-Length: 0\r\n");
    assert_eq!((short.status, short.complete), (200, false));
    assert!(gateway.logged("an answer broke off that was recorded already", began, PATIENCE).is_some());
}

#[test]
fn what_cannot_be_recorded_is_refused_until_it_can_be_and_then_nothing_is_missing() {
    let gateway = Gateway::start_as(&Setup { environment: &DURABLE, ..Setup::default() });
    let records = gateway.dir.join("records.jsonl");
    let began = Instant::now();
    let admin = |path: &str| gateway.admin_get(path);
    assert_eq!(admin("/readyz").status, 200);
    // No file can be opened under this name.
    std::fs::remove_file(&records).unwrap();
    std::fs::create_dir(&records).unwrap();
    // A write: the upstream has done it, and the client learns that it failed.
    let write = gateway.request("POST", "/pols/ANA/1", "ANA", "Content-Length: 0\r\n");
    assert_eq!((write.status, write.json()["code"].as_str()), (503, Some("not_recorded")), "{write:?}");
    assert_eq!(gateway.upstream.seen().len(), 1);
    assert!(
        gateway.logged("records cannot be written; requests are refused until they can", began, PATIENCE).is_some()
    );
    for (method, target, account) in
        [("GET", "/people/ANA", "ANA"), ("GET", "/people/DOC", "ANA"), ("POST", "/pols/ANA/1", "ANA")]
    {
        let answer = gateway.request(method, target, account, "");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("not_recorded")), "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(gateway.upstream.seen().len(), 1, "nothing more was forwarded");
    let ready = admin("/readyz");
    assert_eq!(ready.status, 503);
    assert!(ready.json()["records"]["fault"].as_str().unwrap().contains("Is a directory"), "{ready:?}");
    assert!(admin("/metrics").body.contains("fedgate_records_failing 1"));
    std::fs::remove_dir(&records).unwrap();
    assert!(gateway.logged("records are written again", began, PATIENCE).is_some());
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    assert_eq!(gateway.get("/people/DOC", "ANA").status, 403);
    assert_eq!(admin("/readyz").status, 200);
    let lines = std::fs::read_to_string(&records).unwrap();
    let statuses: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [200, 503, 503, 503, 200, 403], "each request has its record: {lines}");
}

#[test]
fn records_that_need_not_be_durable_keep_nobody_waiting() {
    let place = crate::fixture::Place::prepare(&Setup::default());
    std::os::unix::fs::symlink("/dev/full", place.dir.join("records.jsonl")).unwrap();
    let gateway = Gateway::start_at(place, &[DURABLE[0], ("FEDGATE_RECORDS_DURABLE", "false")]);
    let began = Instant::now();
    assert_eq!(gateway.get("/people/DOC", "ANA").status, 403);
    assert!(gateway.logged("records cannot be written; they are kept", began, PATIENCE).is_some());
    assert_eq!(gateway.get("/people/ANA", "ANA").status, 200);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
}

#[test]
fn a_stalled_reader_of_stdout_holds_up_no_request_where_a_file_has_the_records() {
    let under = ["bash", "-c", "exec \"$@\" > >(exec sleep 30)", "bash"];
    let gateway = Gateway::start_as(&Setup { under: &under, environment: &DURABLE, ..Default::default() });
    let began = Instant::now();
    let mut count = 0;
    // More than a pipe takes and than may wait for a stalled reader, and until that is logged.
    while count < 800 || gateway.log_lines("stdout is not read", began) == 0 {
        assert_eq!(gateway.get("/people/DOC", "ANA").status, 403);
        count += 1;
        assert!(began.elapsed() < PATIENCE, "{count} records");
    }
    assert_eq!(gateway.log_lines("stdout is not read", began), 1);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    assert_eq!(std::fs::read_to_string(gateway.dir.join("records.jsonl")).unwrap().lines().count(), count);
}

#[test]
fn without_a_file_a_stdout_that_nobody_reads_is_what_a_full_disk_is() {
    // A pipe whose reader has gone.
    let under = ["bash", "-c", "exec \"$@\" > >(exec true)", "bash"];
    let gateway = Gateway::start_as(&Setup { under: &under, ..Default::default() });
    let began = Instant::now();
    let write = || gateway.request("POST", "/pols/ANA/1", "ANA", "Content-Length: 0\r\n");
    let deadline = began + PATIENCE;
    // The reader may take its time to end.
    let mut written = 0;
    let told = loop {
        let answer = write();
        match answer.status {
            200 => written += 1,
            _ => break answer,
        }
        assert!(Instant::now() < deadline, "{written} writes went unrecorded");
    };
    assert_eq!((told.status, told.json()["code"].as_str()), (503, Some("not_recorded")), "{told:?}");
    assert!(
        gateway.logged("records cannot be written; requests are refused until they can", began, PATIENCE).is_some()
    );
    let seen = gateway.upstream.seen().len();
    for (method, target) in [("GET", "/people/ANA"), ("GET", "/people/DOC"), ("POST", "/pols/ANA/1")] {
        let answer = gateway.request(method, target, "ANA", "");
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("not_recorded")), "{answer:?}");
    }
    // The time is what is tested: the writer tries again every 200 ms, and nothing outside shows an attempt.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((write().status, gateway.upstream.seen().len()), (503, seen), "it does not become well by waiting");
    let ready = gateway.admin_get("/readyz");
    assert_eq!(ready.status, 503);
    let records = &ready.json()["records"];
    assert!(records["fault"].as_str().is_some_and(|why| why.contains("Broken pipe")), "{ready:?}");
    assert!(gateway.admin_get("/metrics").body.contains("fedgate_records_failing 1"));
}

#[test]
fn without_a_file_a_stalled_reader_of_stdout_is_awaited_up_to_a_bound() {
    let under = ["bash", "-c", "exec \"$@\" > >(sleep 12; exec cat > /dev/null)", "bash"];
    let gateway = Gateway::start_as(&Setup { under: &under, ..Default::default() });
    let began = Instant::now();
    let refused =
        std::iter::repeat_with(|| gateway.get("/people/DOC", "ANA")).take(1000).find(|told| told.status != 403);
    let refused = refused.expect("a pipe takes 64 KiB");
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("not_recorded")), "{refused:?}");
    assert!(gateway.logged("records are not written in time", began, PATIENCE).is_some());
    assert_eq!(gateway.admin_get("/readyz").status, 503);
    assert!(gateway.logged("records are written again", began, PATIENCE).is_some());
    assert_eq!(gateway.get("/people/DOC", "ANA").status, 403);
}
