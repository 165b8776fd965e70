//! Live policy: roles.cfg is watched, and a changed file is parsed and checked whole, then swapped in; on any fault the
//! last good policy stays, loudly.
//!
//! The one rule: nothing is cleared before its successor is ready. Requests in flight finish under the policy they were
//! judged by.
//!
//! Notices of the file system (in-place writes, editors' renames, the symlink swap of a mounted ConfigMap) hasten a look;
//! a look several times a second finds what sends no notice (bind mounts, network file systems, no inotify left). A look
//! is a `stat` of the file; its content is read when that differs, ctime included, so that a new content of the same size
//! and mtime is found. For a while after that it is read at every look, because two writes within one tick of the file
//! system's clock leave the same times; and after a read that failed, until one succeeds.
//!
//! The disk is asked on threads that may wait: a file system that hangs is told, and holds up nothing else.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use notify::{RecursiveMode, Watcher};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::history;
use crate::policy::{MAX_POLICY_BYTES, PolicyError, PolicySet, Warning};
use crate::routes::Routes;

/// How often the file is looked at without any notice.
const LOOK: Duration = Duration::from_millis(200);
/// How long after a notice it is looked at: a write that came in parts has its other parts by then.
const SETTLE: Duration = Duration::from_millis(15);

/// How long after a change the file is read at every look: the coarsest clock of a file system (FAT) ticks in 2 s.
const COARSEST: Duration = Duration::from_secs(2);
/// How many warnings of one policy stand in the log.
const MOST_WARNINGS: usize = 20;
/// How long a file system may take before it is said to hang.
const HANGS: Duration = Duration::from_secs(2);

/// Why a policy file cannot be used.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// It cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(#[from] std::io::Error),
    /// A directory, a FIFO or a device.
    #[error("is no regular file")]
    NotAFile,
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

fn read(path: &Path) -> Result<Vec<u8>, ReloadError> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(ReloadError::NotAFile);
    }
    let mut bytes = Vec::new();
    // One byte more than a policy may have, so that the parser sees that it is too large.
    file.take(MAX_POLICY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Asks the disk on a thread that may wait, as long as it takes; calls `hangs` when that is long.
///
/// # Errors
/// The question panicked.
pub(crate) async fn on_disk<T: Send + 'static>(
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

/// How the policy file fares, for who asks.
#[derive(Debug, Default)]
pub struct FileState {
    fault: Mutex<String>,
    faults: AtomicU64,
}

impl FileState {
    /// Why the file cannot be used now; nothing when it can.
    pub fn fault(&self) -> Option<String> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(fault).filter(|fault| !fault.is_empty())
    }

    /// How often a file was refused since the start.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// The file was read: it holds `new`, or what is in force.
    fn succeeds(&self, new: Option<New>, path: &Path, current: &ArcSwap<PolicySet>) {
        let was = std::mem::take(&mut *self.fault.lock().unwrap_or_else(PoisonError::into_inner));
        let old = current.load();
        match new {
            Some((new, warnings)) => {
                tell_warnings(path, &warnings);
                let (policy, roles) = (new.fingerprint(), new.roles().len());
                tracing::info!(policy, replaced = old.fingerprint(), roles, "policy reloaded");
                current.store(Arc::new(new));
            }
            None if !was.is_empty() => tracing::info!(policy = old.fingerprint(), "the policy file is good again"),
            None => {}
        }
    }

    /// The file cannot be used; a new fault is told.
    fn fails(&self, path: &Path, current: &ArcSwap<PolicySet>, found: &str) {
        let was = std::mem::replace(&mut *self.fault.lock().unwrap_or_else(PoisonError::into_inner), found.to_owned());
        if was != found {
            self.faults.fetch_add(1, Ordering::Relaxed);
            let in_force = current.load();
            tracing::error!(
                "{}: {found}; the last good policy {} stays in force",
                path.display(),
                in_force.fingerprint()
            );
        }
    }
}

