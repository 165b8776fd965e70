//! Records: lines of JSON on stdout or in a file, and the metrics.
//!
//! The one rule: each request is in a record, whether it is allowed, refused or failed. Beyond a rate, one record
//! stands for many requests of anonymous callers (`merge`). If a request has several records, because a disk failed or
//! an answer was not sent, the last one counts. The only personal data of a record are ids and client addresses.
//! Untrusted text is escaped (JSON escapes, and characters that terminals or line readers obey) and bounded.
//!
//! A separate thread writes the lines to a file, or to stdout if there is none. A caller can wait until a record is on
//! disk, or accepted by stdout ([`RequestRecorder::keep`]); one synchronization serves all callers that wait at the
//! time. Where answers wait for their records, they wait at most 5 s for a disk or reader that does not answer.
//! Waiting never blocks a serving thread.

mod account_change;
mod journal;
mod line;
mod merge;
mod metrics;
mod record;
mod run;
mod stdout;
mod writer;

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::Builder;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use account_change::AccountChangeLine;
use journal::RecordJournal;
use merge::RecordMerger;
pub use merge::RecordRates;
pub use metrics::{ConnectionMetrics, GatewayMetrics, OpenConnection, RecordMetrics, UpstreamMetrics};
pub use record::{RecordDetail, RequestRecord};
pub use run::merged_id;
use run::{AwaitedRecord, RunPlace};
use stdout::{RecordStdout, StdoutPrinter};
use writer::{LineKeeper, RecordWriter, WriterEntry, WriterState};

/// The most records that wait to be written.
const QUEUE: usize = 32 * 1024;
/// The longest time that the disk, or the reader of stdout, may take for a record.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// The recorder. Clones share one writer and one set of metrics.
#[derive(Clone)]
pub struct RequestRecorder {
    queue: Sender<WriterEntry>,
    metrics: Arc<GatewayMetrics>,
    state: Arc<WriterState>,
    merger: Arc<RecordMerger>,
    has_file: bool,
}

/// The destination of records, and their rates.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordKeeping<'a> {
    /// The file; none means only stdout.
    pub file: Option<&'a Path>,
    /// Whether stdout gets a copy of each record, in addition to a file.
    pub stdout: bool,
    /// Whether answers wait until their records are on disk, or accepted by stdout if there is no file.
    pub answers_wait: bool,
    /// How many records anonymous callers may cause.
    pub rates: RecordRates,
    /// Bytes that are kept free for the records of authenticated callers.
    pub reserve_bytes: u64,
}

/// Reserved room for one record.
pub struct RecordRoom(OwnedPermit<WriterEntry>);

/// Whether a record was kept, as soon as that is known.
pub struct KeptRecord {
    outcome: AwaitedRecord,
    request_id: Option<String>,
}

impl KeptRecord {
    /// The id by which the request is found, if it is another one because the request was merged.
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }
}

impl Future for KeptRecord {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        self.outcome.poll_unpin(cx).map(|kept| kept.unwrap_or(false))
    }
}

/// Checks whether records can be written to a file as a gateway would, without leaving a new file behind.
///
/// # Errors
/// They cannot: no right, no room, or no regular file where durability is required.
pub fn try_file(path: &Path, durable: bool) -> io::Result<()> {
    journal::try_out(path, durable)
}

/// The free bytes on the disk of a file, or of its directory if it does not exist yet; none if they are unknown.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let place = if path.exists() { path } else { path.parent()? };
    let metadata = std::fs::metadata(place).ok()?;
    let has_disk = metadata.is_file() || metadata.is_dir();
    let disk = rustix::fs::statvfs(place).ok().filter(|_| has_disk)?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

impl RequestRecorder {
    /// Starts the thread that appends to the file and to stdout.
    ///
    /// # Errors
    /// The file cannot be opened, or the operating system provides no thread.
    pub fn start(keeping: RecordKeeping<'_>) -> io::Result<Self> {
        let keeper = match keeping.file {
            None => LineKeeper::Stdout(RecordStdout::open()?),
            Some(path) => {
                let journal = RecordJournal::open(path, keeping.answers_wait).map_err(|error| {
                    let remedy = "`records.file` must name a file that can be written";
                    io::Error::new(error.kind(), format!("{}: {error}; {remedy}", path.display()))
                });
                LineKeeper::File(journal?, keeping.stdout.then(StdoutPrinter::start).transpose()?)
            }
        };
        Self::with(keeper, keeping)
    }

