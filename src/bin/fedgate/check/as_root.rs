//! Whether a check sees what the gateway's own user would see.
//!
//! The one rule: root may read and write every file and use every port, so a check by root says nothing about another
//! user. The gateway's user is that of the running process, or else the owner of a directory where the gateway writes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fedgate_base::config::Config;
use rustix::process::geteuid;

/// A warning if this process is root's and the gateway is another user's.
pub(super) fn warning(config: &Config, running: Option<i32>) -> Option<String> {
    if !geteuid().is_root() {
        return None;
    }
    let process = running.map(|pid| PathBuf::from(format!("/proc/{pid}")));
    let written = [&config.gateway.pid_file, &config.records.file].into_iter().flatten();
    let written = written.filter_map(|file| file.parent().map(Path::to_owned));
    let places = process.into_iter().chain(written).chain(config.policy.history.clone());
    let owners = places.filter_map(|place| fs::metadata(place).ok()).map(|found| found.uid());
    let user = owners.into_iter().find(|user| *user != 0)?;
    let text = "this runs as root, who may read and write every file";
    Some(match named(user, &fs::read_to_string("/etc/passwd").unwrap_or_default()) {
        None => format!("{text}, and the gateway is run by user {user}; run `fedgate check` as that user too"),
        Some((name, group)) => format!(
            "{text}, and the gateway is run by `{name}`; this tells what that user may: `setpriv --reuid {name} \
             --regid {group} --init-groups --inh-caps +net_bind_service --ambient-caps +net_bind_service fedgate \
             check --config {}`",
            std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone()).display()
        ),
    })
}

/// The name and the group of a user, as passwd(5) has them.
fn named(user: u32, passwd: &str) -> Option<(&str, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _) = (fields.next()?, fields.next()?);
        (fields.next()?.parse() == Ok(user)).then_some((name, fields.next()?.parse().ok()?))
    })
}
