//! Faults of upstreams, edits of the policy, starting and stopping.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fixture::{CANARY, Gateway, PATIENCE, Setup, basic};

#[test]
fn a_failing_upstream_is_502_or_504_and_a_cut_body_stays_cut() {
    let gateway = Gateway::start();
    let hang = gateway.get("/pols/ANA/hang", "ANA");
    assert_eq!((hang.status, hang.json()["code"].as_str()), (504, Some("upstream_timeout")));
    let garbage = gateway.get("/pols/ANA/garbage", "ANA");
    assert_eq!((garbage.status, garbage.json()["code"].as_str()), (502, Some("upstream_unreachable")));
    let distrust = gateway.get("/pols/ANA/distrust", "ANA");
    assert_eq!(
        (distrust.status, distrust.json()["code"].as_str()),
        (502, Some("upstream_refused")),
        "nobody's wrong password"
    );
    let short = gateway.get("/pols/ANA/short", "ANA");
    assert_eq!((short.status, short.complete), (200, false), "a cut body must not look whole");
    assert_eq!(gateway.get("/pols/ANA/1", "ANA").status, 200, "and the next request is served");
}

#[test]
fn an_upstream_that_is_not_there_is_502() {
    let policy = std::fs::read_to_string("policies/roles.cfg").unwrap();
    let route = "[[upstream]]\nname = \"gone\"\naddress = \"127.0.0.1:1\"\n[[route]]\npath = \"/gone\"\nmethods = [\"GET\"]\nendpoint = \"login\"\nupstream = \"gone\"\n";
    let gateway = Gateway::start_with(route, &policy);
    let gone = gateway.get("/gone", "ANA");
    assert_eq!((gone.status, gone.json()["code"].as_str()), (502, Some("upstream_unreachable")));
}

#[test]
fn a_log_that_nobody_reads_keeps_nothing_from_being_done() {
    // A pipe whose reader has gone.
    let under = ["bash", "-c", "exec \"$@\" 2> >(exec true)", "bash"];
    let environment = [("FEDGATE_LOG", "debug")];
    let gateway = Gateway::start_as(&Setup { under: &under, environment: &environment, ..Default::default() });
    follows_the_policy(&gateway);
    std::fs::write(gateway.dir.join("cert.pem"), "half").unwrap();
    gateway.measures("fedgate_certificate_faults 0", false);
    crate::fixture::certificate(&gateway.dir);
    follows_the_policy(&gateway);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
}

#[test]
fn an_edit_of_the_policy_takes_effect_and_a_broken_one_does_not() {
    follows_the_policy(&Gateway::start());
}

/// Waits until ANA's request for the list of people has this status.
fn becomes(gateway: &Gateway, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    while gateway.get("/people", "ANA").status != status {
        assert!(Instant::now() < deadline, "never became {status}");
    }
}

/// Grants ANA the list of people, and returns the policy before.
fn grant_people(gateway: &Gateway) -> String {
    let file = gateway.dir.join("roles.cfg");
    let stock = std::fs::read_to_string(&file).unwrap();
    let granted = stock.replace("\"login\", \"person\", \"book\"", "\"login\", \"people\", \"person\", \"book\"");
    std::fs::write(file, granted).unwrap();
    stock
}

fn follows_the_policy(gateway: &Gateway) {
    let file = gateway.dir.join("roles.cfg");
    becomes(gateway, 403);
    let stock = grant_people(gateway);
    becomes(gateway, 200);
    std::fs::write(&file, &stock.as_bytes()[..stock.len() / 2]).unwrap();
    gateway.signal(Signal::HUP);
    gateway.measures("fedgate_policy_faulty 1", true);
    assert_eq!(gateway.get("/people", "ANA").status, 200, "the last good policy stays");
    std::fs::write(&file, stock).unwrap();
    becomes(gateway, 403);
}

#[test]
fn a_stalled_reader_of_the_log_holds_up_neither_requests_nor_a_policy() {
    let reads = std::env::temp_dir().join(format!("fedgate-reads-{:x}", rand::random::<u128>()));
    let under = [
        "bash",
        "-c",
        "exec \"$@\" 2> >(for i in {1..600}; do [ -e \"$FEDGATE_TEST_READS\" ] && break; sleep 0.1; done; exec cat >&2)",
        "bash",
    ];
    let environment = [("FEDGATE_TEST_READS", reads.to_str().unwrap())];
    let gateway = Gateway::start_as(&Setup { under: &under, environment: &environment, ..Setup::default() });
    let lost = || {
        let metrics = gateway.admin_get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("fedgate_log_lines_lost_total ")).unwrap().to_owned();
        line.split(' ').nth(1).unwrap().parse::<f64>().unwrap()
    };
    let deadline = Instant::now() + 3 * PATIENCE;
    while lost() == 0.0 {
        // Each is logged.
        (0..100).for_each(|_| assert_eq!(gateway.get("/pols/ADM/garbage", "ADM").status, 502));
        assert!(Instant::now() < deadline, "the log is never full");
    }
    grant_people(&gateway);
    becomes(&gateway, 200);
    let began = Instant::now();
    std::fs::write(&reads, "").unwrap();
    gateway.logged("lines of this log were lost", began, PATIENCE).expect("who reads again is told");
    std::fs::remove_file(reads).unwrap();
}

