//! Live policy: edits under load lose no request, each answer is right for the policy it names, and no fault of the
//! file removes the last good policy.

#[path = "reload/disk.rs"]
mod disk;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::{CANARY, Gateway, PATIENCE, Place, Setup, basic};
use crate::support::keepalive::{Connection, get};
use crate::support::{percentiles, wanted};
use fedgate_core::policy::PolicySet;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

/// How long edits are made. `FEDGATE_TEST_RELOAD_SECONDS` overrides it.
const SECONDS: u32 = 8;
const EDITS_PER_SECOND: u32 = 10;
const CLIENTS: usize = 4;

/// The policy of one edit; even ones grant what the clients request. Each has its own fingerprint.
fn policy(edit: u32) -> String {
    let granted = if edit.is_multiple_of(2) { r#""login", "people""# } else { r#""login""# };
    format!(
        r#"[{{"role": "end_user", "permissions": {{"GET": [{granted}]}}}}, {{"role": "edit_{edit}", "permissions": {{}}}}]"#
    )
}

fn fingerprint(text: &str) -> String {
    PolicySet::parse(text.as_bytes()).unwrap().fingerprint().to_owned()
}

/// Makes one edit, in one of several ways in turn.
fn edit(dir: &Path, number: u32) {
    let (path, text) = (dir.join("roles.cfg"), policy(number));
    match number % 4 {
        // As an editor writes.
        0 => {
            fs::write(dir.join("roles.cfg~"), text).unwrap();
            fs::rename(dir.join("roles.cfg~"), path).unwrap();
        }
        // In place, as a program without a buffer writes.
        1 => text
            .as_bytes()
            .chunks(20)
            .fold(fs::File::create(path).unwrap(), |mut file, piece| {
                file.write_all(piece).unwrap();
                file
            })
            .flush()
            .unwrap(),
        // As a mounted ConfigMap: the file is a link through `..data`, which is swapped.
        _ => {
            let generation = format!("..generation_{number}");
            fs::create_dir(dir.join(&generation)).unwrap();
            fs::write(dir.join(&generation).join("roles.cfg"), text).unwrap();
            symlink(generation, dir.join("..data_new")).unwrap();
            fs::rename(dir.join("..data_new"), dir.join("..data")).unwrap();
            if !path.is_symlink() {
                symlink("..data/roles.cfg", dir.join("link")).unwrap();
                fs::rename(dir.join("link"), path).unwrap();
            }
        }
    }
}

#[test]
fn ten_edits_a_second_under_load_fail_no_request_and_each_answer_is_right_for_the_policy_it_names() {
    let seconds = wanted("FEDGATE_TEST_RELOAD_SECONDS", SECONDS);
    let gateway = Gateway::start_with("[authentication]\nupgrade_hashes = false\n", &policy(0));
    let stop = AtomicBool::new(false);
    let (started, mut longest) = (Instant::now(), Duration::ZERO);
    let mut edits = vec![(fingerprint(&policy(0)), started)];
    let answers: HashMap<String, u16> = thread::scope(|scope| {
        let client = || {
            let mut connection = Connection::to(gateway.address);
            let request = get("/people", &basic("ANA", CANARY));
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.ask(&request).expect("no request fails");
                answers.push((answer.request_id, answer.status));
                thread::sleep(Duration::from_micros(500));
            }
            answers
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        let began = Instant::now();
        for number in 1..=seconds * EDITS_PER_SECOND {
            edits.push((fingerprint(&policy(number)), Instant::now()));
            let written = Instant::now();
            edit(&gateway.dir, number);
            longest = longest.max(written.elapsed());
            thread::sleep(
                (began + Duration::from_secs(1) / EDITS_PER_SECOND * number).saturating_duration_since(Instant::now()),
            );
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });

    let numbers: HashMap<&str, usize> =
        edits.iter().enumerate().map(|(number, (fingerprint, _))| (fingerprint.as_str(), number)).collect();
    let mut first_seen: HashMap<usize, Instant> = HashMap::new();
    for _ in 0..answers.len() {
        let (read, record) = gateway.record_within(PATIENCE).expect("a record for each answer");
        let number = numbers[record["policy"].as_str().unwrap()];
        let (decision, status) = if number.is_multiple_of(2) { ("allow", 200) } else { ("deny", 403) };
        let told = answers[record["request.id"].as_str().unwrap()];
        assert_eq!((record["decision"].as_str(), told), (Some(decision), status), "edit {number}: {record}");
        first_seen.entry(number).or_insert(read);
    }
    let latencies: Vec<_> =
        first_seen.iter().filter(|(number, _)| **number > 0).map(|(number, read)| *read - edits[*number].1).collect();
    println!(
        "reload, {EDITS_PER_SECOND} edits a second under load: {} requests, 0 failed, 0 wrong for their policy; {} of {} edits came into force, \
         from write to first record {}",
        answers.len(),
        latencies.len(),
        edits.len() - 1,
        percentiles(latencies.clone())
    );
    raised_no_alarm(&gateway, started, longest);
    // On a busy machine two edits may be seen as one. The law is that none was seen wrongly.
    assert!(latencies.len() * 4 > edits.len(), "edits came into force");
}

/// A fault of the file, and a word from the message that the operator reads.
type Fault = (&'static str, fn(&Path), &'static str);

const FAULTS: &[Fault] = &[
    ("truncated slow write", |path| _ = slowly(path, &policy(2).as_bytes()[..60]), "EOF"),
    ("empty", |path| fs::write(path, "").unwrap(), "file is empty; write the roles into it"),
    ("an object", |path| fs::write(path, "{}").unwrap(), "expected a sequence"),
    ("invalid JSON", |path| fs::write(path, "[{role}]").unwrap(), "key must be a string"),
    ("byte order mark", |path| fs::write(path, format!("\u{feff}{}", policy(2))).unwrap(), "byte order mark"),
    ("UTF-16", |path| fs::write(path, utf16(&policy(2))).unwrap(), "UTF-"),
    ("NUL", |path| fs::write(path, format!("{}\0", policy(2))).unwrap(), "plain UTF-8"),
    ("deleted", |path| fs::remove_file(path).unwrap(), "cannot be read"),
    ("mode 000", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap(), "cannot be read"),
    ("directory", |path| replaced(path, |path| fs::create_dir(path).unwrap()), "is not a regular file"),
    (
        "FIFO",
        |path| replaced(path, |path| mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap()),
        "is not a regular file",
    ),
    ("100 MB", |path| fs::File::create(path).unwrap().set_len(100 << 20).unwrap(), "larger than"),
    ("duplicate keys", |path| fs::write(path, r#"[{"role": "a", "role": "b", "permissions": {}}]"#).unwrap(), "role"),
    ("unknown members", |path| fs::write(path, r#"[{"role": "a", "permissions": {}, "x": 1}]"#).unwrap(), "unknown"),
    (
        "strings for lists",
        |path| fs::write(path, r#"[{"role": "a", "permissions": {"GET": "people"}}]"#).unwrap(),
        "GET",
    ),
];

/// Writes in pieces, as over a slow link, and returns the longest gap.
fn slowly(path: &Path, bytes: &[u8]) -> Duration {
    let (mut file, mut longest, mut last) = (fs::File::create(path).unwrap(), Duration::ZERO, Instant::now());
    for piece in bytes.chunks(20) {
        file.write_all(piece).unwrap();
        longest = longest.max(last.elapsed());
        last = Instant::now();
        thread::sleep(Duration::from_millis(40));
    }
    longest
}

/// Checks that no fault was reported, unless a write paused for so long that half of it looked complete: the disk
/// decides that.
fn raised_no_alarm(gateway: &Gateway, since: Instant, longest: Duration) {
    let alarm = gateway.logged("stays in force", since, Duration::ZERO);
    assert!(
        alarm.is_none() || longest > Duration::from_millis(150),
        "no edit was a fault; longest write {longest:?}, {alarm:?}"
    );
}

fn utf16(text: &str) -> Vec<u8> {
    [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

fn replaced(path: &Path, by: fn(&Path)) {
    fs::remove_file(path).unwrap();
    by(path);
}

/// The command under which a gateway cannot read files that their mode forbids, even if the tests run as root;
/// `None` where that is not available.
fn bound_by_modes() -> Option<&'static [&'static str]> {
    const WITHOUT: &[&str] = &["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
    if !rustix::process::geteuid().is_root() {
        return Some(&[]);
    }
    let works = Command::new(WITHOUT[0]).args(&WITHOUT[1..]).arg("true").status().is_ok_and(|status| status.success());
    works.then_some(WITHOUT)
}

/// Whether a fault does not exist on this machine; prints so.
fn is_skipped(name: &str) -> bool {
    let skipped = name == "mode 000" && bound_by_modes().is_none();
    if skipped {
        println!("reload, {name}: skipped, because root may read what it may not");
    }
    skipped
}

/// A valid policy in place of whatever is there.
fn put(path: &Path, text: &str) {
    if path.is_dir() {
        fs::remove_dir(path).unwrap();
    }
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

/// Waits until a request is decided under a policy, and returns when the first one was.
fn comes_into_force(gateway: &Gateway, fingerprint: &str) -> Instant {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = gateway.get("/people", "ANA").status;
        let record = gateway.record();
        assert_eq!(record["status"], status);
        if record["policy"] == fingerprint {
            return Instant::now();
        }
        assert!(Instant::now() < deadline, "{fingerprint} never came into force");
    }
}

#[test]
fn the_last_good_policy_outlives_every_fault_of_the_file_and_the_fault_is_logged() {
    let under = bound_by_modes().unwrap_or_default();
    let gateway = Gateway::start_as(&Setup { under, policy: Some(&policy(0)), ..Setup::default() });
    let path = gateway.dir.join("roles.cfg");
    let mut told = Vec::new();
    for (number, (name, fault, words)) in (1..).zip(FAULTS) {
        if is_skipped(name) {
            continue;
        }
        // Every other good policy grants; the fault would decide otherwise.
        let good = policy(number);
        put(&path, &good);
        comes_into_force(&gateway, &fingerprint(&good));
        let began = Instant::now();
        fault(&path);
        let done = Instant::now();
        let alarm = gateway.logged(words, began, PATIENCE).unwrap_or_else(|| panic!("{name}: no line with `{words}`"));
        told.push(alarm.saturating_duration_since(done));
        gateway.logged("the last good policy", began, PATIENCE).expect("and what is in force");
        assert_eq!(gateway.get("/people", "ANA").status, if number.is_multiple_of(2) { 200 } else { 403 }, "{name}");
        assert_eq!(gateway.record()["policy"], fingerprint(&good), "{name}");
    }
    println!("reload, faults of the file: told to the operator {}", percentiles(told));
    put(&path, &policy(100));
    comes_into_force(&gateway, &fingerprint(&policy(100)));

    // Valid, and larger than any real one: 100,000 roles come into force, or are refused, in bounded time.
    let began = Instant::now();
    let roles: Vec<_> =
        (0..100_000).map(|n| format!(r#"{{"role":"r{n}","permissions":{{"GET":["page"]}}}}"#)).collect();
    put(&path, &format!("[{}]", roles.join(",")));
    let refused = || gateway.logged("roles.cfg: ", began, Duration::ZERO);
    let reloaded = || gateway.logged("policy reloaded", began, Duration::ZERO);
    while refused().or_else(reloaded).is_none() {
        assert!(began.elapsed() < PATIENCE, "neither in force nor refused");
        gateway.get("/login", "ANA");
    }
    println!(
        "reload, 100,000 roles: {} after {:?}",
        if refused().is_some() { "refused" } else { "in force" },
        began.elapsed()
    );
}

#[test]
fn a_valid_policy_that_is_written_slowly_raises_no_alarm() {
    let gateway = Gateway::start_with("", &policy(0));
    let (path, began) = (gateway.dir.join("roles.cfg"), Instant::now());
    let mut longest = Duration::ZERO;
    for number in 1..6 {
        longest = longest.max(slowly(&path, policy(number).as_bytes()));
        comes_into_force(&gateway, &fingerprint(&policy(number)));
    }
    raised_no_alarm(&gateway, began, longest);
}

#[test]
fn a_hangup_is_answered_each_time_with_what_the_file_holds() {
    let gateway = Gateway::start_with("", &policy(0));
    let path = gateway.dir.join("roles.cfg");
    let answered = |words: &str| {
        let began = Instant::now();
        gateway.signal(Signal::HUP);
        gateway.logged(words, began, PATIENCE).unwrap_or_else(|| panic!("no line with `{words}`"));
    };
    // The first of them may come before the watch first looks.
    for _ in 0..2 {
        answered("the policy file holds the policy in force");
    }
    put(&path, "{}");
    for _ in 0..2 {
        answered("stays in force");
    }
    let began = Instant::now();
    put(&path, &policy(0));
    gateway.logged("the policy file is good again", began, PATIENCE).expect("without being asked");
    answered("the policy file holds the policy in force");
}

#[test]
fn reloads_during_reloads_and_an_edit_that_hides_end_with_the_last_content() {
    let gateway = Gateway::start_with("", &policy(0));
    let path = gateway.dir.join("roles.cfg");
    for number in 1..200 {
        put(&path, &policy(number));
        gateway.signal(Signal::HUP);
    }
    comes_into_force(&gateway, &fingerprint(&policy(199)));

    // Other content of the same size, with the time of the old file.
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, policy(197)).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert_eq!(policy(199).len(), policy(197).len());
    comes_into_force(&gateway, &fingerprint(&policy(197)));
}

#[test]
fn likely_mistakes_are_logged_as_they_come_into_force_and_status_shows_a_fault() {
    let began = Instant::now();
    let odd = policy(0).replace("\"login\"", "\"logn\"");
    let gateway = Gateway::start_with("", &odd);
    gateway.logged("roles.cfg:1: no route leads to endpoint `logn`", began, PATIENCE).expect("told at the start");
    let fedgate = |command: &str| {
        let mut fedgate = Command::new(env!("CARGO_BIN_EXE_fedgate"));
        let out = fedgate.args([command, "--config"]).arg(gateway.dir.join("fedgate.toml")).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let text = fedgate("check");
    assert!(text.contains("line 1: no route leads to endpoint `logn`"), "{text}");
    let path = gateway.dir.join("roles.cfg");
    put(&path, &odd.replace("people", "peple"));
    gateway.logged("no route leads to endpoint `peple`", began, PATIENCE).expect("told as it is reloaded");
    put(&path, "{}");
    while !fedgate("status").contains("its policy file line 1: ") {
        assert!(began.elapsed() < PATIENCE, "{}", fedgate("status"));
    }
}

#[test]
fn with_no_inotify_left_an_edit_comes_into_force_and_a_fault_is_reported() {
    // A user namespace has its own limit, so that other processes keep their watches.
    let under = ["unshare", "--user", "--map-root-user", "sh", "-c"];
    let limit = "echo 0 > /proc/sys/user/max_inotify_instances";
    if !Command::new(under[0]).args(&under[1..]).arg(limit).status().is_ok_and(|status| status.success()) {
        println!("not run: this machine lets nobody make a user namespace");
        return;
    }
    let script = format!("{limit} && exec \"$@\"");
    let began = Instant::now();
    let under: Vec<_> = under.into_iter().chain([script.as_str(), "sh"]).collect();
    let gateway = Gateway::start_as(&Setup { under: &under, policy: Some(&policy(0)), ..Setup::default() });
    gateway.logged("no notices of the file system", began, PATIENCE).expect("the operator is told");
    let mut took = vec![];
    for number in 1..40 {
        let written = Instant::now();
        edit(&gateway.dir, number);
        comes_into_force(&gateway, &fingerprint(&policy(number)));
        took.push(written.elapsed());
    }
    println!("reload, no inotify left: in force {}", percentiles(took));
    let began = Instant::now();
    put(&gateway.dir.join("roles.cfg"), "{}");
    gateway.logged("the last good policy", began, PATIENCE).expect("the alarm does not need notices");
}

#[test]
fn no_gateway_starts_on_a_faulty_policy() {
    let place = Place::prepare(&Setup { under: bound_by_modes().unwrap_or_default(), ..Setup::default() });
    let path = place.dir.join("roles.cfg");
    for (name, fault, words) in FAULTS {
        if is_skipped(name) {
            continue;
        }
        put(&path, &policy(0));
        fault(&path);
        let began = Instant::now();
        let out = place.serve().output().unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{name}: {text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(last.contains("roles.cfg") && last.contains(words), "{name}: {text}");
        assert!(began.elapsed() < PATIENCE, "{name}");
    }
    fs::remove_dir_all(place.dir).unwrap();
}
