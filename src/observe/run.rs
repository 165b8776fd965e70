//! Runs: many requests that share one record.
//!
//! The one rule: each merged request has an id that leads to the record. All ids of a run have the same beginning,
//! which the record states, so no id has to be stored. The first request of a run has its own record, which says that
//! later ones are merged. That record is on disk before any of them is answered.
//!
//! A merged record states what all its requests have in common, and counts where they differ.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use futures_util::FutureExt;
use futures_util::future::Shared;
use tokio::sync::oneshot;

use super::line::{MAX_PATH, RecordLine};
use super::record::RequestRecord;

/// How many characters the ids of a run share. The rest of the 32 characters is a number.
const SHARED: usize = 20;
/// The most accounts and the most addresses that a run names.
const MOST_NAMED: usize = 16;
/// The most reasons that are counted separately; all existing reasons fit.
const MOST_REASONS: usize = 48;

/// Whether a record was kept, for all that wait for it.
pub(super) type AwaitedRecord = Shared<oneshot::Receiver<bool>>;

/// The beginning of the ids of the run that a request id may belong to, and its number, if it has that form.
pub fn merged_id(id: &str) -> Option<(&str, u64)> {
    let is_hex = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (ids, number) = id.split_at_checked(SHARED).filter(|_| is_hex && id.len() == 32)?;
    Some((ids, u64::from_str_radix(number, 16).ok()?))
}

/// The place of a request in a run.
pub(super) enum RunPlace {
    /// It opens the run: it has its own record under this id, and reports to the sender when that is kept.
    Opens { id: String, ids: String, outcome: oneshot::Sender<bool>, opened: AwaitedRecord },
    /// It is merged under this id. It may be answered once the run's first record is kept.
    Counted { id: String, opened: AwaitedRecord },
}

/// A text that all requests have in common, if they do.
#[derive(Default)]
enum SameText {
    #[default]
    None,
    All(String),
    Various,
}

impl SameText {
    fn take(&mut self, text: &str) {
        match self {
            Self::None if text.len() <= MAX_PATH => *self = Self::All(text.to_owned()),
            Self::All(known) if known == text => {}
            Self::None | Self::All(_) | Self::Various => *self = Self::Various,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::All(text) => Some(text),
            Self::None | Self::Various => None,
        }
    }
}

/// Requests that are being merged.
pub(super) struct MergedRun {
    ids: String,
    /// The number of the last assigned id.
    last: u64,
    opened: Option<AwaitedRecord>,
    /// The address or network of all the requests; none if they come from several.
    source: Option<IpAddr>,
    count: u64,
    times: Option<(SystemTime, SystemTime)>,
    client: SameText,
    method: SameText,
    path: SameText,
    account: SameText,
    decision: SameText,
    reason: SameText,
    status: Option<u16>,
    reasons: BTreeMap<String, u64>,
    accounts: Vec<String>,
    clients: Vec<String>,
}

impl MergedRun {
    pub(super) fn new(source: Option<IpAddr>) -> Self {
        let random = format!("{:032x}", rand::random::<u128>());
        Self {
            ids: random.chars().take(SHARED).collect(),
            last: 0,
            opened: None,
            source,
            count: 0,
            times: None,
            client: SameText::None,
            method: SameText::None,
            path: SameText::None,
            account: SameText::None,
            decision: SameText::None,
            reason: SameText::None,
            status: None,
            reasons: BTreeMap::new(),
            accounts: vec![],
            clients: vec![],
        }
    }

    /// Adds one more request. While the disk fails, no run is opened again: the first record of the current one waits
    /// to be written.
    pub(super) fn join(&mut self, record: &RequestRecord<'_>, is_failing: bool) -> RunPlace {
        self.last += 1;
        let id = self.id(self.last);
        // A run whose first record was lost is opened again: otherwise the ids of its requests would lead nowhere.
        let is_open = self.opened.as_ref().is_some_and(|opened| match opened.clone().now_or_never() {
            None | Some(Ok(true)) => true,
            Some(Ok(false) | Err(_)) => is_failing,
        });
        match self.opened.clone().filter(|_| is_open) {
            Some(opened) => {
                self.tally(record);
                RunPlace::Counted { id, opened }
            }
            None => {
                let (outcome, opened) = oneshot::channel();
                let opened = opened.shared();
                self.opened = Some(opened.clone());
                RunPlace::Opens { id, ids: self.ids.clone(), outcome, opened }
            }
        }
    }

    fn id(&self, number: u64) -> String {
        format!("{}{number:012x}", self.ids)
    }

    fn tally(&mut self, record: &RequestRecord<'_>) {
        self.count += 1;
        let (first, last) = self.times.unwrap_or((record.time, record.time));
        self.times = Some((first.min(record.time), last.max(record.time)));
        self.status = match (self.count, self.status) {
            (1, _) => Some(record.status),
            (_, known) => known.filter(|known| *known == record.status),
        };
        self.client.take(record.client);
        self.method.take(record.method);
        self.path.take(record.path);
        self.account.take(record.account.unwrap_or_default());
        let reason = record.reason.as_str();
        self.decision.take(record.decision.as_str());
        self.reason.take(reason);
        let is_counted = self.reasons.contains_key(reason) || self.reasons.len() < MOST_REASONS;
        // Bounded, because the reasons are part of one record.
        let reason = if is_counted { reason } else { "other" };
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
        sample(&mut self.accounts, record.account);
        sample(&mut self.clients, Some(record.client).filter(|_| self.source.is_none()));
    }

    /// The record of all merged requests, if there are any.
    pub(super) fn line(&self) -> Option<Vec<u8>> {
        let (first, last) = self.times?;
        let mut line = RecordLine::begin();
        line.time("time", first);
        line.text("request.id", &self.id(0));
        let network = || match self.source {
            Some(source @ IpAddr::V6(_)) => format!("{source}/64"),
            Some(source) => source.to_string(),
            None => String::new(),
        };
        line.text("client.ip", &self.client.text().map_or_else(network, str::to_owned));
        line.text("method", self.method.text().unwrap_or_default());
        line.text_within("path", self.path.text().unwrap_or_default(), MAX_PATH);
        let account = self.account.text();
        if let Some(account) = account.filter(|account| !account.is_empty()) {
            line.text("account", account);
        }
        line.text("decision", self.decision.text().unwrap_or("refuse"));
        line.text("reason", self.reason.text().unwrap_or("merged"));
        line.number("status", self.status.unwrap_or_default().into());
        line.text("merged", &self.ids);
        line.number("count", self.count);
        line.time("until", last);
        line.text("last.id", &self.id(self.last));
        line.counts("reasons", self.reasons.iter().map(|(reason, count)| (reason.as_str(), *count)));
        if account.is_none() {
            line.list("accounts", &self.accounts);
        }
        if !self.clients.is_empty() {
            line.list("clients", &self.clients);
        }
        Some(line.end())
    }
}

/// Keeps the first few different values.
fn sample(samples: &mut Vec<String>, text: Option<&str>) {
    let Some(text) = text.filter(|text| !text.is_empty() && text.len() <= 256) else { return };
    if samples.len() < MOST_NAMED && !samples.iter().any(|known| known == text) {
        samples.push(text.to_owned());
    }
}
