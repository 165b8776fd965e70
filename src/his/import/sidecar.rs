//! What an import keeps beside its file: how far it got, and what it refused.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::records::Record;
use super::{ImportError, Kind, Summary};

/// How far an import got. It is bound to the file by kind and size: another file starts anew, which is slower but never
/// wrong.
pub(super) struct State {
    file: Option<PathBuf>,
    kind: &'static str,
    size: u64,
    /// Records that are dealt with.
    pub(super) records: u64,
    /// How they ended.
    pub(super) summary: Summary,
}

#[derive(Serialize, Deserialize)]
struct Written {
    kind: String,
    size: u64,
    records: u64,
    created: u64,
    unchanged: u64,
    refused: u64,
}

impl State {
    pub(super) fn resume(path: Option<&Path>, kind: Kind) -> Result<Self, ImportError> {
        let kind = match kind {
            Kind::People => "people",
            Kind::Pages => "pages",
        };
        let Some(path) = path else {
            return Ok(Self { file: None, kind, size: 0, records: 0, summary: Summary::default() });
        };
        let size = fs::metadata(path).map_err(|error| ImportError::File(path.to_owned(), error))?.len();
        let file = beside(path, "import-state");
        let written = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Written>(&text).ok());
        let written = written.filter(|written| written.kind == kind && written.size == size);
        let (records, summary) = written.map_or((0, Summary::default()), |written| {
            let Written { created, unchanged, refused, records, .. } = written;
            (records, Summary { created, unchanged, refused, resumed: records })
        });
        Ok(Self { file: Some(file), kind, size, records, summary })
    }

    /// Writes down that `count` more records are dealt with.
    pub(super) fn advance(&mut self, count: u64) -> Result<(), ImportError> {
        self.records += count;
        let Some(file) = &self.file else {
            return Ok(());
        };
        let Summary { created, unchanged, refused, resumed: _ } = self.summary;
        let (kind, size, records) = (self.kind.to_owned(), self.size, self.records);
        let written = Written { kind, size, records, created, unchanged, refused };
        let text = serde_json::to_vec(&written).unwrap_or_default();
        let new = file.with_extension("import-state.new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, file))
            .map_err(|error| ImportError::File(file.clone(), error))
    }

    pub(super) fn finish(self) -> Result<(), ImportError> {
        match self.file {
            Some(file) if file.exists() => fs::remove_file(&file).map_err(|error| ImportError::File(file, error)),
            Some(_) | None => Ok(()),
        }
    }
}

/// The records that could not be stored; the file is made when there is one, for its owner alone.
pub(super) struct Refused {
    path: PathBuf,
    file: Option<File>,
}

#[derive(Serialize)]
struct Line<'a> {
    line: u64,
    reason: &'a str,
    record: String,
}

impl Refused {
    pub(super) fn new(path: PathBuf, is_resumed: bool) -> Self {
        if !is_resumed {
            // Of an earlier import; there may be none.
            let _ = fs::remove_file(&path);
        }
        Self { path, file: None }
    }

    pub(super) fn add(&mut self, record: &Record, reason: &str) -> Result<(), ImportError> {
        let line = Line { line: record.line, reason, record: String::from_utf8_lossy(&record.bytes).into_owned() };
        let text = serde_json::to_string(&line).unwrap_or_default();
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                options.create(true).append(true).mode(0o600);
                options.open(&self.path).map_err(|error| ImportError::File(self.path.clone(), error))?
            }
        };
        writeln!(file, "{text}").map_err(|error| ImportError::File(self.path.clone(), error))?;
        self.file = Some(file);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), ImportError> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_data);
        synced.map_err(|error| ImportError::File(self.path.clone(), error))
    }
}

/// Where the records refused of a file are written.
pub(super) fn refused_path(path: Option<&Path>) -> PathBuf {
    path.map_or_else(|| PathBuf::from("import.refused.jsonl"), |path| beside(path, "refused.jsonl"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