/// Keeps `current` what the file at `path` says; runs until it is dropped. SIGHUP looks at once.
///
/// Each policy that comes into force is kept in `history`, if there is one.
pub async fn keep_current(
    path: PathBuf,
    history: Option<PathBuf>,
    current: Arc<ArcSwap<PolicySet>>,
    routes: Arc<Routes>,
    state: Arc<FileState>,
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
    let mut hangup = signal(SignalKind::hangup()).ok();
    let mut seen = None;
    let mut read_until = Instant::now() + COARSEST;
    let mut kept = Kept::default();
    loop {
        let began = Instant::now();
        let (file, known, in_force, is_due) = (path.clone(), seen, current.load_full(), began < read_until);
        let routes = Arc::clone(&routes);
        let look = move || {
            let now = Signature::of(&file);
            let found = (is_due || now != known).then(|| changed(&file, &in_force, &routes));
            (now, found)
        };
        let looked = on_disk(look, || state.fails(&path, &current, "does not answer, its file system hangs")).await;
        let (now, found) = looked.unwrap_or_else(|panicked| (None, Some(Err(io::Error::other(panicked).into()))));
        let must_read = began.elapsed() >= HANGS || matches!(found, Some(Err(ReloadError::Unreadable(_))));
        if now != seen || must_read {
            seen = now;
            read_until = Instant::now() + COARSEST;
        }
        match found {
            Some(Ok(found)) => state.succeeds(found, &path, &current),
            Some(Err(fault)) => state.fails(&path, &current, &fault.to_string()),
            None => {}
        }
        if let Some(history) = &history {
            kept.keep(history, current.load_full());
        }
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = notices.recv() => sleep(SETTLE).await,
            () = sleep(LOOK) => {}
            _ = hung_up => {
                tracing::info!("SIGHUP received, reading the policy");
                read_until = Instant::now() + COARSEST;
            }
        }
    }
}

/// The policy that the file holds, with what is odd about it, unless it is the one in force.
fn changed(path: &Path, in_force: &PolicySet, routes: &Routes) -> Result<Option<New>, ReloadError> {
    let bytes = read(path)?;
    if bytes == in_force.source() {
        return Ok(None);
    }
    let policy = PolicySet::parse(&bytes)?;
    let warnings = policy.warnings(&routes.asked());
    Ok(Some((policy, warnings)))
}

/// A policy that was read, and what is valid in it and hardly meant.
type New = (PolicySet, Vec<Warning>);

/// Tells what is valid in a policy and hardly meant, such as a misspelt endpoint; not all of it where that is much.
pub fn tell_warnings(path: &Path, warnings: &[Warning]) {
    for Warning { line, text } in warnings.iter().take(MOST_WARNINGS) {
        tracing::warn!("{}:{line}: {text}", path.display());
    }
    if let Some(more) = warnings.len().checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
        tracing::warn!("{}: {more} more warnings; `fedgate policy check` tells them all", path.display());
    }
}

/// Keeps policies in the history, one at a time; one that comes while the disk hangs is kept after it.
#[derive(Default)]
struct Kept {
    fingerprint: String,
    keeping: Option<JoinHandle<()>>,
}

impl Kept {
    fn keep(&mut self, history: &Path, policy: Arc<PolicySet>) {
        if self.fingerprint == policy.fingerprint()
            || self.keeping.as_ref().is_some_and(|keeping| !keeping.is_finished())
        {
            return;
        }
        policy.fingerprint().clone_into(&mut self.fingerprint);
        let directory = history.to_owned();
        self.keeping = Some(spawn_blocking(move || {
            if let Err(error) = history::keep(&directory, &policy) {
                tracing::warn!("{}: the policy is not kept for replay ({error})", directory.display());
            }
        }));
    }
}

