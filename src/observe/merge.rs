//! Decides which requests have a record of their own, and which are merged.
//!
//! The one rule: the records that anonymous callers can cause are bounded, for one address and for all together, and
//! every request is counted. Authenticated callers are not affected: each of their requests has its own record.
//!
//! A rate is a number per minute, of which five minutes' worth may be used at once (GCRA, ITU-T I.371). Memory is
//! bounded: beyond a number of addresses, the rest are merged as one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::record::{RecordDetail, RequestRecord};
use super::run::{MergedRun, RunPlace};

const MINUTE: Duration = Duration::from_secs(60);
/// How much of a rate may be used at once.
const AT_ONCE: Duration = Duration::from_secs(5 * 60);
/// The most addresses that are tracked separately.
const MOST_SOURCES: usize = 4096;

/// How many requests of anonymous callers have their own record per minute; 0 means no limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordRates {
    /// For one client address (IPv4 address or IPv6 network).
    pub of_source: u32,
    /// For all together.
    pub in_all: u32,
}

/// Merges records.
pub(super) struct RecordMerger {
    rates: RecordRates,
    tables: Mutex<MergeTables>,
}

struct MergeTables {
    /// When the merged records are written.
    closes: Instant,
    refused: MergeTable,
    /// Requests that anybody may send and that need no decision. Apart, so that a flood of them hides no refusal.
    served: MergeTable,
}

struct MergeTable {
    meter: RateMeter,
    sources: HashMap<Option<IpAddr>, MergeSource>,
    /// The run of all requests without room in their own entry or in the common rate.
    others: Option<MergedRun>,
}

struct MergeSource {
    meter: RateMeter,
    run: Option<MergedRun>,
}

/// The use of a rate, as the moment at which it will be unused again.
struct RateMeter(Instant);

impl RateMeter {
    /// The state after one more request, if the rate has room for it.
    fn next(&self, per_minute: u32, now: Instant) -> Option<Self> {
        let every = MINUTE.checked_div(per_minute).unwrap_or_default();
        let next = self.0.max(now) + every;
        (next <= now + AT_ONCE).then_some(Self(next))
    }
}

impl RecordMerger {
    pub(super) fn new(rates: RecordRates) -> Self {
        let now = Instant::now();
        let table = || MergeTable { meter: RateMeter(now), sources: HashMap::new(), others: None };
        let tables = MergeTables { closes: now + MINUTE, refused: table(), served: table() };
        Self { rates, tables: Mutex::new(tables) }
    }

    fn tables(&self) -> MutexGuard<'_, MergeTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run that a request belongs to; none if it has its own record. `is_scarce`: the disk is nearly full.
    /// `is_failing`: it accepts nothing.
    pub(super) fn place(
        &self,
        record: &RequestRecord<'_>,
        is_scarce: bool,
        is_failing: bool,
        now: Instant,
    ) -> Option<RunPlace> {
        let RecordDetail::WithinRate(source) = record.detail else { return None };
        let mut tables = self.tables();
        // By decision: a flood of allowed requests must not use up the records of refusals.
        let table = if record.decision.is_served() { &mut tables.served } else { &mut tables.refused };
        let run = table.run(source, self.rates, is_scarce, now)?;
        Some(run.join(record, is_failing))
    }

    /// The records of merged requests, if they are due, or `at_once`.
    pub(super) fn close(&self, at_once: bool, now: Instant) -> Vec<u8> {
        let mut tables = self.tables();
        if !at_once && now < tables.closes {
            return vec![];
        }
        tables.closes = now + MINUTE;
        let MergeTables { refused, served, .. } = &mut *tables;
        [refused, served].into_iter().flat_map(|table| table.close(now)).flatten().collect()
    }
}

impl MergeTable {
    /// The run that a request from this address is merged into; none if there is room for its own record.
    fn run(
        &mut self,
        source: Option<IpAddr>,
        rates: RecordRates,
        is_scarce: bool,
        now: Instant,
    ) -> Option<&mut MergedRun> {
        let of_all = self.meter.next(rates.in_all, now).filter(|_| !is_scarce);
        // INVARIANT: each use of an address's rate also uses the common rate. So few addresses can exhaust theirs, and
        // cause two more records a minute.
        let (of_source, has_place) = match self.sources.get(&source) {
            _ if is_scarce || rates.of_source == 0 => {
                let Some(of_all) = of_all else { return Some(self.others.get_or_insert_with(|| MergedRun::new(None))) };
                self.meter = of_all;
                return None;
            }
            // A merged address stays merged until its run is closed.
            Some(known) => (known.meter.next(rates.of_source, now).filter(|_| known.run.is_none()), true),
            None => (RateMeter(now).next(rates.of_source, now), self.sources.len() < MOST_SOURCES),
        };
        match (of_source, of_all) {
            // Only an address with a record of its own gets an entry, so that a crowd beyond the common rate takes no
            // entries.
            (Some(meter), Some(of_all)) if has_place => {
                self.meter = of_all;
                self.sources.entry(source).or_insert_with(|| MergeSource { meter: RateMeter(now), run: None }).meter =
                    meter;
                None
            }
            (None, _) => Some(self.sources.get_mut(&source)?.run.get_or_insert_with(|| MergedRun::new(source))),
            (Some(_), _) => Some(self.others.get_or_insert_with(|| MergedRun::new(None))),
        }
    }

