//! The opening handshake of a WebSocket (RFC 6455, 4), both halves.
//!
//! The one rule: a connection changes its protocol only by a request and an answer that both say so without doubt.
//! Otherwise one side would read frames where the other still reads requests, and bytes in between would be a request
//! that nobody has judged.
//!
//! The gateway asks before a request is forwarded, and again when the service has answered. Knows nothing of frames.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// What a server appends to a key before it hashes both (RFC 6455, 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The only version (RFC 6455, 4.1).
pub const WEBSOCKET_VERSION: &str = "13";
/// Bytes of a key before its base64.
const KEY_BYTES: usize = 16;

/// Headers of the handshake that a client chooses and a service reads.
pub const WEBSOCKET_CHOSEN: [HeaderName; 4] = [
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// A request for a WebSocket that is no handshake: of another method or version, without a key, or with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadHandshake;

/// A well-formed request for a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSocketOffer<'a> {
    key: &'a str,
    headers: &'a HeaderMap,
}

/// Whether a request names WebSocket in `Upgrade`, alone or among others.
pub fn names_websocket(headers: &HeaderMap) -> bool {
    tokens(headers, &header::UPGRADE).any(is_websocket)
}

/// Whether `Upgrade` names WebSocket and nothing else.
pub(super) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let mut named = tokens(headers, &header::UPGRADE);
    named.next().is_some_and(is_websocket) && named.next().is_none()
}

impl<'a> WebSocketOffer<'a> {
    /// Reads the request for a WebSocket; none if it asks for nothing of the kind.
    ///
    /// # Errors
    /// It asks, and is no handshake.
    pub fn of(method: &Method, headers: &'a HeaderMap) -> Option<Result<Self, BadHandshake>> {
        asks_for_websocket(headers).then(|| Self::read(method, headers).ok_or(BadHandshake))
    }

    fn read(method: &Method, headers: &'a HeaderMap) -> Option<Self> {
        let key = only(headers, &header::SEC_WEBSOCKET_KEY)?;
        // Another spelling of the same key would give another answer.
        let is_key = STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES);
        let is_current = only(headers, &header::SEC_WEBSOCKET_VERSION) == Some(WEBSOCKET_VERSION);
        let has_body = headers.contains_key(header::TRANSFER_ENCODING)
            || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0");
        (*method == Method::GET && is_key && is_current && connects_for_upgrade(headers) && !has_body)
            .then_some(Self { key, headers })
    }

    /// Whether an answer with the status 101 accepts this offer: the same protocol, the hash of the key, and no
    /// subprotocol or extension that was not offered.
    pub fn is_accepted_by(&self, answer: &HeaderMap) -> bool {
        let offered = |name: &HeaderName| tokens(self.headers, name);
        let is_offered = |name: &HeaderName, wanted: &[u8]| offered(name).any(|offer| stem(offer) == stem(wanted));
        let mut protocols = tokens(answer, &header::SEC_WEBSOCKET_PROTOCOL);
        let protocol = protocols.next();
        asks_for_websocket(answer)
            && connects_for_upgrade(answer)
            && only(answer, &header::SEC_WEBSOCKET_ACCEPT) == Some(accept_of(self.key).as_str())
            && protocol.is_none_or(|protocol| is_offered(&header::SEC_WEBSOCKET_PROTOCOL, protocol))
            && protocols.next().is_none()
            && tokens(answer, &header::SEC_WEBSOCKET_EXTENSIONS)
                .all(|extension| is_offered(&header::SEC_WEBSOCKET_EXTENSIONS, extension))
    }
}

/// The value of `Sec-WebSocket-Accept` for a key (RFC 6455, 4.2.2).
pub fn accept_of(key: &str) -> String {
    // No secret is kept by this hash: it only shows that the server has read the key.
    let mut hashed = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hashed.update(key.as_bytes());
    hashed.update(GUID);
    STANDARD.encode(hashed.finish())
}