/// Sends a notice for whatever happens in the directory of the file.
fn watch_directory(path: &Path, notice: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut watcher = notify::recommended_watcher(move |_| {
        // A full channel already holds the hint.
        let _ = notice.try_send(());
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature([i64; 7]);

impl Signature {
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Config;

    fn policy(role: &str) -> String {
        format!(r#"[{{"role": "{role}", "permissions": {{"GET": ["login"]}}}}]"#)
    }

    struct Fixture {
        dir: PathBuf,
        path: PathBuf,
        current: Arc<ArcSwap<PolicySet>>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("fedgate-reload-{:x}", rand::random::<u128>()));
            std::fs::create_dir_all(&dir).unwrap();
            let path = dir.join("roles.cfg");
            std::fs::write(&path, policy("first")).unwrap();
            let current = Arc::new(ArcSwap::from_pointee(read_policy(&path).unwrap()));
            std::fs::write(dir.join("secret"), [b'k'; 40]).unwrap();
            std::fs::write(dir.join("fedgate.toml"), "[assertion]\nsecret_file = \"secret\"\n").unwrap();
            let config = Config::load_with(&dir.join("fedgate.toml"), std::iter::empty()).unwrap();
            let routes = Routes::from_config(&config).unwrap();
            let task =
                tokio::spawn(keep_current(path.clone(), None, Arc::clone(&current), Arc::new(routes), Arc::default()));
            Self { dir, path, current, task }
        }

        async fn becomes(&self, role: &str) {
            let deadline = Instant::now() + Duration::from_secs(10);
            while self.current.load().definitions(role).next().is_none() {
                assert!(Instant::now() < deadline, "the policy of `{role}` never came into force");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            self.task.abort();
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    #[tokio::test]
    async fn writes_renames_and_symlink_swaps_come_into_force() {
        let fixture = Fixture::new();
        std::fs::write(&fixture.path, policy("in_place")).unwrap();
        fixture.becomes("in_place").await;

        let beside = fixture.dir.join("roles.cfg.new");
        std::fs::write(&beside, policy("renamed")).unwrap();
        std::fs::rename(&beside, &fixture.path).unwrap();
        fixture.becomes("renamed").await;

        // A mounted ConfigMap: the file is a link through `..data`, and `..data` is swapped.
        for generation in ["one", "two"] {
            std::fs::create_dir(fixture.dir.join(generation)).unwrap();
            std::fs::write(fixture.dir.join(generation).join("roles.cfg"), policy(generation)).unwrap();
            std::os::unix::fs::symlink(generation, fixture.dir.join("..data_new")).unwrap();
            std::fs::rename(fixture.dir.join("..data_new"), fixture.dir.join("..data")).unwrap();
            if generation == "one" {
                std::fs::remove_file(&fixture.path).unwrap();
                std::os::unix::fs::symlink("..data/roles.cfg", &fixture.path).unwrap();
            }
            fixture.becomes(generation).await;
        }
    }

    #[tokio::test]
    async fn same_size_and_mtime_with_other_content_comes_into_force() {
        let fixture = Fixture::new();
        let modified = std::fs::metadata(&fixture.path).unwrap().modified().unwrap();
        std::fs::write(&fixture.path, policy("other")).unwrap();
        File::options().write(true).open(&fixture.path).unwrap().set_modified(modified).unwrap();
        fixture.becomes("other").await;
    }

    #[tokio::test]
    async fn the_last_good_policy_survives_every_fault() {
        let fixture = Fixture::new();
        let path = &fixture.path;
        let write = |bytes: &[u8]| std::fs::write(path, bytes).unwrap();
        for step in 0..9 {
            match step {
                0 => write(b""),
                1 => write(b"{}"),
                2 => write(policy("truncated").as_bytes().split_last().unwrap().1),
                3 => write(b"\xff\xfe["),
                4 => std::fs::remove_file(path).unwrap(),
                5 => std::fs::create_dir(path).unwrap(),
                6 => {
                    std::fs::remove_dir(path).unwrap();
                    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
                        .unwrap();
                }
                7 => {
                    std::fs::remove_file(path).unwrap();
                    File::create(path).unwrap().set_len(100 << 20).unwrap();
                }
                _ => {
                    write(policy("unreadable").as_bytes());
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o000)).unwrap();
                }
            }
            assert!(step == 8 || read_policy(path).is_err(), "step {step} is a fault");
            sleep(LOOK + SETTLE).await;
            let current = fixture.current.load();
            // Root reads what it may not; then the last one is no fault.
            let good = current.definitions("first").next().is_some()
                || (step == 8 && current.definitions("unreadable").next().is_some());
            assert!(good, "step {step}");
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        write(policy("good_again").as_bytes());
        fixture.becomes("good_again").await;
    }
}
