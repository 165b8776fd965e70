//! Why a client is answered beneath pingora, and the bytes it is answered with.

use http::StatusCode;
use serde_json::json;

use crate::framing::FramingError;

/// Why a client is answered beneath pingora.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Framing(FramingError),
    HeadTooSlow,
}

impl Fault {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::HeadTooSlow => 408,
            Self::Framing(error) => error.status(),
        }
    }

    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Framing(error) => error.code(),
            Self::HeadTooSlow => "request_timeout",
        }
    }

    fn message(self) -> String {
        match self {
            Self::Framing(error) => error.to_string(),
            Self::HeadTooSlow => "the request took too long".into(),
        }
    }
    /// The whole answer, byte for byte; it ends the connection.
    pub(super) fn answer(self, request_id: &str) -> Vec<u8> {
        let body = json!({ "error": self.message(), "code": self.code(), "request_id": request_id }).to_string();
        let status = self.status();
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
        let allow = if status == 405 { "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" } else { "" };
        let answer = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Request-Id: {request_id}\r\nAccess-Control-Allow-Origin: *\r\n{allow}Connection: close\r\n\r\n{body}",
            body.len()
        );
        answer.into_bytes()
    }
}
