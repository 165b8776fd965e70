//! Text to [`JsonValue`], in one pass.

use std::collections::HashMap;

use super::number;
use super::{INDEX_FROM, JsonObject, JsonValue};
use crate::fields::{DigitCount, JsonError, MAX_DEPTH};

/// The origin of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueOrigin {
    /// A client: anything that two readers could read differently is refused, and numbers are written out.
    Client,
    /// The store. It may hold numbers from before these bounds, and they stay unchanged.
    Store,
}

/// Parses exactly one value that a client sent.
///
/// # Errors
/// See [`JsonError`].
pub fn parse(bytes: &[u8]) -> Result<JsonValue, JsonError> {
    parse_counted(bytes).map(|(value, _)| value)
}

/// As [`parse`], and returns how many bytes the numbers grew when they were written out.
///
/// # Errors
/// See [`JsonError`].
pub fn parse_counted(bytes: &[u8]) -> Result<(JsonValue, usize), JsonError> {
    parse_from(ValueOrigin::Client, bytes)
}

/// Parses exactly one value from the store, with numbers of any length.
///
/// # Errors
/// See [`JsonError`].
pub fn parse_stored(text: &str) -> Result<JsonValue, JsonError> {
    parse_from(ValueOrigin::Store, text.as_bytes()).map(|(value, _)| value)
}

fn parse_from(origin: ValueOrigin, bytes: &[u8]) -> Result<(JsonValue, usize), JsonError> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonError::ByteOrderMark);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::NotUtf8)?;
    let mut parser = JsonParser { text, at: 0, origin, grown: 0 };
    let value = parser.value(0)?;
    parser.white_space();
    match parser.peek() {
        None => Ok((value, parser.grown)),
        Some(_) => Err(JsonError::TrailingGarbage(parser.at)),
    }
}

struct JsonParser<'a> {
    text: &'a str,
    at: usize,
    origin: ValueOrigin,
    /// How many bytes the numbers have grown.
    grown: usize,
}

impl<'a> JsonParser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn malformed<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Malformed(self.at))
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, expected: u8) -> bool {
        let found = self.peek() == Some(expected);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, expected: u8) -> Result<(), JsonError> {
        if self.take(expected) { Ok(()) } else { self.malformed() }
    }

    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn value(&mut self, depth: usize) -> Result<JsonValue, JsonError> {
        self.white_space();
        match self.peek() {
            // Bounded before it recurses: a body of nothing but brackets would otherwise overflow the stack.
            Some(b'{') if depth < MAX_DEPTH => self.object(depth + 1),
            Some(b'[') if depth < MAX_DEPTH => self.array(depth + 1),
            Some(b'{' | b'[') => Err(JsonError::TooDeep),
            Some(b'"') => self.string().map(JsonValue::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", JsonValue::Bool(true)),
            Some(b'f') => self.word("false", JsonValue::Bool(false)),
            Some(b'n') => self.word("null", JsonValue::Null),
            _ => self.malformed(),
        }
    }

    fn word(&mut self, word: &str, value: JsonValue) -> Result<JsonValue, JsonError> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(value);
        }
        self.malformed()
    }

    fn array(&mut self, depth: usize) -> Result<JsonValue, JsonError> {
        self.expect(b'[')?;
        self.white_space();
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(JsonValue::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.white_space();
            if self.take(b']') {
                // Otherwise many small lists would each hold room for four elements.
                items.shrink_to_fit();
                return Ok(JsonValue::Array(items));
            }
            self.expect(b',')?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<JsonValue, JsonError> {
        self.expect(b'{')?;
        self.white_space();
        let mut members = ParsedMembers::default();
        if self.take(b'}') {
            return Ok(JsonValue::Object(members.object));
        }
        loop {
            self.white_space();
            let name = self.string()?;
            self.white_space();
            self.expect(b':')?;
            let value = self.value(depth)?;
            members.insert(name, value);
            self.white_space();
            if self.take(b'}') {
                return Ok(JsonValue::Object(members.into_object()));
            }
            self.expect(b',')?;
        }
    }

    /// RFC 8259, section 6.
    fn number(&mut self) -> Result<JsonValue, JsonError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let number = self.since(start);
        if self.origin == ValueOrigin::Store {
            return Ok(JsonValue::Number(number.into()));
        }
        if !DigitCount::of(number).is_read_alike() {
            return Err(JsonError::NumberTooLong(start));
        }
        let written = number::written_out(number);
        self.grown += written.len().saturating_sub(number.len());
        Ok(JsonValue::Number(written.into()))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.malformed() } else { Ok(()) }
    }

    /// RFC 8259, section 7.
    fn string(&mut self) -> Result<String, JsonError> {
        self.expect(b'"')?;
        let mut string = String::new();
        loop {
            let start = self.at;
            while matches!(self.peek(), Some(byte) if byte != b'"' && byte != b'\\' && byte >= b' ') {
                self.at += 1;
            }
            string.push_str(self.since(start));
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                _ => return self.malformed(),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.expect(b'\\')?;
        let simple = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode(start);
            }
            _ => return self.malformed(),
        };
        self.at += 1;
        Ok(simple)
    }

    fn unicode(&mut self, start: usize) -> Result<char, JsonError> {
        let first = self.hex4()?;
        let code = match first {
            0xD800..=0xDBFF if self.take(b'\\') && self.take(b'u') => match self.hex4()? {
                second @ 0xDC00..=0xDFFF => 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00),
                _ => return Err(JsonError::UnpairedOrNul(start)),
            },
            other => other,
        };
        // `from_u32` refuses an unpaired surrogate.
        char::from_u32(code).filter(|character| *character != '\0').ok_or(JsonError::UnpairedOrNul(start))
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits =
            self.text.get(self.at..self.at + 4).filter(|four| four.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|four| u32::from_str_radix(four, 16).ok()) {
            Some(code) => {
                self.at += 4;
                Ok(code)
            }
            None => self.malformed(),
        }
    }
}

/// An object while it is read. Of a repeated name, the last value counts.
#[derive(Default)]
struct ParsedMembers {
    object: JsonObject,
    index: HashMap<String, usize>,
}

impl ParsedMembers {
    /// The object, without room to grow: otherwise many small objects would each hold room for four members.
    fn into_object(mut self) -> JsonObject {
        self.object.0.shrink_to_fit();
        self.object
    }

    fn insert(&mut self, name: String, value: JsonValue) {
        if self.object.0.len() < INDEX_FROM {
            return self.object.set(&name, value);
        }
        if self.index.is_empty() {
            self.index = self.object.0.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        }
        match self.index.get(&name).and_then(|at| self.object.0.get_mut(*at)) {
            Some((_, known)) => *known = value,
            None => {
                self.index.insert(name.clone(), self.object.0.len());
                self.object.0.push((name, value));
            }
        }
    }
}
