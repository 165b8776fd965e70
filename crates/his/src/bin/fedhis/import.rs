//! `fedhis import`: many records from a file.
//!
//! The one rule: what takes long is told while it lasts, on a terminal as a bar, and elsewhere in lines that a log can keep.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Seek};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use fedgate_base::command::{CommandFailure, print_line};
use fedgate_base::config::Config;
use fedgate_base::db::actor::ChangeActor;
use fedgate_his::import::{ClearPasswords, ImportError, ImportKind, ImportRun};
use fedgate_his::store::RecordStore;

use super::{complain, open_ready};

/// How often a log is told how far an import is.
const TOLD_EVERY: Duration = Duration::from_secs(10);

pub(super) async fn import(
    config: &Config,
    kind: ImportKind,
    source: &Path,
    clear_passwords: ClearPasswords,
) -> Result<(), CommandFailure> {
    let store = RecordStore::new(open_ready(config).await?).acting_as(ChangeActor::importer());
    let path = (source != Path::new("-")).then(|| source.to_owned());
    let file = match &path {
        Some(path) => {
            let unreadable = |reason: &dyn std::fmt::Display| {
                let remedy = "name a file that this user may read, or `-` for standard input";
                CommandFailure::Usage(anyhow!("`{}` cannot be read ({reason}); {remedy}", path.display()))
            };
            let file = File::open(path).map_err(|error| unreadable(&error))?;
            if path.is_dir() {
                return Err(unreadable(&"it is a directory"));
            }
            // The lock lasts as long as the file is open. On a file system without locks it excludes no other
            // process.
            if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
                return Err(ImportError::Running(path.clone()).into());
            }
            Some(file)
        }
        None => None,
    };
    let size = file.as_ref().and_then(|file| Some(file.metadata().ok()?.len()));
    // The file may be a copy, and what is imported has no place among the messages that it lacks.
    store.take_history().await?;
    let shown = ImportProgress::new(size)?;
    let progress = |bytes| shown.report(bytes, Instant::now());
    let hashes = config.authentication.hashes;
    let import = ImportRun { store: &store, kind, clear_passwords, hashes, path, progress: &progress };
    let summary = match file {
        Some(file) => {
            let begin = || {
                let mut file = file.try_clone()?;
                file.rewind()?;
                Ok(BufReader::new(file))
            };
            import.run(begin).await
        }
        None => import.run(|| Ok(io::stdin().lock())).await,
    };
    shown.end();
    let summary = summary?;
    print_line(&summary.to_string())?;
    match summary.refused {
        0 => Ok(()),
        refused => {
            let were = if refused == 1 { "record was" } else { "records were" };
            Err(anyhow!("{refused} {were} refused; see `{}`", import.refused_path().display()).into())
        }
    }
}

/// How far the import is.
enum ImportProgress {
    Terminal(ProgressBar),
    Log(LoggedProgress),
}

/// The size of the input, its bytes that are done, and when that was last told.
struct LoggedProgress {
    size: Option<u64>,
    told: Mutex<Instant>,
}

impl ImportProgress {
    fn new(size: Option<u64>) -> Result<Self, CommandFailure> {
        if !io::stderr().is_terminal() {
            return Ok(Self::Log(LoggedProgress { size, told: Mutex::new(Instant::now()) }));
        }
        let (bar, style) = match size {
            Some(size) => (ProgressBar::new(size), "{bar:30} {bytes}/{total_bytes} ({eta} left)"),
            None => (ProgressBar::new_spinner(), "{spinner} {bytes}"),
        };
        Ok(Self::Terminal(bar.with_style(ProgressStyle::with_template(style)?)))
    }

    fn report(&self, bytes: u64, now: Instant) {
        match self {
            Self::Terminal(bar) => bar.set_position(bytes),
            Self::Log(log) => {
                if let Some(line) = log.line(bytes, now) {
                    complain(&line);
                }
            }
        }
    }

    fn end(&self) {
        match self {
            Self::Terminal(bar) => bar.finish_and_clear(),
            Self::Log(_) => {}
        }
    }
}

impl LoggedProgress {
    /// The line that is due now.
    fn line(&self, bytes: u64, now: Instant) -> Option<String> {
        let mut told = self.told.lock().ok()?;
        if now.saturating_duration_since(*told) < TOLD_EVERY {
            return None;
        }
        *told = now;
        let (mib, of) = (bytes >> 20, self.size.filter(|size| *size > 0));
        Some(match of {
            Some(size) => format!("{mib} of {} MiB imported, {} %", size >> 20, bytes.saturating_mul(100) / size),
            None => format!("{mib} MiB imported"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_told_every_ten_seconds_how_far_an_import_is() {
        let began = Instant::now();
        let log = LoggedProgress { size: Some(300 << 20), told: Mutex::new(began) };
        let at = |seconds: u64, mib: u64| log.line(mib << 20, began + Duration::from_secs(seconds));
        assert_eq!(at(3, 40), None);
        assert_eq!(at(11, 150).as_deref(), Some("150 of 300 MiB imported, 50 %"));
        assert_eq!(at(20, 200), None);
        assert_eq!(at(22, 300).as_deref(), Some("300 of 300 MiB imported, 100 %"));
        let unknown = LoggedProgress { size: None, told: Mutex::new(began) };
        assert_eq!(unknown.line(5 << 20, began + TOLD_EVERY).as_deref(), Some("5 MiB imported"));
    }
}
