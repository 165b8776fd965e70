//! Reads a request: from pingora's session to the parts that the pipeline judges.
//!
//! The one rule: take the bytes of the wire, not those that a URI parser made of them. For HTTP/1 that is the
//! request line itself; pingora's own parse has dropped fragments and escaped blanks.

use bytes::Bytes;
use http::{HeaderMap, header};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use crate::pipeline::AuthorizationHeaders;
use fedgate_core::admission::ParsedHead;

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

/// The parts of a head that are looked at before a decision.
pub(crate) fn parsed(head: &RequestHeader) -> ParsedHead<'_> {
    ParsedHead {
        version: head.version,
        method: head.method.as_str(),
        authority: authority(head),
        headers: &head.headers,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
