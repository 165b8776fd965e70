//! Removes hop-by-hop headers from an upstream's answer. Those of a request are held back by
//! [`fedgate_core::request_headers`].
//!
//! The one rule: they end here (RFC 9110, 7.6.1). The client learns the length of an answer once, and only if the
//! answer has a body; pingora writes the headers of the client's own connection.
//!
//! Called by the callbacks of [`super::proxy`] and by [`super::owner_check`], once per answer, interim ones included,
//! before anything else reads the head.

use http::{HeaderName, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

use crate::gateway::headers::{connection_options, remove_those};

/// Headers of one connection, whether `Connection` names them or not. `Trailer` announces trailers, which are
/// dropped. The challenge of a proxy is for its direct client (RFC 9110, 11.7.1); a browser would answer it with
/// its user's credentials for another proxy.
const OF_ONE_CONNECTION: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "te",
    "trailer",
    "upgrade",
];
/// Headers that `Connection` cannot remove: those that delimit the answer, and the one that forbids caching (the
/// example of RFC 9110, 7.6.1).
const STAYS: &[HeaderName] = &[header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CACHE_CONTROL];

/// Most interim answers (1xx) to one request.
const MAX_INTERIM: u32 = 8;

/// The number of interim answers to a request.
#[derive(Default)]
pub(crate) struct InterimCount(u32);

impl InterimCount {
    /// Counts an answer, if it is an interim one.
    ///
    /// # Errors
    /// One too many, or a 101: the gateway asked for no other protocol, and the bytes behind it would have two
    /// readings.
    pub(crate) fn note(&mut self, response: &ResponseHeader) -> Result<()> {
        if response.status.is_informational() {
            self.0 += 1;
            if self.0 > MAX_INTERIM || response.status == 101 {
                return Err(unclear("an unexpected interim answer, or too many of them"));
            }
        }
        Ok(())
    }
}

/// Removes the headers that concern only the connection to the upstream.
///
/// # Errors
/// A coding other than `chunked`, which the gateway did not ask for (RFC 9112, 7.4); or lengths without a single
/// reading.
pub(crate) fn remove(is_head: bool, response: &mut ResponseHeader) -> Result<()> {
    for name in named_by_connection(response) {
        response.remove_header(&name);
    }
    remove_those(response, |name| OF_ONE_CONNECTION.contains(&name));
    let has_no_body = response.status.is_informational() || matches!(response.status.as_u16(), 204 | 304);
    // No body follows such a head; a client would wait for its chunks.
    if is_chunked(response)? && (has_no_body || is_head) {
        response.remove_header(&header::TRANSFER_ENCODING);
    }
    match one_length(response)? {
        Some(length) if !has_no_body => response.insert_header(header::CONTENT_LENGTH, length)?,
        Some(_) => drop(response.remove_header(&header::CONTENT_LENGTH)),
        None => {}
    }
    // The version belongs to a connection, too (RFC 9110, 2.5).
    response.set_version(Version::HTTP_11);
    Ok(())
}

/// The headers that `Connection` names.
fn named_by_connection(response: &ResponseHeader) -> Vec<HeaderName> {
    connection_options(&response.headers)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| !STAYS.contains(name))
        .collect()
}

/// Whether the answer is chunked. `identity`, which old servers send for no coding (RFC 2616, 3.6), is refused as
/// well: pingora ignores the length beside any coding, so it would wait for the end of a kept connection, and take
/// half an answer for a whole one.
fn is_chunked(response: &ResponseHeader) -> Result<bool> {
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next().map(|coding| coding.as_bytes()), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(unclear("an answer in a transfer coding that was not asked for")),
    }
}

/// The length, if all values are equal (RFC 9110, 8.6).
fn one_length(response: &ResponseHeader) -> Result<Option<u64>> {
    let lines = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(|length| {
        let digits = length.trim_ascii();
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        is_number.then(|| std::str::from_utf8(digits).ok()?.parse::<u64>().ok())?
    });
    let Some(first) = lengths.next() else { return Ok(None) };
    match first {
        Some(_) if lengths.all(|length| length == first) => Ok(first),
        // Two readers could disagree about the end of this answer.
        _ => Err(unclear("an answer whose length has no single reading")),
    }
}

fn unclear(what: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, what).into_up()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(status: u16, is_head: bool, sent: &[(&'static str, &str)]) -> Option<Vec<String>> {
        let mut response = ResponseHeader::build(status, None).unwrap();
        for (name, value) in sent {
            response.append_header(*name, *value).unwrap();
        }
        remove(is_head, &mut response).ok()?;
        Some(response.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect())
    }

    #[test]
    fn an_answer_has_one_length_or_none_and_is_refused_with_two() {
        const LENGTH: &str = "content-length";
        type Sent<'a> = &'a [(&'static str, &'a str)];
        #[rustfmt::skip]
        let cases: [(u16, bool, Sent<'_>, Option<&[&str]>); 21] = [
            (200, false, &[(LENGTH, "5")], Some(&["content-length: 5"])),
            (200, false, &[(LENGTH, "5"), (LENGTH, "5")], Some(&["content-length: 5"])),
            (200, false, &[(LENGTH, "5, 5"), (LENGTH, "05")], Some(&["content-length: 5"])),
            (200, false, &[(LENGTH, "5"), (LENGTH, "6")], None),
            (200, false, &[(LENGTH, "5, 6")], None),
            (200, false, &[(LENGTH, "5,")], None),
            (200, false, &[(LENGTH, "+5")], None),
            (200, false, &[(LENGTH, "99999999999999999999")], None),
            (204, false, &[(LENGTH, "5")], Some(&[])),
            (204, false, &[(LENGTH, "5"), (LENGTH, "6")], None),
            (304, false, &[(LENGTH, "5")], Some(&[])),
            (304, false, &[("transfer-encoding", "chunked")], Some(&[])),
            (103, false, &[(LENGTH, "5"), ("transfer-encoding", "chunked")], Some(&[])),
            (200, true, &[(LENGTH, "5")], Some(&["content-length: 5"])),
            (200, true, &[("transfer-encoding", "chunked")], Some(&[])),
            (200, false, &[("transfer-encoding", "Chunked")], Some(&["transfer-encoding: Chunked"])),
            (200, false, &[("transfer-encoding", "identity")], None),
            (200, false, &[("transfer-encoding", "gzip, chunked")], None),
            (200, false, &[("transfer-encoding", "gzip")], None),
            (200, false, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")], None),
            (200, false, &[], Some(&[])),
        ];
        for (status, is_head, sent, expected) in cases {
            let expected = expected.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
            assert_eq!(left(status, is_head, sent), expected, "{status}, {sent:?}");
        }
    }

    #[test]
    fn what_connection_names_goes_but_what_delimits_or_guards_the_answer() {
        let sent = [
            ("connection", "X-Hop, keep-alive"),
            ("connection", "content-length, Cache-Control, , \u{fc}, upgrade"),
            ("x-hop", "1"),
            ("x-kept", "2"),
            ("cache-control", "no-store"),
            ("content-length", "3"),
        ];
        for status in [103, 200] {
            let left = left(status, false, &sent).unwrap();
            assert!(left.contains(&"x-kept: 2".to_owned()) && left.contains(&"cache-control: no-store".to_owned()));
            assert_eq!(left.len(), if status == 200 { 3 } else { 2 }, "{left:?}");
        }
        for name in OF_ONE_CONNECTION {
            assert_eq!(left(200, false, &[(*name, "x-kept")]), Some(vec![]), "{name}");
        }
    }
}
