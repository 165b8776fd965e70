//! The boundary between the programs, and around them: what each may read, what it leaves behind, and where it
//! works.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::programs::{PATIENCE, demo, stderr};
use crate::support::{Scratch, free_address, write_private};

/// A user who owns nothing here.
const NOBODY: u32 = 65534;

/// The configuration of a gateway and a HIS, each with keys of its own.
fn place(scratch: &Scratch, more: &str) -> PathBuf {
    let config = scratch.0.join("fedgate.toml");
    let text = format!(
        "[gateway]\nlisten = [\"{}\"]\nadmin = []\n{more}[tls]\ncertificate = \"tls.pem\"\nkey = \"tls.key\"\n\
         [policy]\nroles = \"roles.cfg\"\nhistory = \"\"\n[store]\nkind = \"sqlite\"\npath = \"store/x.db\"\n\
         [assertion]\nalgorithm = \"EdDSA\"\nprivate_key_file = \"mints\"\npublic_key_file = \"verifies\"\n\
         [his]\nlisten = \"{}\"\n",
        free_address(),
        free_address(),
    );
    fs::write(&config, text).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(scratch.0.join("tls.pem"), certificate.pem()).unwrap();
    write_private(&scratch.0.join("tls.key"), key.serialize_pem());
    fs::copy("policies/roles.cfg", scratch.0.join("roles.cfg")).unwrap();
    let signing = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    write_private(&scratch.0.join("mints"), signing.serialize_pem());
    fs::write(scratch.0.join("verifies"), signing.public_key_pem()).unwrap();
    fs::create_dir(scratch.0.join("store")).unwrap();
    config
}

/// Takes files away from the programs, whichever user runs them.
fn take_away(scratch: &Scratch, names: &[&str]) {
    names.iter().for_each(|name| fs::set_permissions(scratch.0.join(name), Permissions::from_mode(0o000)).unwrap());
}

/// A program as a user without rights, if the tests run as root.
fn unprivileged(program: &str) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let user = NOBODY.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", program]);
    command
}

