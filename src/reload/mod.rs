//! Live policy: watches roles.cfg, parses and checks a changed file as a whole, then swaps it in. On any fault the
//! last good policy stays in force, and the fault is logged.
//!
//! The one rule: nothing is cleared before its successor is ready. Requests in flight finish under the policy that
//! judged them.
//!
//! Notices of the file system (in-place writes, editors' renames, the symlink swap of a mounted ConfigMap) hasten a
//! look. A look several times a second finds changes without a notice (bind mounts, network file systems, no free
//! inotify watch). A look is a `stat` of the file. The content is read once a second, and at once when the `stat`
//! differs, ctime included, which reveals new content of the same size and mtime. After a difference, every look reads
//! the content for a while, because two writes within one tick of the file system's clock leave the same times. After
//! a failed read, every look reads until one succeeds.
//!
//! A policy comes into force as soon as it is read. A fault is reported once the file is unchanged for a moment,
//! because half a write is a fault too.
//!
//! The disk is accessed on threads that may wait. A file system that hangs is reported, and holds up nothing else.

mod file;
mod kept;
mod state;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

pub use file::{ReloadError, examine_policy, read_policy};
pub use state::{FileState, tell_warnings};

use crate::routes::RouteTable;
use fedgate_base::disk::{FileSignature, HANGS, on_disk};
use fedgate_core::policy::PolicySet;
use file::{read, watch_directory};
use kept::KeptPolicies;
use state::{FileDoubt, NewPolicy};

/// The interval between looks without a notice.
const LOOK: Duration = Duration::from_millis(200);
/// The interval while a fault may be a write in progress.
const LOOK_IN_DOUBT: Duration = Duration::from_millis(50);
/// The pause between a notice and the look. A write in several parts usually ends within it.
const SETTLE: Duration = Duration::from_millis(15);
/// How long after a change every look reads the file. The coarsest clock of a file system (FAT) ticks in 2 s, and the
/// looks that find the first and the last change within one tick are each late by one interval.
const COARSEST: Duration = Duration::from_secs(2).saturating_add(LOOK).saturating_add(LOOK);
/// The longest time between two reads, whatever the file's times say. A write through a memory mapping leaves the
/// times unchanged, and some network file systems report old ones.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Keeps `current` equal to the file at `path`; runs until it is dropped. When `asked`, it looks at once and logs the
/// result.
///
/// Each policy in force is kept in `history`, if there is one.
pub async fn keep_current(
    path: PathBuf,
    history: Option<PathBuf>,
    current: Arc<ArcSwap<PolicySet>>,
    routes: Arc<RouteTable>,
    state: Arc<FileState>,
    asked: Arc<Notify>,
) {
    let (notice, mut notices) = mpsc::channel(1);
    let watched = path.clone();
    // Held until the end, because dropping it ends the notices. It starts when the disk permits.
    let _watcher = spawn_blocking(move || {
        watch_directory(&watched, notice).inspect_err(|error| {
            let times = 1000 / LOOK.as_millis();
            tracing::warn!(%error, "no notices of the file system; the policy is looked at {times} times a second");
        })
    });
    let (mut seen, mut read_until) = (None, Instant::now() + COARSEST);
    let (mut doubt, mut is_asked, mut last_read) = (FileDoubt::default(), false, Instant::now());
    let mut kept = history.map(|directory| KeptPolicies::begin(directory, current.load_full(), Arc::clone(&state)));
    loop {
        let began = Instant::now();
        let is_due = is_asked || doubt.is_any() || began < read_until || began - last_read >= READ_AGAIN;
        let (file, known, in_force) = (path.clone(), seen, current.load_full());
        let routes = Arc::clone(&routes);
        // The closure runs on a thread that may block. It compares with the policy in force at the time the look
        // began.
        let look = move || {
            let now = FileSignature::of(&file);
            let found = (is_due || now != known).then(|| changed(|| read(&file), &in_force, &routes));
            (now, found)
        };
        let hangs = || state.fails("does not answer, its file system hangs", is_asked, &path, &current);
        let looked = on_disk(look, hangs).await;
        let (now, found) = looked.unwrap_or_else(|panicked| (None, Some(Err(io::Error::other(panicked).into()))));
        // A look that took this long, or failed to read, says little about the present content, so the next looks read
        // again.
        let must_read = began.elapsed() >= HANGS || matches!(found, Some(Err(ReloadError::Unreadable(_))));
        if now != seen || must_read || is_asked {
            seen = now;
            read_until = Instant::now() + COARSEST;
        }
        if found.is_some() {
            last_read = began;
        }
        let mut asks_still = false;
        match found {
            Some(Ok(found)) => {
                doubt.ends();
                state.succeeds(found, is_asked, &path, &current);
            }
            Some(Err(fault)) => {
                // An operator who asks has finished writing, unless two readings differed.
                let is_being_written = matches!(fault, ReloadError::Unsettled);
                let fault = fault.to_string();
                if doubt.is_settled(&fault, now, Instant::now()) || (is_asked && !is_being_written) {
                    state.fails(&fault, is_asked, &path, &current);
                } else {
                    asks_still = is_asked;
                }
            }
            None => {}
        }
        // Called on each turn, so a policy that found no room in the queue is handed over later.
        if let Some(kept) = &mut kept {
            kept.keep(current.load_full());
        }
        is_asked = asks_still
            | tokio::select! {
                Some(()) = notices.recv() => {
                    sleep(SETTLE).await;
                    false
                }
                () = sleep(if doubt.is_any() { LOOK_IN_DOUBT } else { LOOK }) => false,
                () = asked.notified() => true,
            };
    }
}

/// The policy in the file with its warnings, unless it is the policy in force.
fn changed(
    mut read: impl FnMut() -> Result<Vec<u8>, ReloadError>,
    in_force: &PolicySet,
    routes: &RouteTable,
) -> Result<Option<NewPolicy>, ReloadError> {
    let bytes = read()?;
    if bytes == in_force.source() {
        return Ok(None);
    }
    let policy = PolicySet::parse(&bytes)?;
    // Half of the old content followed by half of the new may be valid JSON, and a policy that nobody wrote.
    if read()? != bytes {
        return Err(ReloadError::Unsettled);
    }
    let warnings = policy.warnings(&routes.asked());
    Ok(Some((policy, warnings)))
}

#[cfg(test)]
mod tests;
