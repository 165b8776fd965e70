//! Live policy: roles.cfg is watched, and a changed file is parsed and checked whole, then swapped in; on any fault the
//! last good policy stays, loudly.
//!
//! The one rule: nothing is cleared before its successor is ready. Requests in flight finish under the policy they were
//! judged by.
//!
//! Notices of the file system (in-place writes, editors' renames, the symlink swap of a mounted ConfigMap) hasten a look;
//! a look several times a second finds what sends no notice (bind mounts, network file systems, no inotify left). A look
//! is a `stat` of the file; its content is read once a second, and at once when that differs, ctime included, so that a
//! new content of the same size and mtime is found. For a while after that it is read at every look, because two writes
//! within one tick of the file system's clock leave the same times; and after a read that failed, until one succeeds.
//!
//! A policy comes into force as soon as it is read; a fault is told once the file is left alone, because half a write
//! is a fault, too.
//!
//! The disk is asked on threads that may wait: a file system that hangs is told, and holds up nothing else.

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

/// How often the file is looked at without any notice.
const LOOK: Duration = Duration::from_millis(200);
/// How often while a fault may be one of a write under way.
const LOOK_IN_DOUBT: Duration = Duration::from_millis(50);
/// How long after a notice it is looked at: a write that came in parts has its other parts by then.
const SETTLE: Duration = Duration::from_millis(15);
/// How long after a change the file is read at every look: the coarsest clock of a file system (FAT) ticks in 2 s, and the
/// looks that find the first and the last change within one tick are each late by one.
const COARSEST: Duration = Duration::from_secs(2).saturating_add(LOOK).saturating_add(LOOK);
/// How long after it was read it is read again, whatever its times say: what is stored through a mapping of the file leaves
/// them, and some network file systems tell old ones.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Keeps `current` what the file at `path` says; runs until it is dropped. Once `asked` it looks at once, and tells what it
/// found.
///
/// Each policy that is in force is kept in `history`, if there is one.
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
    // Kept until the end: dropping it ends the watch. It begins when the disk lets it.
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
        let look = move || {
            let now = FileSignature::of(&file);
            let found = (is_due || now != known).then(|| changed(|| read(&file), &in_force, &routes));
            (now, found)
        };
        let hangs = || state.fails("does not answer, its file system hangs", is_asked, &path, &current);
        let looked = on_disk(look, hangs).await;
        let (now, found) = looked.unwrap_or_else(|panicked| (None, Some(Err(io::Error::other(panicked).into()))));
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
                // Who asks has written, unless it is seen that somebody writes.
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

/// The policy that the file holds, with what is odd about it, unless it is the one in force.
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
    // Half of one content and half of the next may be valid, too.
    if read()? != bytes {
        return Err(ReloadError::Unsettled);
    }
    let warnings = policy.warnings(&routes.asked());
    Ok(Some((policy, warnings)))
}

#[cfg(test)]
mod tests;
