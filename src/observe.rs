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
mod stdout;
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

pub use cause::with_causes;
use journal::Journal;
pub use log::{LogError, log_to_stderr};
pub use metrics::Metrics;
use stdout::{Printer, Stdout};
use writer::{Entry, Keeper, State, Writer};

/// Records that may wait to be written.
const QUEUE: usize = 32 * 1024;
/// How long the disk, or the reader of stdout, may take for a record.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);
// How much of a record its parts may take, in bytes as they are written: what is legal is whole, and a record has 16 KiB at
// most, which is what collectors of logs take for one line (Docker's). What was cut is named in the record.
/// Any other text. An id has 256 bytes, and escapes take three for each at most, where controls are refused.
const MAX_TEXT: usize = 3 * 256;
/// The path, and what was read from it: the longest that a route can have needs no escapes, and none of what it encodes takes
/// more bytes than its encoding.
const MAX_PATH: usize = 2 * 1024;
/// All roles together: some 220 of twenty letters.
const MAX_ROLES: usize = 5 * 1024;

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
            Some(Room(room)) => drop(room.send(Entry::Awaited(line(record), sender))),
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

fn line(record: &Record<'_>) -> Vec<u8> {
    let mut line = Line { bytes: Vec::with_capacity(384), cut: Vec::new() };
    line.bytes.push(b'{');
    line.text("time", &rfc3339(record.time));
    line.text("request.id", record.request_id);
    line.text("client.ip", record.client);
    line.text("method", record.method);
    line.text_within("path", record.path, MAX_PATH);
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
        line.text_within("subject.id", subject, MAX_PATH);
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
    line.end()
}

struct Line {
    bytes: Vec<u8>,
    /// The members that are not whole.
    cut: Vec<&'static str>,
}

impl Line {
    fn key(&mut self, key: &str) {
        if self.bytes.len() > 1 {
            self.bytes.push(b',');
        }
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":");
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.bytes, "{value}");
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.text_within(key, value, MAX_TEXT);
    }

    fn text_within(&mut self, key: &'static str, value: &str, room: usize) {
        self.key(key);
        if !self.string(value, room) {
            self.cut.push(key);
        }
    }

    /// The first of them, as many as there is room for; each of those whole.
    fn list(&mut self, key: &'static str, values: &[String]) {
        self.key(key);
        let end = self.bytes.len() + MAX_ROLES;
        self.bytes.push(b'[');
        for (count, value) in values.iter().enumerate() {
            let before = self.bytes.len();
            if count > 0 {
                self.bytes.push(b',');
            }
            if !self.string(value, end.saturating_sub(before)) {
                self.bytes.truncate(before);
                self.cut.push(key);
                break;
            }
        }
        self.bytes.push(b']');
    }

    /// As much of a text as there is room for; whether that is all of it.
    fn string(&mut self, value: &str, room: usize) -> bool {
        self.bytes.push(b'"');
        if value.len() <= room && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
        {
            // As nearly all there is: copied at once.
            self.bytes.extend_from_slice(value.as_bytes());
            self.bytes.push(b'"');
            return true;
        }
        let end = self.bytes.len() + room;
        let is_whole = value.chars().all(|character| {
            let before = self.bytes.len();
            self.escaped(character);
            let fits = self.bytes.len() <= end;
            if !fits {
                self.bytes.truncate(before);
            }
            fits
        });
        if !is_whole {
            self.bytes.extend_from_slice("…".as_bytes());
        }
        self.bytes.push(b'"');
        is_whole
    }

    fn escaped(&mut self, character: char) {
        match character {
            '"' => self.bytes.extend_from_slice(b"\\\""),
            '\\' => self.bytes.extend_from_slice(b"\\\\"),
            ' '..='~' => self.bytes.push(u8::try_from(character).unwrap_or(b'?')),
            // Letters and digits of any script are readable; controls, separators and direction marks are escaped.
            _ if character.is_alphanumeric() => {
                self.bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes())
            }
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(self.bytes, "\\u{unit:04x}");
                }
            }
        }
    }

    fn end(mut self) -> Vec<u8> {
        if !self.cut.is_empty() {
            let names: Vec<_> = std::mem::take(&mut self.cut).into_iter().map(str::to_owned).collect();
            self.list("cut", &names);
        }
        self.bytes.extend_from_slice(b"}\n");
        self.bytes
    }
}

/// UTC, with microseconds (RFC 3339).
fn rfc3339(time: SystemTime) -> String {
    chrono::DateTime::<chrono::Utc>::from(time).to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
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

    fn parsed(record: &Record<'_>) -> (usize, serde_json::Value) {
        let line = line(record);
        (line.len(), serde_json::from_slice(&line).unwrap())
    }

    #[test]
    fn what_is_legal_is_whole_and_what_is_not_is_bounded_and_named() {
        // The longest there are, with the longest escapes.
        let (path, account, subject) = ("/".repeat(MAX_PATH), "😀".repeat(64), "😀".repeat(MAX_PATH / 12));
        let names = |count: usize| (0..count).map(|number| format!("nurse_of_ward_{number:06}")).collect::<Vec<_>>();
        let many = names(200);
        let legal = Record { roles: &many, subject: Some(&subject), ..record(&path, &account) };
        let (_, told) = parsed(&legal);
        assert_eq!((&told["path"], &told["account"]), (&path.as_str().into(), &account.as_str().into()));
        assert_eq!(told["subject.id"], subject);
        assert_eq!((&told["roles"], &told["cut"]), (&serde_json::json!(many), &serde_json::Value::Null));

        let (path, text, too_many) = (path + "/", "\0".repeat(100_000), names(10_000));
        let cut = parsed(&Record { roles: &too_many, ..record(&path, "ANA") }).1;
        assert_eq!((&cut["cut"], &cut["account"]), (&serde_json::json!(["path", "roles"]), &"ANA".into()));
        assert!(cut["path"].as_str().unwrap().ends_with("/…"));
        let kept: Vec<String> = serde_json::from_value(cut["roles"].clone()).unwrap();
        assert!(kept.len() > 200 && kept == names(kept.len()), "whole names, the first of them");

        let roles = [text.clone()];
        let all = Record {
            request_id: &text,
            client: &text,
            method: &text,
            roles: &too_many,
            endpoint: &text,
            subject: Some(&text),
            lacks: Some(&text),
            policy: &text,
            trace_id: Some(&text),
            ..record(&text, &text)
        };
        for all in [all, Record { roles: &roles, ..all }] {
            let (length, told) = parsed(&all);
            assert!(length <= 16 * 1024, "{length}");
            assert_eq!(told["cut"].as_array().unwrap().len(), 11, "{told}");
        }
    }

    #[test]
    fn times_are_utc_with_microseconds() {
        assert_eq!(rfc3339(record("", "").time), "2026-11-24T05:30:59.000001Z");
    }
}
