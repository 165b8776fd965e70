//! Splits JSON into pieces as the bytes come, checked as strictly as RFC 8259 allows.
//!
//! The one rule: every piece continues a valid document, so a caller that passes the pieces on has passed on JSON. It
//! works at any chunk boundary, and holds one bit per level and the state of one string.

use std::sync::Arc;

use super::fault::JsonError;
use super::names::{FoldedNames, NameMatcher};
use super::text::{JsonReading, StringPart, StringReader};
use super::{DigitCount, MAX_DEPTH, MAX_NUMBER_LENGTH};

/// The kind of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LevelKind {
    Object,
    Array,
}

/// A part of a document. White space between the parts is dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScannedPiece<'a> {
    Open(LevelKind),
    Close(LevelKind),
    Comma,
    /// The opening quote of a member's name.
    NameBegin,
    /// A part of the name as written, up to its closing quote.
    Name(&'a [u8]),
    /// The name has ended and its colon was read; the bits of the names that it equals.
    NameEnd(u64),
    /// A part of a string, number or word as written.
    Scalar(&'a [u8]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanState {
    Begin,
    Value,
    FirstElement,
    FirstName,
    NextName,
    Name,
    Colon,
    Text,
    Number(Digits),
    /// The rest of `true`, `false` or `null`.
    Word(&'static [u8]),
    /// Right after a value.
    After,
}

/// The part of a number that was read last (RFC 8259, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digits {
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

/// A document that is still arriving.
pub(super) struct JsonScanner {
    reading: JsonReading,
    state: ScanState,
    /// The open levels, the innermost lowest; a set bit is an object.
    kinds: u64,
    depth: usize,
    /// How many bytes were read.
    taken: usize,
    text: StringReader,
    number: DigitCount,
    number_length: usize,
    matcher: NameMatcher,
    fault: Option<JsonError>,
}

impl JsonScanner {
    pub(super) fn new(reading: JsonReading, names: Arc<FoldedNames>) -> Self {
        Self {
            reading,
            state: ScanState::Begin,
            kinds: 0,
            depth: 0,
            taken: 0,
            text: StringReader::new(),
            number: DigitCount::new(),
            number_length: 0,
            matcher: NameMatcher::new(names),
            fault: None,
        }
    }

    /// How many levels are open.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether the innermost level is an object.
    pub(super) fn is_in_object(&self) -> bool {
        self.kinds & 1 == 1
    }

    /// Whether the innermost level is the only open object; only lists may enclose it.
    pub(super) fn is_in_outermost_object(&self) -> bool {
        self.kinds == 1
    }

    /// Whether the current name may still equal one of the names.
    pub(super) fn is_name_open(&self) -> bool {
        self.matcher.is_open()
    }

    /// Reads the next piece from the input; none when the input is used up.
    ///
    /// # Errors
    /// The bytes are not JSON. Every later call returns the same error.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<ScannedPiece<'a>>, JsonError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let result = self.piece(input);
        self.fault = result.as_ref().err().copied();
        result
    }

    /// Checks that the document was complete.
    ///
    /// # Errors
    /// The document is not JSON, or is incomplete.
    pub(super) fn finish(&self) -> Result<(), JsonError> {
        use Digits::{Fraction, Power, Whole, Zero};
        match (self.fault, self.state) {
            (Some(fault), _) => Err(fault),
            (None, ScanState::Number(Zero | Whole | Fraction | Power)) if self.depth == 0 => self.check_number(),
            (None, ScanState::After) if self.depth == 0 => Ok(()),
            (None, _) => Err(JsonError::Malformed(self.taken)),
        }
    }

    fn piece<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<ScannedPiece<'a>>, JsonError> {
        loop {
            match self.state {
                ScanState::Name | ScanState::Text if input.is_empty() => return Ok(None),
                ScanState::Name => return self.name(input).map(|name| Some(ScannedPiece::Name(name))),
                ScanState::Text => return self.string(input).map(|string| Some(ScannedPiece::Scalar(string))),
                ScanState::Number(digits) => match self.number(digits, input)? {
                    [] if input.is_empty() => return Ok(None),
                    [] => {
                        self.check_number()?;
                        self.state = ScanState::After;
                    }
                    number => return Ok(Some(ScannedPiece::Scalar(number))),
                },
                ScanState::Word(rest) => match self.word(rest, input)? {
                    [] => return Ok(None),
                    word => return Ok(Some(ScannedPiece::Scalar(word))),
                },
                ScanState::Begin
                | ScanState::Value
                | ScanState::FirstElement
                | ScanState::FirstName
                | ScanState::NextName
                | ScanState::Colon
                | ScanState::After => {
                    let Some((&byte, _)) = input.split_first() else { return Ok(None) };
                    if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                        self.take(1, input);
                        continue;
                    }
                    if let Some(piece) = self.structure(byte, input)? {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }

    fn take<'a>(&mut self, count: usize, input: &mut &'a [u8]) -> &'a [u8] {
        let (taken, rest) = input.split_at_checked(count).unwrap_or((input, &[]));
        *input = rest;
        self.taken += taken.len();
        taken
    }

    /// Handles a byte between strings, numbers and words.
    fn structure<'a>(&mut self, byte: u8, input: &mut &'a [u8]) -> Result<Option<ScannedPiece<'a>>, JsonError> {
        let malformed = Err(JsonError::Malformed(self.taken));
        match (self.state, byte) {
            // Some readers skip a byte order mark and others fail on it (RFC 8259, 8.1).
            (ScanState::Begin, 0xef) => Err(JsonError::ByteOrderMark),
            (ScanState::FirstElement, b']') => Ok(Some(self.close(LevelKind::Array, input))),
            (ScanState::Begin | ScanState::Value | ScanState::FirstElement, _) => self.value(byte, input),
            (ScanState::FirstName, b'}') => Ok(Some(self.close(LevelKind::Object, input))),
            (ScanState::FirstName | ScanState::NextName, b'"') => {
                (self.state, self.text) = (ScanState::Name, StringReader::new());
                self.matcher.begin();
                self.take(1, input);
                Ok(Some(ScannedPiece::NameBegin))
            }
            (ScanState::Colon, b':') => {
                self.take(1, input);
                self.state = ScanState::Value;
                Ok(Some(ScannedPiece::NameEnd(self.matcher.end())))
            }
            // Some readers stop after the first value and others refuse the text, so a second value would pass
            // unjudged.
            (ScanState::After, _) if self.depth == 0 => Err(JsonError::TrailingGarbage(self.taken)),
            (ScanState::After, b',') => {
                self.take(1, input);
                self.state = if self.is_in_object() { ScanState::NextName } else { ScanState::Value };
                Ok(Some(ScannedPiece::Comma))
            }
            (ScanState::After, b'}') if self.is_in_object() => Ok(Some(self.close(LevelKind::Object, input))),
            (ScanState::After, b']') if !self.is_in_object() => Ok(Some(self.close(LevelKind::Array, input))),
            _ => malformed,
        }
    }

    fn value<'a>(&mut self, byte: u8, input: &mut &'a [u8]) -> Result<Option<ScannedPiece<'a>>, JsonError> {
        self.state = match byte {
            b'{' => return self.open(LevelKind::Object, input).map(Some),
            b'[' => return self.open(LevelKind::Array, input).map(Some),
            b'"' => {
                (self.state, self.text) = (ScanState::Text, StringReader::new());
                return Ok(Some(ScannedPiece::Scalar(self.take(1, input))));
            }
            b'-' => ScanState::Number(Digits::Minus),
            b'0' => ScanState::Number(Digits::Zero),
            b'1'..=b'9' => ScanState::Number(Digits::Whole),
            b't' => ScanState::Word(b"true"),
            b'f' => ScanState::Word(b"false"),
            b'n' => ScanState::Word(b"null"),
            _ => return Err(JsonError::Malformed(self.taken)),
        };
        if matches!(self.state, ScanState::Number(_)) {
            (self.number, self.number_length) = (DigitCount::new(), 1);
            self.number.push(byte);
            return Ok(Some(ScannedPiece::Scalar(self.take(1, input))));
        }
        Ok(None)
    }

    fn open<'a>(&mut self, kind: LevelKind, input: &mut &'a [u8]) -> Result<ScannedPiece<'a>, JsonError> {
        // `kinds` has one bit per level, so the depth is bounded before the level is opened.
        if self.depth == MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.take(1, input);
        self.depth += 1;
        self.kinds = self.kinds << 1 | u64::from(kind == LevelKind::Object);
        self.state = if kind == LevelKind::Object { ScanState::FirstName } else { ScanState::FirstElement };
        Ok(ScannedPiece::Open(kind))
    }

    fn close<'a>(&mut self, kind: LevelKind, input: &mut &'a [u8]) -> ScannedPiece<'a> {
        self.take(1, input);
        self.depth = self.depth.saturating_sub(1);
        self.kinds >>= 1;
        self.state = ScanState::After;
        ScannedPiece::Close(kind)
    }

    fn name<'a>(&mut self, input: &mut &'a [u8]) -> Result<&'a [u8], JsonError> {
        for (count, &byte) in input.iter().enumerate() {
            let brought = self.text.push(byte, self.taken + count, self.reading)?;
            if self.text.has_stray {
                // Reported at once: otherwise a name of nothing but unpaired surrogates would stay open, and be held,
                // without bound.
                self.matcher.stray();
            }
            match brought {
                StringPart::Part => {}
                StringPart::Character(character) => self.matcher.push(character),
                StringPart::End => {
                    self.state = ScanState::Colon;
                    return Ok(self.take(count + 1, input));
                }
            }
        }
        Ok(self.take(input.len(), input))
    }

    fn string<'a>(&mut self, input: &mut &'a [u8]) -> Result<&'a [u8], JsonError> {
        let mut count = 0;
        while let Some(rest) = input.get(count..).filter(|rest| !rest.is_empty()) {
            if self.text.is_plain() {
                count += plain_run(rest);
            }
            let Some(&byte) = input.get(count) else { break };
            let brought = self.text.push(byte, self.taken + count, self.reading)?;
            count += 1;
            if brought == StringPart::End {
                self.state = ScanState::After;
                break;
            }
        }
        Ok(self.take(count, input))
    }

    /// Reads the bytes that continue the number.
    fn number<'a>(&mut self, mut digits: Digits, input: &mut &'a [u8]) -> Result<&'a [u8], JsonError> {
        use Digits::{Exponent, Fraction, Minus, Point, Power, Sign, Whole, Zero};
        let mut count = 0;
        for &byte in *input {
            digits = match (digits, byte) {
                (Minus, b'0') => Zero,
                (Minus, b'1'..=b'9') | (Whole, b'0'..=b'9') => Whole,
                (Zero | Whole, b'.') => Point,
                (Point | Fraction, b'0'..=b'9') => Fraction,
                (Zero | Whole | Fraction, b'e' | b'E') => Exponent,
                (Exponent, b'+' | b'-') => Sign,
                (Exponent | Sign | Power, b'0'..=b'9') => Power,
                (Zero | Whole | Fraction | Power, _) => break,
                (Minus | Point | Exponent | Sign, _) => return Err(JsonError::Malformed(self.taken + count)),
            };
            count += 1;
        }
        if self.reading == JsonReading::Request {
            input.iter().take(count).for_each(|byte| self.number.push(*byte));
        }
        self.number_length += count;
        if self.reading == JsonReading::Request && self.number_length > MAX_NUMBER_LENGTH {
            return Err(JsonError::NumberTooLong(self.taken));
        }
        self.state = ScanState::Number(digits);
        Ok(self.take(count, input))
    }

    /// Checks the number, which has ended.
    fn check_number(&self) -> Result<(), JsonError> {
        match self.reading {
            JsonReading::Request if !self.number.is_read_alike() => Err(JsonError::NumberTooLong(self.taken)),
            JsonReading::Request | JsonReading::Answer => Ok(()),
        }
    }

    /// Reads the bytes that continue `true`, `false` or `null`.
    fn word<'a>(&mut self, rest: &'static [u8], input: &mut &'a [u8]) -> Result<&'a [u8], JsonError> {
        let count = rest.len().min(input.len());
        let (expected, left) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        if input.get(..count) != Some(expected) {
            let same = input.iter().zip(expected).take_while(|(given, expected)| given == expected).count();
            return Err(JsonError::Malformed(self.taken + same));
        }
        self.state = if left.is_empty() { ScanState::After } else { ScanState::Word(left) };
        Ok(self.take(count, input))
    }
}

/// How many bytes come before a quote, a backslash, a control or a byte that is not ASCII.
fn plain_run(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !matches!(byte, 0x20..0x80) || matches!(byte, b'"' | b'\\')).unwrap_or(bytes.len())
}
