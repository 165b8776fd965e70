//! The thread that writes records, and what others know of how it fares.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::journal::Journal;

/// Bytes that are written at once, or a line more: with one look at the disk, so that many are served by one.
const BATCH: usize = 4 * 1024 * 1024;
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
    state: Arc<State>,
    stdout_failing: bool,
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
    pub(super) fn new(journal: Option<Journal>, state: Arc<State>) -> Self {
        Self { journal, state, stdout_failing: false }
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
        let mut stdout = io::stdout().lock();
        let printed = stdout.write_all(&batch.lines).and_then(|()| stdout.flush());
        match printed {
            Ok(()) => self.stdout_failing = false,
            Err(error) if !self.stdout_failing => {
                self.stdout_failing = true;
                tracing::error!(%error, "records cannot be written to stdout");
            }
            Err(_) => {}
        }
        if let Some(written) = batch.flush {
            let _ = written.send(());
        }
    }

    fn append(&mut self, batch: &Batch) -> bool {
        let Some(journal) = &mut self.journal else { return true };
        // What has failed is well again when the disk has confirmed all of it, and not before.
        let is_asked = !batch.awaited.is_empty() || batch.flush.is_some() || self.state.is_failing();
        let sync = self.state.durable && is_asked;
        let appended = journal.append(&batch.lines, sync);
        let is_new = self.state.becomes(appended.as_ref().err().map(ToString::to_string));
        let path = journal.path().display().to_string();
        match &appended {
            Ok(()) if is_new => {
                let dropped = journal.take_dropped();
                tracing::info!(file = path, dropped, "records are written again");
            }
            Err(error) if is_new => {
                let then = if self.state.durable { "requests are refused until they can" } else { "they are kept" };
                tracing::error!(file = path, %error, "records cannot be written; {then}");
            }
            Ok(()) | Err(_) => {}
        }
        appended.is_ok() || !self.state.durable
    }
}
