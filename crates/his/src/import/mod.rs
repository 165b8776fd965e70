//! The import: many people or pages from a file, in batches, each a transaction.
//!
//! The one rule: whatever interrupts an import, running it again completes it and changes nothing twice. How far it got
//! is kept beside the file, and counts for these bytes and this store alone; a record that is there already, exactly so, counts as unchanged; what cannot be stored is
//! written beside the file too, with its line and the reason, and the rest goes on.

mod check;
mod records;
mod sidecar;

use std::io::{self, BufRead};
use std::path::PathBuf;

use thiserror::Error;

use self::check::CheckedRecord;
use self::records::{ImportRecord, ImportRecords};
use self::sidecar::{RefusedLines, ResumeState, SidecarPurpose};
use super::hashing::HashingThreads;
use super::store::{BatchOutcome, RecordStore, WriteBatch};
use fedgate_base::config::HashesConfig;
use fedgate_base::db::DbError;
use fedgate_base::db::hashes::HashRule;

/// Most records of one transaction.
const BATCH: usize = 500;
/// From so many bytes on a batch takes no further record. What is held of them is several times as much: the record, the
/// object, and what goes to the database.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// What is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    /// Persons.
    People,
    /// Pages of books of life.
    Pages,
}

/// What becomes of a password that is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClearPasswords {
    /// The person is refused: a file with clear passwords is more likely a mistake.
    Refuse,
    /// It is hashed.
    Hash,
}

/// An import to be run.
pub struct ImportRun<'a> {
    /// Where to.
    pub store: &'a RecordStore,
    /// What.
    pub kind: ImportKind,
    /// How passwords that are no hashes are taken.
    pub clear_passwords: ClearPasswords,
    /// Which hashes are written.
    pub hashes: HashesConfig,
    /// The file's path, beside which state and refused records are kept; none for standard input, which cannot be
    /// resumed and whose refused records go to `import.refused.jsonl`.
    pub path: Option<PathBuf>,
    /// Told how many bytes have been read.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// How an import ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Records stored.
    pub created: u64,
    /// Records that were there already.
    pub unchanged: u64,
    /// Records that could not be stored.
    pub refused: u64,
    /// Records, counted above, that an earlier, interrupted run had dealt with.
    pub resumed: u64,
}

/// Why an import stopped; running it again goes on from there.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The database is away or refused.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The file, or one beside it, cannot be read or written.
    #[error(
        "`{0}`: {1}; this user must be able to read the file, and to make files beside it, on a disk that has room"
    )]
    File(PathBuf, std::io::Error),
    /// The file breaks off, or is no list of records, from this line on.
    #[error("line {0}: {1}; the file must be one JSON array of records, or have one record a line")]
    Unreadable(u64, &'static str),
    /// Another import reads the same file, and writes the same files beside it.
    #[error("`{0}`: another import of this file runs; wait for it, or stop it")]
    Running(PathBuf),
    /// Passwords could not be hashed.
    #[error("a password could not be hashed, see the log")]
    Hashing,
}

