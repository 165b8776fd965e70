//! Effects of disks on a reader: unchanged times, reads that fail for a moment, file systems that hang.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fixture::{Gateway, PATIENCE};
use crate::reload::{comes_into_force, fingerprint, policy, put};

/// A Python program that does something to a file, reports it, and continues when its input ends.
struct Program(Child);

impl Program {
    fn start(text: &str, file: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", text]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "done\n");
        Self(child)
    }

    fn is_told(&mut self, line: &str) {
        self.0.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    fn goes_on(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

/// Stores through a mapping change a file's times once, and then not until the page is written back. Each line of
/// input is a store: the old bytes and the new ones.
const MAPPED: &str = r#"
import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
text = mmap.mmap(file, 0)
def store(old, new):
    at = text.find(old)
    text[at:at + len(new)] = new
store(b"edit_0", b"edit_2")
print("done", flush=True)
for line in sys.stdin.buffer:
    store(*line.split())
"#;

#[test]
fn an_edit_that_leaves_every_time_of_the_file_the_same_comes_into_force() {
    let gateway = Gateway::start_with("", &policy(0));
    let path = gateway.dir.join("roles.cfg");
    let mut mapped = Program::start(MAPPED, &path);
    comes_into_force(&gateway, &fingerprint(&policy(2)));
    let before = fedgate_base::disk::FileSignature::of(&path);
    mapped.is_told("edit_2 edit_4\n");
    comes_into_force(&gateway, &fingerprint(&policy(4)));
    // The time is what is tested: longer than the file is read at every look after a change.
    std::thread::sleep(Duration::from_secs(3));
    mapped.is_told("edit_4 edit_6\n");
    comes_into_force(&gateway, &fingerprint(&policy(6)));
    println!(
        "reload, stores through a mapping: the file looks changed: {}",
        before != fedgate_base::disk::FileSignature::of(&path)
    );
    mapped.goes_on();
}

/// No other process can open a file that is leased for writing (fcntl(2)). A non-blocking open gets EAGAIN.
const LEASED: &str = r#"
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1] + ".new", os.O_WRONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
os.rename(sys.argv[1] + ".new", sys.argv[1])
print("done", flush=True)
sys.stdin.read()
"#;

#[test]
fn a_read_that_fails_for_the_moment_is_made_again() {
    let gateway = Gateway::start_with("", &policy(0));
    let path = gateway.dir.join("roles.cfg");
    fs::write(gateway.dir.join("roles.cfg.new"), policy(2)).unwrap();
    let began = Instant::now();
    let leased = Program::start(LEASED, &path);
    gateway.logged("cannot be read", began, PATIENCE).expect("the operator is told");
    assert_eq!(gateway.get("/people", "ANA").status, 200);
    assert_eq!(gateway.record()["policy"], fingerprint(&policy(0)));
    // The time is what is tested: longer than the file is read at every look after a change.
    std::thread::sleep(Duration::from_secs(3));
    leased.goes_on();
    comes_into_force(&gateway, &fingerprint(&policy(2)));
}

/// `stat` of a policy hangs while a file `hang` exists beside it.
const HANGING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int statx(int directory, const char *path, int flags, unsigned mask, struct statx *found) {
    int (*real)(int, const char *, int, unsigned, struct statx *) = dlsym(RTLD_NEXT, "statx");
    const char *name = strrchr(path, '/');
    while (name && !strcmp(name, "/roles.cfg") && !access(getenv("FEDGATE_TEST_HANG"), F_OK))
        usleep(1000);
    return real(directory, path, flags, mask, found);
}
"#;

#[test]
fn a_file_system_that_hangs_is_reported_and_ends_no_cached_right() {
    let dir = std::env::temp_dir().join(format!("fedgate-hang-{:x}", rand::random::<u128>()));
    fs::create_dir(&dir).unwrap();
    let (source, library, hang) = (dir.join("hang.c"), dir.join("hang.so"), dir.join("hang"));
    fs::write(&source, HANGING).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").status();
    assert!(built.unwrap().success(), "the tests need a C compiler, as Rust does");
    let environment = [("LD_PRELOAD", library.to_str().unwrap()), ("FEDGATE_TEST_HANG", hang.to_str().unwrap())];
    let gateway = Gateway::start_in(&environment, "", &policy(0));
    comes_into_force(&gateway, &fingerprint(&policy(0)));
    let began = Instant::now();
    fs::write(&hang, "").unwrap();
    gateway.logged("does not answer", began, PATIENCE).expect("the operator is told");
    // The time is what is tested: longer than a lease lasts that is not extended.
    std::thread::sleep(Duration::from_millis(1500));
    let ready = gateway.admin_get("/readyz");
    let detail = ready.json();
    assert_eq!((ready.status, &detail["accounts"]["lease_valid"]), (200, &true.into()), "{detail}");
    assert!(detail["policy"]["fault"].as_str().unwrap().contains("does not answer"), "{detail}");
    comes_into_force(&gateway, &fingerprint(&policy(0)));

    put(&gateway.dir.join("roles.cfg"), &policy(1));
    fs::remove_file(&hang).unwrap();
    comes_into_force(&gateway, &fingerprint(&policy(1)));
    assert_eq!(gateway.get("/people", "ANA").status, 403);
    fs::remove_dir_all(dir).unwrap();
}
