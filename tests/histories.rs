//! Histories of the message server: seeded writers, readers and faults, and a checker that knows the log alone.
//!
//! A history has four writers, who also merge people and end merges, four readers, two processes of fedhis, an
//! instance in the test's process, and faults all the while. When everything has ended, the checker compares what
//! writers know, what readers saw and the records of people. Each history is given by its seed and its store.
//! `FEDGATE_TEST_HISTORIES` is how many there are on each store, and `FEDGATE_TEST_SEED` the seed of the first.

#[path = "histories/checker.rs"]
mod checker;
#[path = "histories/checker_tests.rs"]
mod checker_tests;
#[path = "histories/faults.rs"]
mod faults;
#[path = "histories/log.rs"]
mod log;
#[path = "histories/readers.rs"]
mod readers;
#[path = "histories/spoiled.rs"]
mod spoiled;
#[path = "histories/stage.rs"]
mod stage;
#[path = "histories/writers.rs"]
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;

use crate::support::postgres::Cluster;
use crate::support::{root, wanted};
use faults::HubFault;
use log::{HistoryLog, Write, WriteOutcome, WrittenChange};
use readers::{GOES_ON, Reader};
use stage::{Servers, Stage};
use writers::{PEOPLE, Writer};

/// Histories on each store, without `FEDGATE_TEST_HISTORIES`.
const HISTORIES: u64 = 2;
const WRITERS: usize = 4;
/// Writes of each writer.
const WRITES: usize = 25;
/// Of so many histories on PostgreSQL one ends on a standby that was promoted.
const PROMOTED: u64 = 4;

#[test]
fn nothing_is_lost_doubled_reordered_or_shown_without_the_right_on_sqlite() {
    let mut sum = HistorySum::default();
    for seed in seeds() {
        sum.add(seed, &Servers::Sqlite);
    }
    println!("histories on SQLite: {sum:?}");
}

#[test]
fn nothing_is_lost_doubled_reordered_or_shown_without_the_right_on_postgresql() {
    let mut sum = HistorySum::default();
    let mut cluster = None;
    for (number, seed) in seeds().enumerate() {
        if number as u64 % PROMOTED == 1 {
            let primary = Cluster::start();
            let standby = primary.synchronous_standby();
            sum.add(seed, &Servers::Pair(&primary, &standby));
        } else {
            sum.add(seed, &Servers::Single(cluster.get_or_insert_with(Cluster::start)));
        }
    }
    println!("histories on PostgreSQL: {sum:?}");
}

fn seeds() -> impl Iterator<Item = u64> {
    let first: u64 = wanted("FEDGATE_TEST_SEED", rand::random::<u32>().into());
    println!("histories: FEDGATE_TEST_SEED={first}");
    (0..wanted("FEDGATE_TEST_HISTORIES", HISTORIES)).map(move |number| first + number)
}

/// What there was in the histories of a run.
#[derive(Debug, Default)]
struct HistorySum {
    histories: usize,
    acknowledged: usize,
    failed: usize,
    unknown: usize,
    messages: usize,
    seen: usize,
    faults: BTreeMap<HubFault, usize>,
    took: Duration,
}

impl HistorySum {
    /// Runs one history, and fails if it breaks a law.
    fn add(&mut self, seed: u64, servers: &Servers<'_>) {
        let began = Instant::now();
        let runtime = Runtime::new().unwrap();
        let (log, faults) = runtime.block_on(run(seed, servers));
        runtime.shutdown_timeout(Duration::from_secs(1));
        let broken = checker::check(&log);
        let count = |outcome| checker::count(&log, outcome);
        assert!(broken.is_empty(), "seed {seed}, {faults:?}: {broken:#?}");
        assert!(count(WriteOutcome::Acknowledged) > WRITERS, "seed {seed}, {faults:?}: there were writes");
        self.histories += 1;
        self.acknowledged += count(WriteOutcome::Acknowledged);
        self.failed += count(WriteOutcome::Failed);
        self.unknown += count(WriteOutcome::Unknown);
        self.messages += log.order.len();
        self.seen += log.readers.iter().map(|reader| reader.seen.len()).sum::<usize>();
        faults.into_iter().for_each(|(fault, count)| *self.faults.entry(fault).or_default() += count);
        self.took += began.elapsed();
    }
}

async fn run(seed: u64, servers: &Servers<'_>) -> (HistoryLog, BTreeMap<HubFault, usize>) {
    let random = |who: u64| StdRng::seed_from_u64(seed ^ (who << 32));
    let stage = Arc::new(Stage::set(servers).await);
    let mut writes = people(&stage).await;
    let (stop, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(GOES_ON)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| Writer::new(format!("W{number}X"), random(number as u64 + 1), Arc::clone(&stage)))
        .map(|writer| tokio::spawn(writer.write(WRITES)))
        .collect();
    let reader = |name, who, person| Reader::new(name, random(who), Arc::clone(&stage), person);
    let mut readers = vec![reader("all", 11, None), reader("all too", 12, None), reader("own", 13, Some(PEOPLE[0]))];
    readers.push(reader("new", 14, None));
    if let Some(new) = readers.last_mut() {
        new.begin_at_last().await;
    }
    let readers: Vec<_> = readers.into_iter().map(|reader| tokio::spawn(reader.read(Arc::clone(&last)))).collect();
    let faults = async {
        let faults = faults::inject(&stage, servers, random(21), Arc::clone(&stop)).await;
        (faults, ())
    };
    let written = async {
        let mut written = vec![];
        for writer in writers {
            written.extend(writer.await.unwrap());
        }
        stop.store(true, Ordering::SeqCst);
        written
    };
    let ((faults, ()), written) = tokio::join!(faults, written);
    writes.extend(written);
    last.store(stage.settled().await, Ordering::SeqCst);
    let mut logs = vec![];
    for reader in readers {
        logs.push(reader.await.unwrap());
    }
    let order = readers::all(&stage).await;
    let records = readers::records(&stage, &order).await;
    (HistoryLog { writes, readers: logs, order, records }, faults)
}

/// The people whom writers write about.
async fn people(stage: &Stage) -> Vec<Write> {
    let mut writes = vec![];
    for person in PEOPLE {
        let change = WrittenChange {
            key: log::mark_key("person", Some(person), person),
            resource: "person",
            person: Some(person.into()),
            begun: stage.clock.now(),
        };
        let body = format!(r#"{{"w":"{person}","n":0}}"#);
        let reply = stage.his.post(&root(), &format!("/people/{person}"), body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        writes.push(Write { changes: vec![change], ended: stage.clock.now(), outcome: WriteOutcome::Acknowledged });
    }
    writes
}
