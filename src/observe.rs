//! Records: one line of JSON per request on stdout, and the operator's log on stderr.
//!
//! The one rule: a record per request, allowed, refused or failed, with nothing personal in it beyond ids. Where a request has
//! several, because a disk failed or an answer was not sent, the last one counts.
//! Untrusted text is escaped (JSON escapes, and what terminals or line readers act on) and bounded.
//!
//! Lines are written by a thread of its own. When the reader of stdout falls behind, requests wait for it rather than
//! go unrecorded, unless a file has them. Who asks is told when a record is on the disk ([`Recorder::keep`]); one look at
//! the disk serves all who ask at a time. Nobody waits for a disk that does not answer, and no thread is ever blocked by waiting.

mod journal;
mod metrics;
mod writer;

use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::runtime::Builder;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{OwnedPermit, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::timeout;

use journal::Journal;
pub use metrics::Metrics;
use tracing_subscriber::EnvFilter;
use writer::{Entry, Printer, State, Writer};

/// Records that may wait to be written.
const QUEUE: usize = 32 * 1024;
/// How long the disk may take for a record.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest untrusted text in a record, in characters.
const MAX_TEXT: usize = 256;
/// Most roles in a record.
const MAX_LIST: usize = 32;

/// What a record tells of one request.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When the request came.
    pub time: SystemTime,
    /// The request id.
    pub request_id: &'a str,
    /// The peer's address, without port.
    pub client: &'a str,
    /// The method as received.
    pub method: &'a str,
    /// The path as received, without query.
    pub path: &'a str,
    /// The account, verified or claimed.
    pub account: Option<&'a str>,
    /// The roles of a verified account.
    pub roles: &'a [String],
    /// The endpoint that was decided on.
    pub endpoint: &'a str,
    /// The person whose record it was about.
    pub subject: Option<&'a str>,
    /// `allow`, `deny`, `refuse`, `fail`; or `answer`, where no decision was asked for.
    pub decision: &'static str,
    /// Why, as a stable word; or `own`, `global` or `public` with `allow`.
    pub reason: &'a str,
    /// The permission whose lack decided, where it is not that of the endpoint.
    pub lacks: Option<&'a str>,
    /// The status the client was told; 0 when it was told none.
    pub status: u16,
    /// From the first byte of the request to the last of the answer.
    pub duration: Duration,
    /// The fingerprint of the policy that decided.
    pub policy: &'a str,
    /// The trace that the client has begun (W3C Trace Context), if any.
    pub trace_id: Option<&'a str>,
}

/// Where records go; clones share one writer and one set of metrics.
#[derive(Clone)]
pub struct Recorder {
    queue: Sender<Entry>,
    metrics: Arc<Metrics>,
    state: Arc<State>,
}

/// Room for one record.
pub struct Room(OwnedPermit<Entry>);

/// Whether a record is written, and on disk where it is to be, once that is known.
pub struct Kept(oneshot::Receiver<bool>);

impl Future for Kept {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        Pin::new(&mut self.0).poll(cx).map(|kept| kept.unwrap_or(false))
    }
}

impl Recorder {
    /// Starts the thread that writes to stdout, and appends to `file` where one is given: `durable`, if an answer may
    /// wait for its record to be on disk.
    ///
    /// # Errors
    /// The file cannot be opened, or the operating system gives no thread.
    pub fn start(file: Option<&Path>, durable: bool) -> io::Result<Self> {
        let (sender, receiver) = channel(QUEUE);
        let journal = file.map(|path| {
            Journal::open(path, durable).map_err(|error| {
                let remedy = "`records.file` must name a file that can be written";
                io::Error::new(error.kind(), format!("{}: {error}; {remedy}", path.display()))
            })
        });
        let journal = journal.transpose()?;
        let durable = durable && journal.is_some();
        let state = Arc::new(State::new(durable));
        let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
        let printer = Printer::start(journal.is_some())?;
        let writer = Writer::new(journal, printer, Arc::clone(&state), Arc::clone(&metrics));
        let runtime = Builder::new_current_thread().enable_time().build()?;
        thread::Builder::new().name("records".into()).spawn(move || runtime.block_on(writer.run(receiver)))?;
        Ok(Self { queue: sender, metrics, state })
    }

    /// What is counted beside the records.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether records are to be on disk before the answers they tell of.
    pub fn is_durable(&self) -> bool {
        self.state.durable
    }

    /// Whether nothing may be served, because it could not be recorded.
    pub fn refuses(&self) -> bool {
        self.state.durable && self.state.is_failing()
    }

    /// Why the file of records cannot be written now; nothing when it can, or when there is none.
    pub fn fault(&self) -> Option<String> {
        self.state.fault()
    }

