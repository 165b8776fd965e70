//! The headers of the gateway's own.

/// The header that tells the request id, in both directions.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The header that tells clients the id that they chose themselves (HL7 FHIR, RESTful API, custom headers).
pub(crate) const CORRELATION_ID: &str = "x-correlation-id";
