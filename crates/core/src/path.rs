//! Canonical request paths: one reading per resource.
//!
//! If two parsers disagree about a path, authorization can be bypassed: the policy judges `/public/../adm`, and the
//! upstream answers for `/adm`. So this module *refuses, it never repairs*, and the judged spelling is forwarded byte
//! for byte.
//!
//! The pipeline calls it once per request. Commands that add a person call it too, because the id will be part of
//! paths. It knows nothing of HTTP methods, routes or policy. Grammar: RFC 3986, without everything that services are
//! known to read in more than one way.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::codes::AnswerCode;
use crate::escape;

/// The longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 2 * 1024;
/// The longest request target, path and query together, in bytes.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// The longest id of a person, in bytes.
pub const MAX_ID_BYTES: usize = 256;
/// Every byte that is not unreserved (RFC 3986, 2.3) is encoded.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request path with exactly one reading.
///
/// Holding one proves that the path was checked: [`CanonicalPath::parse`] is the only constructor.
///
/// ```
/// use fedgate_core::path::{CanonicalPath, PathError};
///
/// assert_eq!(CanonicalPath::parse("/people/ANA")?.as_str(), "/people/ANA");
/// assert_eq!(CanonicalPath::parse("/people/../adm"), Err(PathError::DotSegment));
/// assert_eq!(CanonicalPath::parse("/people//ANA"), Err(PathError::EmptySegment));
/// # Ok::<(), PathError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    text: &'a str,
    encoded: bool,
}

/// Why a path has no canonical reading.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq, Hash)]
pub enum PathError {
    /// Longer than [`MAX_PATH_BYTES`], or the target longer than [`MAX_TARGET_BYTES`].
    #[error("path or target is too long")]
    TooLong,
    /// Not in origin form (RFC 9112, 3.2.1): no leading slash.
    #[error("request target does not begin with a slash")]
    NotOriginForm,
    /// Two slashes in a row, or one at the end.
    #[error("path has an empty segment")]
    EmptySegment,
    /// A segment is `.` or `..`.
    #[error("path has a dot segment")]
    DotSegment,
    /// A byte that is not allowed in a path or query: a control, blank, `\`, `"`, `<`, `>`, `#`, one that is not
    /// ASCII; in a path also `;` and everything else that is not a `pchar` of RFC 3986.
    #[error("path or query has a forbidden character")]
    ForbiddenCharacter,
    /// `%` without two hexadecimal digits.
    #[error("path has a malformed percent-encoding")]
    MalformedEncoding,
    /// A percent-encoding that is not needed (`%61`), or one of a character that services decode at different times
    /// (`%2f`).
    #[error("path has a forbidden percent-encoding")]
    ForbiddenEncoding,
    /// The decoded path is not UTF-8 in normalization form C.
    #[error("path is not UTF-8 in normalization form C")]
    NotUnicode,
}

impl PathError {
    /// The answer to the client.
    pub fn answer(self) -> AnswerCode {
        match self {
            Self::TooLong => AnswerCode::UriTooLong,
            Self::NotOriginForm
            | Self::EmptySegment
            | Self::DotSegment
            | Self::ForbiddenCharacter
            | Self::MalformedEncoding
            | Self::ForbiddenEncoding
            | Self::NotUnicode => AnswerCode::BadRequestTarget,
        }
    }

    /// A stable word for records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "uri_too_long",
            Self::NotOriginForm => "not_origin_form",
            Self::EmptySegment => "empty_segment",
            Self::DotSegment => "dot_segment",
            Self::ForbiddenCharacter => "forbidden_character",
            Self::MalformedEncoding => "malformed_encoding",
            Self::ForbiddenEncoding => "forbidden_encoding",
            Self::NotUnicode => "not_unicode",
        }
    }
}

/// Splits a request target into its checked path and its query.
///
/// Only the characters of the query are checked here.
///
/// # Errors
/// See [`PathError`].
pub fn parse_target(target: &[u8]) -> Result<(CanonicalPath<'_>, Option<&str>), PathError> {
    if target.len() > MAX_TARGET_BYTES {
        return Err(PathError::TooLong);
    }
    let target = std::str::from_utf8(target).map_err(|_| PathError::ForbiddenCharacter)?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    // `#` would end the query for some services; the others escape from logs, links and headers that quote the target.
    let forbidden = |byte: u8| !(0x21..0x7f).contains(&byte) || b"#\\\"<>".contains(&byte);
    if query.is_some_and(|query| query.bytes().any(forbidden)) {
        return Err(PathError::ForbiddenCharacter);
    }
    Ok((CanonicalPath::parse(path)?, query))
}