fn give(path: &Path) {
    if geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn serve(command: &mut Command, config: &Path) -> Child {
    command.args(["serve", "--config"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits until a program reports that it listens.
fn until_listening(child: &mut Child) {
    use std::io::BufRead;
    let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut said = vec![];
    for line in lines {
        if line.contains("listening on") {
            return;
        }
        said.push(line);
    }
    panic!("it ended: {said:?}");
}

fn stop(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child.wait().unwrap();
}

#[test]
fn each_program_serves_without_the_files_that_are_the_others() {
    let scratch = Scratch::new();
    let config = place(&scratch, "");
    fs::set_permissions(&scratch.0, Permissions::from_mode(0o755)).unwrap();
    give(&scratch.0.join("store"));
    // The HIS needs neither the TLS key, nor the one that mints, nor the policy.
    take_away(&scratch, &["tls.key", "tls.pem", "mints", "roles.cfg"]);
    let mut his = serve(&mut unprivileged(crate::support::programs::fedhis()), &config);
    until_listening(&mut his);
    stop(his);
    // The gateway has those, and no file of the HIS.
    for own in ["tls.key", "tls.pem", "mints", "roles.cfg"] {
        fs::set_permissions(scratch.0.join(own), Permissions::from_mode(0o600)).unwrap();
        give(&scratch.0.join(own));
    }
    take_away(&scratch, &["verifies"]);
    let mut gateway = serve(&mut unprivileged(env!("CARGO_BIN_EXE_fedgate")), &config);
    until_listening(&mut gateway);
    stop(gateway);
}

#[test]
fn a_secret_that_everybody_can_read_is_refused_by_whoever_reads_it_and_a_groups_is_not() {
    let scratch = Scratch::new();
    let config = place(&scratch, "");
    let check = |mode: u32, name: &str, value: &str| {
        fs::set_permissions(scratch.0.join(name), Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fedgate"));
        command.args(["serve", "--config"]).arg(&config).env("FEDGATE_GATEWAY_EXPOSED_SECRETS", value);
        // No machine has this address: everything before binding it has passed.
        let output = command.env("FEDGATE_GATEWAY_LISTEN", "192.0.2.1:1").output().unwrap();
        fs::set_permissions(scratch.0.join(name), Permissions::from_mode(0o600)).unwrap();
        (output.status.code(), stderr(&output))
    };
    for name in ["tls.key", "mints"] {
        let (code, said) = check(0o644, name, "refuse");
        assert_eq!(code, Some(2), "{name}: {said}");
        assert!(said.contains("everybody on this machine") && said.contains("chmod o="), "{name}: {said}");
        for (mode, value) in [(0o640, "refuse"), (0o644, "warn")] {
            let (code, said) = check(mode, name, value);
            assert!(code == Some(1) && said.contains("192.0.2.1:1"), "{name}: {said}");
            assert_eq!(said.contains("chmod 600"), value == "warn", "{name}: {said}");
        }
    }
    // fedhis needs neither.
    ["tls.key", "mints"].iter().for_each(|name| {
        fs::set_permissions(scratch.0.join(name), Permissions::from_mode(0o644)).unwrap();
    });
    let mut his = serve(&mut Command::new(crate::support::programs::fedhis()), &config);
    until_listening(&mut his);
    stop(his);
}

/// Whether a program that is killed in a directory leaves a memory dump there.
fn leaves_a_dump(program: &str, config: &Path) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -c unlimited; exec \"$0\" \"$@\"", program]).current_dir(config.parent().unwrap());
    let mut child = serve(&mut command, config);
    until_listening(&mut child);
    kill_process(Pid::from_child(&child), Signal::ABORT).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.signal(), Some(Signal::ABORT.as_raw()));
    ended.core_dumped()
}

#[test]
fn neither_program_leaves_a_dump_of_its_memory_unless_it_may() {
    let scratch = Scratch::new();
    let config = place(&scratch, "");
    let programs = [env!("CARGO_BIN_EXE_fedgate"), crate::support::programs::fedhis()];
    for program in programs {
        assert!(!leaves_a_dump(program, &config), "{program}");
    }
    // If this system writes dumps at all.
    let mut any = Command::new("sh");
    any.args(["-c", "ulimit -S -c unlimited; kill -ABRT $$"]).current_dir(&scratch.0);
    if any.status().unwrap().core_dumped() {
        let scratch = Scratch::new();
        let config = place(&scratch, "core_dumps = true\n");
        for program in programs {
            assert!(leaves_a_dump(program, &config), "{program}");
        }
    }
}

#[test]
fn a_demo_works_in_no_place_that_somebody_else_could_have_prepared() {
    let scratch = Scratch::new();
    fs::set_permissions(&scratch.0, Permissions::from_mode(0o755)).unwrap();
    let refused = |dir: &Path, why: &str| {
        let output = demo(free_address(), dir).output().unwrap();
        let said = stderr(&output);
        assert!(output.status.code() == Some(2) && said.contains(why), "{}: {said}", dir.display());
    };
    let made = |name: &str, mode: u32| {
        let dir = scratch.0.join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        dir
    };
    // A user who may write there could place a key, or a link in place of one.
    let open = made("open", 0o777);
    refused(&open, "others than you may write there");
    refused(&open.join("demo"), "others than you may write there");
    assert!(!open.join("demo").exists() && fs::read_dir(&open).unwrap().next().is_none(), "nothing is made there");
    let sticky = made("sticky", 0o1777);
    let laid = made("laid", 0o700);
    fs::write(laid.join("assertion.secret"), "known to another").unwrap();
    fs::set_permissions(laid.join("assertion.secret"), Permissions::from_mode(0o666)).unwrap();
    refused(&laid, "others than you may write there");
    let linked = made("linked", 0o700);
    symlink("/nowhere", linked.join("assertion.secret")).unwrap();
    refused(&linked, "it is a symbolic link");
    fs::write(scratch.0.join("file"), "").unwrap();
    refused(&scratch.0.join("file"), "no directory");
    refused(&scratch.0.join("none/../demo"), "it contains `..`");
    if geteuid().is_root() {
        let theirs = made("theirs", 0o755);
        give(&theirs);
        refused(&theirs, "belongs to user 65534");
        refused(&theirs.join("demo"), "belongs to user 65534");
        let way = scratch.0.join("way");
        symlink(&laid, &way).unwrap();
        rustix::fs::chownat(rustix::fs::CWD, &way, user(), None, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
        refused(&way.join("demo"), "belongs to user 65534");
        fs::create_dir(sticky.join("demo")).unwrap();
        give(&sticky.join("demo"));
        refused(&sticky.join("demo"), "belongs to user 65534");
        fs::set_permissions(laid.join("assertion.secret"), Permissions::from_mode(0o600)).unwrap();
        give(&laid.join("assertion.secret"));
        refused(&laid, "belongs to user 65534");
    }
    // The user's own directory, where every user may add files, through the user's own link, and a second time.
    let own = scratch.0.join("own");
    symlink(&sticky, &own).unwrap();
    for _ in 0..2 {
        let began = Instant::now();
        drop(crate::programs::Demo::start(&own.join("mine")));
        assert!(began.elapsed() < PATIENCE);
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    let files = fs::read_dir(sticky.join("mine")).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|file| !file.ends_with("his.sock")) {
        assert_eq!(mode(&file), 0, "{}", file.display());
    }
}

fn user() -> Option<rustix::fs::Uid> {
    Some(rustix::fs::Uid::from_raw(NOBODY))
}
