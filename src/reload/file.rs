//! The policy file and its file system: reading it, and receiving notices of its changes.

use std::io::Read;
use std::path::Path;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecursiveMode, Watcher};
use thiserror::Error;
use tokio::sync::mpsc;

use fedgate_base::regular;
use fedgate_core::policy::{MAX_POLICY_BYTES, PolicyError, PolicySet};

/// Why a policy file is unusable.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// It cannot be read, or is a directory, FIFO or device.
    #[error("cannot be read ({0})")]
    Unreadable(#[from] std::io::Error),
    /// Two readings differed.
    #[error("is being written all the time")]
    Unsettled,
    /// It was read, and the parser refused it.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Reads and parses a policy file. A FIFO at its path is refused rather than waited for.
///
/// # Errors
/// See [`ReloadError`].
pub fn read_policy(path: &Path) -> Result<PolicySet, ReloadError> {
    Ok(PolicySet::parse(&read(path)?)?)
}

/// As [`read_policy`], with up to `most` faults.
///
/// # Errors
/// See [`ReloadError`]; at least one fault.
pub fn examine_policy(path: &Path, most: usize) -> Result<PolicySet, Vec<ReloadError>> {
    let bytes = read(path).map_err(|fault| vec![fault])?;
    PolicySet::parse(&bytes).map_err(|first| match PolicySet::faults(&bytes, most) {
        all if all.is_empty() => vec![first.into()],
        all => all.into_iter().map(Into::into).collect(),
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, ReloadError> {
    let mut bytes = Vec::new();
    // One byte more than the largest policy, so that the parser notices a file that is too large.
    regular::open(path)?.take(MAX_POLICY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Sends a notice for everything that is written, renamed or removed in the directory of the file.
pub(super) fn watch_directory(path: &Path, notice: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    // The directory is watched, not the file: editors and ConfigMaps replace the file, and a watch on the old one
    // would see nothing.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading is no news: this program opens the file itself after each notice, and would never come to rest.
        let is_reading = event.is_ok_and(|event| match event.kind {
            EventKind::Access(access) => access != AccessKind::Close(AccessMode::Write),
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => {
                false
            }
        });
        if !is_reading {
            // If the channel is full, it already holds a notice.
            let _ = notice.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
