//! The import: many people or pages from a file, in batches of one transaction each.
//!
//! The one rule: an interrupted import is completed by running it again, and nothing is changed twice. Its progress
//! is kept beside the file, and counts only for the same bytes and the same store. A record that already exists in
//! exactly that form counts as unchanged. A record that cannot be stored is written beside the file too, with its
//! line and the reason, and the import continues.

mod check;
mod records;
mod sidecar;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::pin::pin;

use thiserror::Error;

use self::check::CheckedRecord;
use self::records::{ImportRecord, ImportRecords};
use self::sidecar::{RefusedLines, ResumeState, SidecarPurpose};
use super::hashing::HashingThreads;
use super::store::{BatchOutcome, RecordStore, WriteBatch};
use fedgate_base::config::HashesConfig;
use fedgate_base::db::DbError;
use fedgate_base::db::hashes::HashRule;

/// The most records of one transaction.
const BATCH: usize = 500;
/// A batch of this many bytes takes no further record. Memory holds several times as much: the record, the object,
/// and the text for the database, for the batch that is stored and the next one.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// The kind of records to import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    /// Persons.
    People,
    /// Pages of books of life.
    Pages,
}

/// The treatment of a password that is not a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClearPasswords {
    /// The person is refused: clear passwords in a file are more likely a mistake.
    Refuse,
    /// The password is hashed.
    Hash,
}

/// An import to run.
pub struct ImportRun<'a> {
    /// The store that receives the records.
    pub store: &'a RecordStore,
    /// The kind of records.
    pub kind: ImportKind,
    /// The treatment of passwords that are not hashes.
    pub clear_passwords: ClearPasswords,
    /// The kind of hashes to write.
    pub hashes: HashesConfig,
    /// The file's path, beside which progress and refused records are kept. `None` for standard input, which cannot
    /// be resumed; its refused records go to `import.refused.jsonl`.
    pub path: Option<PathBuf>,
    /// Called with the number of bytes read so far.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// The result of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// Records that were stored.
    pub created: u64,
    /// Records that already existed.
    pub unchanged: u64,
    /// Records that could not be stored.
    pub refused: u64,
    /// Records, counted above, that an earlier, interrupted run had processed.
    pub resumed: u64,
}

impl fmt::Display for ImportSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { created, unchanged, refused, resumed } = self;
        write!(f, "{created} created, {unchanged} unchanged, {refused} refused")?;
        match (resumed, created + unchanged + refused) {
            (0, 0) => f.write_str(" (the input has no records)"),
            (0, _) => Ok(()),
            (records, _) => write!(f, " ({records} of them by an earlier run)"),
        }
    }
}

