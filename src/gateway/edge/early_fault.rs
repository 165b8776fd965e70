//! Faults that are answered beneath pingora, and the bytes of the answer.

use http::StatusCode;

use fedgate_core::codes::AnswerCode;
use fedgate_core::framing::FramingError;
use fedgate_core::methods::ALL_METHODS;

/// Why a client is answered beneath pingora.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EarlyFault {
    Framing(FramingError),
    HeadTooSlow,
}

impl EarlyFault {
    /// The answer, as the catalogue has it.
    pub(crate) fn code(self) -> AnswerCode {
        match self {
            Self::Framing(error) => error.answer(),
            Self::HeadTooSlow => AnswerCode::RequestTimeout,
        }
    }

    /// The whole answer, byte for byte; it ends the connection. The headers of a refused request are not read, so
    /// neither `Accept` nor `Origin` counts: pages may read the answer if any origin may. HEAD gets only the
    /// header section.
    pub(crate) fn answer(self, request_id: &str, any_origin: bool, is_head: bool) -> Vec<u8> {
        let body = self.code().json(request_id);
        let status = self.code().status();
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
        let is_allowed = self.code() != AnswerCode::MethodNotAllowed;
        let allow = if is_allowed { String::new() } else { format!("Allow: {ALL_METHODS}\r\n") };
        let origin = if any_origin { "Access-Control-Allow-Origin: *\r\n" } else { "" };
        let answer = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: \
             no-store\r\nX-Request-Id: {request_id}\r\n{origin}{allow}Connection: close\r\n\r\n{}",
            body.len(),
            if is_head { "" } else { &body }
        );
        answer.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_whole_and_readable_for_pages_only_where_all_origins_are_allowed() {
        for (any_origin, lines) in [(true, 1), (false, 0)] {
            let answer =
                String::from_utf8(EarlyFault::Framing(FramingError::Method).answer("r1", any_origin, false)).unwrap();
            assert_eq!(answer.matches("Access-Control-").count(), lines, "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && head.contains("\r\nAllow: GET"),
                "{head}"
            );
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["request_id"], "r1");
        }
        let head = String::from_utf8(EarlyFault::Framing(FramingError::Method).answer("r1", true, true)).unwrap();
        assert!(head.ends_with("\r\n\r\n") && !head.contains("Content-Length: 0"), "{head}");
        let slow = String::from_utf8(EarlyFault::HeadTooSlow.answer("r1", true, false)).unwrap();
        assert!(slow.starts_with("HTTP/1.1 408 Request Timeout\r\n") && !slow.contains("Allow: "), "{slow}");
    }
}
