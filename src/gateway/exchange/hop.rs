//! What the head of an upstream's answer says of the connection to the upstream alone.
//!
//! The one rule: it ends here (RFC 9110, 7.6.1). How long an answer is, its client is told once, and only of an answer that
//! has a body; on what its connection is kept, the writer below says for itself.
//!
//! Called by the callbacks of [`super::proxy`] and by [`super::owned`], once per answer, interim ones included, before anybody
//! else reads the head.

use http::{HeaderName, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

/// Headers that concern one connection, whether `Connection` names them or not. `Trailer` announces what is dropped; the
/// challenge of a proxy is for whom it was sent to (RFC 9110, 11.7.1), and a browser would answer it with what its user
/// signs in to another proxy with.
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
/// What no answer can ask to be left out: what delimits it, and what keeps others from storing it (RFC 9110, 7.6.1, has it
/// for the example of what `Connection` must not name).
const STAYS: &[HeaderName] = &[header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CACHE_CONTROL];

/// Most interim answers (1xx) to one request.
const MAX_INTERIM: u32 = 8;

/// How many interim answers a request has had.
#[derive(Default)]
pub(crate) struct InterimCount(u32);

impl InterimCount {
    /// Counts an answer, if it is an interim one.
    ///
    /// # Errors
    /// One too many, or a 101: nobody asked the server to switch, and what follows would be read as an answer by some and as none
    /// by others.
    pub(crate) fn note(&mut self, response: &ResponseHeader) -> Result<()> {
        if response.status.is_informational() {
            self.0 += 1;
            if self.0 > MAX_INTERIM || response.status == 101 {
                return Err(unclear("an interim answer that nobody asked for, or too many"));
            }
        }
        Ok(())
    }
}

/// Takes off what concerns the connection to the upstream alone.
///
/// # Errors
/// A coding other than `chunked`, which nobody asked for (RFC 9112, 7.4); or lengths that have no one reading.
pub(crate) fn take_off(is_head: bool, response: &mut ResponseHeader) -> Result<()> {
    for name in named_by_connection(response) {
        response.remove_header(&name);
    }
    for name in OF_ONE_CONNECTION {
        response.remove_header(*name);
    }
    let has_no_body = response.status.is_informational() || matches!(response.status.as_u16(), 204 | 304);
    if is_chunked(response)? && (has_no_body || is_head) {
        response.remove_header(&header::TRANSFER_ENCODING);
    }
    match one_length(response)? {
        Some(length) if !has_no_body => response.insert_header(header::CONTENT_LENGTH, length)?,
        Some(_) => drop(response.remove_header(&header::CONTENT_LENGTH)),
        None => {}
    }
    // The version is of a connection, too (RFC 9110, 2.5).
    response.set_version(Version::HTTP_11);
    Ok(())
}

/// The headers that `Connection` names.
fn named_by_connection(response: &ResponseHeader) -> Vec<HeaderName> {
    let lines = response.headers.get_all(header::CONNECTION).iter();
    let options = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    options.filter_map(|option| HeaderName::from_bytes(option).ok()).filter(|name| !STAYS.contains(name)).collect()
}

/// Whether the answer comes in chunks. `identity`, which old servers call none (RFC 2616, 3.6), is no exception: pingora drops
/// the length beside any coding, so that the end of a kept connection would be waited for, and half an answer be a whole one.
fn is_chunked(response: &ResponseHeader) -> Result<bool> {
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next().map(|coding| coding.as_bytes()), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => Err(unclear("an answer in a transfer coding that was not asked for")),
    }
}

/// The length, where one or several equal ones are told (RFC 9110, 8.6).
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
        take_off(is_head, &mut response).ok()?;
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
