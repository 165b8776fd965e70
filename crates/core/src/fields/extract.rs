//! Takes one string member out of an object while the object arrives.
//!
//! Used for a document that carries its bytes as a string. The string leaves in parts as it comes, and the rest of the
//! object is kept up to a bound. The one rule: only the member of the outermost object whose decoded name is exactly
//! the wanted name leaves here. If the name occurs several times the last one counts, so each occurrence starts over.

use std::sync::Arc;

use super::fault::JsonError;
use super::names::FoldedNames;
use super::scan::{JsonScanner, LevelKind, ScannedPiece};
use super::text::JsonReading;

/// The content of the wanted member so far.
#[derive(Debug, PartialEq, Eq)]
pub enum MemberExtract<'a> {
    /// It begins. Parts of an earlier occurrence no longer count.
    Begin,
    /// A part of the string or word as written, including quotes and escapes.
    Part(&'a [u8]),
    /// Its value is an object or a list.
    NoString,
}

/// An object that is still arriving.
pub struct MemberExtractor {
    scanner: JsonScanner,
    wanted: &'static str,
    /// The object without the member; emptied once it exceeds its bound.
    rest: Vec<u8>,
    most: usize,
    is_over: bool,
    is_object: bool,
    /// The current name in the outermost object, as written, while it may still be the wanted one.
    name: Vec<u8>,
    is_within: bool,
    has_member: bool,
}

impl MemberExtractor {
    /// Starts an object whose rest takes at most `most` bytes.
    pub fn new(wanted: &'static str, most: usize) -> Self {
        let none = FoldedNames::new([]).map(Arc::new).unwrap_or_default();
        let scanner = JsonScanner::new(JsonReading::Request, none);
        let rest = Vec::new();
        Self {
            scanner,
            wanted,
            rest,
            most,
            is_over: false,
            is_object: false,
            name: Vec::new(),
            is_within: false,
            has_member: false,
        }
    }

