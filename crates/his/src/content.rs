//! The bytes of a document as an answer: type, disposition, one range (RFC 9110, section 14).

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::HisError;
use super::etag;
use super::store::DocumentHead;

/// Types that a browser shows without running anything.
const INLINE: [&str; 5] = ["image/jpeg", "image/png", "image/gif", "image/webp", "text/plain"];
const UNKNOWN: &str = "application/octet-stream";
/// The longest media type that is accepted.
const MAX_MEDIA_TYPE_BYTES: usize = 255;

/// Which bytes the answer has: all, the requested range, or none because the client has them.
pub(super) struct ContentAnswer {
    status: StatusCode,
    tag: String,
    /// The first byte of a range, and its last one.
    part: Option<(u64, u64)>,
    length: u64,
}

impl ContentAnswer {
    /// Reads the conditions and the range of a request.
    ///
    /// # Errors
    /// The client wants another version, or bytes that the document does not have.
    pub(super) fn of(method: &Method, headers: &HeaderMap, head: &DocumentHead, length: u64) -> Result<Self, HisError> {
        let tag = etag::of_hash(&head.tag);
        if !etag::is_wanted(headers, &tag) {
            return Err(HisError::Stale);
        }
        // Ranges are defined only for GET (RFC 9110, 14.2).
        let range = if method == Method::GET { range(headers, &tag, length) } else { ByteRange::Whole };
        let (status, part) = match range {
            _ if etag::is_known(headers, &tag) => (StatusCode::NOT_MODIFIED, None),
            ByteRange::Whole => (StatusCode::OK, None),
            ByteRange::Part { first, last } => (StatusCode::PARTIAL_CONTENT, Some((first, last))),
            ByteRange::Unsatisfiable => return Err(HisError::NoSuchRange(length)),
        };
        Ok(Self { status, tag, part, length })
    }

    /// The first byte to send, and the end (exclusive).
    pub(super) fn stretch(&self) -> (u64, u64) {
        match self.part {
            _ if self.status == StatusCode::NOT_MODIFIED => (0, 0),
            None => (0, self.length),
            Some((first, last)) => (first, last + 1),
        }
    }

    /// The answer with this body.
    pub(super) fn into_response(self, name: &str, head: &DocumentHead, body: Body) -> Response {
        let kind = media_type(head);
        let mut response = (self.status, body).into_response();
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        };
        set(CONTENT_TYPE, &kind);
        set(CONTENT_DISPOSITION, &disposition(&kind, name));
        // A document comes from outside: the browser neither guesses its type nor runs script of it in our
        // origin.
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox");
        set(ACCEPT_RANGES, "bytes");
        set(CACHE_CONTROL, "private, no-cache");
        set(ETAG, &self.tag);
        if self.status != StatusCode::NOT_MODIFIED {
            let (from, to) = self.stretch();
            set(CONTENT_LENGTH, &(to - from).to_string());
            if let Some((first, last)) = self.part {
                set(CONTENT_RANGE, &format!("bytes {first}-{last}/{}", self.length));
            }
        }
        response
    }
}

