//! The framing of HTTP/1 requests (RFC 9112), read strictly: where each head and each body ends, or that this is
//! unclear.
//!
//! If two parsers disagree about where a request ends, a second request can hide in the body of the first. So this
//! module follows the bytes beneath the HTTP library, and *refuses, it never repairs*: bare line feeds, folded lines,
//! two lengths, a length beside chunks, chunk extensions, and header names that services read as other names.
//!
//! Pure: bytes in, a judgement out. The strict HTTP/1 reader of the gateway calls it for every byte that a client sends
//! over HTTP/1. HTTP/2 has frames of its own, which the HTTP library reads.

mod absolute;

pub use absolute::{AbsoluteTarget, in_origin_form};
use thiserror::Error;

use crate::codes::AnswerCode;
use crate::host::HostPort;
use crate::methods::{RequestMethod, may_have_body};

/// The most header lines.
pub const MAX_HEADERS: usize = 64;
/// The most digits of a length: below 2^63, so a 64-bit reader cannot overflow.
const MAX_LENGTH_DIGITS: usize = 18;
/// The most digits of a chunk size.
const MAX_CHUNK_DIGITS: usize = 15;
/// The longest trailer section, in bytes.
const MAX_TRAILER_BYTES: usize = 1024;

/// Why the bytes of a client have no single reading.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum FramingError {
    /// The request line is not `METHOD SP target SP HTTP/1.x`.
    #[error("the request line is malformed")]
    RequestLine,
    /// A method that no upstream serves, with a target that is not a path.
    #[error("the method is not allowed for the requested URL")]
    Method,
    /// A header line that is folded, has a control character, or has a name other than `[A-Za-z0-9-]+`; or a bare CR
    /// or LF.
    #[error("a header line is malformed")]
    HeaderLine,
    /// Longer than a head may be, or more than [`MAX_HEADERS`] lines.
    #[error("the head is too large")]
    HeadTooLarge,
    /// Not exactly one `Host`, or its value is not a name or address with an optional port.
    #[error("the request has no Host or several, or its Host is neither a name nor an address")]
    Host,
    /// A target in absolute form that names a host other than `Host`.
    #[error("the request target names another host than the Host header")]
    OtherHost,
    /// A length that is not a plain number, occurs twice, or occurs beside `Transfer-Encoding`; or a coding other than
    /// `chunked`.
    #[error("the length of the body has no single reading")]
    BodyLength,
    /// GET, HEAD, DELETE or OPTIONS with a body.
    #[error("a request with this method has a body")]
    BodyNotExpected,
    /// `Connection` names a header that must reach the upstream.
    #[error("the Connection header names a header that the upstream must receive")]
    Connection,
    /// A chunk that is not `size CRLF data CRLF`.
    #[error("a chunk of the body is malformed")]
    Chunk,
}

impl FramingError {
    /// The answer to the client.
    pub fn answer(self) -> AnswerCode {
        match self {
            Self::RequestLine => AnswerCode::BadRequestLine,
            Self::Method => AnswerCode::MethodNotAllowed,
            Self::HeaderLine => AnswerCode::BadHeader,
            Self::HeadTooLarge => AnswerCode::HeadTooLarge,
            Self::Host | Self::OtherHost => AnswerCode::BadHost,
            Self::BodyLength | Self::Chunk => AnswerCode::BadFraming,
            Self::BodyNotExpected => AnswerCode::BodyNotExpected,
            Self::Connection => AnswerCode::BadConnectionHeader,
        }
    }
}

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// The request has no body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// How many bytes before a head are skipped: one empty line, which some clients send after a body (RFC 9112, 2.2). A
/// second one is in the place of a request line, and is refused as such.
pub fn head_start(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\r\n") { 2 } else { 0 }
}

/// The end of the head at the start of `bytes`, if all of it has arrived.
///
/// # Errors
/// [`FramingError::HeadTooLarge`] if there is no end within `most` bytes. [`FramingError::HeaderLine`] for a line feed
/// without a carriage return, because it ends a line for some parsers only.
pub fn head_end(bytes: &[u8], most: usize) -> Result<Option<usize>, FramingError> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let seen = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    if seen.len() > most {
        return Err(FramingError::HeadTooLarge);
    }
    let bare = seen
        .iter()
        .enumerate()
        .any(|(at, byte)| *byte == b'\n' && at.checked_sub(1).and_then(|before| seen.get(before)) != Some(&b'\r'));
    if bare { Err(FramingError::HeaderLine) } else { Ok(end) }
}

