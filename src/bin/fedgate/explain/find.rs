//! Finds the records of an id: those of the request with this id, of requests whose clients chose it, and of merged
//! requests.
//!
//! The one rule: every record of an id is found, and is shown with the reason why it belongs to the id. Files of any
//! size are read line by line. An incomplete line is no record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use fedgate::observe::merged_id;
use fedgate_core::policy::OwnIds;
use serde::Deserialize;

use super::open::RecordLines;

/// Most records that are reported; a client may give all of its requests one id.
const MOST_FOUND: usize = 10_000;

/// The members of a record that are used; the others are left unread.
#[derive(Deserialize)]
pub(super) struct FoundLine {
    pub(super) time: String,
    #[serde(rename = "request.id")]
    pub(super) request_id: String,
    #[serde(rename = "client.request_id")]
    client_request_id: Option<String>,
    #[serde(rename = "client.ip", default)]
    pub(super) client: String,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) account: Option<String>,
    #[serde(default)]
    pub(super) roles: Vec<String>,
    /// Set if the policy was asked about the request.
    pub(super) endpoint: Option<String>,
    #[serde(rename = "subject.id")]
    pub(super) subject: Option<String>,
    /// Whether the store named the subject as the account's own person then.
    #[serde(rename = "subject.same_person", default)]
    pub(super) same_person: bool,
    /// Whether the subject is a person to whom the caller was related.
    #[serde(rename = "subject.related", default)]
    pub(super) related: bool,
    pub(super) decision: String,
    pub(super) reason: String,
    pub(super) lacks: Option<String>,
    pub(super) status: u16,
    #[serde(default)]
    pub(super) policy: String,
    #[serde(default)]
    pub(super) cut: Vec<String>,
    /// The beginning of the ids of the requests that this record stands for, or that follow it.
    merged: Option<String>,
    /// The number of requests that this record stands for.
    pub(super) count: Option<u64>,
    pub(super) until: Option<String>,
    #[serde(rename = "last.id")]
    last_id: Option<String>,
    #[serde(default)]
    pub(super) reasons: BTreeMap<String, u64>,
}

/// Why a record belongs to an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedBy {
    /// The request has this id.
    Own,
    /// The client chose it.
    ByClient,
    /// A merged record whose requests include the one with this id.
    Merged,
    /// The request after which the merging began that includes this id.
    Before,
    /// A merged record of the same run whose ids end before this one.
    Beyond,
}

/// A record of an id.
pub(super) struct FoundRecord {
    pub(super) line: String,
    /// The file that has it.
    pub(super) file: PathBuf,
    pub(super) record: FoundLine,
    pub(super) named: NamedBy,
    /// Whether a later record of the same request replaces it.
    pub(super) is_superseded: bool,
}

/// The result of a search.
#[derive(Default)]
pub(super) struct SearchResult {
    /// In the order of writing.
    pub(super) found: VecDeque<FoundRecord>,
    /// The number of earlier records that were left out.
    pub(super) left_out: usize,
    /// The files that could not be read completely, and why.
    pub(super) unread: Vec<String>,
}

/// The files to read, in order.
pub(super) struct RecordFiles {
    pub(super) paths: Vec<PathBuf>,
    /// Whether the operator has named each of them.
    pub(super) are_named: bool,
}

impl FoundLine {
    /// The ids beside the account's whose records were its own, as far as the request was about one.
    fn same(&self) -> &[String] {
        match (&self.subject, self.same_person) {
            (Some(subject), true) => std::slice::from_ref(subject),
            _ => &[],
        }
    }

    /// The caller's ids as they counted, as far as the request was about one.
    pub(super) fn own<'a>(&'a self, account: &'a str) -> OwnIds<'a> {
        let related = match (&self.subject, self.related) {
            (Some(subject), true) => std::slice::from_ref(subject),
            _ => &[],
        };
        OwnIds::new(account, self.same()).with_related(related)
    }

