//! Cuts a stream of bytes into records without parsing them, so that a file of any size takes the memory of one
//! record.
//!
//! The first byte determines the form: a list of objects or of one-element lists (as Thalamus answers `GET /people`),
//! or one object on each line.

use std::io::{self, BufRead};

use thiserror::Error;

/// The longest record, in bytes.
pub(super) const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;
/// The first byte of a byte order mark in UTF-8 (`EF BB BF`). No JSON text begins with it.
const BOM_START: u8 = 0xef;
/// How many bytes are hashed at a time.
const HASHED_AT_ONCE: usize = 16 * 1024;

/// The bytes of one record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImportRecord {
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, Error)]
pub(super) enum RecordError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The boundaries of records are unclear from this line on.
    #[error("line {0}: {1}")]
    Structure(u64, &'static str),
}

/// The position in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ImportPlace {
    Begin,
    /// One record a line.
    Lines,
    /// Before the first element of a list.
    ListBegin,
    /// After an element.
    AfterElement,
    /// After a comma.
    AfterComma,
    /// After a list; another may follow.
    AfterList,
}

/// The records of a stream.
pub(super) struct ImportRecords<R> {
    input: R,
    place: ImportPlace,
    line: u64,
    bytes: u64,
    hasher: blake3::Hasher,
    /// Bytes that are consumed but not hashed yet.
    unhashed: Vec<u8>,
}

impl<R: BufRead> ImportRecords<R> {
    pub(super) fn new(input: R) -> Self {
        let unhashed = Vec::with_capacity(HASHED_AT_ONCE);
        Self { input, place: ImportPlace::Begin, line: 1, bytes: 0, hasher: blake3::Hasher::new(), unhashed }
    }

    /// The number of bytes read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The hexadecimal BLAKE3 hash of all bytes read.
    pub(super) fn hash(&mut self) -> String {
        self.hash_pending();
        self.hasher.finalize().to_hex().to_string()
    }