/// Checks a whole head, including its blank line, and returns how its body is delimited.
///
/// # Errors
/// See [`FramingError`].
pub fn check_head(head: &[u8]) -> Result<BodyFraming, FramingError> {
    let head = head.strip_suffix(b"\r\n\r\n").ok_or(FramingError::HeaderLine)?;
    let mut lines = HeadLines(Some(head));
    let (method, http_1_1) = check_request_line(lines.next().ok_or(FramingError::RequestLine)??)?;
    let (mut count, mut hosts, mut length, mut chunked) = (0, 0, None, false);
    for line in lines {
        count += 1;
        if count > MAX_HEADERS {
            return Err(FramingError::HeadTooLarge);
        }
        let (name, value) = check_header_line(line?)?;
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
            // The same syntax as over HTTP/2, where `:authority` is checked: links and tenants are derived from this
            // value.
            std::str::from_utf8(value).ok().and_then(HostPort::parse).ok_or(FramingError::Host)?;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // A second length is refused even if it is equal: `5, 5` and two lines are read differently by different
            // parsers.
            match (length, plain_number(value).filter(|_| value.len() <= MAX_LENGTH_DIGITS)) {
                (None, Some(number)) => length = Some(number),
                _ => return Err(FramingError::BodyLength),
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // HTTP/1.0 has no chunks: a 1.0 recipient would read the body as the next request (RFC 9112, 6.1).
            if chunked || !value.eq_ignore_ascii_case(b"chunked") || !http_1_1 {
                return Err(FramingError::BodyLength);
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            check_connection(value)?;
        }
    }
    if hosts != 1 {
        return Err(FramingError::Host);
    }
    let body = match (length, chunked) {
        // The classic smuggling pair (CL.TE, TE.CL): one parser believes the length, the other the chunks.
        (Some(_), true) => return Err(FramingError::BodyLength),
        (None | Some(0), false) => BodyFraming::None,
        (Some(length), false) => BodyFraming::Length(length),
        (None, true) => BodyFraming::Chunked,
    };
    match std::str::from_utf8(method) {
        // Upstreams often ignore a body here, and would read it as the next request on the shared connection.
        Ok(name) if body != BodyFraming::None && !may_have_body(name) => Err(FramingError::BodyNotExpected),
        _ => Ok(body),
    }
}

/// The lines of a head. Only CR LF ends a line.
struct HeadLines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for HeadLines<'a> {
    type Item = Result<&'a [u8], FramingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0?;
        let line = match rest.windows(2).position(|window| window == b"\r\n") {
            Some(at) => {
                self.0 = rest.get(at + 2..);
                rest.get(..at).unwrap_or_default()
            }
            None => {
                self.0 = None;
                rest
            }
        };
        // Any CR or LF that is left is bare.
        Some(if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            Err(FramingError::HeaderLine)
        } else {
            Ok(line)
        })
    }
}

fn check_request_line(line: &[u8]) -> Result<(&[u8], bool), FramingError> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(FramingError::RequestLine);
    };
    // Blanks and controls inside a target split the line at another place for lenient parsers.
    if target.is_empty() || !target.iter().all(|byte| (0x21..0x7f).contains(byte)) {
        return Err(FramingError::RequestLine);
    }
    let http_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        // No later minor version of HTTP/1 exists. RFC 9110, 2.5, would have one read as 1.1, but pingora reads only
        // 1.0 and 1.1, and two readers of one head must not differ.
        _ => return Err(FramingError::RequestLine),
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(FramingError::RequestLine);
    }
    match method {
        // The target of CONNECT is never a path (RFC 9112, 3.2.3). The proxy library would answer it itself, without a
        // record.
        b"CONNECT" => Err(FramingError::Method),
        // An unknown method passes here. The routes know which methods the path has, and answer with them.
        _ if is_origin_form(target) => Ok((method, http_1_1)),
        b"OPTIONS" if target == b"*" => Ok((method, http_1_1)),
        _ if std::str::from_utf8(method).is_ok_and(|name| RequestMethod::find(name).is_some()) => {
            Err(FramingError::RequestLine)
        }
        _ => Err(FramingError::Method),
    }
}

/// Whether a target is in origin form (RFC 9112, 3.2.1); a target in absolute form was rewritten before. Other forms,
/// and characters that no URI has, are refused: the proxy library would answer them itself, without a record.
fn is_origin_form(target: &[u8]) -> bool {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    target.starts_with(b"/") && !target.iter().any(|byte| b"\"<>".contains(byte)) && !path.contains(&b'`')
}

