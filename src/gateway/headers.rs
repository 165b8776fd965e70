//! Names of headers that the gateway sets itself, and the removal of many.

use http::HeaderName;
use pingora_http::ResponseHeader;

/// The header with the request id, in both directions.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The header that returns to clients the id that they chose (HL7 FHIR, RESTful API, custom headers).
pub(crate) const CORRELATION_ID: &str = "x-correlation-id";

/// Removes the headers whose names `goes` holds for. An answer has fewer headers than there are names to remove, so its
/// own are looked at, and not each of the names looked for.
pub(crate) fn remove_those(response: &mut ResponseHeader, goes: impl Fn(&str) -> bool) {
    let unwanted: Vec<HeaderName> = response.headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    for name in unwanted {
        response.remove_header(&name);
    }
}
