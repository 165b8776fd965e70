//! The thread that writes records, and what others know of how it fares.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::journal::Journal;
use super::metrics::Metrics;

/// Bytes that are written at once, or a line more: with one look at the disk, so that many are served by one.
const BATCH: usize = 1024 * 1024;
/// Batches that may wait to be printed.
const PRINT_QUEUE: usize = 16;
/// Most bytes that wait for a reader of stdout, where a file has them too.
const MOST_UNPRINTED: usize = 64 * 1024;
/// How often writing is tried again when nothing else asks for it.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// What the writer is sent.
pub(super) enum Entry {
    Line(Vec<u8>),
    /// One whose sender waits until it is on disk, or is not.
    Awaited(Vec<u8>, oneshot::Sender<bool>),
    /// To be answered once everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// How the file of records fares.
pub(super) struct State {
    /// Whether records are to be on disk before the answers they tell of.
    pub(super) durable: bool,
    failing: AtomicBool,
    fault: Mutex<Option<String>>,
}

impl State {
    pub(super) fn new(durable: bool) -> Self {
        Self { durable, failing: AtomicBool::new(false), fault: Mutex::new(None) }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how it fares now; true if that is new.
    pub(super) fn becomes(&self, fault: Option<String>) -> bool {
        let mut known = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = known.is_some() != fault.is_some();
        self.failing.store(fault.is_some(), Ordering::Release);
        *known = fault;
        is_new
    }
}

/// Writes what is queued, many at a time: all that came while the disk was busy with those before.
pub(super) struct Writer {
    journal: Option<Journal>,
    printer: Printer,
    state: Arc<State>,
    metrics: Arc<Metrics>,
}

/// What is written at once.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    awaited: Vec<oneshot::Sender<bool>>,
    flush: Option<oneshot::Sender<()>>,
}

impl Batch {
    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Line(line) => self.lines.extend_from_slice(&line),
            Entry::Awaited(line, sender) => {
                self.lines.extend_from_slice(&line);
                self.awaited.push(sender);
            }
            Entry::Flush(written) => self.flush = Some(written),
        }
    }
}

impl Writer {
    pub(super) fn new(journal: Option<Journal>, printer: Printer, state: Arc<State>, metrics: Arc<Metrics>) -> Self {
        Self { journal, printer, state, metrics }
    }

    /// Runs until every recorder is gone, on a thread that has nothing else to do.
    pub(super) async fn run(mut self, mut entries: Receiver<Entry>) {
        loop {
            let mut batch = Batch::default();
            let first = match self.state.is_failing() {
                true => timeout(TRY_EVERY, entries.recv()).await,
                false => Ok(entries.recv().await),
            };
            match first {
                Ok(Some(entry)) => batch.add(entry),
                Ok(None) => return,
                Err(_) => {}
            }
            while batch.lines.len() <= BATCH && batch.flush.is_none() {
                let Ok(entry) = entries.try_recv() else { break };
                batch.add(entry);
            }
            self.write(batch);
        }
    }

    /// Each output gets every record, whatever becomes of the other. Who waits for the disk does not wait for a reader.
    fn write(&mut self, batch: Batch) {
        let kept = self.append(&batch);
        for sender in batch.awaited {
            let _ = sender.send(kept);
        }
        self.printer.print(batch.lines, batch.flush);
    }

    fn append(&mut self, batch: &Batch) -> bool {
        let Some(journal) = &mut self.journal else { return true };
        // What has failed is well again when the disk has confirmed all of it, and not before.
        let is_asked = !batch.awaited.is_empty() || batch.flush.is_some() || self.state.is_failing();
        let sync = self.state.durable && is_asked;
        let appended = journal.append(&batch.lines, sync);
        let dropped = journal.take_dropped();
        self.metrics.records_lost.inc_by(dropped as u64);
        let is_new = self.state.becomes(appended.as_ref().err().map(ToString::to_string));
        let path = journal.path().display().to_string();
        match &appended {
            Ok(()) if is_new => tracing::info!(file = path, "records are written again"),
            Err(error) if is_new => {
                let then = if self.state.durable { "requests are refused until they can" } else { "they are kept" };
                tracing::error!(file = path, %error, "records cannot be written; {then}");
            }
            Ok(()) | Err(_) => {}
        }
        appended.is_ok() || !self.state.durable
    }
}

/// What is printed at once, and who is told of it.
type Printed = (Vec<u8>, Option<oneshot::Sender<()>>);

/// Writes to stdout, by a thread of its own: its reader may be slow, or gone.
pub(super) struct Printer {
    queue: SyncSender<Printed>,
    /// Whether a file has every record too, so that nobody has to wait for the reader of stdout.
    may_skip: bool,
    is_skipping: bool,
    /// What the reader has not taken yet.
    waiting: Vec<u8>,
}

impl Printer {
    pub(super) fn start(may_skip: bool) -> io::Result<Self> {
        let (queue, entries) = sync_channel::<Printed>(PRINT_QUEUE);
        let print = move || {
            let mut failing = false;
            for (lines, flush) in entries {
                let mut stdout = io::stdout().lock();
                let printed = stdout.write_all(&lines).and_then(|()| stdout.flush());
                if let Err(error) = &printed
                    && !failing
                {
                    tracing::error!(%error, "records cannot be written to stdout");
                }
                failing = printed.is_err();
                if let Some(flushed) = flush {
                    let _ = flushed.send(());
                }
            }
        };
        thread::Builder::new().name("stdout".into()).spawn(print)?;
        Ok(Self { queue, may_skip, is_skipping: false, waiting: vec![] })
    }

    /// Prints lines; waits for a slow reader where nothing else has them.
    fn print(&mut self, lines: Vec<u8>, flush: Option<oneshot::Sender<()>>) {
        if !self.may_skip {
            let _ = self.queue.send((lines, flush));
            return;
        }
        if self.waiting.len() + lines.len() <= MOST_UNPRINTED {
            self.waiting.extend_from_slice(&lines);
        } else if !self.is_skipping {
            self.is_skipping = true;
            tracing::error!("stdout is not read: records go to the file alone");
        }
        if let Err(TrySendError::Full((lines, _))) = self.queue.try_send((std::mem::take(&mut self.waiting), flush)) {
            self.waiting = lines;
        } else {
            self.is_skipping = false;
        }
    }
}