    fn hash_pending(&mut self) {
        self.hasher.update(&self.unhashed);
        self.unhashed.clear();
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<ImportRecord>, RecordError> {
        loop {
            let Some(byte) = self.peek_past_space()? else {
                return match self.place {
                    ImportPlace::Begin | ImportPlace::Lines | ImportPlace::AfterList => Ok(None),
                    ImportPlace::ListBegin | ImportPlace::AfterElement | ImportPlace::AfterComma => {
                        self.fault("the list is not closed")
                    }
                };
            };
            match (self.place, byte) {
                (ImportPlace::Begin, BOM_START) if self.bytes == 0 => self.skip_mark()?,
                (ImportPlace::Begin | ImportPlace::AfterList, b'[') => self.step(ImportPlace::ListBegin)?,
                // A line that is not JSON is refused by itself, and the import continues.
                (ImportPlace::Begin, _) => self.place = ImportPlace::Lines,
                (ImportPlace::Lines, _) => return self.rest_of_line().map(Some),
                (ImportPlace::ListBegin | ImportPlace::AfterElement, b']') => self.step(ImportPlace::AfterList)?,
                (ImportPlace::AfterElement, b',') => self.step(ImportPlace::AfterComma)?,
                (ImportPlace::ListBegin | ImportPlace::AfterComma, byte) if !b",]}".contains(&byte) => {
                    let record = self.element()?;
                    self.place = ImportPlace::AfterElement;
                    return Ok(Some(record));
                }
                (ImportPlace::ListBegin | ImportPlace::AfterComma, _) => return self.fault("an element is missing"),
                (ImportPlace::AfterElement, _) => return self.fault("elements of a list are separated by commas"),
                (ImportPlace::AfterList, _) => return self.fault("text follows the list"),
            }
        }
    }

    /// Skips the byte order mark with which some programs begin a UTF-8 file.
    fn skip_mark(&mut self) -> Result<(), RecordError> {
        for expected in [BOM_START, 0xbb, 0xbf] {
            if self.take()? != Some(expected) {
                return self.fault("the file begins with bytes that are no JSON");
            }
        }
        Ok(())
    }

    fn fault<T>(&self, problem: &'static str) -> Result<T, RecordError> {
        Err(RecordError::Structure(self.line, problem))
    }

    fn peek(&mut self) -> Result<Option<u8>, RecordError> {
        loop {
            match self.input.fill_buf() {
                Ok(buffer) => return Ok(buffer.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(&mut self) -> Result<Option<u8>, RecordError> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.input.consume(1);
            self.bytes += 1;
            self.line += u64::from(byte == b'\n');
            self.unhashed.push(byte);
            if self.unhashed.len() == HASHED_AT_ONCE {
                self.hash_pending();
            }
        }
        Ok(byte)
    }

    fn step(&mut self, place: ImportPlace) -> Result<(), RecordError> {
        self.take()?;
        self.place = place;
        Ok(())
    }

    fn peek_past_space(&mut self) -> Result<Option<u8>, RecordError> {
        loop {
            match self.peek()? {
                Some(b' ' | b'\t' | b'\n' | b'\r') => {
                    self.take()?;
                }
                other => return Ok(other),
            }
        }
    }

    fn rest_of_line(&mut self) -> Result<ImportRecord, RecordError> {
        let mut record = ImportRecord { line: self.line, bytes: Vec::new() };
        loop {
            match self.take()? {
                None | Some(b'\n') => return Ok(record),
                Some(byte) => self.push(&mut record, byte)?,
            }
        }
    }

    /// One element of a list: up to its closing bracket, or, if it opens none, up to the character that ends it.
    fn element(&mut self) -> Result<ImportRecord, RecordError> {
        let mut record = ImportRecord { line: self.line, bytes: Vec::new() };
        // Brackets in strings do not count, and an escaped quote ends no string. All else is the parser's to
        // check.
        let (mut depth, mut is_string, mut is_escape) = (0_usize, false, false);
        loop {
            match self.peek()? {
                None => return self.fault("the file ends within a record"),
                Some(b',' | b']' | b'}') if depth == 0 && !is_string => return Ok(record),
                Some(byte) => {
                    self.take()?;
                    self.push(&mut record, byte)?;
                    match byte {
                        _ if is_escape => is_escape = false,
                        b'\\' if is_string => is_escape = true,
                        b'"' => is_string = !is_string,
                        b'{' | b'[' if !is_string => depth += 1,
                        b'}' | b']' if !is_string => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 && !is_string && matches!(byte, b'}' | b']') {
                        return Ok(record);
                    }
                }
            }
        }
    }

    fn push(&self, record: &mut ImportRecord, byte: u8) -> Result<(), RecordError> {
        // A file without line breaks or brackets would otherwise fill memory.
        if record.bytes.len() == MAX_RECORD_BYTES {
            return self.fault("a record is longer than 16 MiB");
        }
        record.bytes.push(byte);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<Vec<(u64, String)>, String> {
        let mut records = ImportRecords::new(text.as_bytes());
        let mut found = Vec::new();
        loop {
            match records.next() {
                Ok(Some(record)) => found.push((record.line, String::from_utf8(record.bytes).unwrap())),
                Ok(None) => return Ok(found),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    #[test]
    fn the_three_forms_are_distinguished() {
        let one_a_line =
            |lines: &[u64]| lines.iter().map(|line| (*line, String::from(r#"{"a":"]},\"["}"#))).collect::<Vec<_>>();
        let record = r#"{"a":"]},\"["}"#;
        assert_eq!(split(&format!("{record}\n\n{record}")).unwrap(), one_a_line(&[1, 3]));
        assert_eq!(split(&format!(" [\n{record},\n{record} ]\n")).unwrap(), one_a_line(&[2, 3]));
        assert_eq!(
            split(r#"[[{"a":1}],[{"b":[2]}]]"#).unwrap(),
            [(1, "[{\"a\":1}]".into()), (1, "[{\"b\":[2]}]".into())]
        );
        assert_eq!(split("[1, \"x]\" ,null]").unwrap().len(), 3);
        let marked = format!("\u{feff}{record}\n{record}");
        assert_eq!(split(&marked).unwrap(), one_a_line(&[1, 2]), "a byte order mark is no part of the first record");
        assert_eq!(split("\u{feff}[{}]").unwrap().len(), 1);
        for empty in ["", " \n", "[]", "[ ]\n", "\u{feff}"] {
            assert_eq!(split(empty).unwrap(), [], "{empty}");
        }
    }

    #[test]
    fn a_list_that_is_broken_is_not_guessed_at() {
        for text in ["[{}", "[{},", "[{},]", "[{} {}]", "[,]", "[] x", "[{\"a\":1", "[\"x", "[", "\u{f000}{}"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
