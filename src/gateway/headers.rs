//! Names of headers that the gateway sets itself, the removal of many, and what `Connection` names.

use http::{HeaderMap, HeaderName, header};
use pingora_http::ResponseHeader;

/// The header with the request id, in both directions.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The header that returns to clients the id that they chose (HL7 FHIR, RESTful API, custom headers).
pub(crate) const CORRELATION_ID: &str = "x-correlation-id";

/// The account of a permitted caller, for a proxy that asks.
pub(crate) const ACCOUNT: HeaderName = HeaderName::from_static("fedgate-account");
/// The caller's roles.
pub(crate) const ROLES: HeaderName = HeaderName::from_static("fedgate-roles");
/// The permitted endpoint.
pub(crate) const ENDPOINT: HeaderName = HeaderName::from_static("fedgate-endpoint");
/// The person whose record it is.
pub(crate) const SUBJECT: HeaderName = HeaderName::from_static("fedgate-subject");
/// Whose records the permission reaches.
pub(crate) const SCOPE: HeaderName = HeaderName::from_static("fedgate-scope");

/// The options of `Connection`, over all its lines. Each that is a name belongs to one connection (RFC 9110, 7.6.1).
pub(crate) fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::CONNECTION).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Removes the headers whose names `goes` holds for. An answer has fewer headers than there are names to remove, so its
/// own are looked at, and not each of the names looked for.
pub(crate) fn remove_those(response: &mut ResponseHeader, goes: impl Fn(&str) -> bool) {
    let unwanted: Vec<HeaderName> = response.headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    for name in unwanted {
        response.remove_header(&name);
    }
}
