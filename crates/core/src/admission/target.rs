//! The target of a request over HTTP/1, byte for byte as it was sent.
//!
//! The one rule: the bytes of the request line count, not those that a URI parser made of them; an HTTP library may
//! drop a fragment or escape a blank.

/// The target in the first line of a head; empty if that line does not have exactly three parts.
pub fn request_target(head: &[u8]) -> &[u8] {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut parts = line.strip_suffix(b"\r").unwrap_or(line).split(|byte| *byte == b' ');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(target), Some(_), None) => target,
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_what_was_on_the_request_line() {
        let of = |head: &'static str| std::str::from_utf8(request_target(head.as_bytes())).unwrap();
        assert_eq!(of("GET /people?x HTTP/1.1\r\nHost: a\r\n\r\n"), "/people?x");
        assert_eq!(of("GET /adm#x HTTP/1.1\r\n"), "/adm#x");
        assert_eq!(of("GET adm HTTP/1.1\r\n"), "adm");
        assert_eq!(of("GET http://evil/adm HTTP/1.1\r\n"), "http://evil/adm");
        for bad in ["GET /a b HTTP/1.1\r\n", "GET  /a HTTP/1.1\r\n", "GET /a\r\n", "\r\n", ""] {
            assert_eq!(of(bad), "", "{bad:?}");
        }
    }
}
