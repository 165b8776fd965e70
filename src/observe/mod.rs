//! Records: one line of JSON per request on stdout, and the operator's log on stderr.
//!
//! The one rule: a record per request, allowed, refused or failed, with nothing personal in it beyond ids. Where a request has
//! several, because a disk failed or an answer was not sent, the last one counts.
//! Untrusted text is escaped (JSON escapes, and what terminals or line readers act on) and bounded.
//!
//! Lines are written by a thread of its own, to a file, or to stdout where there is none. Who asks is told when a record is
//! on the disk, or taken from stdout ([`Recorder::keep`]); one look at the disk serves all who ask at a time. Nobody waits for
//! a disk or a reader that does not answer, and no thread that serves is ever blocked by waiting.

mod cause;
mod journal;
mod log;
mod metrics;
mod record;
mod stderr;
mod stdout;
mod writer;

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use cause::with_causes;
use journal::Journal;
pub use log::{Log, LogError, log_to_stderr};
pub use metrics::Metrics;
pub use record::Record;
use stdout::{Printer, Stdout};
use writer::{Entry, Keeper, State, Writer};

/// Records that may wait to be written.
const QUEUE: usize = 32 * 1024;
/// How long the disk, or the reader of stdout, may take for a record.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// Where records go; clones share one writer and one set of metrics.
#[derive(Clone)]
pub struct Recorder {
    queue: Sender<Entry>,
    metrics: Arc<Metrics>,
    state: Arc<State>,
    has_file: bool,
}

/// Room for one record.
pub struct Room(OwnedPermit<Entry>);

/// Whether a record is kept, where it is to be, once that is known.
pub struct Kept(oneshot::Receiver<bool>);

impl Future for Kept {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        Pin::new(&mut self.0).poll(cx).map(|kept| kept.unwrap_or(false))
    }
}

impl Recorder {
    /// Starts the thread that appends to `file`, and to stdout; `answers_wait`, if an answer may wait for its record to be
    /// on disk, or taken from stdout where there is no file.
    ///
    /// # Errors
    /// The file cannot be opened, or the operating system gives no thread.
    pub fn start(file: Option<&Path>, answers_wait: bool) -> io::Result<Self> {
        let (sender, receiver) = channel(QUEUE);
        let keeper = match file {
            None => Keeper::Stdout(Stdout::open()?),
            Some(path) => {
                let journal = Journal::open(path, answers_wait).map_err(|error| {
                    let remedy = "`records.file` must name a file that can be written";
                    io::Error::new(error.kind(), format!("{}: {error}; {remedy}", path.display()))
                });
                Keeper::File(journal?, Printer::start()?)
            }
        };
        let state = Arc::new(State::new(answers_wait));
        let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
        let writer = Writer::new(keeper, Arc::clone(&state), Arc::clone(&metrics));
        let runtime = Builder::new_current_thread().enable_time().build()?;
        thread::Builder::new().name("records".into()).spawn(move || runtime.block_on(writer.run(receiver)))?;
        Ok(Self { queue: sender, metrics, state, has_file: file.is_some() })
    }

    /// What is counted beside the records.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether records are to be on disk before the answers they tell of.
    pub fn is_durable(&self) -> bool {
        self.state.answers_wait && self.has_file
    }

    /// Whether answers wait for their records: on disk, or taken from stdout where there is no file.
    pub fn answers_wait(&self) -> bool {
        self.state.answers_wait
    }

    /// Whether nothing may be served, because it could not be recorded.
    pub fn refuses(&self) -> bool {
        self.state.answers_wait && self.state.is_failing()
    }

    /// Why records cannot be written now; nothing when they can.
    pub fn fault(&self) -> Option<String> {
        self.state.fault()
    }

    /// Counts and writes one record; what is returned waits for room, as long as nothing is known to be wrong.
    pub fn record(&self, record: &Record<'_>, room: Option<Room>) -> impl Future<Output = ()> + Send + use<> {
        self.count(record);
        // The writer lives as long as the process.
        let entry = Entry::Line(record.line());
        let full = match room {
            Some(Room(room)) => {
                drop(room.send(entry));
                None
            }
            None => self.queue.try_send(entry).err(),
        };
        if let Some(TrySendError::Closed(_)) = full {
            self.state.becomes(Some("the thread that writes records has ended".to_owned()));
        }
        let recorder = full.is_some().then(|| self.clone());
        async move {
            let (Some(TrySendError::Full(entry)), Some(recorder)) = (full, recorder) else { return };
            match recorder.state.answers_wait {
                false => drop(recorder.queue.send(entry).await),
                true if recorder.refuses() => recorder.metrics.records_lost.inc(),
                true => {
                    if timeout(DISK_TIMEOUT, recorder.queue.send(entry)).await.is_err() {
                        recorder.metrics.records_lost.inc();
                        recorder.stalled();
                    }
                }
            }
        }
    }

    /// Room for the record of what is about to be done; none where nothing more can be recorded.
    pub fn room(&self) -> Option<Room> {
        self.queue.clone().try_reserve_owned().ok().map(Room)
    }

    /// The same for one that is to be kept, where answers wait for that: tells whether it is. There is no waiting for room:
    /// without what was reserved, one for which there is none is not kept.
    pub fn keep(&self, record: &Record<'_>, room: Option<Room>) -> Kept {
        self.count(record);
        let (sender, receiver) = oneshot::channel();
        match room.or_else(|| self.room()) {
            Some(Room(room)) => drop(room.send(Entry::Awaited(record.line(), sender))),
            None => self.metrics.records_lost.inc(),
        }
        Kept(receiver)
    }

    /// Waits until a record is kept; false if it is not, or not in time.
    pub async fn kept(&self, kept: Kept) -> bool {
        timeout(DISK_TIMEOUT, kept).await.unwrap_or_else(|_| {
            self.stalled();
            false
        })
    }

    /// Notes that neither the disk nor the reader of stdout takes a record or refuses it.
    fn stalled(&self) {
        if self.state.becomes(Some("it takes no record in time".to_owned())) {
            tracing::error!("records are not written in time; requests are refused until they are");
        }
        // The writer, should it have finished just now, sees that it is to try.
        let _ = self.queue.try_send(Entry::Line(vec![]));
    }

    fn count(&self, record: &Record<'_>) {
        self.metrics.request(record.decision, record.status, record.duration);
        if !matches!(record.decision, "allow" | "answer") {
            self.metrics.refusal(record.reason);
        }
    }

    /// Waits until every record so far is written, for as long as a disk may take.
    pub async fn flush(&self) {
        let (written, wait) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Entry::Flush(written)).await.is_ok() {
                let _ = wait.await;
            }
        };
        let _ = timeout(DISK_TIMEOUT, flushed).await;
    }
}