impl<'a> CanonicalPath<'a> {
    /// Checks a path without its query. Cost: one pass over the bytes; it allocates only if the path is
    /// percent-encoded.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(path: &'a str) -> Result<Self, PathError> {
        if path.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        let rest = path.strip_prefix('/').ok_or(PathError::NotOriginForm)?;
        if rest.is_empty() {
            return Ok(Self { text: path, encoded: false });
        }
        let mut encoded = false;
        for segment in rest.split('/') {
            match segment {
                "" => return Err(PathError::EmptySegment),
                // An encoded dot segment (`%2e%2e`) is refused below, as an encoding that is not needed.
                "." | ".." => return Err(PathError::DotSegment),
                _ => encoded |= check_segment(segment)?,
            }
        }
        if encoded {
            let decoded = percent_decode_str(path).decode_utf8().map_err(|_| PathError::NotUnicode)?;
            // Two spellings of one name (NFC and NFD) would be two subjects here, and may be one row for an upstream.
            if decoded.chars().any(|c| c.is_control()) || !is_nfc(&decoded) {
                return Err(PathError::NotUnicode);
            }
        }
        Ok(Self { text: path, encoded })
    }

    /// The path as it was received and will be forwarded.
    pub fn as_str(&self) -> &'a str {
        self.text
    }

    /// The segments as received; none for `/`.
    pub fn segments(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let rest = self.text.get(1..).unwrap_or_default();
        rest.split('/').filter(|segment| !segment.is_empty())
    }

    /// The decoded text of a segment of this path.
    pub fn decode<'s>(&self, segment: &'s str) -> Cow<'s, str> {
        if self.encoded { percent_decode_str(segment).decode_utf8_lossy() } else { Cow::Borrowed(segment) }
    }
}

/// Why a text cannot be the id of a new person.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum IdError {
    /// Empty, or longer than [`MAX_ID_BYTES`].
    #[error("the id is empty or longer than {MAX_ID_BYTES} bytes")]
    Length,
    /// No path can name it.
    #[error(
        "the id has a control character or one of / \\ % ; # ?, is a dot segment, or is not in normalization form C"
    )]
    Unnameable,
    /// It has an invisible character, or a blank other than the space.
    #[error("the id has an invisible character, or a blank other than the space")]
    Unseen,
    /// A person who copies it may lose the blank, and name another id.
    #[error("the id begins or ends with a blank")]
    Padded,
    /// HTTP Basic ends the account at the first colon (RFC 7617, 2), so its holder could not sign in.
    #[error("the id has a colon")]
    Colon,
}

/// The id of a new person as it is stored: in upper case, as Thalamus stores it (Python's `str.upper`, the full case
/// mapping of Unicode: `ß` becomes `SS`), and in normalization form C, which upper case may leave (`ΐ`).
///
/// # Errors
/// See [`IdError`].
pub fn new_person_id(given: &str) -> Result<String, IdError> {
    if !is_nfc(given) {
        return Err(IdError::Unnameable);
    }
    let id = person_id(given);
    check_new_id(&id).map(|()| id)
}

/// The stored spelling of a new person's id, unchecked.
pub fn person_id(given: &str) -> String {
    given.to_uppercase().nfc().collect()
}

/// Whether some path names an id, so that a request can be about its record.
pub fn is_nameable(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len())
        && CanonicalPath::parse(&format!("/{}", utf8_percent_encode(id, UNRESERVED))).is_ok()
}

/// Checks the id of a new person: some path must name it, its holder must be able to sign in, and no reader may take
/// it for another id. Existing ids are not checked.
///
/// # Errors
/// See [`IdError`].
pub fn check_new_id(id: &str) -> Result<(), IdError> {
    if !(1..=MAX_ID_BYTES).contains(&id.len()) {
        return Err(IdError::Length);
    }
    if id.contains(':') {
        return Err(IdError::Colon);
    }
    if !is_nameable(id) {
        return Err(IdError::Unnameable);
    }
    if id.trim() != id {
        return Err(IdError::Padded);
    }
    match id.contains(|c: char| escape::is_unseen(c) || (c.is_whitespace() && c != ' ')) {
        true => Err(IdError::Unseen),
        false => Ok(()),
    }
}