    /// Ends every run, and forgets addresses whose rate is unused again.
    fn close(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let runs = self.sources.values_mut().filter_map(|source| source.run.take()).chain(self.others.take());
        let lines = runs.filter_map(|run| run.line()).collect();
        self.sources.retain(|_, source| source.meter.0 > now);
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::{Value, json};

    use super::*;
    use crate::observe::run::merged_id;
    use fedgate_core::assertion::RecordScope;
    use fedgate_core::codes::AnswerCode;
    use fedgate_core::reasons::{RecordDecision, RecordReason};

    const PUBLIC: RecordReason = RecordReason::Admitted(RecordScope::Public);

    fn record(client: &str) -> RequestRecord<'_> {
        let source: IpAddr = client.parse().unwrap();
        let network = match source {
            IpAddr::V4(_) => source,
            IpAddr::V6(address) => std::net::Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        };
        RequestRecord {
            time: SystemTime::UNIX_EPOCH,
            request_id: "r1",
            client_request_id: None,
            client,
            method: "GET",
            path: "/people/ANA",
            account: None,
            roles: &[],
            endpoint: "",
            subject: None,
            same_person: false,
            related: false,
            decision: RecordDecision::Refuse,
            reason: RecordReason::NoCredential,
            lacks: None,
            status: 401,
            duration: Duration::ZERO,
            is_stream: false,
            policy: "p1",
            trace_id: None,
            detail: RecordDetail::WithinRate(Some(network)),
        }
    }

    /// How many have records of their own, including those that open a run, and the ids of the others.
    fn placed(merger: &RecordMerger, record: &RequestRecord<'_>, count: usize, now: Instant) -> (usize, Vec<String>) {
        let mut own = 0;
        let mut merged = vec![];
        for _ in 0..count {
            match merger.place(record, false, false, now) {
                None => own += 1,
                Some(RunPlace::Opens { outcome, .. }) => {
                    own += 1;
                    outcome.send(true).unwrap();
                }
                Some(RunPlace::Counted { id, .. }) => merged.push(id),
            }
        }
        (own, merged)
    }

