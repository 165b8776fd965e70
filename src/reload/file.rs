//! The policy file and its file system: reading it, noticing that it changed, and not being held up by a disk.

use std::io::Read;
use std::path::Path;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecursiveMode, Watcher};
use thiserror::Error;
use tokio::sync::mpsc;

use fedgate_base::regular;
use fedgate_core::policy::{MAX_POLICY_BYTES, PolicyError, PolicySet};

/// Why a policy file cannot be used.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// It cannot be read, or is a directory, a FIFO or a device.
    #[error("cannot be read ({0})")]
    Unreadable(#[from] std::io::Error),
    /// Read twice, it was not the same.
    #[error("is being written all the time")]
    Unsettled,
    /// It was read and refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Reads and parses a policy file. Never waits: a FIFO under its name is refused, not read.
///
/// # Errors
/// See [`ReloadError`].
pub fn read_policy(path: &Path) -> Result<PolicySet, ReloadError> {
    Ok(PolicySet::parse(&read(path)?)?)
}

/// As [`read_policy`], for who wants to know all that is wrong, up to a bound.
///
/// # Errors
/// See [`ReloadError`]; at least one.
pub fn examine_policy(path: &Path, most: usize) -> Result<PolicySet, Vec<ReloadError>> {
    let bytes = read(path).map_err(|fault| vec![fault])?;
    PolicySet::parse(&bytes).map_err(|first| match PolicySet::faults(&bytes, most) {
        all if all.is_empty() => vec![first.into()],
        all => all.into_iter().map(Into::into).collect(),
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, ReloadError> {
    let mut bytes = Vec::new();
    // One byte more than a policy may have, so that the parser sees that it is too large.
    regular::open(path)?.take(MAX_POLICY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Sends a notice for whatever is written, renamed or removed in the directory of the file.
pub(super) fn watch_directory(path: &Path, notice: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Whoever reads the file opens it, this program at each notice; only the end of a write is news.
        let is_reading = event.is_ok_and(|event| match event.kind {
            EventKind::Access(access) => access != AccessKind::Close(AccessMode::Write),
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => {
                false
            }
        });
        if !is_reading {
            // A full channel already holds the hint.
            let _ = notice.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
