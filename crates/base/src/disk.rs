//! Watched files: noticing a change, and not waiting for a disk.
//!
//! The one rule: a disk that hangs holds up only the task that accesses it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

/// After this time a file system counts as hanging.
pub const HANGS: Duration = Duration::from_secs(2);

/// Accesses the disk on a thread that may wait as long as it takes, and calls `hangs` if that is long.
///
/// # Errors
/// The access panicked.
pub async fn on_disk<T: Send + 'static>(
    question: impl FnOnce() -> T + Send + 'static,
    hangs: impl FnOnce(),
) -> Result<T, JoinError> {
    let mut answer = spawn_blocking(question);
    match timeout(HANGS, &mut answer).await {
        Ok(answer) => answer,
        Err(_) => {
            hangs();
            answer.await
        }
    }
}

/// Distinguishes contents of a file without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSignature([i64; 7]);

impl FileSignature {
    /// The signature of the file at the path; none if there is no file.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
        Some(Self([
            device.cast_signed(),
            inode.cast_signed(),
            size.cast_signed(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
        ]))
    }
}
