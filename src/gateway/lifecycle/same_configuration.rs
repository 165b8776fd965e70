//! Finds running gateways by the configuration file that they were started with.
//!
//! The one rule: this serves `fedgate check` where nothing better names the gateway: no `gateway.pid_file`, and no
//! answer at `gateway.admin`, whose address may have changed in the file since the start. A command line is a claim of
//! its process, so that only a listening socket of that process counts.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::address_in_use::{self, AddressHolder};

/// Whether a gateway that was started with this file listens on an address.
pub(crate) fn holder(file: &Path, address: SocketAddr) -> AddressHolder {
    let mut found = AddressHolder::Other;
    for pid in processes(file) {
        match address_in_use::holder(pid, address) {
            AddressHolder::Process => return AddressHolder::Process,
            AddressHolder::Unseen => found = AddressHolder::Unseen,
            AddressHolder::Other => {}
        }
    }
    found
}

/// The other processes that serve with this file, as far as their command lines can be read (proc(5)).
fn processes(file: &Path) -> Vec<i32> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| *name != own);
    let serves = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        served_file(&line).is_some_and(|served| is_same(*pid, &served, file))
    };
    names.filter_map(|name| name.parse().ok()).filter(serves).collect()
}

/// The file that a command line `fedgate serve` names.
fn served_file(line: &[u8]) -> Option<PathBuf> {
    let mut words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let program = Path::new(OsStr::from_bytes(words.next()?)).file_name()?;
    let (mut file, mut serves) = (None, false);
    while let Some(word) = words.next() {
        let value = [&b"--config="[..], b"-c"].iter().find_map(|option| word.strip_prefix(*option));
        match (word, value) {
            (b"--config" | b"-c", _) => file = words.next(),
            (_, Some(value)) => file = Some(value),
            _ => serves |= word == b"serve",
        }
    }
    (program == "fedgate" && serves).then(|| file.map_or_else(default_file, |file| OsStr::from_bytes(file).into()))
}

/// The file of a command that names none.
fn default_file() -> PathBuf {
    "fedgate.toml".into()
}

/// Whether a process means this file by a path. Where its directory cannot be read, the name of the file decides: such
/// a process shows no sockets either.
fn is_same(pid: i32, served: &Path, file: &Path) -> bool {
    let Ok(file) = file.canonicalize() else { return false };
    if served.is_absolute() {
        return served.canonicalize().is_ok_and(|served| served == file);
    }
    match std::fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(directory) => directory.join(served).canonicalize().is_ok_and(|served| served == file),
        Err(_) => served.file_name() == file.file_name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_names_the_file_that_it_serves() {
        for (line, file) in [
            ("/usr/bin/fedgate serve --config /etc/fedgate/fedgate.toml", Some("/etc/fedgate/fedgate.toml")),
            ("fedgate --config=a.toml serve", Some("a.toml")),
            ("./fedgate -c a.toml serve", Some("a.toml")),
            ("fedgate -ca.toml serve", Some("a.toml")),
            ("fedgate serve", Some("fedgate.toml")),
            ("fedgate check --config a.toml", None),
            ("fedhis serve --config a.toml", None),
            ("tail -f serve fedgate", None),
            ("", None),
        ] {
            let line = line.replace(' ', "\0") + "\0";
            assert_eq!(served_file(line.as_bytes()).as_deref(), file.map(Path::new), "{line}");
        }
    }

    #[test]
    fn a_path_is_read_as_its_process_reads_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        let here = std::env::current_dir().unwrap().join("Cargo.toml");
        assert!(is_same(own, Path::new("Cargo.toml"), &here) && is_same(own, &here, Path::new("./Cargo.toml")));
        assert!(!is_same(own, Path::new("src/../CHANGELOG.md"), &here) && !is_same(own, Path::new("none.toml"), &here));
    }
}