    fn closed(merger: &RecordMerger, now: Instant) -> Vec<Value> {
        let lines = String::from_utf8(merger.close(true, now)).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn beyond_a_rate_an_address_has_one_record_with_a_count_that_every_id_leads_to() {
        let merger = RecordMerger::new(RecordRates { of_source: 6, in_all: 600 });
        let now = Instant::now();
        let (own, merged) = placed(&merger, &record("192.0.2.1"), 1000, now);
        assert_eq!((own, merged.len()), (31, 969), "five minutes' worth, and the one that opens the run");
        assert_eq!(placed(&merger, &record("192.0.2.2"), 30, now).0, 30, "another address");
        let line = closed(&merger, now);
        assert_eq!(line.len(), 1, "{line:?}");
        let line = &line[0];
        assert_eq!((&line["count"], &line["client.ip"]), (&json!(969), &json!("192.0.2.1")));
        assert_eq!((&line["status"], &line["reason"]), (&json!(401), &json!("no_credential")));
        assert_eq!((&line["path"], &line["reasons"]), (&json!("/people/ANA"), &json!({ "no_credential": 969 })));
        for id in &merged {
            let (ids, number) = merged_id(id).unwrap();
            assert_eq!(line["merged"], ids);
            assert!(number <= merged_id(line["last.id"].as_str().unwrap()).unwrap().1);
        }
        // The rate continues, and so do the requests beyond it.
        let (own, merged) = placed(&merger, &record("192.0.2.1"), 10, now + MINUTE);
        assert_eq!((own, merged.len()), (7, 3));
        assert_eq!(closed(&merger, now + MINUTE)[0]["count"], 3);
    }

    #[test]
    fn many_addresses_are_bounded_together_in_lines_and_in_memory() {
        let merger = RecordMerger::new(RecordRates { of_source: 60, in_all: 600 });
        let now = Instant::now();
        let clients: Vec<String> = (0..20_000u32).map(|number| format!("2001:db8:{:x}:1::7", number)).collect();
        let own: usize = clients.iter().map(|client| placed(&merger, &record(client), 1, now).0).sum();
        assert_eq!(own, 3001);
        assert_eq!(merger.tables().refused.sources.len(), 3000, "who has no record of its own is not remembered");
        let line = closed(&merger, now);
        assert_eq!((line.len(), &line[0]["count"], &line[0]["client.ip"]), (1, &json!(16_999), &json!("")));
        assert_eq!(line[0]["clients"].as_array().unwrap().len(), 16);
        // However much each of them sends.
        let merger = RecordMerger::new(RecordRates { of_source: 1, in_all: 60 });
        let clients: Vec<String> = (0..2000u32).map(|number| format!("2001:db8:{number:x}:1::7")).collect();
        let flood = |now| clients.iter().map(|client| placed(&merger, &record(client), 20, now).0).sum::<usize>();
        let (first, then) = (flood(now), closed(&merger, now).len());
        assert!(first <= 300 + 60 + 1 && then <= 61, "{first} {then}");
        let (first, then) = (flood(now + MINUTE), closed(&merger, now + MINUTE).len());
        assert!(first <= 60 + 60 + 1 && then <= 61, "{first} {then}");
        // For one IPv6 network, whatever addresses it uses.
        let merger = RecordMerger::new(RecordRates { of_source: 60, in_all: 0 });
        let clients: Vec<String> = (0..1000u32).map(|number| format!("2001:db8::{number:x}")).collect();
        let own: usize = clients.iter().map(|client| placed(&merger, &record(client), 1, now).0).sum();
        assert_eq!((own, &closed(&merger, now)[0]["client.ip"]), (301, &json!("2001:db8::/64")));
        merger.close(true, now + 2 * AT_ONCE);
        assert!(merger.tables().refused.sources.is_empty());
    }

    #[test]
    fn what_must_have_a_record_has_one_and_what_is_served_hides_no_refusal() {
        let merger = RecordMerger::new(RecordRates { of_source: 1, in_all: 1 });
        let now = Instant::now();
        let refused = record("192.0.2.1");
        let known =
            RequestRecord { detail: RecordDetail::Always, decision: RecordDecision::Deny, status: 403, ..refused };
        assert_eq!(placed(&merger, &known, 1000, now).0, 1000);
        let served = RequestRecord { decision: RecordDecision::Allow, reason: PUBLIC, status: 0, ..refused };
        assert_eq!(placed(&merger, &served, 100, now).1.len(), 94);
        assert_eq!(placed(&merger, &refused, 1, now).0, 1);
        let unbounded = RecordMerger::new(RecordRates::default());
        assert_eq!(placed(&unbounded, &refused, 1000, now).0, 1000);
        // A limit that is off is off for any number of addresses.
        let clients: Vec<String> = (0..10_000u32).map(|number| format!("2001:db8:{number:x}:1::7")).collect();
        let own: usize = clients.iter().map(|client| placed(&unbounded, &record(client), 2, now).0).sum();
        assert_eq!((own, unbounded.tables().refused.sources.len()), (20_000, 0));
        let scarce = merger.place(&record("192.0.2.3"), true, false, now);
        assert!(matches!(scarce, Some(RunPlace::Opens { .. })), "on a disk that is nearly full, all are one");
    }

    #[test]
    fn a_run_that_did_not_begin_on_disk_begins_again_once_the_disk_works() {
        let mut run = MergedRun::new(None);
        let opens = |joined: RunPlace| match joined {
            RunPlace::Opens { outcome, ids, .. } => (outcome, ids),
            RunPlace::Counted { .. } => panic!("merged"),
        };
        let counted = |joined: RunPlace| match joined {
            RunPlace::Counted { opened, .. } => opened,
            RunPlace::Opens { .. } => panic!("begun"),
        };
        let (outcome, ids) = opens(run.join(&record("192.0.2.1"), false));
        let waits = counted(run.join(&record("192.0.2.1"), false));
        outcome.send(false).unwrap();
        assert_eq!(futures_util::FutureExt::now_or_never(waits), Some(Ok(false)));
        drop(counted(run.join(&record("192.0.2.1"), true)));
        let (outcome, again) = opens(run.join(&record("192.0.2.1"), false));
        assert_eq!(ids, again);
        drop(outcome);
        opens(run.join(&record("192.0.2.1"), false)).0.send(true).unwrap();
        drop(counted(run.join(&record("192.0.2.1"), false)));
        let line: Value = serde_json::from_slice(&run.line().unwrap()).unwrap();
        assert_eq!(line["count"], 3);
    }

    #[test]
    fn a_merged_record_is_bounded_and_names_what_differs() {
        let mut run = MergedRun::new(Some("192.0.2.1".parse().unwrap()));
        let accounts: Vec<String> = (0..40).map(|number| "😀".repeat(60) + &number.to_string()).collect();
        let mut reasons: Vec<AnswerCode> = AnswerCode::ALL.to_vec();
        reasons.dedup_by_key(|answer| answer.code());
        for number in 0..40 {
            let (account, path) = (accounts[number].as_str(), "\0".repeat(4000));
            let record = record("192.0.2.1");
            let record =
                RequestRecord { account: Some(account), path: &path, reason: reasons[number * 2].into(), ..record };
            if let RunPlace::Opens { outcome, .. } = run.join(&record, false) {
                outcome.send(true).unwrap();
            }
        }
        let line = run.line().unwrap();
        assert!(line.len() <= 16 * 1024, "{}", line.len());
        let line: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&line["reason"], &line["path"], &line["account"]), (&json!("merged"), &json!(""), &Value::Null));
        assert!(line["accounts"].as_array().is_some_and(|named| !named.is_empty()) && line["count"] == 39);
        assert_eq!(line["reasons"].as_object().unwrap().len(), 39);
    }
}