    /// Takes the next bytes and reports what they bring of the wanted member.
    ///
    /// # Errors
    /// The bytes are not JSON.
    pub fn feed(&mut self, mut bytes: &[u8], mut brings: impl FnMut(MemberExtract<'_>)) -> Result<(), JsonError> {
        while let Some(piece) = self.scanner.next(&mut bytes)? {
            let depth = self.scanner.depth();
            match piece {
                ScannedPiece::Open(kind) => {
                    self.is_object |= depth == 1 && kind == LevelKind::Object;
                    if !self.is_within {
                        self.keep(if kind == LevelKind::Object { b"{" } else { b"[" });
                    } else if depth == 2 {
                        brings(MemberExtract::NoString);
                    }
                }
                ScannedPiece::Close(kind) => {
                    // The end of the outermost object also ends its last member.
                    self.is_within &= depth > 0;
                    self.keep_outside(if kind == LevelKind::Object { b"}" } else { b"]" });
                }
                // A comma of the outermost object is written together with the next member that is kept.
                ScannedPiece::Comma if depth == 1 && self.is_object => self.is_within = false,
                ScannedPiece::Comma => self.keep_outside(b","),
                ScannedPiece::NameBegin if depth == 1 => self.name = vec![b'"'],
                ScannedPiece::NameBegin => self.keep_outside(b"\""),
                ScannedPiece::Name(part) if depth == 1 => self.take_name(part),
                ScannedPiece::Name(part) => self.keep_outside(part),
                ScannedPiece::NameEnd(_) if depth == 1 => self.begin_member(&mut brings),
                ScannedPiece::NameEnd(_) => self.keep_outside(b":"),
                ScannedPiece::Scalar(part) if !self.is_within => self.keep(part),
                ScannedPiece::Scalar(part) if depth == 1 => brings(MemberExtract::Part(part)),
                ScannedPiece::Scalar(_) => {}
            }
        }
        Ok(())
    }

    /// The rest of the object; none if it exceeded its bound.
    ///
    /// # Errors
    /// The object ended too early.
    pub fn finish(self) -> Result<Option<Vec<u8>>, JsonError> {
        self.scanner.finish()?;
        Ok((!self.is_over).then_some(self.rest))
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.rest.len() + self.name.len()
    }

    fn take_name(&mut self, part: &[u8]) {
        // Each character takes at most six bytes (`\u0064`), and there are two quotes. A longer name cannot be the
        // wanted one.
        let most = 6 * self.wanted.len() + 2;
        if self.name.is_empty() {
            self.keep(part);
        } else if self.name.len() + part.len() <= most {
            self.name.extend_from_slice(part);
        } else {
            self.write_name();
            self.keep(part);
        }
    }

    fn begin_member(&mut self, brings: &mut impl FnMut(MemberExtract<'_>)) {
        // Compared decoded: every reader takes `d\u0061ta` for `data`.
        if serde_json::from_slice::<String>(&self.name).is_ok_and(|name| name == self.wanted) {
            self.name.clear();
            self.is_within = true;
            return brings(MemberExtract::Begin);
        }
        self.write_name();
        self.keep(b":");
    }

    /// Writes out the current name, which is not the wanted one.
    fn write_name(&mut self) {
        let name = std::mem::take(&mut self.name);
        if !name.is_empty() {
            if self.has_member {
                self.keep(b",");
            }
            self.has_member = true;
            self.keep(&name);
        }
    }

    fn keep_outside(&mut self, part: &[u8]) {
        if !self.is_within {
            self.keep(part);
        }
    }

    fn keep(&mut self, part: &[u8]) {
        // Once over the bound, nothing is kept: half an object must never be taken for a whole one.
        self.is_over |= self.rest.len() + part.len() > self.most;
        if self.is_over {
            self.rest = Vec::new();
        } else {
            self.rest.extend_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rest of the object, and the last value of the wanted member.
    fn extract(parts: &[&[u8]], most: usize) -> Result<(Option<String>, Option<String>), JsonError> {
        let (mut extractor, mut value) = (MemberExtractor::new("document", most), None);
        for part in parts {
            extractor.feed(part, |brought| match brought {
                MemberExtract::Begin => value = Some(String::new()),
                MemberExtract::Part(part) => value.as_mut().unwrap().push_str(std::str::from_utf8(part).unwrap()),
                MemberExtract::NoString => value.as_mut().unwrap().push_str("<none>"),
            })?;
            assert!(extractor.held() <= most + 64);
        }
        Ok((extractor.finish()?.map(|rest| String::from_utf8(rest).unwrap()), value))
    }

    #[test]
    fn the_member_is_taken_out_however_the_bytes_are_cut() {
        #[rustfmt::skip]
        let cases = [
            (r#"{}"#, r#"{}"#, None),
            (r#"{"document":"AAEC"}"#, r#"{}"#, Some(r#""AAEC""#)),
            (r#" { "a" : 1 , "document" : "A\/EC" , "b" : [1,{"document":2}] } "#, r#"{"a":1,"b":[1,{"document":2}]}"#, Some(r#""A\/EC""#)),
            (r#"{"document":null,"a":{}}"#, r#"{"a":{}}"#, Some("null")),
            (r#"{"docu\u006dent":"x","Document":"y"}"#, r#"{"Document":"y"}"#, Some("\"x\"")),
            (r#"{"document":"x","a":1,"document":"y"}"#, r#"{"a":1}"#, Some("\"y\"")),
            (r#"{"document":{"document":"x","b":[1]},"c":2}"#, r#"{"c":2}"#, Some("<none>")),
            (r#"{"document":[["x"]],"document":"z"}"#, r#"{}"#, Some("\"z\"")),
            (r#"{"documents":1,"documen":2,"documentdocumentdocumentdocumentdocumentdocumentdocumentdocument":3}"#,
             r#"{"documents":1,"documen":2,"documentdocumentdocumentdocumentdocumentdocumentdocumentdocument":3}"#, None),
            (r#"[{"document":"x"},2]"#, r#"[{"document":"x"},2]"#, None),
            (r#""document""#, r#""document""#, None),
            (r#"{"":0,"":0}"#, r#"{"":0,"":0}"#, None),
        ];
        for (text, rest, value) in cases {
            let expected = Ok((Some(rest.to_owned()), value.map(str::to_owned)));
            for size in 1..=text.len() {
                let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                assert_eq!(extract(&parts, 1000), expected, "{text} by {size}");
            }
        }
        for broken in ["", "{", r#"{"document":"x"#, r#"{"document":"x",}"#, r#"{"document":}"#, "{}{}"] {
            assert!(extract(&[broken.as_bytes()], 1000).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_member_is_none_of_it() {
        let part = br#"{"":0},"#.repeat(1000);
        let mut parts: Vec<&[u8]> = vec![br#"{"a":["#];
        parts.extend(std::iter::repeat_n(part.as_slice(), 100));
        parts.push(br#"0],"document":"AAEC"}"#);
        assert_eq!(extract(&parts, 10_000).unwrap(), (None, Some("\"AAEC\"".into())));
        let long = "A".repeat(100_000);
        let text = format!(r#"{{"document":"{long}","k":1}}"#);
        assert_eq!(extract(&[text.as_bytes()], 10).unwrap().0.as_deref(), Some(r#"{"k":1}"#));
    }
}
