//! The head of a request as an HTTP library has parsed it, over either version.
//!
//! The one rule: a head with more than one reading is refused before its sender is authenticated. For HTTP/1,
//! [`super::screen_bytes`] has already checked more; for HTTP/2, this is the first check.

use http::{HeaderMap, Version, header};

use super::host::check_one_host;
use crate::codes::AnswerCode;
use crate::framing::{MAX_HEADERS, plain_number};
use crate::methods::{RequestMethod, may_have_body};

/// The parts of a head that are looked at before a decision.
#[derive(Debug, Clone, Copy)]
pub struct ParsedHead<'a> {
    /// The version of HTTP.
    pub version: Version,
    /// The method, as received.
    pub method: &'a str,
    /// The authority that was asked for: `:authority` of HTTP/2, or `Host`.
    pub authority: &'a str,
    /// The header lines.
    pub headers: &'a HeaderMap,
}

/// Checks what must hold of every request.
///
/// # Errors The answer: not exactly one host of the one syntax, a header name that services read as another, more
/// header lines than a head may have, a body whose end is unclear, or that belongs to no such method.
pub fn check_head(head: &ParsedHead<'_>) -> Result<(), AnswerCode> {
    check_one_host(head.version, head.headers, head.authority)?;
    let http2 = head.version == Version::HTTP_2;
    if RequestMethod::find(head.method).is_none() {
        // It is refused for its method, whatever else is wrong with it.
        return Ok(());
    }
    // CGI and WSGI take `_` and `-` in a name for the same, so one header could pass for another.
    if http2 && !head.headers.keys().all(|name| name.as_str().bytes().all(is_name_byte)) {
        return Err(AnswerCode::BadHeader);
    }
    // A value with blanks at its ends is malformed (RFC 9113, 8.2.1). HTTP/1 takes them off, so the gateway and a
    // service behind it would read two values.
    if http2 && head.headers.values().any(|value| has_blank_end(value.as_bytes())) {
        return Err(AnswerCode::BadHeader);
    }
    // Over HTTP/2, a client may split cookies into any number of lines; they count as one (RFC 9113, 8.2.3).
    let cookies = if http2 { head.headers.get_all(header::COOKIE).iter().count() } else { 0 };
    if head.headers.len() - cookies.saturating_sub(1) > MAX_HEADERS {
        return Err(AnswerCode::HeadTooLarge);
    }
    // Request smuggling: two lengths, or a length beside chunks, let two readers disagree (RFC 9112, 6.3).
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(length), None) => Some(plain_number(length.as_bytes()).ok_or(AnswerCode::BadFraming)?),
        (Some(_), Some(_)) => return Err(AnswerCode::BadFraming),
    };
    let mut encodings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = match (encodings.next(), encodings.next()) {
        (None, _) => false,
        (Some(encoding), None)
            if encoding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && length.is_none()
                // RFC 9112, 6.1: chunks in HTTP/1.0 are faulty framing.
                && head.version == Version::HTTP_11 =>
        {
            true
        }
        _ => return Err(AnswerCode::BadFraming),
    };
    let body = chunked || length.is_some_and(|length| length > 0);
    // A server that expects no body would read it as the next request.
    if body && !may_have_body(head.method) {
        return Err(AnswerCode::BodyNotExpected);
    }
    Ok(())
}

fn has_blank_end(value: &[u8]) -> bool {
    [value.first(), value.last()].into_iter().flatten().any(|byte| matches!(byte, b' ' | b'\t'))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// The declared length of the body, where there is one.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(|length| plain_number(length.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, version and header lines of a head, and what becomes of it.
    type HeadCase = (&'static str, Version, &'static [(&'static str, &'static str)], Result<(), AnswerCode>);

    fn checked(method: &str, version: Version, lines: &[(&'static str, &str)]) -> Result<(), AnswerCode> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let authority = headers.get(header::HOST).map_or("", |host| host.to_str().unwrap()).to_owned();
        check_head(&ParsedHead { version, method, authority: &authority, headers: &headers })
    }

    #[test]
    fn framing_and_host_have_one_reading_or_none() {
        use Version as V;
        #[rustfmt::skip]
        let cases: [HeadCase; 23] = [
            ("GET", V::HTTP_11, &[("host", "a")], Ok(())),
            ("GET", V::HTTP_2, &[("host", "a")], Ok(())),
            ("GET", V::HTTP_2, &[], Err(AnswerCode::BadHost)),
            ("GET", V::HTTP_2, &[("host", "a b")], Err(AnswerCode::BadHost)),
            ("GET", V::HTTP_11, &[], Err(AnswerCode::BadHost)),
            ("GET", V::HTTP_11, &[("host", "a"), ("host", "a")], Err(AnswerCode::BadHost)),
            ("POST", V::HTTP_11, &[("host", "a"), ("content-length", "3")], Ok(())),
            ("POST", V::HTTP_11, &[("host", "a"), ("transfer-encoding", "chunked")], Ok(())),
            ("POST", V::HTTP_11, &[("host", "a"), ("transfer-encoding", "chunked"), ("content-length", "3")], Err(AnswerCode::BadFraming)),
            ("POST", V::HTTP_11, &[("host", "a"), ("transfer-encoding", "gzip, chunked")], Err(AnswerCode::BadFraming)),
            ("POST", V::HTTP_11, &[("host", "a"), ("transfer-encoding", "identity")], Err(AnswerCode::BadFraming)),
            ("POST", V::HTTP_10, &[("host", "a"), ("transfer-encoding", "chunked")], Err(AnswerCode::BadFraming)),
            ("POST", V::HTTP_11, &[("host", "a"), ("content-length", "3"), ("content-length", "3")], Err(AnswerCode::BadFraming)),
            ("GET", V::HTTP_11, &[("host", "a"), ("content-length", "0")], Ok(())),
            ("GET", V::HTTP_11, &[("host", "a"), ("content-length", "1")], Err(AnswerCode::BodyNotExpected)),
            ("DELETE", V::HTTP_11, &[("host", "a"), ("transfer-encoding", "chunked")], Err(AnswerCode::BodyNotExpected)),
            ("GET", V::HTTP_2, &[("host", "a"), ("referer", " x")], Err(AnswerCode::BadHeader)),
            ("GET", V::HTTP_2, &[("host", "a"), ("referer", "x\t")], Err(AnswerCode::BadHeader)),
            ("GET", V::HTTP_2, &[("host", "a"), ("cookie", "a=1"), ("cookie", "b=2 ")], Err(AnswerCode::BadHeader)),
            ("GET", V::HTTP_2, &[("host", "a"), ("referer", "x y"), ("x-empty", "")], Ok(())),
            ("GET", V::HTTP_11, &[("host", "a"), ("referer", "x ")], Ok(())),
            ("TRACE", V::HTTP_11, &[("host", "a")], Ok(())),
            ("get", V::HTTP_11, &[("host", "a")], Ok(())),
        ];
        for (method, version, lines, expected) in cases {
            assert_eq!(checked(method, version, lines), expected, "{method} {lines:?}");
        }
        for length in ["+3", "-3", "0x3", "003", "3, 3", "", " 3", "99999999999999999999"] {
            let lines = [("host", "a"), ("content-length", length)];
            assert_eq!(checked("POST", Version::HTTP_11, &lines), Err(AnswerCode::BadFraming), "{length}");
        }
    }
}
