//! Reads a request: from pingora's session to the parts that the pipeline judges.
//!
//! The one rule: nothing is interpreted here. The bytes of the wire go to [`fedgate_core::admission`], not those that
//! pingora's parser made of them: it drops fragments and escapes blanks.

use bytes::Bytes;
use http::{HeaderMap, header};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use crate::gateway::edge::client_socket::ConnectionFacts;
use crate::pipeline::AuthorizationHeaders;
use fedgate_core::admission::{ParsedHead, request_target, requested_host};

/// The request target as it was sent: here, or to the proxy that asks about it.
pub(crate) fn target(session: &Session, told: Option<&Bytes>) -> RawTarget {
    if let Some(told) = told {
        return RawTarget::Path(told.clone());
    }
    match session.as_downstream().as_http1() {
        Some(http1) => RawTarget::Line(http1.get_headers_raw_bytes()),
        None => RawTarget::Path(session.req_header().raw_path().to_vec().into()),
    }
}

/// The facts of the connection.
pub(crate) fn facts(session: &Session) -> Option<&ConnectionFacts> {
    session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
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
            Self::Line(head) => request_target(head),
        }
    }
}

/// The host that a request asks for.
pub(crate) fn authority(head: &RequestHeader) -> &str {
    requested_host(&head.uri, &head.headers)
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
