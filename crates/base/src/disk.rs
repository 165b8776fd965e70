//! Files that are watched: noticing that one has changed, and not being held up by a disk.
//!
//! The one rule: a disk that hangs holds up nobody but the task that asks it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

/// How long a file system may take before it is said to hang.
pub const HANGS: Duration = Duration::from_secs(2);

/// Asks the disk on a thread that may wait, as long as it takes; calls `hangs` when that is long.
///
/// # Errors
/// The question panicked.
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

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSignature([i64; 7]);

impl FileSignature {
    /// Of what the path leads to now; none when it leads to nothing.
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