    fn named(&self, id: &str) -> Option<NamedBy> {
        let merged = merged_id(id).filter(|(ids, _)| self.merged.as_deref() == Some(*ids));
        let is_within =
            |number: u64| self.last_id.as_deref().and_then(merged_id).is_some_and(|(_, last)| number <= last);
        match (merged, self.count) {
            _ if self.request_id == id => Some(NamedBy::Own),
            (Some((_, number)), Some(_)) if is_within(number) => Some(NamedBy::Merged),
            (Some(_), Some(_)) => Some(NamedBy::Beyond),
            (Some(_), None) => Some(NamedBy::Before),
            _ if self.client_request_id.as_deref() == Some(id) => Some(NamedBy::ByClient),
            _ => None,
        }
    }
}

/// All records of an id in these files, which are read in this order.
///
/// # Errors
/// A named file cannot be read. A file that was found beside another is only reported in the result.
pub(super) fn find(files: &RecordFiles, id: &str) -> anyhow::Result<SearchResult> {
    let mut finding = SearchResult::default();
    for file in &files.paths {
        let fault = match read(file, id, &mut finding) {
            Ok(()) => continue,
            Err(fault) => fault,
        };
        if files.are_named || files.paths.last() == Some(file) {
            return Err(fault).with_context(|| format!("{}: cannot be read", file.display()));
        }
        finding.unread.push(format!("{} ({fault})", file.display()));
    }
    // A request that began the merging has its own record. That record helps for other ids only if no merged record
    // covers them.
    let in_order = [NamedBy::Own, NamedBy::Merged, NamedBy::Beyond, NamedBy::Before];
    if let Some(best) = in_order.iter().find(|best| finding.found.iter().any(|found| found.named == **best)) {
        finding.found.retain(|found| found.named == *best || found.named == NamedBy::ByClient);
    }
    finding.found.retain(|found| found.named != NamedBy::Beyond);
    // Of several records of one request, the last one counts.
    let mut later = BTreeSet::new();
    for found in finding.found.iter_mut().rev() {
        found.is_superseded = !later.insert(found.record.request_id.clone());
    }
    Ok(finding)
}

fn read(file: &Path, id: &str, finding: &mut SearchResult) -> anyhow::Result<()> {
    // Records do not contain the ids of merged requests, only their beginning.
    let word = merged_id(id).map_or(id, |(ids, _)| ids);
    let escaped = serde_json::to_string(word)?;
    let escaped = escaped.trim_matches('"');
    let (mut lines, mut line) = (RecordLines::open(file)?, Vec::new());
    while lines.next(&mut line)? {
        let line = String::from_utf8_lossy(&line);
        if !line.contains(escaped) {
            continue;
        }
        let Ok(record) = serde_json::from_str::<FoundLine>(&line) else { continue };
        let Some(named) = record.named(id) else { continue };
        if finding.found.len() == MOST_FOUND {
            finding.found.pop_front();
            finding.left_out += 1;
        }
        finding.found.push_back(FoundRecord {
            line: line.into_owned(),
            file: file.to_owned(),
            record,
            named,
            is_superseded: false,
        });
    }
    Ok(())
}

/// The file and its rotated files beside it (`records.jsonl.1`, `records.jsonl-20261129.gz`), the oldest first.
pub(super) fn with_rotated(file: &Path) -> Vec<PathBuf> {
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_rotated = |other: &OsStr| {
        other.as_encoded_bytes().strip_prefix(name).is_some_and(|rest| matches!(rest.first(), Some(b'.' | b'-')))
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut rotated: Vec<(SystemTime, PathBuf)> = entries
        .filter(|entry| is_rotated(&entry.file_name()))
        .filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(|metadata| metadata.is_file())?;
            Some((metadata.modified().ok()?, entry.path()))
        })
        .collect();
    rotated.sort();
    let mut files: Vec<_> = rotated.into_iter().map(|(_, path)| path).collect();
    // The file may just have been moved away, with nothing written since.
    if files.is_empty() || file.exists() {
        files.push(file.to_owned());
    }
    files
}
