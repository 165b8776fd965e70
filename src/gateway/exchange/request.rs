//! Reads a request: from pingora's session to the parts that the pipeline judges.
//!
//! The one rule: take the bytes of the wire, not those that a URI parser made of them. For HTTP/1 that is the
//! request line itself; pingora's own parse has dropped fragments and escaped blanks.

use bytes::Bytes;
use http::{HeaderMap, Method, Version, header};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use crate::pipeline::AuthorizationHeaders;
use fedgate_core::framing::{MAX_HEADERS, plain_number};
use fedgate_core::host::HostPort;

/// The methods that some path here may have.
pub(crate) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The message of 405.
pub(crate) const NOT_ALLOWED: &str = "The method is not allowed for the requested URL.";

/// The request target as it was sent.
pub(crate) fn target(session: &Session) -> RawTarget {
    match session.as_downstream().as_http1() {
        Some(http1) => RawTarget::Line(http1.get_headers_raw_bytes()),
        None => RawTarget::Path(session.req_header().raw_path().to_vec().into()),
    }
}

/// Bytes that hold the request target.
pub(crate) enum RawTarget {
    /// An HTTP/1 head; its first line holds the target.
    Line(Bytes),
    /// The `:path` of HTTP/2.
    Path(Bytes),
}

impl RawTarget {
    /// The target itself; empty if the request line does not have exactly three parts.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Path(path) => path,
            Self::Line(head) => {
                let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let mut parts = line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b' ');
                match (parts.next(), parts.next(), parts.next(), parts.next()) {
                    (Some(_), Some(target), Some(_), None) => target,
                    _ => b"",
                }
            }
        }
    }
}

/// The requested authority: `:authority` of HTTP/2, or `Host`.
pub(crate) fn authority(head: &RequestHeader) -> &str {
    let host = || head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    head.uri.authority().map_or_else(host, |authority| authority.as_str())
}

/// The `Authorization` headers of a request.
pub(crate) fn authorization(headers: &HeaderMap) -> AuthorizationHeaders<'_> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => AuthorizationHeaders::Absent,
        (Some(one), None) => AuthorizationHeaders::One(one.as_bytes()),
        (Some(_), Some(_)) => AuthorizationHeaders::Several,
    }
}

/// Why a request is refused before authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MalformedRequest {
    /// Not exactly one `Host` (RFC 9112, 3.2) or `:authority`, or one with another syntax.
    Host,
    /// A header name with other characters than letters, digits and `-`. The strict reader has checked HTTP/1
    /// already.
    Header,
    /// More header lines than a head may have. The strict reader has checked HTTP/1 already.
    TooMany,
    /// GET, HEAD or DELETE with a body.
    BodyNotExpected,
    /// A length that is no plain number, or one beside `Transfer-Encoding`.
    Framing,
    /// A method that no upstream here has.
    Method,
}

/// Checks what must hold of every request.
pub(crate) fn check(head: &RequestHeader) -> Result<(), MalformedRequest> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    let http2 = head.version == Version::HTTP_2;
    // With two hosts, the gateway could judge one and the upstream serve the other.
    if hosts > 1 || (hosts == 0 && !http2) || HostPort::parse(authority(head)).is_none() {
        return Err(MalformedRequest::Host);
    }
    if !matches!(head.method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") {
        return Err(MalformedRequest::Method);
    }
    // CGI and WSGI take `_` and `-` in a name for the same, so one header could pass for another.
    if http2 && !head.headers.keys().all(|name| name.as_str().bytes().all(is_name_byte)) {
        return Err(MalformedRequest::Header);
    }
    // Over HTTP/2, a client may split cookies into any number of lines; they count as one (RFC 9113, 8.2.3).
    let cookies = if http2 { head.headers.get_all(header::COOKIE).iter().count() } else { 0 };
    if head.headers.len() - cookies.saturating_sub(1) > MAX_HEADERS {
        return Err(MalformedRequest::TooMany);
    }
    // Request smuggling: two lengths, or a length beside chunks, let two readers disagree (RFC 9112, 6.3).
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(length), None) => Some(plain_number(length.as_bytes()).ok_or(MalformedRequest::Framing)?),
        (Some(_), Some(_)) => return Err(MalformedRequest::Framing),
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
        _ => return Err(MalformedRequest::Framing),
    };
    let body = chunked || length.is_some_and(|length| length > 0);
    // A server that expects no body would read it as the next request.
    if body && !has_body(&head.method) {
        return Err(MalformedRequest::BodyNotExpected);
    }
    Ok(())
}

/// Whether requests with this method may have a body.
pub(crate) fn has_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// The declared length of the body, if there is one.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(|length| plain_number(length.as_bytes()))
}

