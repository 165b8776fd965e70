//! Writes a record as one bounded line of JSON, in which untrusted text cannot imitate the gateway's own.

use std::io::Write;
use std::time::SystemTime;

use fedgate_core::escape;

// Bounds for the parts of a record, in bytes as written. Legal values fit whole, and a record has at most 16 KiB,
// which is what log collectors accept as one line (Docker's limit). The record names the members that were cut.
/// Any other text. An id has at most 256 bytes, and escapes take at most three bytes for each, because controls are
/// refused.
const MAX_TEXT: usize = 3 * 256;
/// The path and values taken from it. The longest path of a route needs no escapes, and what it encodes takes no more
/// bytes decoded than encoded.
pub(super) const MAX_PATH: usize = 2 * 1024;
/// A list, such as all roles together: some 220 roles of twenty letters.
const MAX_LIST: usize = 5 * 1024;

/// How many records some lines hold.
pub(super) fn count(lines: &[u8]) -> usize {
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count()
}

/// Whole lines that are held, with their number: it is asked for after every batch, and they may be a million bytes.
#[derive(Default)]
pub(super) struct HeldLines {
    bytes: Vec<u8>,
    records: usize,
}

impl HeldLines {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many records they hold.
    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Adds lines after those that are held.
    pub(super) fn push(&mut self, lines: &[u8]) {
        self.bytes.extend_from_slice(lines);
        self.records += count(lines);
    }

    /// Puts an end of line before those that are held.
    pub(super) fn end_before(&mut self) {
        self.bytes.insert(0, b'\n');
    }

    /// Removes the first `bytes` bytes, which end with a line.
    pub(super) fn remove(&mut self, bytes: usize) {
        if bytes >= self.bytes.len() {
            return self.clear();
        }
        self.records -= count(self.bytes.get(..bytes).unwrap_or_default());
        self.bytes.drain(..bytes);
    }

    /// Removes all. The room is kept for the next ones.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records = 0;
    }

    /// Puts all of `earlier` before those that are held.
    pub(super) fn put_before(&mut self, earlier: &mut Self) {
        std::mem::swap(self, earlier);
        self.bytes.append(&mut earlier.bytes);
        self.records += std::mem::take(&mut earlier.records);
    }
}

/// A line under construction.
pub(super) struct RecordLine {
    bytes: Vec<u8>,
    /// The members that were cut.
    cut: Vec<&'static str>,
}

impl RecordLine {
    pub(super) fn begin() -> Self {
        let mut bytes = Vec::with_capacity(384);
        bytes.push(b'{');
        Self { bytes, cut: Vec::new() }
    }

    fn key(&mut self, key: &str) {
        if self.bytes.len() > 1 {
            self.bytes.push(b',');
        }
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(b"\":");
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _ = write!(self.bytes, "{value}");
    }

    pub(super) fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        let _ = write!(self.bytes, "{value}");
    }

    pub(super) fn text(&mut self, key: &'static str, value: &str) {
        self.text_within(key, value, MAX_TEXT);
    }

    pub(super) fn text_within(&mut self, key: &'static str, value: &str, room: usize) {
        self.key(key);
        if !self.string(value, room) {
            self.cut.push(key);
        }
    }

    /// Writes a time in UTC with microseconds (RFC 3339).
    pub(super) fn time(&mut self, key: &'static str, time: SystemTime) {
        let time = chrono::DateTime::<chrono::Utc>::from(time);
        self.text(key, &time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true));
    }

    /// Writes how often each word occurred. The words are the gateway's own.
    pub(super) fn counts<'a>(&mut self, key: &'static str, counts: impl Iterator<Item = (&'a str, u64)>) {
        self.key(key);
        let mut separator = '{';
        for (word, count) in counts {
            let _ = write!(self.bytes, "{separator}");
            self.string(word, MAX_TEXT);
            let _ = write!(self.bytes, ":{count}");
            separator = ',';
        }
        self.bytes.extend_from_slice(if separator == '{' { b"{}" } else { b"}" });
    }

    /// Writes the first values, as many as fit whole.
    pub(super) fn list(&mut self, key: &'static str, values: &[String]) {
        self.key(key);
        let end = self.bytes.len() + MAX_LIST;
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

    /// Writes as much of a text as fits. True if that is all of it.
    fn string(&mut self, value: &str, room: usize) -> bool {
        self.bytes.push(b'"');
        if value.len() <= room && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
        {
            // Nearly all texts take this path: copied at once.
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
            // Letters and digits of all scripts stay readable. Controls, separators and direction marks are escaped: a
            // log reader must not obey them.
            _ if character.is_alphanumeric() && !escape::is_unseen(character) => {
                self.bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes())
            }
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(self.bytes, "\\u{unit:04x}");
                }
            }
        }
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        if !self.cut.is_empty() {
            let names: Vec<_> = std::mem::take(&mut self.cut).into_iter().map(str::to_owned).collect();
            self.list("cut", &names);
        }
        self.bytes.extend_from_slice(b"}\n");
        self.bytes
    }
}
