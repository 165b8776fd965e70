//! Records when their disk is full, hangs, or is no disk.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rustix::fs::{CWD, OFlags, mkfifoat};
use rustix::process::Signal;

use crate::fixture::{Gateway, PATIENCE, Place, Setup};

/// The records are in a file, on disk before the answers that they describe.
const DURABLE: [(&str, &str); 1] = [("FEDGATE_RECORDS_FILE", "records.jsonl")];
const NOT_DURABLE: [(&str, &str); 2] = [DURABLE[0], ("FEDGATE_RECORDS_DURABLE", "false")];

/// A write, which is recorded before it is answered.
fn write(gateway: &Gateway) -> u16 {
    gateway.request("POST", "/pols/ANA/1", "ANA", "Content-Length: 0\r\n").status
}

fn is_record(line: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line).is_ok_and(|record| record.is_object())
}

/// Whether the log says so.
#[track_caller]
fn told(gateway: &Gateway, words: &str, since: Instant) {
    assert!(gateway.logged(words, since, PATIENCE).is_some(), "{words}");
}

/// A gateway whose records are on a disk of one mebibyte, mounted for it alone.
struct Small {
    gateway: Gateway,
    /// The disk, as it is seen from outside.
    disk: PathBuf,
}

impl Small {
    fn start(fill: &str) -> Option<Self> {
        if !Command::new("unshare").args(["-rm", "true"]).status().is_ok_and(|status| status.success()) {
            println!("not run: this machine lets nobody mount");
            return None;
        }
        let (dir, disk) = (std::env::temp_dir(), format!("fedgate-disk-{:x}", rand::random::<u128>()));
        fs::create_dir(dir.join(&disk)).unwrap();
        let disk = dir.join(disk);
        let script = format!("cd {} && mount -t tmpfs -o size=1m none . && cd . && {fill} exec \"$@\"", disk.display());
        let under = ["unshare", "-rm", "sh", "-c", &script, "sh"];
        let records = disk.join("records.jsonl");
        let environment = [("FEDGATE_RECORDS_FILE", records.to_str().unwrap()), ("FEDGATE_RECORDS_RESERVE_MIB", "0")];
        let place = Place::prepare(&Setup { under: &under, ..Setup::default() });
        let gateway = Gateway::start_at(place, &environment);
        let seen = PathBuf::from(format!("/proc/{}/root{}", gateway.child.id(), disk.display()));
        Some(Self { gateway, disk: seen })
    }

    /// Writes until the disk is full.
    fn fill(&self) {
        let mut ballast = File::create(self.disk.join("ballast")).unwrap();
        while ballast.write(&[b'x'; 512]).is_ok_and(|count| count > 0) {}
    }
}

#[test]
fn records_that_cannot_be_written_before_the_end_are_counted_and_none_is_half_there() {
    let Some(Small { mut gateway, disk }) = Small::start("").inspect(Small::fill) else {
        return;
    };
    let mut refused = 0;
    while refused < 5 {
        refused += usize::from(write(&gateway) == 503);
    }
    // Held open, because the disk is gone with the gateway.
    let mut records = File::open(disk.join("records.jsonl")).unwrap();
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.child.wait().unwrap().code(), Some(1));
    told(&gateway, &format!("{refused} records could not be written before the end, and are lost"), began);
    let mut text = String::new();
    records.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("}\n") && text.lines().all(is_record), "{text}");
}

#[test]
fn what_waits_for_a_full_disk_is_written_at_the_end_if_there_is_room_by_then() {
    let Some(small) = Small::start("") else { return };
    small.fill();
    let Small { mut gateway, disk } = small;
    let mut answers = vec![];
    while answers.last() != Some(&503) {
        answers.push(write(&gateway));
    }
    let records = File::open(disk.join("records.jsonl")).unwrap();
    gateway.signal(Signal::TERM);
    fs::remove_file(disk.join("ballast")).unwrap();
    assert_eq!(gateway.child.wait().unwrap().code(), Some(0));
    let lines = std::io::read_to_string(records).unwrap();
    assert_eq!(lines.lines().filter(|line| is_record(line)).count(), answers.len(), "{lines}");
    assert_eq!(lines.lines().count(), answers.len(), "{lines}");
}

#[test]
fn a_disk_that_is_full_at_the_start_is_not_ready_and_check_says_so() {
    // As full as it will be later: not even a page is left.
    let Some(Small { gateway, disk }) = Small::start("cat /dev/zero > ballast 2> none; touch records.jsonl;") else {
        return;
    };
    let ready = gateway.admin_get("/readyz");
    assert_eq!((ready.status, write(&gateway)), (503, 503));
    assert!(ready.json()["records"]["fault"].as_str().unwrap().contains("No space left on device"), "{ready:?}");
    let check = || {
        let records = disk.join("records.jsonl");
        let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
        command.args(["check", "--config"]).arg(gateway.dir.join("fedgate.toml"));
        command.env("FEDGATE_RECORDS_FILE", records).output().unwrap()
    };
    let out = check();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.code() == Some(2) && text.contains("`records.file`") && text.contains("No space left"),
        "{text}"
    );
    fs::remove_file(disk.join("ballast")).unwrap();
    told(&gateway, "records are written again", Instant::now() - PATIENCE);
    assert_eq!((gateway.admin_get("/readyz").status, write(&gateway)), (200, 200));
    assert!(check().status.success());
}

