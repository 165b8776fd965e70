//! Cross-origin requests (the Fetch standard's CORS protocol), as Thalamus answers them: on every response, errors too.
//!
//! The one rule: credentials are never allowed in the CORS sense. Portals send `Authorization` themselves, and a page of
//! another origin never reads what a browser's own credentials bring. This does not keep such credentials at home: a
//! browser that was asked for a password sends it with what needs no preflight, such as a form, whatever stands here.
//! That is what [`super::foreign`] is for.

use http::{HeaderMap, HeaderValue, header};
use pingora_core::Result;
use pingora_http::ResponseHeader;

use crate::config::{AllowedOrigins, CorsConfig};

/// What a preflight is told, whatever the path serves: Flask-CORS's list.
const ALLOW_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
/// What a page may read beside the safelisted headers.
const EXPOSE_HEADERS: &str = "ETag, Link, X-Request-Id";
/// Longest `Access-Control-Request-Headers` that is echoed, in bytes.
const MAX_ECHO_BYTES: usize = 1024;

/// The CORS part of one answer, taken from the request before it is answered.
#[derive(Debug, Default, Clone)]
pub(super) struct Cors {
    allow_origin: Option<HeaderValue>,
    vary: bool,
}

impl Cors {
    pub(super) fn of(request: &HeaderMap, config: &CorsConfig) -> Self {
        match (&config.allowed, request.get(header::ORIGIN)) {
            (AllowedOrigins::Any, None) => Self { allow_origin: Some(HeaderValue::from_static("*")), vary: false },
            (AllowedOrigins::Any, Some(origin)) => Self { allow_origin: Some(origin.clone()), vary: true },
            (AllowedOrigins::Only(allowed), origin) => {
                let allowed = origin.filter(|origin| allowed.iter().any(|known| known.as_bytes() == origin.as_bytes()));
                Self { allow_origin: allowed.cloned(), vary: true }
            }
        }
    }

    /// Replaces whatever the upstream says of CORS by what the gateway says.
    pub(super) fn apply(&self, response: &mut ResponseHeader) -> Result<()> {
        for name in [
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            header::ACCESS_CONTROL_ALLOW_METHODS,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            header::ACCESS_CONTROL_MAX_AGE,
        ] {
            response.remove_header(&name);
        }
        if let Some(origin) = &self.allow_origin {
            response.insert_header(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)?;
            response.insert_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS)?;
        }
        if self.vary {
            response.append_header(header::VARY, "Origin")?;
        }
        Ok(())
    }

    /// Adds what a preflight asks for.
    pub(super) fn apply_preflight(&self, request: &HeaderMap, response: &mut ResponseHeader) -> Result<()> {
        if self.allow_origin.is_none() || !request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            return Ok(());
        }
        response.insert_header(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOW_METHODS)?;
        if let Some(asked) =
            request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).filter(|asked| asked.len() <= MAX_ECHO_BYTES)
        {
            response.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, asked)?;
        }
        Ok(())
    }
}