fn connects_for_upgrade(headers: &HeaderMap) -> bool {
    tokens(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

fn is_websocket(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"websocket")
}

/// An extension without its parameters.
fn stem(extension: &[u8]) -> &[u8] {
    extension.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// The members of a list, over all lines of a header.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let lines = headers.get_all(name).into_iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// The single value of a header.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().and_then(|value: &HeaderValue| value.to_str().ok());
    first.filter(|_| values.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, 1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn headers(lines: &str) -> HeaderMap {
        let line = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        lines.split('|').map(line).collect()
    }

    #[test]
    fn only_a_whole_handshake_is_an_offer() {
        let good = format!(
            "upgrade: websocket|connection: Upgrade|sec-websocket-key: {KEY}|sec-websocket-version: 13|\
             sec-websocket-protocol: hl7, chat"
        );
        #[rustfmt::skip]
        let cases = [
            // replaced, by, outcome
            ("hl7",                "hl7",                                   Some(true)),
            ("upgrade: websocket", "upgrade: WebSocket",                    Some(true)),
            ("connection: Upgrade", "connection: keep-alive, upgrade",      Some(true)),
            ("connection: Upgrade", "connection: upgrade|content-length: 0", Some(true)),
            ("upgrade: websocket", "upgrade: h2c, websocket",               None),
            ("upgrade: websocket", "upgrade: websocket, websocket",         None),
            ("upgrade: websocket", "upgrade: websocket/13",                 None),
            ("upgrade: websocket", "upgrade: h2c",                          None),
            ("connection: Upgrade", "connection: close",                    Some(false)),
            ("connection: Upgrade", "connection: upgrade|content-length: 5", Some(false)),
            ("connection: Upgrade", "connection: upgrade|transfer-encoding: chunked", Some(false)),
            ("version: 13",        "version: 8",                            Some(false)),
            ("version: 13",        "version: 13, 8",                        Some(false)),
            ("version: 13",        "version: 13|sec-websocket-version: 13", Some(false)),
            (KEY,                  "dGhlIHNhbXBsZSBub25jZQ",                Some(false)),
            (KEY,                  "dGhlIHNhbXBsZSBub25jZR==",              Some(false)),
            (KEY,                  "c2hvcnQ=",                              Some(false)),
            ("sec-websocket-key",  "x-other",                               Some(false)),
        ];
        for (replaced, by, outcome) in cases {
            let headers = headers(&good.replacen(replaced, by, 1));
            let read = WebSocketOffer::of(&Method::GET, &headers).map(|offer| offer.is_ok());
            assert_eq!(read, outcome, "{replaced} -> {by}");
        }
        assert_eq!(WebSocketOffer::of(&Method::POST, &headers(&good)), Some(Err(BadHandshake)));
        assert!(names_websocket(&headers("upgrade: h2c, websocket")) && !names_websocket(&headers("upgrade: h2c")));
    }

    #[test]
    fn an_answer_accepts_what_was_offered_and_nothing_else() {
        let sent = headers(&format!(
            "upgrade: websocket|connection: upgrade|sec-websocket-key: {KEY}|sec-websocket-version: 13|\
             sec-websocket-protocol: hl7, chat|sec-websocket-extensions: permessage-deflate; client_max_window_bits"
        ));
        let offer = WebSocketOffer::of(&Method::GET, &sent).unwrap().unwrap();
        let good = format!("upgrade: websocket|connection: upgrade|sec-websocket-accept: {ACCEPT}|x-more: 1");
        for (replaced, by, is_accepted) in [
            ("1", "1", true),
            ("x-more: 1", "sec-websocket-protocol: chat", true),
            ("x-more: 1", "sec-websocket-extensions: permessage-deflate; server_no_context_takeover", true),
            ("x-more: 1", "sec-websocket-protocol: other", false),
            ("x-more: 1", "sec-websocket-protocol: chat, hl7", false),
            ("x-more: 1", "sec-websocket-extensions: x-other", false),
            ("s3pPLM", "t3pPLM", false),
            ("upgrade: websocket", "upgrade: h2c", false),
            ("connection: upgrade", "connection: close", false),
            ("sec-websocket-accept", "x-other", false),
        ] {
            let answer = headers(&good.replacen(replaced, by, 1));
            assert_eq!(offer.is_accepted_by(&answer), is_accepted, "{replaced} -> {by}");
        }
    }
}
