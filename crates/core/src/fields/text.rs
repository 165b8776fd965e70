//! The inside of a JSON string, byte by byte (RFC 8259, section 7).

use super::fault::JsonError;

/// Which direction a document comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonReading {
    /// From a client: anything that two readers could read differently is refused.
    Request,
    /// From an upstream: everything that RFC 8259 allows passes.
    Answer,
}

/// The part of a string that the next byte continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StringPlace {
    Plain,
    /// A character of several bytes: how many are left, and the bounds of the next (RFC 3629, section 4).
    Tail(u8, u8, u8),
    /// After a backslash.
    Escape,
    /// `\uXXXX`: how many digits are left.
    Hex(u8),
}

/// The part of a string that a byte completed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StringPart {
    /// Nothing yet.
    Part,
    /// A character.
    Character(char),
    /// The closing quote.
    End,
}

/// An incomplete string.
#[derive(Debug)]
pub(super) struct StringReader {
    within: StringPlace,
    code: u32,
    /// The first half of a surrogate pair, while the second is due.
    high: Option<u32>,
    /// An unpaired surrogate occurred, so the text equals no name or value.
    pub(super) has_stray: bool,
}

impl StringReader {
    pub(super) fn new() -> Self {
        Self { within: StringPlace::Plain, code: 0, high: None, has_stray: false }
    }

    /// Whether ASCII bytes other than quote and backslash may be skipped in bulk.
    pub(super) fn is_plain(&self) -> bool {
        self.within == StringPlace::Plain && self.high.is_none()
    }

    /// Takes the next byte; `at` is its position.
    pub(super) fn push(&mut self, byte: u8, at: usize, reading: JsonReading) -> Result<StringPart, JsonError> {
        match self.within {
            StringPlace::Plain => self.plain(byte, at, reading),
            StringPlace::Tail(left, least, most) => {
                if !(least..=most).contains(&byte) {
                    return Err(JsonError::NotUtf8);
                }
                self.code = self.code << 6 | u32::from(byte & 0x3f);
                self.within = if left > 1 { StringPlace::Tail(left - 1, 0x80, 0xbf) } else { StringPlace::Plain };
                Ok(if left > 1 { StringPart::Part } else { character(self.code) })
            }
            StringPlace::Escape => {
                self.within = StringPlace::Plain;
                let escaped = match byte {
                    b'"' | b'\\' | b'/' => char::from(byte),
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    b'u' => {
                        (self.within, self.code) = (StringPlace::Hex(4), 0);
                        return Ok(StringPart::Part);
                    }
                    _ => return Err(JsonError::Malformed(at)),
                };
                self.unpaired(at, reading)?;
                Ok(StringPart::Character(escaped))
            }
            StringPlace::Hex(left) => {
                let digit = char::from(byte).to_digit(16).ok_or(JsonError::Malformed(at))?;
                self.code = self.code << 4 | digit;
                if left > 1 {
                    self.within = StringPlace::Hex(left - 1);
                    return Ok(StringPart::Part);
                }
                self.within = StringPlace::Plain;
                self.unit(at, reading)
            }
        }
    }

    fn plain(&mut self, byte: u8, at: usize, reading: JsonReading) -> Result<StringPart, JsonError> {
        if byte == b'\\' {
            self.within = StringPlace::Escape;
            return Ok(StringPart::Part);
        }
        self.unpaired(at, reading)?;
        let (bits, left, least, most) = match byte {
            b'"' => return Ok(StringPart::End),
            0x20..0x80 => return Ok(StringPart::Character(char::from(byte))),
            0..0x20 => return Err(JsonError::Malformed(at)),
            // 0xc0 and 0xc1 begin overlong forms: a second spelling of ASCII, by which a guarded name could hide.
            0xc2..=0xdf => (byte & 0x1f, 1, 0x80, 0xbf),
            0xe0 => (0, 2, 0xa0, 0xbf),
            // After 0xed, 0xa0 and above would be surrogates, which UTF-8 cannot hold (RFC 3629, 3).
            0xed => (0xd, 2, 0x80, 0x9f),
            0xe1..=0xef => (byte & 0xf, 2, 0x80, 0xbf),
            0xf0 => (0, 3, 0x90, 0xbf),
            0xf1..=0xf3 => (byte & 7, 3, 0x80, 0xbf),
            0xf4 => (4, 3, 0x80, 0x8f),
            _ => return Err(JsonError::NotUtf8),
        };
        (self.within, self.code) = (StringPlace::Tail(left, least, most), u32::from(bits));
        Ok(StringPart::Part)
    }

    /// Handles a complete `\uXXXX`.
    fn unit(&mut self, at: usize, reading: JsonReading) -> Result<StringPart, JsonError> {
        let unit = self.code;
        if let (Some(high), 0xdc00..=0xdfff) = (self.high, unit) {
            self.high = None;
            return Ok(character(0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00)));
        }
        self.unpaired(at, reading)?;
        match (unit, reading) {
            (0xd800..=0xdbff, _) => self.high = Some(unit),
            (0xdc00..=0xdfff, JsonReading::Answer) => self.has_stray = true,
            // U+0000 cannot be stored in jsonb, and half a pair is no text: readers replace it, drop it or fail.
            (0 | 0xdc00..=0xdfff, JsonReading::Request) => return Err(JsonError::UnpairedOrNul(at)),
            _ => return Ok(character(unit)),
        }
        Ok(StringPart::Part)
    }

    /// Reports an unpaired first half, because the pair was not continued.
    fn unpaired(&mut self, at: usize, reading: JsonReading) -> Result<(), JsonError> {
        match (self.high.take(), reading) {
            (None, _) => Ok(()),
            (Some(_), JsonReading::Answer) => {
                self.has_stray = true;
                Ok(())
            }
            (Some(_), JsonReading::Request) => Err(JsonError::UnpairedOrNul(at)),
        }
    }
}

/// The byte bounds and the pairing of surrogates leave only valid characters.
fn character(code: u32) -> StringPart {
    StringPart::Character(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
}
