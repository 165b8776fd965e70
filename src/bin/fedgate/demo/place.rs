//! Where the demo keeps its files: a directory that nobody else can have prepared, or can change.
//!
//! The one rule: who could have laid a file, a link or a directory on the way to a key decides what key that is. So every
//! directory on the way belongs to this user or to root, and nobody else may change it; but for those, such as `/tmp`, in
//! which everybody may add and nobody remove what is another's (the sticky bit).

use std::fs::Metadata;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Component, Path};

use anyhow::{Context, bail};
use rustix::process::{getegid, geteuid};

const STICKY: u32 = 0o1000;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Makes a directory, with those on the way to it, for this user alone, and sees that it is nobody else's; `dir` is absolute.
pub(super) fn make(dir: &Path) -> anyhow::Result<()> {
    // Before: nothing is made through a link of somebody else's.
    check_way(dir)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    check_way(dir)?;
    let last = std::fs::symlink_metadata(dir)?;
    if last.uid() != geteuid().as_raw() {
        bail!("{}: it belongs to user {}; name a directory that is yours, or none yet", dir.display(), last.uid());
    }
    check_changes(dir, &last, false)
}

/// Sees that what the demo keeps in a directory is this user's: a file that somebody else has laid there would be taken for its
/// own.
pub(super) fn check_files(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let file = std::fs::symlink_metadata(&path)?;
        if file.uid() != geteuid().as_raw() {
            bail!("{}: it belongs to user {}; move it away, or name another directory", path.display(), file.uid());
        }
        if file.is_symlink() {
            bail!("{}: it is a symbolic link; put what it leads to in its place", path.display());
        }
        // A socket of an earlier run is replaced.
        if !file.file_type().is_socket() {
            check_changes(&path, &file, false)?;
        }
    }
    Ok(())
}

/// Looks at every directory on the way, as it is written and as it is reached, as far as it is there.
fn check_way(dir: &Path) -> anyhow::Result<()> {
    let mut way = std::path::PathBuf::new();
    for part in dir.components() {
        if matches!(part, Component::ParentDir) {
            bail!("{}: `..` stands in it; name the directory without", dir.display());
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

/// It is this user's, or root's, who can do anything.
fn check_owner(path: &Path, found: &Metadata) -> anyhow::Result<()> {
    match found.uid() {
        owner if owner == 0 || owner == geteuid().as_raw() => Ok(()),
        owner => {
            bail!("{}: it belongs to user {owner}, who could have prepared it; name another place", path.display())
        }
    }
}

/// Nobody else may change what is in it; or add to it alone, where that is no harm.
fn check_changes(path: &Path, found: &Metadata, may_be_sticky: bool) -> anyhow::Result<()> {
    if may_be_sticky && found.mode() & STICKY != 0 {
        return Ok(());
    }
    // Many systems give each user a group of the same number, with nobody else in it.
    let is_own_group = found.gid() == getegid().as_raw() && found.gid() == geteuid().as_raw();
    let others = if is_own_group { OTHERS_WRITE } else { OTHERS_WRITE | GROUP_WRITES };
    match found.mode() & others {
        0 => Ok(()),
        _ => bail!("{}: others than you may write there; take that from them (chmod go-w)", path.display()),
    }
}
