//! Names of headers that the gateway sets itself.

/// The header with the request id, in both directions.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// The header that returns to clients the id that they chose (HL7 FHIR, RESTful API, custom headers).
pub(crate) const CORRELATION_ID: &str = "x-correlation-id";
