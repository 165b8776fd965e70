//! What is told of one request, and how it is written: one line of JSON, bounded, in which nobody's text can pass for ours.

use std::io::Write;
use std::time::{Duration, SystemTime};

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

impl Record<'_> {
    /// The record as it is written: JSON, in one line.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = Line { bytes: Vec::with_capacity(384), cut: Vec::new() };
        line.bytes.push(b'{');
        line.text("time", &rfc3339(self.time));
        line.text("request.id", self.request_id);
        line.text("client.ip", self.client);
        line.text("method", self.method);
        line.text_within("path", self.path, MAX_PATH);
        if let Some(account) = self.account {
            line.text("account", account);
        }
        if !self.roles.is_empty() {
            line.list("roles", self.roles);
        }
        if !self.endpoint.is_empty() {
            line.text("endpoint", self.endpoint);
        }
        if let Some(subject) = self.subject {
            line.text_within("subject.id", subject, MAX_PATH);
        }
        line.text("decision", self.decision);
        line.text("reason", self.reason);
        if let Some(permission) = self.lacks {
            line.text("lacks", permission);
        }
        line.number("status", u64::from(self.status));
        line.number("duration_us", u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX));
        line.text("policy", self.policy);
        if let Some(trace) = self.trace_id {
            line.text("trace.id", trace);
        }
        line.end()
    }
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
            let line = String::from_utf8(record(nasty, nasty).line()).unwrap();
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
        let line = record.line();
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
