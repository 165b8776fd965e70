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
    let mut kept = history.map(|directory| KeptPolicies::begin(directory, current.load_full(), Arc::clone(&state)));
    let mut watch = PolicyWatch::begin(path, current, routes, state);
    loop {
        watch.look().await;
        // Called on each turn, so a policy that found no room in the queue is handed over later.
        if let Some(kept) = &mut kept {
            kept.keep(watch.current.load_full());
        }
        tokio::select! {
            Some(()) = notices.recv() => sleep(SETTLE).await,
            () = sleep(if watch.doubt.is_any() { LOOK_IN_DOUBT } else { LOOK }) => {}
            () = asked.notified() => watch.is_asked = true,
        }
    }
}

/// The looks at one file, from one to the next.
struct PolicyWatch {
    path: PathBuf,
    current: Arc<ArcSwap<PolicySet>>,
    routes: Arc<RouteTable>,
    state: Arc<FileState>,
    /// The signature at the last look; none before the first, and of a missing file.
    seen: Option<FileSignature>,
    last_read: Instant,
    /// Until then, every look reads.
    read_until: Instant,
    doubt: FileDoubt,
    /// Whether an operator asked, and has no answer yet.
    is_asked: bool,
}

impl PolicyWatch {
    fn begin(path: PathBuf, current: Arc<ArcSwap<PolicySet>>, routes: Arc<RouteTable>, state: Arc<FileState>) -> Self {
        let (last_read, read_until) = (Instant::now(), Instant::now() + COARSEST);
        let doubt = FileDoubt::default();
        Self { path, current, routes, state, seen: None, last_read, read_until, doubt, is_asked: false }
    }

    /// Looks once, reads the file if that is due, and puts a changed policy into force.
    async fn look(&mut self) {
        let began = Instant::now();
        let is_due =
            self.is_asked || self.doubt.is_any() || began < self.read_until || began - self.last_read >= READ_AGAIN;
        let (file, known, in_force) = (self.path.clone(), self.seen, self.current.load_full());
        let routes = Arc::clone(&self.routes);
        // The closure runs on a thread that may block. It compares with the policy in force at the time the look
        // began.
        let look = move || {
            let now = FileSignature::of(&file);
            let found = (is_due || now != known).then(|| changed(|| read(&file), &in_force, &routes));
            (now, found)
        };
        let hangs = || self.fails("does not answer, its file system hangs");
        let looked = on_disk(look, hangs).await;
        let (now, found) = looked.unwrap_or_else(|panicked| (None, Some(Err(io::Error::other(panicked).into()))));
        // A look that took this long, or failed to read, says little about the present content, so the next looks read
        // again.
        let must_read = began.elapsed() >= HANGS || matches!(found, Some(Err(ReloadError::Unreadable(_))));
        if now != self.seen || must_read || self.is_asked {
            self.seen = now;
            self.read_until = Instant::now() + COARSEST;
        }
        if let Some(found) = found {
            self.last_read = began;
            self.heed(found, now);
        }
    }

    /// Heeds what was read: a policy comes into force at once, a fault is reported when it is no write in progress.
    fn heed(&mut self, found: Result<Option<NewPolicy>, ReloadError>, now: Option<FileSignature>) {
        match found {
            Ok(found) => {
                self.doubt.ends();
                self.state.succeeds(found, self.is_asked, &self.path, &self.current);
            }
            Err(fault) => {
                // An operator who asks has finished writing, unless two readings differed.
                let is_being_written = matches!(fault, ReloadError::Unsettled);
                let fault = fault.to_string();
                let is_settled = self.doubt.is_settled(&fault, now, Instant::now());
                if !is_settled && (!self.is_asked || is_being_written) {
                    return;
                }
                self.fails(&fault);
            }
        }
        self.is_asked = false;
    }

    fn fails(&self, fault: &str) {
        self.state.fails(fault, self.is_asked, &self.path, &self.current);
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
