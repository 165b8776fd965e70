//! The last policies that were in force, kept on disk by fingerprint, so that a decision can be replayed.
//!
//! The one rule: keeping them never delays serving. A policy that cannot be written is reported, and the caller tries
//! again. Policies that differ in white space alone count once, so reformatting a file drives no other policy out.
//! `reload` calls it whenever a policy comes into force, and `fedgate explain` reads from it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fedgate_core::policy::PolicySet;

/// How many policies are kept.
const KEPT: usize = 32;
/// The most files, however many of them differ in white space alone.
const MOST_FILES: usize = 128;
const ENDING: &str = "cfg";
/// After this time, the writer of an unfinished file must be dead.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);

/// Keeps a policy, and removes the oldest beyond the last 32.
///
/// # Errors
/// The directory or the file cannot be written.
pub fn keep(directory: &Path, policy: &PolicySet) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let path = path_of(directory, policy.fingerprint());
    if holds(&path, policy.source()) {
        // It is in force again, and so the newest.
        File::options().write(true).open(path)?.set_modified(SystemTime::now())?;
    } else {
        let partial = directory.join(format!(".{}.{}", policy.fingerprint(), std::process::id()));
        let written = write(&partial, policy.source()).and_then(|()| std::fs::rename(&partial, path));
        written.inspect_err(|_| drop(std::fs::remove_file(&partial)))?;
        File::open(directory)?.sync_all()?;
    }
    clear(directory)
}

/// Writes a complete file to the disk before it gets its name. So neither a reader nor a crash of the machine, after
/// which records of the policy's decisions remain, ever finds half a policy.
fn write(partial: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(partial)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Whether a file has this content.
fn holds(path: &Path, content: &[u8]) -> bool {
    let has_its_length = |found: &std::fs::Metadata| found.is_file() && found.len() == content.len() as u64;
    std::fs::metadata(path).is_ok_and(|found| has_its_length(&found))
        && std::fs::read(path).is_ok_and(|found| found == content)
}

/// Removes the oldest surplus policies and the files of dead writers.
fn clear(directory: &Path) -> io::Result<()> {
    let (mut kept, mut surplus) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory)?.filter_map(Result::ok) {
        let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) else { continue };
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            kept.push((modified, path));
        } else if is_partial(&path) && modified.elapsed().is_ok_and(|age| age > WRITTEN_WITHIN) {
            surplus.push(path);
        }
    }
    kept.sort();
    if kept.len() > KEPT {
        let (mut different, mut files) = (HashSet::new(), 0);
        for (_, path) in kept.into_iter().rev() {
            files += 1;
            let is_one_more = different.insert(meaning(&std::fs::read(&path).unwrap_or_default()));
            if files > MOST_FILES || is_one_more && different.len() > KEPT {
                surplus.push(path);
            }
        }
    }
    surplus.into_iter().try_for_each(|path| match std::fs::remove_file(path) {
        // Another gateway has removed it already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    })
}

/// A hash that is equal for policies that differ in white space alone (RFC 8259, 2).
fn meaning(policy: &[u8]) -> blake3::Hash {
    let (mut is_text, mut is_escaped) = (false, false);
    let is_meant = |byte: &&u8| {
        let byte = **byte;
        let is_blank = !is_text && matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        is_text ^= byte == b'"' && !is_escaped;
        is_escaped = is_text && byte == b'\\' && !is_escaped;
        !is_blank
    };
    blake3::hash(&policy.iter().filter(is_meant).copied().collect::<Vec<_>>())
}

/// Whether a name is that of an unfinished file: `.FINGERPRINT.PROCESS`.
fn is_partial(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parts = name.strip_prefix('.').and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(fingerprint, process)| {
        let is_fingerprint = fingerprint.len() == 16 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_fingerprint && !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The path of the policy with this fingerprint.
pub fn path_of(directory: &Path, fingerprint: &str) -> PathBuf {
    directory.join(fingerprint).with_extension(ENDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(number: usize) -> PolicySet {
        PolicySet::parse(format!(r#"[{{"role": "r{number}", "permissions": {{}}}}]"#).as_bytes()).unwrap()
    }

    fn directory() -> PathBuf {
        std::env::temp_dir().join(format!("fedgate-history-{:x}", rand::random::<u128>()))
    }

    #[test]
    fn the_last_policies_are_kept_whole_and_the_oldest_go() {
        let directory = directory();
        for number in 0..KEPT + 3 {
            keep(&directory, &policy(number)).unwrap();
            let file = path_of(&directory, policy(number).fingerprint());
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(number as u64);
            File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), KEPT);
        assert!(!path_of(&directory, policy(0).fingerprint()).exists());
        let newest = path_of(&directory, policy(KEPT + 2).fingerprint());
        assert_eq!(std::fs::read(newest).unwrap(), policy(KEPT + 2).source());
        // A policy that comes into force again is not the next to be removed.
        keep(&directory, &policy(3)).unwrap();
        keep(&directory, &policy(KEPT + 10)).unwrap();
        assert!(path_of(&directory, policy(3).fingerprint()).exists());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn policies_that_differ_in_white_space_alone_drive_no_other_out() {
        let directory = directory();
        let mut seconds = 0;
        let mut keep_next = |policy: &PolicySet| {
            keep(&directory, policy).unwrap();
            seconds += 1;
            let file = File::options().write(true).open(path_of(&directory, policy.fingerprint())).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        keep_next(&policy(0));
        for blanks in 0..MOST_FILES * 2 {
            let text = format!(r#"[{{"role": "r \" 1", {}"permissions":{{}} }}]"#, " ".repeat(blanks));
            keep_next(&PolicySet::parse(text.as_bytes()).unwrap());
            if blanks == MOST_FILES / 2 {
                assert!(path_of(&directory, policy(0).fingerprint()).exists());
            }
        }
        let files = std::fs::read_dir(&directory).unwrap().count();
        assert!(files <= MOST_FILES, "{files}: bounded all the same");
        // White space within a string distinguishes policies.
        let named = |name: &str| meaning(format!(r#"[{{"role":"{name}"}}]"#).as_bytes());
        assert_ne!(named("a b"), named("ab"));
        assert_ne!(named(r#"a\" b"#), named(r#"a\"b"#));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_policy_in_force_that_was_emptied_or_torn_is_kept_anew() {
        let directory = directory();
        let (policy, path) = (policy(1), path_of(&directory, policy(1).fingerprint()));
        keep(&directory, &policy).unwrap();
        let source = policy.source();
        for damaged in [&b""[..], &source[..source.len() - 1], &vec![0; source.len()], &[source, b"\n"].concat()] {
            std::fs::write(&path, damaged).unwrap();
            keep(&directory, &policy).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), source);
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_dead_writers_have_left_goes_and_nothing_else() {
        let directory = directory();
        std::fs::create_dir(&directory).unwrap();
        let names = [".0123456789abcdef.7", ".0123456789abcdef.8", ".gitignore", ".0123456789abcdef.swp", "notes.7"];
        for name in names {
            let file = File::create(directory.join(name)).unwrap();
            if name != ".0123456789abcdef.8" {
                file.set_modified(SystemTime::now() - WRITTEN_WITHIN * 2).unwrap();
            }
        }
        keep(&directory, &policy(1)).unwrap();
        let left: Vec<_> = names.iter().filter(|name| directory.join(name).exists()).collect();
        assert_eq!(left, [&names[1], &names[2], &names[3], &names[4]], "a writer at work, and files of others, stay");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
