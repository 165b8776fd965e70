//! Records while their file is rotated: by logrotate as shipped, and by hand.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use rustix::process::Signal;

use crate::fixture::{Gateway, PATIENCE, Setup};

const FILE: (&str, &str) = ("FEDGATE_RECORDS_FILE", "records.jsonl");
const ROTATIONS: usize = 4;

/// The number of records in the file and those beside it, compressed or not.
fn records(gateway: &Gateway) -> usize {
    let files = fs::read_dir(&gateway.dir).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("records.jsonl"));
    let text = files.map(|path| Command::new("gzip").args(["-dcf"]).arg(path).output().unwrap().stdout);
    let text = String::from_utf8(text.collect::<Vec<_>>().concat()).unwrap();
    text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count()
}

#[test]
fn no_record_is_lost_by_the_rotation_that_is_shipped() {
    let gateway = Gateway::start_as(&Setup { environment: &[FILE], ..Setup::default() });
    let shipped = fs::read_to_string("deploy/logrotate/fedgate").unwrap();
    let (config, state) = (gateway.dir.join("logrotate"), gateway.dir.join("logrotate.state"));
    let hangup = format!("kill -HUP {}", gateway.child.id());
    let mut adapted = shipped.clone();
    // Settings of the target machine, and names that differ within a second. A day apart they differ anyway.
    for (from, to) in [
        ("/var/lib/fedgate/records.jsonl", gateway.dir.join("records.jsonl").to_str().unwrap()),
        ("    su fedgate fedgate\n", ""),
        ("create 0600 fedgate fedgate", "create 0600"),
        ("systemctl kill --signal=HUP --kill-who=main fedgate.service", &hangup),
        ("    dateext\n    dateformat -%Y%m%d-%s\n", ""),
    ] {
        assert!(adapted.contains(from), "{from}: {shipped}");
        adapted = adapted.replace(from, to);
    }
    fs::write(&config, adapted).unwrap();
    let (over, asked, began) = (AtomicBool::new(false), AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for (target, status) in [("/people/ANA", 200), ("/people/DOC", 403), ("/people/ANA", 200)] {
            let (over, asked, gateway) = (&over, &asked, &gateway);
            scope.spawn(move || {
                while !over.load(Ordering::Acquire) {
                    assert_eq!(gateway.get(target, "ANA").status, status);
                    asked.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        for rotation in 1..=ROTATIONS {
            let before = asked.load(Ordering::Acquire);
            while asked.load(Ordering::Acquire) < before + 30 {
                std::thread::yield_now();
            }
            let program = if fs::exists("/usr/sbin/logrotate").unwrap() { "/usr/sbin/logrotate" } else { "logrotate" };
            let out = Command::new(program).args(["-f", "-s"]).args([&state, &config]).output();
            let out = out.expect("tests/run installs logrotate");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            while gateway.log_lines("opening the file of records", began) < rotation {
                assert!(began.elapsed() < PATIENCE, "rotation {rotation}");
                std::thread::yield_now();
            }
        }
        over.store(true, Ordering::Release);
    });
    let asked = asked.into_inner();
    while records(&gateway) != asked {
        assert!(began.elapsed() < PATIENCE, "of {asked} there are {}", records(&gateway));
    }
    assert!(gateway.dir.join("records.jsonl.2.gz").exists(), "they were compressed, too");
}

#[test]
fn a_hangup_opens_the_file_of_that_name_at_once() {
    for durable in ["true", "false"] {
        let environment = [FILE, ("FEDGATE_RECORDS_DURABLE", durable)];
        let gateway = Gateway::start_as(&Setup { environment: &environment, ..Setup::default() });
        let file = gateway.dir.join("records.jsonl");
        fs::rename(&file, gateway.dir.join("moved")).unwrap();
        gateway.signal(Signal::HUP);
        let deadline = Instant::now() + PATIENCE;
        // No request is made: only the signal leads to the new file.
        while !file.exists() {
            assert!(Instant::now() < deadline, "it is opened");
            std::thread::yield_now();
        }
    }
}