/// The name and value of a header line, the value without surrounding blanks.
fn check_header_line(line: &[u8]) -> Result<(&[u8], &[u8]), FramingError> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(FramingError::HeaderLine)?;
    let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
    // `_` and `.` are refused: CGI and WSGI read `Fedgate_Assertion` as `Fedgate-Assertion`. A blank before the colon
    // is refused too, and so is a folded line.
    if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
        return Err(FramingError::HeaderLine);
    }
    if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
        return Err(FramingError::HeaderLine);
    }
    Ok((name, trim(value)))
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Headers that `Connection` may not name. A header that it names is removed on the way (RFC 9110, 7.6.1), and a client
/// must not remove the host, the framing, the credential, the type or the client address that its request is judged by.
const ESSENTIAL: [&[u8]; 10] = [
    b"host",
    b"content-length",
    b"transfer-encoding",
    b"authorization",
    b"content-type",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-port",
];

fn check_connection(value: &[u8]) -> Result<(), FramingError> {
    for option in value.split(|byte| *byte == b',').map(trim).filter(|option| !option.is_empty()) {
        let named = |name: &[u8]| option.eq_ignore_ascii_case(name);
        if !option.iter().all(|byte| is_token(*byte)) || ESSENTIAL.into_iter().any(named) {
            return Err(FramingError::Connection);
        }
    }
    Ok(())
}

/// A number of only digits: no sign, no blank, no leading zero, no list.
pub fn plain_number(digits: &[u8]) -> Option<u64> {
    let plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits.first() != Some(&b'0'));
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

/// A `tchar` of RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Follows the bytes of one body to its end.
#[derive(Debug)]
pub struct BodyReader(FramingState);

#[derive(Debug)]
enum FramingState {
    Done,
    Length(u64),
    /// The digits of a chunk size so far.
    Size(u64, usize),
    SizeLf(u64),
    Data(u64),
    DataLf,
    /// A trailer section: its bytes so far, and the place within a line: 0 inside a line, 1 after its CR, 2 at the
    /// start of a line, 3 after the CR of the last, blank line.
    Trailer(usize, u8),
}

impl BodyReader {
    /// Starts a body.
    pub fn new(body: BodyFraming) -> Self {
        Self(match body {
            BodyFraming::None => FramingState::Done,
            BodyFraming::Length(length) => FramingState::Length(length),
            BodyFraming::Chunked => FramingState::Size(0, 0),
        })
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.0, FramingState::Done)
    }

    /// Follows more bytes, and returns how many of them belong to the body.
    ///
    /// # Errors
    /// [`FramingError::Chunk`] at the first byte that a strict reading refuses.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, FramingError> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            let left = bytes.len() - at;
            match &mut self.0 {
                FramingState::Done => break,
                FramingState::Length(rest) | FramingState::Data(rest) if *rest > 0 => {
                    let taken = usize::try_from(*rest).unwrap_or(usize::MAX).min(left);
                    *rest -= taken as u64;
                    at += taken;
                    if let FramingState::Length(0) = self.0 {
                        self.0 = FramingState::Done;
                    }
                    continue;
                }
                _ => {}
            }
            self.0 = self.step(byte)?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&self, byte: u8) -> Result<FramingState, FramingError> {
        Ok(match (&self.0, byte) {
            (FramingState::Size(size, digits), byte) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map(u64::from).ok_or(FramingError::Chunk)?;
                // Fifteen digits exceed any body; a sixteenth could overflow in another parser.
                if *digits >= MAX_CHUNK_DIGITS {
                    return Err(FramingError::Chunk);
                }
                FramingState::Size(size << 4 | digit, digits + 1)
            }
            // Nothing but CR may follow the digits. Chunk extensions are refused: parsers disagree about where one
            // ends.
            (FramingState::Size(size, 1..), b'\r') => FramingState::SizeLf(*size),
            (FramingState::SizeLf(0), b'\n') => FramingState::Trailer(0, 2),
            (FramingState::SizeLf(size), b'\n') => FramingState::Data(*size),
            (FramingState::Data(0), b'\r') => FramingState::DataLf,
            (FramingState::DataLf, b'\n') => FramingState::Size(0, 0),
            (FramingState::Trailer(_, 3), b'\n') => FramingState::Done,
            (FramingState::Trailer(count, _), _) if *count >= MAX_TRAILER_BYTES => return Err(FramingError::Chunk),
            (FramingState::Trailer(count, 2), b'\r') => FramingState::Trailer(count + 1, 3),
            (FramingState::Trailer(count, 0), b'\r') => FramingState::Trailer(count + 1, 1),
            (FramingState::Trailer(count, 1), b'\n') => FramingState::Trailer(count + 1, 2),
            // Trailer lines are read and end here: the library drops them.
            (FramingState::Trailer(count, 2), byte) if byte.is_ascii_alphanumeric() => {
                FramingState::Trailer(count + 1, 0)
            }
            (FramingState::Trailer(count, 0), byte) if byte >= 0x20 || byte == b'\t' => {
                FramingState::Trailer(count + 1, 0)
            }
            _ => return Err(FramingError::Chunk),
        })
    }
}

#[cfg(test)]
mod tests;