#[test]
fn no_durable_record_goes_to_a_pipe_or_a_device() {
    let gateway = Gateway::start_as(&Setup { environment: &DURABLE, ..Setup::default() });
    let records = gateway.dir.join("records.jsonl");
    assert_eq!(write(&gateway), 200);
    let pipe = |path: &Path| mkfifoat(CWD, path, 0o600.into()).unwrap();
    let device = |path: &Path| std::os::unix::fs::symlink("/dev/null", path).unwrap();
    let mut kept = vec![];
    for replace in [&pipe as &dyn Fn(&Path), &device] {
        let began = Instant::now();
        kept.push(gateway.dir.join(format!("kept.{}", kept.len())));
        fs::rename(&records, kept.last().unwrap()).unwrap();
        replace(&records);
        assert_eq!((write(&gateway), write(&gateway)), (503, 503));
        let ready = gateway.admin_get("/readyz");
        assert_eq!(ready.status, 503);
        assert!(ready.json()["records"]["fault"].as_str().unwrap().contains("not a regular file"), "{ready:?}");
        told(&gateway, "not a regular file", began);
        fs::remove_file(&records).unwrap();
        told(&gateway, "records are written again", began);
        assert_eq!((write(&gateway), gateway.admin_get("/readyz").status), (200, 200));
    }
    kept.push(records);
    let lines: usize = kept.iter().map(|path| fs::read_to_string(path).unwrap().lines().count()).sum();
    assert_eq!(lines, 7, "each write has its record");
}

#[test]
fn a_gateway_that_starts_on_a_pipe_is_not_ready_until_it_is_a_file() {
    let place = Place::prepare(&Setup::default());
    let records = place.dir.join("records.jsonl");
    mkfifoat(CWD, &records, 0o600.into()).unwrap();
    let gateway = Gateway::start_at(place, &DURABLE);
    assert_eq!((gateway.admin_get("/readyz").status, write(&gateway)), (503, 503));
    assert!(gateway.upstream.seen().is_empty());
    fs::remove_file(&records).unwrap();
    told(&gateway, "records are written again", Instant::now() - PATIENCE);
    assert_eq!((gateway.admin_get("/readyz").status, write(&gateway)), (200, 200));
}

#[test]
fn a_full_pipe_is_left_for_what_takes_its_place_and_no_line_is_mixed_with_another() {
    let place = Place::prepare(&Setup::default());
    let records = place.dir.join("records.jsonl");
    mkfifoat(CWD, &records, 0o600.into()).unwrap();
    let gateway = Gateway::start_at(place, &NOT_DURABLE);
    let began = Instant::now();
    let mut asked = 0;
    // A pipe without a reader takes 64 KiB.
    while gateway.log_lines("records cannot be written; they are kept", began) == 0 {
        assert_eq!(gateway.get("/people/DOC", "ANA").status, 403);
        asked += 1;
    }
    // Without waiting: the pipe may be full, and nobody writes to it once it has been replaced.
    let mut options = fs::OpenOptions::new();
    let mut pipe = options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&records).unwrap();
    fs::remove_file(&records).unwrap();
    told(&gateway, "records are written again", began);
    let mut taken = vec![];
    let mut recorded = || {
        let mut block = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut block) {
            taken.extend_from_slice(&block[..count]);
        }
        let taken = String::from_utf8_lossy(&taken);
        let broken = taken.lines().filter(|line| !is_record(line)).count();
        assert!(broken <= 1, "only the line that the pipe took half of: {taken}");
        let file = fs::read_to_string(&records).unwrap();
        taken.lines().chain(file.lines()).filter(|line| is_record(line)).count()
    };
    while recorded() != asked {
        assert!(began.elapsed() < PATIENCE, "of {asked} there are {}", recorded());
    }
}

/// Disk operations hang for as long as a file `hang` exists.
const HANGING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    while (!access(getenv("FEDGATE_TEST_HANG"), F_OK))
        usleep(1000);
    return real(file);
}
"#;

/// Compiles a library that is loaded before the C library.
fn preloaded(dir: &Path, source: &str) -> OsString {
    let (file, library) = (dir.join("preloaded.c"), dir.join("preloaded.so"));
    fs::write(&file, source).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &file]).arg("-ldl").status();
    assert!(built.unwrap().success(), "the tests need a C compiler, as Rust does");
    library.into()
}

#[test]
fn a_disk_that_does_not_answer_holds_up_only_requests_that_need_it() {
    let place = Place::prepare(&Setup::default());
    let (library, hang) = (preloaded(&place.dir, HANGING), place.dir.join("hang"));
    let environment =
        [DURABLE[0], ("LD_PRELOAD", library.to_str().unwrap()), ("FEDGATE_TEST_HANG", hang.to_str().unwrap())];
    let mut gateway = Gateway::start_at(place, &environment);
    let began = Instant::now();
    fs::write(&hang, "").unwrap();
    for _ in 0..300 {
        assert_eq!(gateway.get("/people/ANA", "ANA").status, 200, "who need not wait does not");
    }
    let denied = gateway.get("/people/DOC", "ANA");
    assert_eq!((denied.status, denied.json()["code"].as_str()), (503, Some("not_recorded")), "{denied:?}");
    told(&gateway, "records are not written in time", began);
    let since = Instant::now();
    for _ in 0..100 {
        assert_eq!(gateway.get("/people/ANA", "ANA").status, 503);
    }
    assert!(since.elapsed() < PATIENCE / 2, "refused at once");
    assert_eq!((gateway.admin_get("/livez").status, gateway.admin_get("/readyz").status), (200, 503));
    fs::remove_file(&hang).unwrap();
    told(&gateway, "records are written again", began);
    assert_eq!(gateway.get("/people/DOC", "ANA").status, 403);
    // And at the end: the number of records in memory is known, whatever becomes of them.
    fs::write(&hang, "").unwrap();
    assert_eq!(gateway.get("/people/DOC", "ANA").status, 503);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.child.wait().unwrap().code(), Some(1));
    told(&gateway, "records could not be written before the end, and are lost", began);
}
