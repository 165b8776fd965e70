//! The files that an import keeps beside its input: its progress, and its refused records.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::records::ImportRecord;
use super::{ImportError, ImportSummary};
use fedgate_core::escape;

/// The purpose of an import. Progress counts only for exactly the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SidecarPurpose {
    /// `people` or `pages`.
    pub(super) kind: Cow<'static, str>,
    /// Whether clear passwords are hashed instead of refused.
    pub(super) hash_passwords: bool,
    /// The id of the store.
    pub(super) store: String,
}

/// The progress of an import.
///
/// It counts for the same purpose, and for a file that begins with the same bytes: a run that resumes hashes them
/// again. In every other case the import starts from the beginning, which is slower but never wrong.
pub(super) struct ResumeState {
    file: Option<PathBuf>,
    purpose: SidecarPurpose,
    /// The number of processed records.
    pub(super) records: u64,
    /// The hash of the bytes up to the end of these records.
    pub(super) hash: String,
    /// The results of these records.
    pub(super) summary: ImportSummary,
    /// The size of the file of refused records when these were processed; none if it is unknown.
    pub(super) refused_bytes: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSidecar {
    #[serde(flatten)]
    purpose: SidecarPurpose,
    records: u64,
    hash: String,
    created: u64,
    unchanged: u64,
    refused: u64,
    /// Missing in a file of an earlier release.
    refused_bytes: Option<u64>,
}

impl ResumeState {
    pub(super) fn begin(path: Option<&Path>, purpose: SidecarPurpose) -> Self {
        let file = path.map(|path| beside(path, "import-state"));
        let (hash, summary) = (String::new(), ImportSummary::default());
        Self { file, purpose, records: 0, hash, summary, refused_bytes: Some(0) }
    }

    /// The progress that an earlier run for the same purpose left. The bytes of the file must still be compared.
    pub(super) fn resume(path: Option<&Path>, purpose: SidecarPurpose) -> Self {
        let begin = Self::begin(path, purpose);
        let text = begin.file.as_ref().and_then(|file| fs::read(file).ok());
        let written = text.and_then(|text| serde_json::from_slice::<WrittenSidecar>(&text).ok());
        match written.filter(|written| written.purpose == begin.purpose) {
            Some(WrittenSidecar { records, hash, created, unchanged, refused, refused_bytes, purpose: _ }) => {
                let summary = ImportSummary { created, unchanged, refused, resumed: records };
                Self { records, hash, summary, refused_bytes, ..begin }
            }
            None => begin,
        }
    }

    /// Writes down that `count` more records are processed, up to where the bytes have `hash`, and how long the file
    /// of refused records is by now.
    pub(super) fn advance(&mut self, count: u64, hash: String, refused_bytes: u64) -> Result<(), ImportError> {
        self.records += count;
        self.hash = hash;
        self.refused_bytes = Some(refused_bytes);
        let Some(file) = &self.file else {
            return Ok(());
        };
        let ImportSummary { created, unchanged, refused, resumed: _ } = self.summary;
        let (purpose, records, hash) = (self.purpose.clone(), self.records, self.hash.clone());
        let refused_bytes = self.refused_bytes;
        let written = WrittenSidecar { purpose, records, hash, created, unchanged, refused, refused_bytes };
        let text = serde_json::to_vec(&written).unwrap_or_default();
        // Written beside and renamed, so that an interrupted write leaves the old progress.
        let new = file.with_extension("import-state.new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, file))
            .map_err(|error| ImportError::File(file.clone(), error))
    }

    /// Checks that progress can be written down.
    pub(super) fn try_file(&self) -> Result<(), ImportError> {
        self.file.as_ref().map_or(Ok(()), |file| try_file(&file.with_extension("import-state.new")))
    }

    pub(super) fn finish(self) -> Result<(), ImportError> {
        match self.file {
            Some(file) if file.exists() => fs::remove_file(&file).map_err(|error| ImportError::File(file, error)),
            Some(_) | None => Ok(()),
        }
    }
}

/// The refused records. The file is created with the first of them, readable by its owner alone.
pub(super) struct RefusedLines {
    path: PathBuf,
    file: Option<File>,
}

#[derive(Serialize)]
struct SidecarLine<'a> {
    line: u64,
    reason: &'a str,
    record: String,
}

impl RefusedLines {
    /// The file beside the input of `state`, as it was when the progress was written down. Lines that an
    /// interrupted run has written after that belong to records that are processed again.
    pub(super) fn following(path: PathBuf, state: &ResumeState) -> Result<Self, ImportError> {
        if state.records == 0 {
            // The file is of an earlier import, and may not exist.
            let _ = fs::remove_file(&path);
        } else if let Some(bytes) = state.refused_bytes
            && fs::metadata(&path).is_ok_and(|file| file.len() > bytes)
        {
            let cut = OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(bytes));
            cut.map_err(|error| ImportError::File(path.clone(), error))?;
        }
        Ok(Self { path, file: None })
    }

    /// Checks that refused records can be written down.
    pub(super) fn try_file(&self) -> Result<(), ImportError> {
        try_file(&self.path)
    }

    pub(super) fn add(&mut self, record: &ImportRecord, reason: &str) -> Result<(), ImportError> {
        let line =
            SidecarLine { line: record.line, reason, record: String::from_utf8_lossy(&record.bytes).into_owned() };
        let text = serde_json::to_string(&line).unwrap_or_default();
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                options.create(true).append(true).mode(0o600);
                options.open(&self.path).map_err(|error| ImportError::File(self.path.clone(), error))?
            }
        };
        // People read the file on a terminal, so control characters are escaped.
        writeln!(file, "{}", escape::json(&text)).map_err(|error| ImportError::File(self.path.clone(), error))?;
        self.file = Some(file);
        Ok(())
    }

    /// Brings everything to the disk, and returns the size of the file.
    pub(super) fn flush(&mut self) -> Result<u64, ImportError> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_data);
        synced.map_err(|error| ImportError::File(self.path.clone(), error))?;
        Ok(fs::metadata(&self.path).map_or(0, |file| file.len()))
    }
}

/// Checks that a file can be made or appended to, and leaves none that was not there.
fn try_file(path: &Path) -> Result<(), ImportError> {
    let is_new = !path.exists();
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let removed = opened.and_then(|_| if is_new { fs::remove_file(path) } else { Ok(()) });
    removed.map_err(|error| ImportError::File(path.to_owned(), error))
}

/// The file for the refused records of an input file.
pub(super) fn refused_path(path: Option<&Path>) -> PathBuf {
    path.map_or_else(|| PathBuf::from("import.refused.jsonl"), |path| beside(path, "refused.jsonl"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
