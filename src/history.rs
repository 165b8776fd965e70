//! The last policies that were in force, kept on disk by fingerprint, so that a decision can be replayed.
//!
//! The one rule: keeping them never stands in the way of serving: what cannot be written is told and left.
//! Called by `reload` whenever a policy comes into force, and by `fedgate explain`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::policy::PolicySet;

/// How many are kept.
const KEPT: usize = 32;
const ENDING: &str = "cfg";

/// Keeps a policy; the oldest beyond the last 32 go.
///
/// # Errors
/// The directory or the file cannot be written.
pub fn keep(directory: &Path, policy: &PolicySet) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let path = path_of(directory, policy.fingerprint());
    if path.exists() {
        // In force again: it is the newest once more.
        return std::fs::File::options().write(true).open(path)?.set_modified(SystemTime::now());
    }
    // Whole or not at all: a reader never sees half a policy.
    let partial = directory.join(format!(".{}.{}", policy.fingerprint(), std::process::id()));
    // Not synced: after a crash of the machine the policy in force is kept anew, and reloading waits for no disk.
    std::fs::write(&partial, policy.source())?;
    std::fs::rename(partial, path)?;
    let mut kept: Vec<(SystemTime, PathBuf)> = std::fs::read_dir(directory)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let known = entry.path().extension().is_some_and(|ending| ending == ENDING);
            known.then(|| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))?
        })
        .collect();
    kept.sort();
    let surplus = kept.len().saturating_sub(KEPT);
    kept.into_iter().take(surplus).try_for_each(|(_, path)| std::fs::remove_file(path))
}

/// Where the policy of a fingerprint is kept.
pub fn path_of(directory: &Path, fingerprint: &str) -> PathBuf {
    directory.join(fingerprint).with_extension(ENDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_policies_are_kept_whole_and_the_oldest_go() {
        let directory = std::env::temp_dir().join(format!("fedgate-history-{:x}", rand::random::<u128>()));
        let policy = |number: usize| {
            let text = format!(r#"[{{"role": "r{number}", "permissions": {{}}}}]"#);
            PolicySet::parse(text.as_bytes()).unwrap()
        };
        for number in 0..KEPT + 3 {
            keep(&directory, &policy(number)).unwrap();
            let file = path_of(&directory, policy(number).fingerprint());
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            std::fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), KEPT);
        assert!(!path_of(&directory, policy(0).fingerprint()).exists());
        let newest = path_of(&directory, policy(KEPT + 2).fingerprint());
        assert_eq!(std::fs::read(newest).unwrap(), policy(KEPT + 2).source());
        // One that comes into force again is not the next to go.
        keep(&directory, &policy(3)).unwrap();
        keep(&directory, &policy(KEPT + 10)).unwrap();
        assert!(path_of(&directory, policy(3).fingerprint()).exists());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