/// Whether a text is a media type, with or without parameters (`type/subtype; name=value`).
pub(super) fn is_media_type(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    text.len() <= MAX_MEDIA_TYPE_BYTES
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// The stored type, or the type that the first bytes show.
fn media_type(head: &DocumentHead) -> String {
    head.kind.clone().filter(|kind| is_media_type(kind)).unwrap_or_else(|| {
        #[rustfmt::skip]
        let signatures: [(&[u8], &str); 4] = [
            (b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"GIF8", "image/gif"), (b"%PDF-", "application/pdf"),
        ];
        let known = signatures.iter().find(|(signature, _)| head.start.starts_with(signature));
        known.map_or(UNKNOWN, |(_, kind)| kind).to_owned()
    })
}

fn disposition(kind: &str, name: &str) -> String {
    let essence = kind.split(';').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let manner = if INLINE.contains(&essence.as_str()) { "inline" } else { "attachment" };
    // RFC 8187: the name in UTF-8, percent-encoded.
    format!("{manner}; filename*=UTF-8''{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

#[derive(Debug, PartialEq)]
enum ByteRange {
    Whole,
    Part { first: u64, last: u64 },
    Unsatisfiable,
}

/// The requested range. Several ranges, other units and a stale `If-Range` mean the whole document, as RFC 9110
/// allows.
fn range(headers: &HeaderMap, tag: &str, of: u64) -> ByteRange {
    let asked = headers.get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let is_current = headers.get(IF_RANGE).is_none_or(|known| known.as_bytes() == tag.as_bytes());
    let Some((first, last)) = asked.filter(|_| is_current).and_then(|range| range.split_once('-')) else {
        return ByteRange::Whole;
    };
    // `parse` alone would accept a sign.
    if !first.bytes().chain(last.bytes()).all(|byte| byte.is_ascii_digit()) {
        return ByteRange::Whole;
    }
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), _) if last.is_empty() && first < of => ByteRange::Part { first, last: of - 1 },
        (Ok(first), _) if last.is_empty() && first >= of => ByteRange::Unsatisfiable,
        (Ok(first), Ok(last)) if first > last => ByteRange::Whole,
        (Ok(first), Ok(last)) if first < of => ByteRange::Part { first, last: last.min(of - 1) },
        (Ok(_), Ok(_)) => ByteRange::Unsatisfiable,
        // A suffix range: the last `count` bytes.
        (Err(_), Ok(count)) if first.is_empty() && count > 0 && of > 0 => {
            ByteRange::Part { first: of.saturating_sub(count), last: of - 1 }
        }
        (Err(_), Ok(_)) if first.is_empty() => ByteRange::Unsatisfiable,
        _ => ByteRange::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_honoured_and_nonsense_means_the_whole() {
        let part = |first, last| ByteRange::Part { first, last };
        #[rustfmt::skip]
        let cases = [
            ("bytes=0-0", part(0, 0)), ("bytes=2-5", part(2, 5)), ("bytes=7-", part(7, 9)), ("bytes=7-99", part(7, 9)),
            ("bytes=-3", part(7, 9)), ("bytes=-99", part(0, 9)),
            ("bytes=10-", ByteRange::Unsatisfiable), ("bytes=10-12", ByteRange::Unsatisfiable),
            ("bytes=-0", ByteRange::Unsatisfiable),
            ("bytes=5-2", ByteRange::Whole), ("bytes=0-1,3-4", ByteRange::Whole), ("lines=1-2", ByteRange::Whole),
            ("bytes=", ByteRange::Whole), ("bytes=-", ByteRange::Whole), ("bytes=a-b", ByteRange::Whole),
            ("bytes=+1-2", ByteRange::Whole), ("bytes=1-+2", ByteRange::Whole), ("bytes=-+2", ByteRange::Whole), ("bytes=+1-", ByteRange::Whole),
        ];
        for (asked, expected) in cases {
            let headers = HeaderMap::from_iter([(RANGE, asked.parse().unwrap())]);
            assert_eq!(range(&headers, "\"t\"", 10), expected, "{asked}");
        }
        let stale = HeaderMap::from_iter([(RANGE, "bytes=0-0".parse().unwrap()), (IF_RANGE, "\"x\"".parse().unwrap())]);
        assert_eq!(range(&stale, "\"t\"", 10), ByteRange::Whole);
    }

    #[test]
    fn what_could_run_is_downloaded() {
        for kind in ["text/html", "image/svg+xml", "application/pdf", "application/xhtml+xml", "text/xml"] {
            assert!(disposition(kind, "x").starts_with("attachment"), "{kind}");
        }
        assert!(disposition("Image/JPEG", "x").starts_with("inline"));
        assert!(is_media_type("text/plain; charset=utf-8"));
        for text in ["", "text", "text/", "/x", "a b/c", "text/html\r\nX: 1", "te\u{e9}xt/x"] {
            assert!(!is_media_type(text), "{text}");
        }
    }
}