#[test]
fn the_admin_listener_reports_liveness_readiness_and_metrics() {
    let gateway = Gateway::start();
    let ask = |path: &str| {
        let answer = gateway.admin_get(path);
        (answer.status, answer.body)
    };
    assert_eq!(ask("/livez").0, 200);
    let deadline = Instant::now() + PATIENCE;
    let ready = |(status, body): (u16, String)| status == 200 && body.contains("\"lease_valid\":true");
    while !ready(ask("/readyz")) {
        assert!(Instant::now() < deadline, "never ready: {:?}", ask("/readyz"));
    }
    assert!(ask("/version").1.contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(ask("/nowhere").0, 404);
    gateway.get("/people/ANA", "ANA");
    gateway.get("/people/DOC", "ANA");
    gateway.record();
    gateway.record();
    let metrics = ask("/metrics").1;
    for expected in [
        "fedgate_requests_total{decision=\"allow\",status=\"200\"} 1",
        "fedgate_requests_total{decision=\"deny\",status=\"403\"} 1",
        "fedgate_lease_valid 1",
        "fedgate_cache_hits_total 1",
        "fedgate_request_duration_seconds_count 2",
    ] {
        assert!(metrics.contains(expected), "{expected} in {metrics}");
    }
    assert!(!metrics.contains("ANA") && !metrics.contains("DOC"), "no person in metrics");
    // An unusable policy is reported, but does not end readiness.
    std::fs::write(gateway.dir.join("roles.cfg"), "[").unwrap();
    while !ask("/readyz").1.contains("line 1: EOF") {
        assert!(Instant::now() < deadline, "the fault is not told");
    }
    assert!(ask("/readyz").0 == 200 && ask("/metrics").1.contains("fedgate_policy_faulty 1"));
}

#[test]
fn a_stop_finishes_what_is_in_flight() {
    let mut gateway = Gateway::start();
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    let request = format!("GET /pols/ANA/slow HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", basic("ANA", CANARY));
    stream.write_all(request.as_bytes()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while gateway.upstream.seen().is_empty() {
        assert!(Instant::now() < deadline, "it never arrived");
        std::thread::sleep(Duration::from_millis(5));
    }
    gateway.signal(Signal::TERM);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("true"), "{answer}");
    assert!(gateway.child.wait().unwrap().success());
}

#[test]
fn what_keeps_it_from_starting_is_one_line_with_the_file_and_exit_2() {
    let gateway = Gateway::start();
    let run = |command: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_fedgate"))
            .args(command)
            .arg("--config")
            .arg(gateway.dir.join("fedgate.toml"))
            .output()
            .unwrap();
        // Good news is printed too, on stdout. The last line belongs to a fault.
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr))
    };
    let (code, text) = run(&["check"]);
    assert_eq!(code, Some(0), "{text}");
    let is_of_defaults = |line: &&str| line.starts_with("defaults ") || line.starts_with("  ");
    // Five, and the warning of a `*` among the origins.
    assert_eq!(text.lines().filter(|line| !is_of_defaults(line)).count(), 7, "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("defaults ")).count(), 1, "{text}");
    assert!(!text.contains("restores the old default"), "{text}");
    let (_, text) = run(&["check", "--changes"]);
    assert!(text.contains("(`his.max_record_bytes = 0` restores the old default)\n"), "{text}");
    assert!(text.contains(&format!("his at {}\n", gateway.upstream.address)), "{text}");
    let (code, text) = run(&["serve"]);
    assert_eq!(code, Some(1), "{text}");
    let last = text.lines().last().unwrap();
    assert_eq!(last.matches("Address already in use").count(), 1, "told once: {last}");
    for (mode, words) in [
        (0o660, "secret of `assertion.secret_file`, or everybody may read it; give it"),
        (0o644, "read or written by everybody on this machine; give it"),
    ] {
        std::fs::set_permissions(gateway.dir.join("secret"), std::fs::Permissions::from_mode(mode)).unwrap();
        for command in ["check", "serve"] {
            let (_, text) = run(&[command]);
            assert!(text.contains(words), "{command}: {text}");
        }
    }
    std::fs::set_permissions(gateway.dir.join("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = gateway.dir.join("fedgate.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    for (what, key, expected) in [
        ("[gateway]\n", "[gateway]\npid_file = \"none/pid\"\n", "none/pid: its directory does not exist"),
        ("[gateway]\n", "[gateway]\npid_file = \".\"\n", "this is a directory itself"),
        ("[tls]\n", "[records]\nfile = \"none/records\"\n[tls]\n", "`records.file` names "),
        (
            &format!("admin = [\"{}\"]", gateway.admin),
            &format!("admin = [\"{}\"]", gateway.address),
            "`gateway.admin` holds",
        ),
    ] {
        std::fs::write(&config, good.replacen(what, key, 1)).unwrap();
        for command in ["check", "serve"] {
            let (code, text) = run(&[command]);
            assert!(code == Some(2) && text.lines().last().unwrap().contains(expected), "{command}: {text}");
        }
    }
    std::fs::write(&config, good).unwrap();
    let spoil = |name: &str, content: &str, expected: &str| {
        let path = gateway.dir.join(name);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, content).unwrap();
        for command in ["check", "serve"] {
            let (code, text) = run(&[command]);
            assert_eq!(code, Some(2), "{text}");
            // `check` prints all faults, and finally their number.
            let told = if command == "check" { text.as_str() } else { text.lines().last().unwrap() };
            let is_told = told.lines().any(|line| line.contains(name) && line.contains(expected));
            assert!(is_told, "{command}: {text}");
        }
        std::fs::write(&path, good).unwrap();
    };
    spoil("roles.cfg", "[", "line 1: EOF");
    spoil("cert.pem", "", "holds no certificate");
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    spoil("cert.key", &other, "is not the key of the certificate");
    spoil("secret", "short", "less than 32 bytes");
    spoil("fedgate.toml", "[gatway]", "unknown field `gatway`");
}

#[test]
fn accounts_are_managed_from_the_command_line_and_the_gateway_sees_it() {
    let gateway = Gateway::start();
    let run = |arguments: &[&str], input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fedgate"))
            .arg("account")
            .args(arguments)
            .arg("--config")
            .arg(gateway.dir.join("fedgate.toml"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let out = child.wait_with_output().unwrap();
        (
            out.status.code().unwrap(),
            String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr),
        )
    };
    let status = |password: &str| {
        gateway.request("GET", "/login", "", &format!("Authorization: {}\r\n", basic("NEW", password))).status
    };
    let becomes = |password: &str, expected: u16| {
        let deadline = Instant::now() + PATIENCE;
        while status(password) != expected {
            assert!(Instant::now() < deadline, "never became {expected}");
        }
    };
    assert_eq!(status("first-1"), 401);
    assert_eq!(run(&["add", "new", "--roles", "end_user"], "first-1\n"), (0, "NEW added\n".into()));
    assert_eq!(status("first-1"), 200, "an account that is added is there at once");
    assert_eq!(run(&["add", "NEW"], "another\n").0, 1);
    for id in ["", "A/B", "A:B", "A\tB", ".."] {
        let (code, text) = run(&["add", id], "another\n");
        assert!(code == 2 && text.contains("the id "), "{id:?}: {text}");
    }
    for command in [["add", "SHORT"], ["passwd", "NEW"]] {
        let (code, text) = run(&command, "12345\n");
        assert!(code == 1 && text.contains("less than 6 characters"), "{command:?}: {text}");
        let (code, text) = run(&command, "      \u{3000}\n");
        assert!(code == 1 && text.contains("the password is blanks alone"), "{command:?}: {text}");
    }
    assert_eq!(run(&["disable", "NEW"], ""), (0, "NEW can no longer log in\n".into()));
    becomes("first-1", 401);
    assert_eq!(run(&["enable", "NEW"], "").0, 0);
    becomes("first-1", 200);
    assert_eq!(run(&["passwd", "NEW"], "second-2\n").0, 0);
    becomes("second-2", 200);
    becomes("first-1", 401);
    // One keyboard composes a letter, another writes its accent behind it.
    assert_eq!(run(&["passwd", "NEW"], "contrasen\u{303}a\n").0, 0);
    becomes("contrase\u{f1}a", 200);
    becomes("contrasen\u{303}a", 200);
    assert_eq!(run(&["passwd", "NEW"], "second-2\n").0, 0);
    becomes("second-2", 200);
    let (code, text) = run(&["roles", "NEW", "nurse"], "");
    assert!(code == 2 && text.contains("nothing was changed"), "{text}");
    let (code, text) = run(&["roles", "NEW", "nurse", "--force"], "");
    assert!(code == 0 && text.contains("defines no role `nurse`"), "{text}");
    becomes("second-2", 403);
    let (code, text) = run(&["show", "NEW"], "");
    assert!(
        code == 0 && text.contains("roles     nurse") && text.contains("argon2id") && !text.contains('$'),
        "{text}"
    );
    for command in ["show", "enable", "disable", "passwd"] {
        assert_eq!(run(&[command, "NOBODY"], "x\n").0, 1, "{command}");
    }
    assert_eq!(run(&["frobnicate"], "").0, 2);
}

/// Starts a program as systemd does with a socket unit (sd_listen_fds(3)): with the listener as descriptor 3.
const ACTIVATED: &str = r#"
import os, re, socket, sys
config = open(sys.argv[sys.argv.index("--config") + 1]).read()
host, port = re.search(r'^listen = \["(.+):(\d+)"\]', config, re.M).groups()
listener = socket.create_server((host, int(port)))
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn systemd_hands_the_socket_over_and_is_notified_when_it_is_served() {
    let dir = std::env::temp_dir().join(format!("fedgate-notify-{:x}", rand::random::<u128>()));
    let told = std::os::unix::net::UnixDatagram::bind(&dir).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    let under = ["python3", "-c", ACTIVATED];
    let environment = [("NOTIFY_SOCKET", dir.to_str().unwrap())];
    // If the listener were not taken over, the address would be in use.
    let gateway = Gateway::start_as(&Setup { under: &under, environment: &environment, ..Default::default() });
    let mut message = [0; 1024];
    let count = told.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..count]).into_owned();
    assert!(message.lines().any(|line| line == "READY=1"), "{message}");
    assert!(message.lines().any(|line| line == format!("MAINPID={}", gateway.child.id())), "{message}");
    assert!(gateway.logged("https", Instant::now() - PATIENCE, PATIENCE).is_some());
    drop(gateway);
    std::fs::remove_file(dir).unwrap();
}

