//! The check of the host that a request asks for: `Host` of HTTP/1, `:authority` of HTTP/2.
//!
//! The one rule: it is exactly one, in the one syntax of [`crate::host`], and one that the operator has listed.
//!
//! The strict HTTP/1 reader has checked count and syntax before ([`crate::framing`]); over HTTP/2, this is the first
//! check.

use http::{HeaderMap, Uri, Version, header};

use crate::codes::AnswerCode;
use crate::host::{HostList, HostPort};

/// The host that a request asks for, with its port where one is named: `:authority` of HTTP/2, or `Host`.
pub fn requested_host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let host = || headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    uri.authority().map_or_else(host, |authority| authority.as_str())
}

/// Checks that a request names exactly one host, in the one syntax.
///
/// # Errors
/// [`AnswerCode::BadHost`].
pub(super) fn check_one_host(version: Version, headers: &HeaderMap, requested: &str) -> Result<(), AnswerCode> {
    let count = headers.get_all(header::HOST).iter().count();
    let may_lack = version == Version::HTTP_2;
    // With two hosts, the gateway could judge one and the upstream serve the other.
    if count > 1 || (count == 0 && !may_lack) || HostPort::parse(requested).is_none() {
        return Err(AnswerCode::BadHost);
    }
    Ok(())
}

/// Checks that the requested host is served.
///
/// # Errors
/// [`AnswerCode::HostNotServed`]. Another server may serve that host (RFC 9110, 15.5.20), so it is 421 and not 404.
pub(super) fn check_served_host(hosts: &HostList, requested: &str) -> Result<(), AnswerCode> {
    if hosts.serves(requested) { Ok(()) } else { Err(AnswerCode::HostNotServed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_of_http2_comes_before_a_host_header() {
        let headers = HeaderMap::from_iter([(header::HOST, "a.example".parse().unwrap())]);
        assert_eq!(requested_host(&Uri::from_static("/people"), &headers), "a.example");
        assert_eq!(requested_host(&Uri::from_static("https://b.example:1/people"), &headers), "b.example:1");
        assert_eq!(requested_host(&Uri::from_static("/people"), &HeaderMap::new()), "");
    }
}