impl MalformedRequest {
    /// The status that the client receives.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Host | Self::Header | Self::BodyNotExpected | Self::Framing => 400,
            Self::Method => 405,
            Self::TooMany => 431,
        }
    }

    /// The stable code that the client receives.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Host => "bad_host",
            Self::Header => "bad_header",
            Self::TooMany => "head_too_large",
            Self::BodyNotExpected => "body_not_expected",
            Self::Framing => "bad_framing",
            Self::Method => "method_not_allowed",
        }
    }

    /// The message that the client receives.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Host => "A request has exactly one Host, which is a name or an address",
            Self::Header => "A header name has other characters than letters, digits and -",
            Self::TooMany => "the head is too large",
            Self::BodyNotExpected => "This method has no body",
            Self::Framing => "The length of the body has no single reading",
            Self::Method => NOT_ALLOWED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, version: Version, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build(method, b"/people", None).unwrap();
        head.set_version(version);
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn the_target_is_what_was_on_the_request_line() {
        let of =
            |line: &str| String::from_utf8(RawTarget::Line(Bytes::from(line.to_owned())).as_bytes().to_vec()).unwrap();
        assert_eq!(of("GET /people?x HTTP/1.1\r\nHost: a\r\n\r\n"), "/people?x");
        assert_eq!(of("GET /adm#x HTTP/1.1\r\n"), "/adm#x");
        assert_eq!(of("GET adm HTTP/1.1\r\n"), "adm");
        assert_eq!(of("GET http://evil/adm HTTP/1.1\r\n"), "http://evil/adm");
        for bad in ["GET /a b HTTP/1.1\r\n", "GET  /a HTTP/1.1\r\n", "GET /a\r\n", "\r\n", ""] {
            assert_eq!(of(bad), "", "{bad:?}");
        }
    }

    #[test]
    fn framing_and_host_have_one_reading_or_none() {
        use Version as V;
        #[rustfmt::skip]
        let cases: Vec<(RequestHeader, Result<(), MalformedRequest>)> = vec![
            (head("GET", V::HTTP_11, &[("Host", "a")]), Ok(())),
            (head("GET", V::HTTP_2, &[("Host", "a")]), Ok(())),
            (head("GET", V::HTTP_2, &[]), Err(MalformedRequest::Host)),
            (head("GET", V::HTTP_2, &[("Host", "a b")]), Err(MalformedRequest::Host)),
            (head("GET", V::HTTP_11, &[]), Err(MalformedRequest::Host)),
            (head("GET", V::HTTP_11, &[("Host", "a"), ("Host", "a")]), Err(MalformedRequest::Host)),
            (head("POST", V::HTTP_11, &[("Host", "a"), ("Content-Length", "3")]), Ok(())),
            (head("POST", V::HTTP_11, &[("Host", "a"), ("Transfer-Encoding", "chunked")]), Ok(())),
            (head("POST", V::HTTP_11, &[("Host", "a"), ("Transfer-Encoding", "chunked"), ("Content-Length", "3")]), Err(MalformedRequest::Framing)),
            (head("POST", V::HTTP_11, &[("Host", "a"), ("Transfer-Encoding", "gzip, chunked")]), Err(MalformedRequest::Framing)),
            (head("POST", V::HTTP_11, &[("Host", "a"), ("Transfer-Encoding", "identity")]), Err(MalformedRequest::Framing)),
            (head("POST", V::HTTP_10, &[("Host", "a"), ("Transfer-Encoding", "chunked")]), Err(MalformedRequest::Framing)),
            (head("POST", V::HTTP_11, &[("Host", "a"), ("Content-Length", "3"), ("Content-Length", "3")]), Err(MalformedRequest::Framing)),
            (head("GET", V::HTTP_11, &[("Host", "a"), ("Content-Length", "0")]), Ok(())),
            (head("GET", V::HTTP_11, &[("Host", "a"), ("Content-Length", "1")]), Err(MalformedRequest::BodyNotExpected)),
            (head("DELETE", V::HTTP_11, &[("Host", "a"), ("Transfer-Encoding", "chunked")]), Err(MalformedRequest::BodyNotExpected)),
            (head("TRACE", V::HTTP_11, &[("Host", "a")]), Err(MalformedRequest::Method)),
            (head("get", V::HTTP_11, &[("Host", "a")]), Err(MalformedRequest::Method)),
        ];
        for (head, expected) in cases {
            assert_eq!(check(&head), expected, "{head:?}");
        }
        for length in ["+3", "-3", "0x3", "003", "3, 3", "", " 3", "99999999999999999999"] {
            let mut head = head("POST", V::HTTP_11, &[("Host", "a")]);
            head.append_header("Content-Length", length).unwrap();
            assert_eq!(check(&head), Err(MalformedRequest::Framing), "{length}");
        }
    }
}