impl ImportRun<'_> {
    /// Opens the input and reads records (a JSON array, also of one-element arrays as Thalamus lists them, or one record a line) and
    /// stores them. A file that is not the one an earlier run began with is opened again.
    ///
    /// # Errors
    /// See [`ImportError`]; what was stored until then stays, and the next run goes on from there.
    pub async fn run<R: BufRead>(&self, open: impl Fn() -> io::Result<R>) -> Result<ImportSummary, ImportError> {
        let open = || open().map(ImportRecords::new).map_err(|error| ImportError::File(self.input_path(), error));
        let purpose = self.purpose().await?;
        let mut records = open()?;
        let mut state = ResumeState::resume(self.path.as_deref(), purpose.clone());
        if state.records > 0 && !self.skip(&mut records, &state)? {
            records = open()?;
            state = ResumeState::begin(self.path.as_deref(), purpose);
        }
        let mut refused = RefusedLines::new(self.refused_path(), state.records > 0);
        loop {
            let batch = self.take_batch(&mut records)?;
            if batch.is_empty() {
                let summary = state.summary;
                state.finish()?;
                return Ok(summary);
            }
            let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let hash = records.hash();
            self.store(batch, &mut state.summary, &mut refused).await?;
            refused.flush()?;
            state.advance(count, hash)?;
            (self.progress)(records.bytes());
        }
    }

    /// Where refused records are written.
    pub fn refused_path(&self) -> PathBuf {
        sidecar::refused_path(self.path.as_deref())
    }

    fn input_path(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| PathBuf::from("-"))
    }

    async fn purpose(&self) -> Result<SidecarPurpose, ImportError> {
        let kind = match self.kind {
            ImportKind::People => "people",
            ImportKind::Pages => "pages",
        };
        let hash_passwords = self.clear_passwords == ClearPasswords::Hash;
        Ok(SidecarPurpose { kind: kind.into(), hash_passwords, store: self.store.id().await? })
    }

    /// Passes over what is dealt with; whether the file begins so.
    fn skip(&self, records: &mut ImportRecords<impl BufRead>, state: &ResumeState) -> Result<bool, ImportError> {
        for _ in 0..state.records {
            match self.next(records) {
                Ok(Some(_)) => {}
                Ok(None) | Err(ImportError::Unreadable(..)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(records.hash() == state.hash)
    }

    fn take_batch(&self, records: &mut ImportRecords<impl BufRead>) -> Result<Vec<ImportRecord>, ImportError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let Some(record) = self.next(records)? else { break };
            bytes += record.bytes.len();
            batch.push(record);
        }
        Ok(batch)
    }

    fn next(&self, records: &mut ImportRecords<impl BufRead>) -> Result<Option<ImportRecord>, ImportError> {
        records.next().map_err(|error| match error {
            records::RecordError::Io(error) => ImportError::File(self.input_path(), error),
            records::RecordError::Structure(line, problem) => ImportError::Unreadable(line, problem),
        })
    }

    /// Stores a batch; counts, and writes down what was refused.
    async fn store(
        &self,
        batch: Vec<ImportRecord>,
        summary: &mut ImportSummary,
        refused: &mut RefusedLines,
    ) -> Result<(), ImportError> {
        let hashing = HashingThreads::new(HashRule::new(self.store.database(), self.hashes));
        let mut origins = Vec::with_capacity(batch.len());
        let mut checked = Vec::with_capacity(batch.len());
        for record in batch {
            match check::check(self.kind, self.clear_passwords, &record.bytes, &hashing).await {
                Ok(one) => {
                    origins.push(record);
                    checked.push(one);
                }
                Err(check::RecordFault::Refused(reason)) => {
                    summary.refused += 1;
                    refused.add(&record, &reason)?;
                }
                Err(check::RecordFault::Hashing) => return Err(ImportError::Hashing),
            }
        }
        let outcomes = self.store.import(self.batch(checked)).await?;
        for (record, outcome) in origins.iter().zip(outcomes) {
            let reason = match outcome {
                BatchOutcome::Created => {
                    summary.created += 1;
                    continue;
                }
                BatchOutcome::Unchanged => {
                    summary.unchanged += 1;
                    continue;
                }
                BatchOutcome::Taken => "another record has this id",
                BatchOutcome::Twin => "a person is there whose id differs in case alone",
                BatchOutcome::NoPerson => "the person of the book is not there",
            };
            summary.refused += 1;
            refused.add(record, reason)?;
        }
        Ok(())
    }

    fn batch(&self, checked: Vec<CheckedRecord>) -> WriteBatch {
        match self.kind {
            ImportKind::People => WriteBatch::People(checked.into_iter().map(|one| (one.id, one.document)).collect()),
            ImportKind::Pages => {
                WriteBatch::Pages(checked.into_iter().map(|one| (one.book, one.id, one.document)).collect())
            }
        }
    }
}