    fn with(keeper: LineKeeper, keeping: RecordKeeping<'_>) -> io::Result<Self> {
        let RecordKeeping { file, stdout: _, answers_wait, rates, reserve_bytes } = keeping;
        let (sender, receiver) = channel(QUEUE);
        let state = Arc::new(WriterState::new(answers_wait));
        let metrics = Arc::new(GatewayMetrics::new().map_err(io::Error::other)?);
        let merger = Arc::new(RecordMerger::new(rates));
        let writer =
            RecordWriter::new(keeper, Arc::clone(&state), Arc::clone(&metrics), Arc::clone(&merger), reserve_bytes);
        let runtime = Builder::new_current_thread().enable_time().build()?;
        thread::Builder::new().name("records".into()).spawn(move || runtime.block_on(writer.run(receiver)))?;
        Ok(Self { queue: sender, metrics, state, merger, has_file: file.is_some() })
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<GatewayMetrics> {
        &self.metrics
    }

    /// Whether records must be on disk before their answers are sent.
    pub fn is_durable(&self) -> bool {
        self.state.answers_wait && self.has_file
    }

    /// Whether answers wait for their records: on disk, or accepted by stdout if there is no file.
    pub fn answers_wait(&self) -> bool {
        self.state.answers_wait
    }

    /// Whether nothing may be served, because it could not be recorded.
    pub fn refuses(&self) -> bool {
        self.state.answers_wait && self.state.is_failing()
    }

    /// Why records cannot be written now; none if they can.
    pub fn fault(&self) -> Option<String> {
        self.state.fault()
    }

    /// Whether the disk is so full that anonymous callers have no records of their own.
    pub fn is_scarce(&self) -> bool {
        self.state.is_scarce()
    }

    /// Merges a request with others if it must be merged, which gives it another id. Does not count it.
    pub fn merge(&self, record: &RequestRecord<'_>) -> Option<KeptRecord> {
        let failing = self.state.is_failing();
        match self.merger.place(record, self.is_scarce(), failing, Instant::now())? {
            RunPlace::Counted { id, opened } => {
                self.metrics.records.merged.inc();
                Some(KeptRecord { outcome: opened, request_id: Some(id) })
            }
            RunPlace::Opens { id, ids, outcome, opened } => {
                let line = RequestRecord { request_id: &id, ..*record }.line(Some(&ids));
                if self.queue.try_send(WriterEntry::Awaited(line, outcome)).is_err() {
                    // The next request opens the run again.
                    self.metrics.records.lost.inc();
                }
                self.state.hurry();
                Some(KeptRecord { outcome: opened, request_id: Some(id) })
            }
        }
    }

    /// Counts and writes one record. The returned future waits for room while no fault is known.
    pub fn record(
        &self,
        record: &RequestRecord<'_>,
        room: Option<RecordRoom>,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.count(record);
        let full = match (self.merge(record), room) {
            (Some(_), _) => None,
            (None, Some(RecordRoom(room))) => {
                drop(room.send(WriterEntry::Line(record.line(None))));
                None
            }
            (None, None) => self.queue.try_send(WriterEntry::Line(record.line(None))).err(),
        };
        if self.queue.capacity() < QUEUE / 2 {
            self.state.hurry();
        }
        // The writer should live as long as the process.
        if let Some(TrySendError::Closed(_)) = full {
            self.state.becomes(Some("the thread that writes records has ended".to_owned()));
        }
        let recorder = full.is_some().then(|| self.clone());
        async move {
            let (Some(TrySendError::Full(entry)), Some(recorder)) = (full, recorder) else { return };
            match recorder.state.answers_wait {
                false => drop(recorder.queue.send(entry).await),
                true if recorder.refuses() => recorder.metrics.records.lost.inc(),
                true => {
                    if timeout(DISK_TIMEOUT, recorder.queue.send(entry)).await.is_err() {
                        recorder.metrics.records.lost.inc();
                        recorder.stalled();
                    }
                }
            }
        }
    }

    /// Reserves room for the record of an action before it begins; none if nothing more can be recorded.
    pub fn room(&self) -> Option<RecordRoom> {
        self.queue.clone().try_reserve_owned().ok().map(RecordRoom)
    }

    /// Counts and writes one record, and reports whether it was kept, if answers wait for that. It never waits for
    /// room: without reserved room, a record may be lost.
    pub fn keep(&self, record: &RequestRecord<'_>, room: Option<RecordRoom>) -> KeptRecord {
        self.count(record);
        if let Some(merged) = self.merge(record) {
            return merged;
        }
        let (sender, receiver) = oneshot::channel();
        // A dropped sender reports `false`: a record without room counts as not kept.
        match room.or_else(|| self.room()) {
            Some(room) => self.send_awaited(room, record.line(None), sender),
            None => self.metrics.records.lost.inc(),
        }
        KeptRecord { outcome: receiver.shared(), request_id: None }
    }

    /// Writes the record of a stream that begins; the record of its end counts it.
    pub fn keep_begin(&self, record: &RequestRecord<'_>) -> KeptRecord {
        let (sender, receiver) = oneshot::channel();
        match self.room() {
            Some(room) => self.send_awaited(room, record.line(None), sender),
            None => self.metrics.records.lost.inc(),
        }
        KeptRecord { outcome: receiver.shared(), request_id: None }
    }

    /// As [`keep`](Self::keep), for a change of an account.
    pub fn keep_change(&self, change: &AccountChangeLine<'_>) -> KeptRecord {
        let (sender, receiver) = oneshot::channel();
        // Without room it is not kept, and the event will be taken again.
        if let Some(room) = self.room() {
            self.send_awaited(room, change.line(), sender);
        }
        KeptRecord { outcome: receiver.shared(), request_id: None }
    }

    /// Hands over a line that is written at once.
    fn send_awaited(&self, RecordRoom(room): RecordRoom, line: Vec<u8>, sender: oneshot::Sender<bool>) {
        drop(room.send(WriterEntry::Awaited(line, sender)));
        self.state.hurry();
    }

    /// Waits until a record is kept. False if it is not, or not in time.
    pub async fn kept(&self, kept: KeptRecord) -> bool {
        timeout(DISK_TIMEOUT, kept).await.unwrap_or_else(|_| {
            self.stalled();
            false
        })
    }

    /// Marks the recorder as failing: neither the disk nor the reader of stdout has accepted a record in time.
    fn stalled(&self) {
        if self.state.becomes(Some("it takes no record in time".to_owned())) {
            tracing::error!("records are not written in time; requests are refused until they are");
        }
        // If the writer has just finished, this makes it try again.
        let _ = self.queue.try_send(WriterEntry::Line(vec![]));
    }

    /// Counts one request. A recorded request is counted with its record.
    pub fn count(&self, record: &RequestRecord<'_>) {
        let duration = (!record.is_stream).then_some(record.duration);
        self.metrics.request(record.decision.as_str(), record.status, duration);
        if !record.decision.is_served() {
            self.metrics.refusal(record.reason.as_str());
        }
    }

    /// Makes the writer open the file of that name now, in case it was moved away.
    pub fn reopen(&self) {
        // If the queue is full, the writer is at work, and checks the name once a second itself.
        let _ = self.queue.try_send(WriterEntry::Reopen);
        self.state.hurry();
    }

    /// Waits until all records so far are written, as long as a disk may take. Returns how many are not; they are lost
    /// when the process ends.
    pub async fn flush(&self) -> usize {
        let (written, wait) = oneshot::channel();
        let flushed = async {
            if self.queue.send(WriterEntry::Flush(written)).await.is_ok() {
                self.state.hurry();
                let _ = wait.await;
            }
        };
        let _ = timeout(DISK_TIMEOUT, flushed).await;
        // The lines that the thread holds, and those still queued, without the flush entry, which may be among them.
        self.state.waiting() + (QUEUE - self.queue.capacity()).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::SystemTime;

    use super::*;

    #[tokio::test]
    async fn no_merged_request_is_answered_before_it_is_on_disk_that_merging_began() {
        let path = std::env::temp_dir().join(format!("fedgate-recorder-{:x}", rand::random::<u128>()));
        // A disk that does not answer until it is allowed to.
        static ANSWERS: AtomicBool = AtomicBool::new(false);
        let mut journal = RecordJournal::open(&path, true).unwrap();
        journal.sync = |_| {
            while !ANSWERS.load(Ordering::Acquire) {
                thread::yield_now();
            }
            Ok(())
        };
        let rates = RecordRates { of_source: 1, in_all: 0 };
        let keeping = RecordKeeping { file: Some(&path), stdout: true, answers_wait: true, rates, reserve_bytes: 0 };
        let recorder =
            RequestRecorder::with(LineKeeper::File(journal, Some(StdoutPrinter::start().unwrap())), keeping).unwrap();
        let long = "x".repeat(2000);
        let record = RequestRecord {
            time: SystemTime::UNIX_EPOCH,
            request_id: "r1",
            client_request_id: None,
            client: "",
            method: "GET",
            path: &long,
            account: None,
            roles: &[],
            endpoint: "",
            subject: None,
            same_person: false,
            related: false,
            decision: fedgate_core::reasons::RecordDecision::Refuse,
            reason: fedgate_core::reasons::RecordReason::NoCredential,
            lacks: None,
            status: 401,
            duration: Duration::ZERO,
            is_stream: false,
            policy: "",
            trace_id: None,
            detail: RecordDetail::Always,
        };
        for _ in 0..100 {
            recorder.record(&record, None).await;
        }
        let anonymous = RequestRecord { detail: RecordDetail::WithinRate(None), ..record };
        let mut kept: Vec<KeptRecord> = (0..20).map(|_| recorder.keep(&anonymous, None)).collect();
        assert_eq!(kept.iter().filter(|kept| kept.request_id().is_some()).count(), 15, "five are alone");
        for kept in &mut kept {
            assert_eq!(kept.now_or_never(), None, "{:?}", kept.request_id());
        }
        ANSWERS.store(true, Ordering::Release);
        for kept in kept {
            assert!(recorder.kept(kept).await);
        }
        std::fs::remove_file(&path).unwrap();
    }
}
