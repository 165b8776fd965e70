//! The section `[records]`.

use std::path::PathBuf;

use serde::Deserialize;

use super::check::ValueCheck;
use super::error::ConfigError;
use super::section::section;

/// The output of records besides stdout.
#[derive(Debug, Clone)]
pub struct RecordsConfig {
    /// The file to which they are appended.
    pub file: Option<PathBuf>,
    /// Whether stdout gets a copy of each record, besides the file.
    pub stdout: bool,
    /// Whether the records of refusals and writes are on disk before the client is answered.
    pub durable: bool,
    /// How many requests of anonymous callers at one client address have their own record per minute; 0 means no
    /// limit.
    pub anonymous_of_source_per_minute: u32,
    /// The same for all client addresses together.
    pub anonymous_per_minute: u32,
    /// If fewer bytes are free on the file's disk, all anonymous callers share one record.
    pub reserve_bytes: u64,
}

section!(RecordsSection {
    file: String = String::new(),
    stdout: bool = true,
    durable: bool = true,
    anonymous_of_source_per_minute: u32 = 60,
    anonymous_per_minute: u32 = 600,
    reserve_mib: u64 = 64,
});

impl RecordsSection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> Result<RecordsConfig, ConfigError> {
        // Some output must be left: a gateway without records would leave no trace of what it admitted.
        if !self.stdout && self.file.is_empty() {
            let remedy = "name a file in `records.file`, or leave the key out";
            return Err(check.fault("records.stdout", "is false, and nothing else keeps records", remedy));
        }
        Ok(RecordsConfig {
            file: check.optional_path(&self.file),
            stdout: self.stdout,
            durable: self.durable,
            anonymous_of_source_per_minute: self.anonymous_of_source_per_minute,
            anonymous_per_minute: self.anonymous_per_minute,
            reserve_bytes: self.reserve_mib.saturating_mul(1024 * 1024),
        })
    }
}
