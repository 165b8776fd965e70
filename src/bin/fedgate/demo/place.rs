//! The place of the demo's files: a directory that no other user could have prepared or can change.
//!
//! The one rule: a user who can place a file, link or directory on the way to a key can choose the key. So every
//! directory on the way belongs to this user or to root, and no other user may change it. Directories such as `/tmp`
//! are allowed: anybody may add files there, and only their owner may remove them (the sticky bit).

use std::fs::Metadata;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Component, Path};

use anyhow::{Context, bail};
use rustix::process::{getegid, geteuid};

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Creates a directory and its missing parents, only for this user, and checks that no other user can change it;
/// `dir` is absolute.
pub(super) fn make(dir: &Path) -> anyhow::Result<()> {
    // Checked first: nothing is made through another user's link.
    check_way(dir)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    check_way(dir)?;
    let last = std::fs::symlink_metadata(dir)?;
    if last.uid() != geteuid().as_raw() {
        bail!("{}: it belongs to user {}; name a directory that is yours, or none yet", dir.display(), last.uid());
    }
    check_changes(dir, &last, false)
}

/// Checks that all files in a directory are this user's: the demo would take another user's file for its own.
pub(super) fn check_files(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let file = std::fs::symlink_metadata(&path)?;
        if file.uid() != geteuid().as_raw() {
            bail!("{}: it belongs to user {}; move it away, or name another directory", path.display(), file.uid());
        }
        if file.is_symlink() {
            bail!("{}: it is a symbolic link; replace it by its target", path.display());
        }
        // A socket of an earlier run is replaced.
        if !file.file_type().is_socket() {
            check_changes(&path, &file, false)?;
        }
    }
    Ok(())
}

/// Checks every directory on the way that exists, by its written path and by the path that its links lead to.
fn check_way(dir: &Path) -> anyhow::Result<()> {
    let mut way = std::path::PathBuf::new();
    for part in dir.components() {
        if matches!(part, Component::ParentDir) {
            bail!("{}: it contains `..`; name the directory without that", dir.display());
        }
        way.push(part);
        let Ok(found) = std::fs::symlink_metadata(&way) else { return Ok(()) };
        check_owner(&way, &found)?;
        if found.is_symlink() {
            let real = std::fs::canonicalize(&way).with_context(|| format!("{}: it leads nowhere", way.display()))?;
            return check_way(&real.join(dir.strip_prefix(&way)?));
        }
        if !found.is_dir() {
            bail!("{}: it is no directory", way.display());
        }
        check_changes(&way, &found, true)?;
    }
    Ok(())
}

/// The owner must be this user, or root, who can do anything.
fn check_owner(path: &Path, found: &Metadata) -> anyhow::Result<()> {
    match found.uid() {
        owner if owner == 0 || owner == geteuid().as_raw() => Ok(()),
        owner => {
            bail!("{}: it belongs to user {owner}, who could have prepared it; name another place", path.display())
        }
    }
}

/// No other user may change its content, or only add to it where that does no harm.
fn check_changes(path: &Path, found: &Metadata, may_be_sticky: bool) -> anyhow::Result<()> {
    if may_be_sticky && found.mode() & STICKY != 0 {
        return Ok(());
    }
    // Many systems give each user a group of the same number, without other members.
    let is_own_group = found.gid() == getegid().as_raw() && found.gid() == geteuid().as_raw();
    let others = if is_own_group { OTHERS_WRITE } else { OTHERS_WRITE | GROUP_WRITES };
    match found.mode() & others {
        0 => Ok(()),
        _ => bail!("{}: others than you may write there; take that from them (chmod go-w)", path.display()),
    }
}
