//! The thread that writes records, and the state that it publishes.
//!
//! The one rule: a line for which no sender waits is written within [`GATHERING`], together with those that follow it
//! meanwhile. An entry that a sender waits for is written at once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::journal::RecordJournal;
use super::line::count;
use super::merge::RecordMerger;
use super::metrics::GatewayMetrics;
use super::stdout::{RecordStdout, StdoutPrinter};

/// The bytes that are written at once, or a line more. One synchronization then serves many records.
const BATCH: usize = 1024 * 1024;
/// How long a line for which no sender waits may wait for others, to be written with them. A thread that is woken for
/// each line costs more than all that is done with the line.
const GATHERING: Duration = Duration::from_millis(10);
/// The interval between attempts to write when no other entry comes.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// How long the last records are retried at the end.
const LAST_TRIES: Duration = Duration::from_secs(4);

/// The longest interval between looks at the free room, and between writes of merged records.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An entry for the writer.
pub(super) enum WriterEntry {
    Line(Vec<u8>),
    /// A line whose sender waits to learn whether it is kept.
    Awaited(Vec<u8>, oneshot::Sender<bool>),
    /// Answered once everything before it is written, or cannot be.
    Flush(oneshot::Sender<()>),
    /// The path may name another file from now on.
    Reopen,
}

/// The output of the records.
pub(super) enum LineKeeper {
    /// A file, with a copy on stdout if configured.
    File(RecordJournal, Option<StdoutPrinter>),
    /// Only stdout.
    Stdout(RecordStdout),
}

impl WriterEntry {
    /// Whether it is written at once, with all lines before it.
    pub(super) fn is_urgent(&self) -> bool {
        match self {
            Self::Line(_) => false,
            Self::Awaited(..) | Self::Flush(_) | Self::Reopen => true,
        }
    }
}

impl LineKeeper {
    /// The name for the operator's log.
    fn name(&self) -> String {
        match self {
            Self::File(journal, _) => journal.path().display().to_string(),
            Self::Stdout(_) => "stdout".to_owned(),
        }
    }

    /// How many lines it has accepted but not kept.
    fn waiting(&self) -> usize {
        match self {
            Self::File(journal, _) => journal.waiting(),
            Self::Stdout(stdout) => stdout.waiting(),
        }
    }
}

/// The published state of the writer.
pub(super) struct WriterState {
    /// Whether records must be kept before their answers are sent: on disk, or by stdout if there is no file.
    pub(super) answers_wait: bool,
    failing: AtomicBool,
    /// Whether the disk is nearly full.
    scarce: AtomicBool,
    /// How many records the writer holds.
    waiting: AtomicUsize,
    fault: Mutex<Option<String>>,
    /// Ends the gathering of lines.
    hurry: Notify,
}

impl WriterState {
    pub(super) fn new(answers_wait: bool) -> Self {
        Self {
            answers_wait,
            failing: AtomicBool::new(false),
            scarce: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            fault: Mutex::new(None),
            hurry: Notify::new(),
        }
    }

    /// Makes the writer write what it gathers, now.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    pub(super) fn is_scarce(&self) -> bool {
        self.scarce.load(Ordering::Acquire)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the state. True if it changed between working and failing.
    pub(super) fn becomes(&self, fault: Option<String>) -> bool {
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = known.is_some() != fault.is_some();
        self.failing.store(fault.is_some(), Ordering::Release);
        *known = fault;
        is_new
    }
}

/// Writes queued records in batches: each batch holds everything that came while the disk was busy, or while lines
/// were gathered.
pub(super) struct RecordWriter {
    keeper: LineKeeper,
    state: Arc<WriterState>,
    metrics: Arc<GatewayMetrics>,
    merger: Arc<RecordMerger>,
    reserve_bytes: u64,
}

/// A batch.
#[derive(Default)]
struct RecordBatch {
    lines: Vec<u8>,
    /// How many records that is. Counted as they come: the bytes of each would have to be looked through for it.
    records: usize,
    awaited: Vec<oneshot::Sender<bool>>,
    flush: Option<oneshot::Sender<()>>,
    reopens: bool,
    /// Whether it holds merged records, for which no sender waits.
    has_merged: bool,
    /// Whether one of its entries is urgent.
    is_urgent: bool,
}

impl RecordBatch {
    fn add(&mut self, entry: WriterEntry) {
        self.is_urgent |= entry.is_urgent();
        match entry {
            WriterEntry::Line(line) => self.append(&line),
            WriterEntry::Awaited(line, sender) => {
                self.append(&line);
                self.awaited.push(sender);
            }
            WriterEntry::Flush(written) => self.flush = Some(written),
            WriterEntry::Reopen => self.reopens = true,
        }
    }

    fn append(&mut self, line: &[u8]) {
        self.lines.extend_from_slice(line);
        self.records += usize::from(!line.is_empty());
    }

    /// Adds what waits in the queue, up to the bound of a batch.
    fn take(&mut self, entries: &mut Receiver<WriterEntry>) {
        while self.lines.len() <= BATCH && self.flush.is_none() {
            let Ok(entry) = entries.try_recv() else { break };
            self.add(entry);
        }
    }
}

impl RecordWriter {
    pub(super) fn new(
        keeper: LineKeeper,
        state: Arc<WriterState>,
        metrics: Arc<GatewayMetrics>,
        merger: Arc<RecordMerger>,
        reserve_bytes: u64,
    ) -> Self {
        let writer = Self { keeper, state, metrics, merger, reserve_bytes };
        if let LineKeeper::File(journal, _) = &writer.keeper {
            writer.tell(&journal.fault());
        }
        writer
    }