#[test]
fn a_wall_clock_that_jumps_lets_nobody_in_nor_out() {
    let library =
        std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    let library = library.into_iter().find(|path| path.exists()).expect("tests/run installs faketime");
    let clock = std::env::temp_dir().join(format!("fedgate-clock-{:x}", rand::random::<u128>()));
    std::fs::write(&clock, "+0d\n").unwrap();
    let environment = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        // The monotonic clock does not jump (clock_gettime(2)).
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ];
    let gateway = Gateway::start_as(&Setup { environment: &environment, ..Default::default() });
    let fedgate = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
        let out = command.args(arguments).arg("--config").arg(gateway.dir.join("fedgate.toml")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    let mut years = std::collections::BTreeSet::new();
    for jump in ["+0d", "+800d", "-800d", "+0d"] {
        std::fs::write(&clock, format!("{jump}\n")).unwrap();
        for (account, status) in [("ANA", 200), ("DOC", 200), ("NO1", 401)] {
            assert_eq!(gateway.get("/people/ANA", account).status, status, "{jump}: {account}");
            years.insert(gateway.record()["time"].as_str().unwrap()[..4].to_owned());
        }
        // Within the bound a revoked right is gone, and a granted one works.
        for (order, status) in [("disable", 401), ("enable", 200)] {
            fedgate(&["account", order, "DOC"]);
            let deadline = Instant::now() + PATIENCE;
            while gateway.get("/people/ANA", "DOC").status != status {
                gateway.record();
                assert!(Instant::now() < deadline, "{jump}: {order} has no effect");
            }
            gateway.record();
        }
        assert_eq!(gateway.admin_get("/readyz").status, 200, "{jump}");
    }
    assert_eq!(years.len(), 3, "the clock did jump: {years:?}");
    std::fs::remove_file(clock).unwrap();
}

#[test]
fn a_service_whose_clock_differs_is_a_reason_not_to_be_ready_and_one_that_distrusts_is_none() {
    let gateway = Gateway::start();
    let ready = || gateway.admin_get("/readyz");
    for (page, status) in [("distrust", 200), ("expired", 503), ("1", 200)] {
        let answer = gateway.get(&format!("/pols/ANA/{page}"), "ANA");
        assert_eq!(answer.status, if page == "1" { 200 } else { 502 });
        assert_eq!(ready().status, status, "{page}: {:?}", ready());
    }
    gateway.get("/pols/ANA/expired", "ANA");
    let fault = ready().json()["clocks"]["fault"].as_str().unwrap().to_owned();
    assert!(fault.contains("its clock and this one differ"), "{fault}");
}

#[test]
fn check_says_that_the_schema_is_newer() {
    let gateway = Gateway::start();
    let store = rusqlite::Connection::open(gateway.dir.join("test.db")).unwrap();
    store.busy_timeout(PATIENCE).unwrap();
    store.execute_batch("UPDATE fedgate_schema SET version = version + 1").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fedgate"));
    let out = command.args(["check", "--config"]).arg(gateway.dir.join("fedgate.toml")).output().unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(told.contains("of a newer release"), "{told}");
}