    /// Counts and writes one record; what is returned waits for room, as long as nothing is known to be wrong.
    pub fn record(&self, record: &Record<'_>, room: Option<Room>) -> impl Future<Output = ()> + Send + use<> {
        self.count(record);
        // The writer lives as long as the process: it goes on even when stdout is closed.
        let entry = Entry::Line(line(record));
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
            match recorder.state.durable {
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

    /// The same for one that is to be on disk, where records are to be: tells whether it is. There is no waiting for room:
    /// without what was reserved, one for which there is none is not kept.
    pub fn keep(&self, record: &Record<'_>, room: Option<Room>) -> Kept {
        self.count(record);
        let (sender, receiver) = oneshot::channel();
        match room.or_else(|| self.room()) {
            Some(Room(room)) => drop(room.send(Entry::Awaited(line(record), sender))),
            None => self.metrics.records_lost.inc(),
        }
        Kept(receiver)
    }

    /// Waits until a record is on disk; false if it is not, or not in time.
    pub async fn kept(&self, kept: Kept) -> bool {
        timeout(DISK_TIMEOUT, kept).await.unwrap_or_else(|_| {
            self.stalled();
            false
        })
    }

    /// Notes that the disk neither takes a record nor refuses it.
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

fn line(record: &Record<'_>) -> Vec<u8> {
    let mut line = Line(Vec::with_capacity(384));
    line.0.push(b'{');
    line.text("time", &rfc3339(record.time));
    line.text("request.id", record.request_id);
    line.text("client.ip", record.client);
    line.text("method", record.method);
    line.text("path", record.path);
    if let Some(account) = record.account {
        line.text("account", account);
    }
    if !record.roles.is_empty() {
        line.list("roles", record.roles);
    }
    if !record.endpoint.is_empty() {
        line.text("endpoint", record.endpoint);
    }
    if let Some(subject) = record.subject {
        line.text("subject.id", subject);
    }
    line.text("decision", record.decision);
    line.text("reason", record.reason);
    if let Some(permission) = record.lacks {
        line.text("lacks", permission);
    }
    line.number("status", u64::from(record.status));
    line.number("duration_us", u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX));
    line.text("policy", record.policy);
    if let Some(trace) = record.trace_id {
        line.text("trace.id", trace);
    }
    line.0.extend_from_slice(b"}\n");
    line.0
}

struct Line(Vec<u8>);

impl Line {
    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.0, "{value}");
    }

    fn list(&mut self, key: &str, values: &[String]) {
        self.key(key);
        self.0.push(b'[');
        for (count, value) in values.iter().take(MAX_LIST).enumerate() {
            if count > 0 {
                self.0.push(b',');
            }
            self.string(value);
        }
        self.0.push(b']');
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.string(value);
    }

    fn string(&mut self, value: &str) {
        self.0.push(b'"');
        for (count, character) in value.chars().enumerate() {
            if count == MAX_TEXT {
                self.0.extend_from_slice("…".as_bytes());
                break;
            }
            match character {
                '"' => self.0.extend_from_slice(b"\\\""),
                '\\' => self.0.extend_from_slice(b"\\\\"),
                ' '..='~' => self.0.push(u8::try_from(character).unwrap_or(b'?')),
                // Letters and digits of any script are readable; controls, separators and direction marks are escaped.
                _ if character.is_alphanumeric() => {
                    self.0.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes())
                }
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.0, "\\u{unit:04x}");
                    }
                }
            }
        }
        self.0.push(b'"');
    }
}

/// UTC, with microseconds (RFC 3339).
fn rfc3339(time: SystemTime) -> String {
    chrono::DateTime::<chrono::Utc>::from(time).to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

/// Libraries tell in detail what passes through them, secrets among it: of them, warnings alone.
const LIBRARIES: &str = "pingora_core=warn,pingora_proxy=error,pingora_pool=warn,h2=warn,hyper=warn,hyper_util=warn,\
                         axum=warn,tower=warn,rustls=warn,tokio_rustls=warn,tokio_postgres=warn,deadpool_postgres=warn,\
                         mio=warn,notify=warn,moka=warn,hickory_proto=warn,hickory_resolver=warn";

/// Sends the operator's log to stderr, as `FEDGATE_LOG` says (a filter such as `info` or `fedgate=debug`).
pub fn log_to_stderr() {
    let filter = std::env::var("FEDGATE_LOG")
        .ok()
        .filter(|filter| !filter.trim().is_empty() && EnvFilter::try_new(filter).is_ok());
    // What comes later counts: a library is heard of in detail by who names it, and only so.
    let filter = EnvFilter::new(format!("{LIBRARIES},{}", filter.as_deref().unwrap_or("info")));
    // A stderr that nobody reads any more is nobody's fault, and no reason to panic.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    let _ = log.with_env_filter(filter).with_writer(io::stderr).with_target(false).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(path: &'a str, account: &'a str) -> Record<'a> {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_498_259_000_001),
            request_id: "r1",
            client: "127.0.0.1",
            method: "GET",
            path,
            account: Some(account),
            roles: &[],
            endpoint: "person",
            subject: None,
            decision: "deny",
            reason: "not_own",
            lacks: None,
            status: 403,
            duration: Duration::from_micros(12),
            policy: "p1",
            trace_id: None,
        }
    }

    #[test]
    fn untrusted_text_stays_in_one_parseable_line() {
        for nasty in [
            "/\nDENY user=bob",
            "\u{1b}[31mred",
            "a\u{2028}b",
            "\u{202e}gnp",
            "\"quote\\",
            "\u{7f}\u{85}\0",
            "Müller 李 ok",
            "😀",
        ] {
            let line = String::from_utf8(line(&record(nasty, nasty))).unwrap();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(
                line.ends_with("}\n")
                    && !line.trim_end().chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{202e}')
            );
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(parsed["path"], nasty);
        }
    }

    #[test]
    fn untrusted_text_is_bounded() {
        let long = "x".repeat(100_000);
        assert!(line(&record(&long, &long)).len() < 1000);
    }

    #[test]
    fn times_are_utc_with_microseconds() {
        assert_eq!(rfc3339(record("", "").time), "2026-11-24T05:30:59.000001Z");
    }
}
