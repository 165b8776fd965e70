//! Cross-origin requests (the Fetch standard's CORS protocol), answered as by Thalamus: on every response, errors
//! too.
//!
//! The one rule: credentials are never allowed in the CORS sense. Portals send `Authorization` themselves, and a
//! page of another origin never reads an answer to the browser's own credentials. CORS does not keep a browser from
//! sending them: once asked for a password, it sends it with every request that needs no preflight, such as a form.
//! [`fedgate_core::admission::ForeignPage`] handles that.

use http::{HeaderMap, HeaderValue, header};
use pingora_core::Result;
use pingora_http::ResponseHeader;

use fedgate_core::admission::ForeignPage;
use fedgate_core::origins::{AllowedOrigins, OriginRules};

/// The methods that a preflight's answer allows, whatever the path serves: Flask-CORS's list.
const ALLOW_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
/// The headers that a page may read beside the safelisted ones.
const EXPOSE_HEADERS: &str = "ETag, Fedgate-Changes-Until, Fedgate-Search, Link, X-Correlation-Id, X-Request-Id";
/// Longest `Access-Control-Request-Headers` that is echoed, in bytes.
const MAX_ECHO_BYTES: usize = 1024;

/// The CORS part of one answer, taken from the request before it is answered.
#[derive(Debug, Default, Clone)]
pub(crate) struct CorsAnswer {
    allow_origin: Option<HeaderValue>,
    vary: bool,
    credentials: PageCredentials,
}

/// Whether a preflight's answer allows the header `authorization`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum PageCredentials {
    /// Pages may send it.
    #[default]
    Allowed,
    /// Pages may not, so that a browser sends no request that has it.
    Withheld,
}

impl CorsAnswer {
    /// Of a request, and the page of another origin that sent it, if any.
    pub(crate) fn of(request: &HeaderMap, config: &OriginRules, page: Option<&ForeignPage<'_>>) -> Self {
        let credentials = match page {
            Some(page) if !page.may_send_credentials(config) => PageCredentials::Withheld,
            Some(_) | None => PageCredentials::Allowed,
        };
        let (allow_origin, vary) = match (&config.allowed, request.get(header::ORIGIN)) {
            (AllowedOrigins::Any, None) => (Some(HeaderValue::from_static("*")), false),
            // Echoed as by Thalamus; harmless, because credentials in the CORS sense are never allowed.
            (AllowedOrigins::Any, Some(origin)) => (Some(origin.clone()), true),
            (AllowedOrigins::Only(allowed), origin) => {
                let allowed = origin.filter(|origin| allowed.iter().any(|known| known.as_bytes() == origin.as_bytes()));
                (allowed.cloned(), true)
            }
        };
        Self { allow_origin, vary, credentials }
    }

    /// Replaces the CORS headers of the upstream by those of the gateway.
    pub(crate) fn apply(&self, response: &mut ResponseHeader) -> Result<()> {
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
            response.insert_header(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSE_HEADERS))?;
        }
        if self.vary {
            // A cache must not give one origin the answer to another.
            response.append_header(header::VARY, "Origin")?;
        }
        Ok(())
    }

    /// Adds the headers that a preflight asks for.
    pub(crate) fn apply_preflight(&self, request: &HeaderMap, response: &mut ResponseHeader) -> Result<()> {
        if self.allow_origin.is_none() || !request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            return Ok(());
        }
        response.insert_header(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOW_METHODS)?;
        let asked = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let Some(asked) = asked.filter(|asked| asked.len() <= MAX_ECHO_BYTES) else { return Ok(()) };
        match self.credentials {
            PageCredentials::Allowed => response.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, asked),
            PageCredentials::Withheld => {
                let names = asked.to_str().unwrap_or_default().split(',').map(str::trim);
                // The preflight then fails only for `authorization`, so that the browser never sends a password.
                let others: Vec<_> = names.filter(|name| !name.eq_ignore_ascii_case("authorization")).collect();
                match others.is_empty() {
                    true => Ok(()),
                    false => response.insert_header(header::ACCESS_CONTROL_ALLOW_HEADERS, others.join(", ")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ALLOW_METHODS;

    #[test]
    fn a_preflight_allows_the_methods_of_the_one_table() {
        let mut methods = fedgate_core::methods::METHODS.map(|method| method.name);
        methods.sort_unstable();
        assert_eq!(methods.join(", "), ALLOW_METHODS);
    }
}