    /// Runs until every recorder is gone, on a thread that does nothing else.
    pub(super) async fn run(mut self, mut entries: Receiver<WriterEntry>) {
        loop {
            let mut batch = RecordBatch::default();
            self.look();
            let patience = if self.state.is_failing() { TRY_EVERY } else { LOOK_EVERY };
            match timeout(patience, entries.recv()).await {
                Ok(Some(entry)) => batch.add(entry),
                Ok(None) => return,
                Err(_) => {}
            }
            // The hurry of an entry that was written already. Taken before the queue is looked at: who hurries has
            // sent before.
            let _ = self.state.hurry.notified().now_or_never();
            batch.take(&mut entries);
            if !batch.is_urgent && !batch.lines.is_empty() && batch.lines.len() <= BATCH {
                // The queue is not looked at meanwhile, so that its senders have nobody to wake.
                let _ = timeout(GATHERING, self.state.hurry.notified()).await;
                batch.take(&mut entries);
            }
            let merged = self.merger.close(batch.flush.is_some(), Instant::now());
            batch.has_merged = !merged.is_empty();
            batch.lines.extend_from_slice(&merged);
            batch.records += count(&merged);
            if batch.reopens
                && let LineKeeper::File(journal, _) = &mut self.keeper
            {
                journal.look_again();
            }
            if !batch.lines.is_empty() || batch.flush.is_some() || batch.reopens || self.state.is_failing() {
                self.write(batch).await;
            }
        }
    }

    /// Checks the free room on the file's disk before each batch, because a flood can fill a reserve within a second.
    fn look(&self) {
        let LineKeeper::File(journal, _) = &self.keeper else { return };
        let Some(free) = journal.free_bytes() else { return };
        self.metrics.records.free(free);
        let was_scarce = self.state.is_scarce();
        // The state ends a little above the limit where it begins, so that it does not flicker in the log.
        let enough =
            if was_scarce { self.reserve_bytes.saturating_add(self.reserve_bytes / 8) } else { self.reserve_bytes };
        let is_scarce = free < enough;
        self.state.scarce.store(is_scarce, Ordering::Release);
        let file = journal.path().display();
        match (was_scarce, is_scarce) {
            (false, true) => tracing::error!(
                %file,
                free_bytes = free,
                "the disk of the records is nearly full: anonymous callers share one record from now on, so \
                 that there is room for the others; make room (`records.reserve_mib`)"
            ),
            (true, false) => tracing::info!(%file, free_bytes = free, "the disk of the records has room again"),
            _ => {}
        }
    }

    /// Each output gets every record, whatever happens to the other. Callers that wait for the disk do not wait for a
    /// reader.
    async fn write(&mut self, batch: RecordBatch) {
        // The outcome is known before any caller is answered: an answer must not precede its record.
        let kept = self.keep(&batch);
        for sender in batch.awaited {
            let _ = sender.send(kept);
        }
        if batch.flush.is_some() {
            self.try_to_the_end().await;
        }
        match (&mut self.keeper, batch.flush) {
            (LineKeeper::File(_, Some(printer)), flush) => printer.print(&batch.lines, flush),
            (LineKeeper::File(_, None) | LineKeeper::Stdout(_), Some(flushed)) => drop(flushed.send(())),
            (LineKeeper::File(_, None) | LineKeeper::Stdout(_), None) => {}
        }
    }

    /// The process ends: waiting records are written now or never.
    async fn try_to_the_end(&mut self) {
        let deadline = Instant::now() + LAST_TRIES;
        while self.keeper.waiting() > 0 && Instant::now() < deadline {
            sleep(TRY_EVERY).await;
            self.keep(&RecordBatch { has_merged: true, ..RecordBatch::default() });
        }
    }

    fn keep(&mut self, batch: &RecordBatch) -> bool {
        // After a failure, the state is good again only once the disk has confirmed everything.
        let is_asked =
            !batch.awaited.is_empty() || batch.flush.is_some() || batch.has_merged || self.state.is_failing();
        self.metrics.records.bytes.inc_by(batch.lines.len() as u64);
        // Stored before the write, because a disk may never answer.
        self.state.waiting.store(self.keeper.waiting() + batch.records, Ordering::Release);
        let (written, dropped) = match &mut self.keeper {
            LineKeeper::File(journal, _) => {
                (journal.append(&batch.lines, self.state.answers_wait && is_asked), journal.take_dropped())
            }
            LineKeeper::Stdout(stdout) => (stdout.append(&batch.lines), stdout.take_dropped()),
        };
        self.metrics.records.lost.inc_by(dropped as u64);
        self.state.waiting.store(self.keeper.waiting(), Ordering::Release);
        self.tell(&written);
        written.is_ok() || !self.state.answers_wait
    }

    /// Records the outcome of writing, and logs it if it is new.
    fn tell(&self, written: &io::Result<()>) {
        let file = self.keeper.name();
        let is_new = self.state.becomes(written.as_ref().err().map(ToString::to_string));
        match written {
            Ok(()) if is_new => tracing::info!(file, "records are written again"),
            Err(error) if is_new => {
                let then =
                    if self.state.answers_wait { "requests are refused until they can" } else { "they are kept" };
                tracing::error!(file, %error, "records cannot be written; {then}");
            }
            Ok(()) | Err(_) => {}
        }
    }
}