/// Why an import stopped. The next run continues from there.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The database cannot be reached, or refused.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The file, or one beside it, cannot be read or written.
    #[error(
        "`{0}`: {1}; this user must be able to read the file, and to make files beside it, on a disk that has room"
    )]
    File(PathBuf, std::io::Error),
    /// The file ends early, or is not a list of records, from this line on.
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
    /// Reads records from the input and stores them. The input is a JSON array, also of one-element arrays as
    /// Thalamus lists them, or one record a line. If the file is not the one that an earlier run began with, it is
    /// opened a second time.
    ///
    /// # Errors
    /// See [`ImportError`]. Stored records stay, and the next run continues after them.
    pub async fn run<R: BufRead>(&self, open: impl Fn() -> io::Result<R>) -> Result<ImportSummary, ImportError> {
        let open = || open().map(ImportRecords::new).map_err(|error| ImportError::File(self.input_path(), error));
        let purpose = self.purpose().await?;
        let mut records = open()?;
        let mut state = ResumeState::resume(self.path.as_deref(), purpose.clone());
        if state.records > 0 && !self.skip(&mut records, &state)? {
            // The bytes differ from those that an earlier run processed, so its progress does not count.
            records = open()?;
            state = ResumeState::begin(self.path.as_deref(), purpose);
        }
        let mut refused = RefusedLines::following(self.refused_path(), &state)?;
        // Before anything is stored: without these files, a run could neither be resumed nor say what it refused.
        state.try_file()?;
        refused.try_file()?;
        let mut ahead = self.prepare(&mut records).await?;
        while let Some(batch) = ahead {
            let PreparedBatch { origins, checked, faults, hash, bytes } = batch;
            let count = u64::try_from(origins.len() + faults.len()).unwrap_or(u64::MAX);
            let mut storing = pin!(self.store.import(checked));
            // The next batch is parsed while the database stores this one.
            let (mut preparing, mut prepared) = (pin!(self.prepare(&mut records)), None);
            let outcomes = loop {
                tokio::select! {
                    biased;
                    outcomes = &mut storing => break outcomes?,
                    next = &mut preparing, if prepared.is_none() => prepared = Some(next),
                }
            };
            // The order matters: progress is written last, so a crash repeats a batch, which changes nothing, and
            // never skips one. The refused records of that batch are cut off again by the run that repeats it.
            settle(origins, outcomes, faults, &mut state.summary, &mut refused)?;
            let refused_bytes = refused.flush()?;
            state.advance(count, hash, refused_bytes)?;
            (self.progress)(bytes);
            // A fault of the next one stops the import only now, when this one is settled.
            ahead = match prepared {
                Some(next) => next?,
                None => preparing.await?,
            };
        }
        let summary = state.summary;
        state.finish()?;
        Ok(summary)
    }

    /// The file for refused records.
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
        // With another store the old progress would skip records which that store does not have.
        Ok(SidecarPurpose { kind: kind.into(), hash_passwords, store: self.store.id().await? })
    }

    /// Skips the records that an earlier run processed, and returns whether the file begins with the same bytes.
    fn skip(&self, records: &mut ImportRecords<impl BufRead>, state: &ResumeState) -> Result<bool, ImportError> {
        for _ in 0..state.records {
            match self.next(records) {
                Ok(Some(_)) => {}
                Ok(None) | Err(ImportError::Unreadable(..)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        // The hash is compared and not the length: an edited file may have the same length.
        Ok(records.hash() == state.hash)
    }

    fn take_batch(&self, records: &mut ImportRecords<impl BufRead>) -> Result<Vec<ImportRecord>, ImportError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        // At least one record, however long: the bound is checked before each further one.
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

    /// Reads and checks the records of a batch; `None` at the end of the input.
    async fn prepare(&self, records: &mut ImportRecords<impl BufRead>) -> Result<Option<PreparedBatch>, ImportError> {
        let batch = self.take_batch(records)?;
        if batch.is_empty() {
            return Ok(None);
        }
        let (hash, bytes) = (records.hash(), records.bytes());
        let hashing = HashingThreads::new(HashRule::new(self.store.database(), self.hashes));
        let mut origins = Vec::with_capacity(batch.len());
        let mut checked = Vec::with_capacity(batch.len());
        let mut faults: Vec<RecordFaultNote> = vec![];
        for record in batch {
            match check::check(self.kind, self.clear_passwords, &record.bytes, &hashing).await {
                Ok(one) => {
                    origins.push(record);
                    checked.push(one);
                }
                Err(check::RecordFault::Refused(reason)) => {
                    faults.push((record, reason.into()));
                }
                // Nothing of the batch is stored, and the next run repeats it.
                Err(check::RecordFault::Hashing) => return Err(ImportError::Hashing),
            }
            // The batch before this one has to be sent meanwhile.
            tokio::task::yield_now().await;
        }
        Ok(Some(PreparedBatch { origins, checked: self.batch(checked), faults, hash, bytes }))
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

/// A record that is refused, and why.
type RecordFaultNote = (ImportRecord, Cow<'static, str>);

/// A batch that can be stored.
struct PreparedBatch {
    /// The records of `checked`, as they were read.
    origins: Vec<ImportRecord>,
    checked: WriteBatch,
    faults: Vec<RecordFaultNote>,
    /// The hash of the input up to the end of the batch.
    hash: String,
    /// The bytes of the input up to there.
    bytes: u64,
}

/// Counts the records of a batch, and writes down the refused ones.
fn settle(
    origins: Vec<ImportRecord>,
    outcomes: Vec<BatchOutcome>,
    mut faults: Vec<RecordFaultNote>,
    summary: &mut ImportSummary,
    refused: &mut RefusedLines,
) -> Result<(), ImportError> {
    for (record, outcome) in origins.into_iter().zip(outcomes) {
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
            BatchOutcome::Twin => "a person exists whose id differs only in case",
            BatchOutcome::NoPerson => "the person of the book does not exist",
        };
        faults.push((record, reason.into()));
    }
    // In the order of the file, whichever check found the fault.
    faults.sort_by_key(|(record, _)| record.line);
    for (record, reason) in &faults {
        summary.refused += 1;
        refused.add(record, reason)?;
    }
    Ok(())
}
