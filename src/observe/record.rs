//! The content of a request's record.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use fedgate_core::reasons::{RecordDecision, RecordReason};

use super::line::{MAX_PATH, RecordLine};

/// Whether a request must have its own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordDetail {
    /// Always: the request is an authenticated caller's, or may have changed something.
    Always,
    /// Within a rate; beyond it, one record stands for many. The request is an anonymous caller's at this address or
    /// IPv6 network; none on a Unix socket.
    WithinRate(Option<IpAddr>),
}

/// The content of a request's record.
#[derive(Debug, Clone, Copy)]
pub struct RequestRecord<'a> {
    /// When the request came.
    pub time: SystemTime,
    /// The request id. It is the gateway's own, which no client can choose.
    pub request_id: &'a str,
    /// The id that the client chose, if any.
    pub client_request_id: Option<&'a str>,
    /// The client address, without the port.
    pub client: &'a str,
    /// The method as received.
    pub method: &'a str,
    /// The path as received, without query.
    pub path: &'a str,
    /// The account, verified or claimed.
    pub account: Option<&'a str>,
    /// The roles of a verified account.
    pub roles: &'a [String],
    /// The endpoint that the decision was about.
    pub endpoint: &'a str,
    /// The person whose record was requested.
    pub subject: Option<&'a str>,
    /// Whether that person is the account's own, under another id.
    pub same_person: bool,
    /// Whether the subject is a person to whom the caller is related.
    pub related: bool,
    /// `allow`, `deny`, `refuse`, `fail`; or `answer` if no decision was needed.
    pub decision: RecordDecision,
    /// The reason as a stable word; with `allow` it is `own`, `global` or `public`.
    pub reason: RecordReason,
    /// The missing permission that decided, if it is not the permission on the endpoint.
    pub lacks: Option<&'a str>,
    /// The status sent to the client; 0 if none was sent.
    pub status: u16,
    /// From the moment at which the head had been read until the record was made: before an answer that waits for
    /// its record, otherwise after the answer.
    pub duration: Duration,
    /// Whether it was answered by a stream, whose duration says nothing of how fast answers are.
    pub is_stream: bool,
    /// The fingerprint of the policy that decided.
    pub policy: &'a str,
    /// The trace that the client began (W3C Trace Context), if any.
    pub trace_id: Option<&'a str>,
    /// Whether the request must have its own record.
    pub detail: RecordDetail,
}

impl RequestRecord<'_> {
    /// The record as one line of JSON. If later requests are merged with this one, `merged` is the beginning of their
    /// ids.
    pub(super) fn line(&self, merged: Option<&str>) -> Vec<u8> {
        let mut line = RecordLine::begin();
        line.time("time", self.time);
        line.text("request.id", self.request_id);
        if let Some(chosen) = self.client_request_id {
            line.text_within("client.request_id", chosen, 2 * 256);
        }
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
        if self.same_person {
            line.flag("subject.same_person", true);
        }
        if self.related {
            line.flag("subject.related", true);
        }
        line.text("decision", self.decision.as_str());
        line.text("reason", self.reason.as_str());
        if let Some(permission) = self.lacks {
            line.text("lacks", permission);
        }
        line.number("status", u64::from(self.status));
        line.number("duration_us", u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX));
        line.text("policy", self.policy);
        if let Some(trace) = self.trace_id {
            line.text("trace.id", trace);
        }
        if let Some(ids) = merged {
            line.text("merged", ids);
        }
        line.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(path: &'a str, account: &'a str) -> RequestRecord<'a> {
        RequestRecord {
            time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_498_259_000_001),
            request_id: "r1",
            client_request_id: None,
            client: "127.0.0.1",
            method: "GET",
            path,
            account: Some(account),
            roles: &[],
            endpoint: "person",
            subject: None,
            same_person: false,
            related: false,
            decision: RecordDecision::Deny,
            reason: RecordReason::Denied(fedgate_core::policy::DenyReason::NotOwn),
            lacks: None,
            status: 403,
            duration: Duration::from_micros(12),
            is_stream: false,
            policy: "p1",
            trace_id: None,
            detail: RecordDetail::Always,
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
            let line = String::from_utf8(record(nasty, nasty).line(None)).unwrap();
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert!(
                line.ends_with("}\n")
                    && !line.trim_end().chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{202e}')
            );
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(parsed["path"], nasty);
        }
    }

    fn parsed(record: &RequestRecord<'_>) -> (usize, serde_json::Value) {
        let line = record.line(None);
        (line.len(), serde_json::from_slice(&line).unwrap())
    }

    #[test]
    fn what_is_legal_is_whole_and_what_is_not_is_bounded_and_named() {
        // The longest values, with the longest escapes.
        let (path, account, subject) = ("/".repeat(MAX_PATH), "😀".repeat(64), "😀".repeat(MAX_PATH / 12));
        let names = |count: usize| (0..count).map(|number| format!("nurse_of_ward_{number:06}")).collect::<Vec<_>>();
        let many = names(200);
        let legal =
            RequestRecord { roles: &many, subject: Some(&subject), same_person: true, ..record(&path, &account) };
        let (_, told) = parsed(&legal);
        assert_eq!((&told["path"], &told["account"]), (&path.as_str().into(), &account.as_str().into()));
        assert_eq!((&told["subject.id"], &told["subject.same_person"]), (&subject.as_str().into(), &true.into()));
        assert_eq!((&told["roles"], &told["cut"]), (&serde_json::json!(many), &serde_json::Value::Null));

        let (path, text, too_many) = (path + "/", "\0".repeat(100_000), names(10_000));
        let cut = parsed(&RequestRecord { roles: &too_many, ..record(&path, "ANA") }).1;
        assert_eq!((&cut["cut"], &cut["account"]), (&serde_json::json!(["path", "roles"]), &"ANA".into()));
        assert!(cut["path"].as_str().unwrap().ends_with("/…"));
        let kept: Vec<String> = serde_json::from_value(cut["roles"].clone()).unwrap();
        assert!(kept.len() > 200 && kept == names(kept.len()), "whole names, the first of them");

        let roles = [text.clone()];
        let all = RequestRecord {
            request_id: &text,
            client_request_id: Some(&text),
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
        for all in [all, RequestRecord { roles: &roles, ..all }] {
            let (length, told) = parsed(&all);
            assert!(length <= 16 * 1024, "{length}");
            assert_eq!(told["cut"].as_array().unwrap().len(), 12, "{told}");
        }
    }

    #[test]
    fn times_are_utc_with_microseconds() {
        assert_eq!(parsed(&record("", "")).1["time"], "2026-11-24T05:30:59.000001Z");
    }
}