/// Checks the characters of one segment. True if some of them are percent-encoded.
fn check_segment(segment: &str) -> Result<bool, PathError> {
    let mut encoded = false;
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                encoded = true;
                let digits = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let (Some(high), Some(low)) = digits else { return Err(PathError::MalformedEncoding) };
                match high << 4 | low {
                    // These would become a separator, a parameter or a second escape for a service that decodes before
                    // it splits.
                    0..0x20 | 0x7f | b'/' | b'\\' | b'%' | b';' | b'#' | b'?' => {
                        return Err(PathError::ForbiddenEncoding);
                    }
                    // One spelling per character: `%61` and `a` would be two paths for the policy and one for the
                    // upstream.
                    byte if is_unreserved(byte) => return Err(PathError::ForbiddenEncoding),
                    _ => {}
                }
            }
            // `pchar` of RFC 3986 without `;`: some services cut off path parameters.
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' => {}
            byte if is_unreserved(byte) => {}
            _ => return Err(PathError::ForbiddenCharacter),
        }
    }
    Ok(encoded)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_new_person_is_one_that_a_path_names_and_a_login_carries() {
        for id in ["ESPGNU777ORG", "A B", "MÜLLER", "李", "X@Y", "A+B", "...", "A=1", "a,b"] {
            assert_eq!(check_new_id(id), Ok(()), "{id}");
        }
        assert_eq!(check_new_id(""), Err(IdError::Length));
        assert_eq!(check_new_id(&"A".repeat(MAX_ID_BYTES)), Ok(()));
        assert_eq!(check_new_id(&"A".repeat(MAX_ID_BYTES + 1)), Err(IdError::Length));
        assert_eq!(check_new_id("A:B"), Err(IdError::Colon));
        let unnameable =
            ["A/B", "A\\B", "A%B", "A;B", "A#B", "A?B", ".", "..", "A\nB", "A\0", "A\u{7f}", "A\u{85}", "U\u{308}"];
        for id in unnameable {
            assert_eq!(check_new_id(id), Err(IdError::Unnameable), "{id:?}");
            assert!(!is_nameable(id), "{id:?}");
        }
        for id in [" A", "A ", "\u{a0}A", "A\u{3000}"] {
            assert_eq!(check_new_id(id), Err(IdError::Padded), "{id:?}");
        }
        for id in [
            "A\u{200b}B",
            "\u{202e}A",
            "A\u{ad}",
            "A\u{fe0f}",
            "\u{3164}",
            "A\u{a0}B",
            "A\u{2003}B",
            "A\u{2028}B",
            "A\u{2800}B",
        ] {
            assert_eq!(check_new_id(id), Err(IdError::Unseen), "{id:?}");
            assert!(is_nameable(id), "one of before: {id:?}");
        }
    }

    #[test]
    fn the_id_of_a_new_person_is_in_upper_case_and_in_normalization_form_c() {
        for (given, id) in
            [("ana", "ANA"), ("straße", "STRASSE"), ("\u{390}1", "\u{3aa}\u{301}1"), ("ŉ", "\u{2bc}N"), ("Ana", "ANA")]
        {
            assert_eq!(new_person_id(given).as_deref(), Ok(id));
            assert_eq!(new_person_id(id).as_deref(), Ok(id), "the spelling stays");
        }
        assert_eq!(new_person_id("u\u{308}"), Err(IdError::Unnameable), "not as it was sent");
    }

    #[test]
    fn paths_with_one_reading_are_taken_as_they_are() {
        for path in [
            "/",
            "/people",
            "/people/ESPGNU777ORG",
            "/pols/A/119b352e-8e4f",
            "/people/a%20b",
            "/people/M%C3%BCller",
            "/people/x@y:z",
            "/people/a+b",
            "/people/...",
            "/people/.x",
            "/people/a%2Cb",
            "/people/M%c3%bcller",
        ] {
            assert_eq!(CanonicalPath::parse(path).map(|parsed| parsed.as_str()), Ok(path));
        }
    }

    #[test]
    fn paths_with_more_than_one_reading_are_refused() {
        use PathError::*;
        #[rustfmt::skip]
        let cases = [
            ("/people/../adm", DotSegment), ("/people/./7", DotSegment), ("/..", DotSegment),
            ("/people/%2e%2e/adm", ForbiddenEncoding), ("/people/..%2fadm", ForbiddenEncoding),
            ("/people/7%2F8", ForbiddenEncoding), ("//adm", EmptySegment), ("/people//7", EmptySegment),
            ("/pols//1", EmptySegment), ("/people/", EmptySegment), ("/people\\..\\adm", ForbiddenCharacter),
            ("/people%5c..", ForbiddenEncoding), ("/adm;x=1", ForbiddenCharacter), ("/adm%3bx", ForbiddenEncoding),
            ("/adm%00", ForbiddenEncoding), ("/people/7%0d%0aX:1", ForbiddenEncoding), ("/%61dm", ForbiddenEncoding),
            ("/people/%252e%252e/adm", ForbiddenEncoding), ("/people/%ff", NotUnicode), ("/people/%c0%ae", NotUnicode),
            ("/people/%zz", MalformedEncoding), ("/people/%", MalformedEncoding), ("/people/%4", MalformedEncoding),
            ("adm", NotOriginForm), ("", NotOriginForm), ("http://evil/adm", NotOriginForm), ("*", NotOriginForm),
            ("/adm#x", ForbiddenCharacter), ("/a b", ForbiddenCharacter), ("/a\tb", ForbiddenCharacter),
            ("/a%23", ForbiddenEncoding), ("/a%3f", ForbiddenEncoding), ("/é", ForbiddenCharacter),
            ("/people/u%CC%88", NotUnicode), ("/people/%C2%85", NotUnicode), ("/a%7f", ForbiddenEncoding),
            ("/a|b", ForbiddenCharacter), ("/a\"b", ForbiddenCharacter), ("/{id}", ForbiddenCharacter),
        ];
        for (path, error) in cases {
            assert_eq!(CanonicalPath::parse(path), Err(error), "{path}");
        }
    }

    #[test]
    fn the_query_is_split_off_and_never_looked_into() {
        let (path, query) = parse_target(b"/people?path=/../adm&x=%2f").unwrap();
        assert_eq!((path.as_str(), query), ("/people", Some("path=/../adm&x=%2f")));
        assert_eq!(parse_target(b"?x"), Err(PathError::NotOriginForm));
        for bad in [&b"/p?a b"[..], b"/p?a\x00", b"/p?a#b", b"/p?\xff", b"/p?a\\b"] {
            assert_eq!(parse_target(bad), Err(PathError::ForbiddenCharacter));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!((MAX_PATH_BYTES, MAX_TARGET_BYTES), (2048, 8192));
        let longest = format!("/{}", "a".repeat(MAX_PATH_BYTES - 1));
        assert!(CanonicalPath::parse(&longest).is_ok());
        assert_eq!(CanonicalPath::parse(&format!("{longest}a")), Err(PathError::TooLong));
        let longest = format!("/a?{}", "x".repeat(MAX_TARGET_BYTES - 3));
        assert!(parse_target(longest.as_bytes()).is_ok());
        assert_eq!(parse_target(format!("{longest}x").as_bytes()), Err(PathError::TooLong));
    }

    #[test]
    fn each_refusal_has_a_word_of_its_own() {
        use PathError::*;
        #[rustfmt::skip]
        let all = [
            TooLong, NotOriginForm, EmptySegment, DotSegment, ForbiddenCharacter, MalformedEncoding, ForbiddenEncoding,
            NotUnicode,
        ];
        #[rustfmt::skip]
        let words = [
            "uri_too_long", "not_origin_form", "empty_segment", "dot_segment", "forbidden_character",
            "malformed_encoding", "forbidden_encoding", "not_unicode",
        ];
        assert_eq!(all.map(PathError::as_str), words);
    }

    #[test]
    fn a_segment_is_decoded_once() {
        let path = CanonicalPath::parse("/people/M%C3%BCller%20A").unwrap();
        let segments: Vec<_> = path.segments().map(|segment| path.decode(segment).into_owned()).collect();
        assert_eq!(segments, ["people", "Müller A"]);
        assert_eq!(CanonicalPath::parse("/").unwrap().segments().count(), 0);
    }
}
