//! Rewrites an answer without some of its members, while the answer arrives.

use std::sync::Arc;

use super::MAX_DEPTH;
use super::fault::JsonError;
use super::names::FoldedNames;
use super::scan::{JsonScanner, LevelKind, ScannedPiece};
use super::text::JsonReading;

/// One answer that is being filtered.
///
/// The output is JSON without white space. So only the beginning of a name that may still be removed has to be held:
/// at most six or twelve bytes for each of its characters.
pub struct MemberRemover {
    scanner: JsonScanner,
    /// One bit per open level, the outermost lowest: whether a member was written, so that the next one needs a comma.
    written: u64,
    /// The beginning of a name, with the comma before it, while the member may still be removed.
    name: Vec<u8>,
    /// The level whose member is being removed.
    leaving_out: Option<usize>,
    removed: u64,
}

const _: () = assert!(MAX_DEPTH <= 64, "`written` has a bit for each level");

impl MemberRemover {
    /// Starts an answer from which the members of these names are removed, at any depth.
    pub fn new(names: Arc<FoldedNames>) -> Self {
        let scanner = JsonScanner::new(JsonReading::Answer, names);
        Self { scanner, written: 0, name: Vec::new(), leaving_out: None, removed: 0 }
    }

    /// Takes the next bytes and appends what remains of them to `out`.
    ///
    /// # Errors
    /// The answer is not JSON. The bytes written so far must not be taken for a whole answer.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
        while let Some(piece) = self.scanner.next(&mut bytes)? {
            if let Some(level) = self.leaving_out {
                match piece {
                    // The object continues or ends, so the removed member has ended.
                    ScannedPiece::Comma if self.scanner.depth() == level => self.leaving_out = None,
                    ScannedPiece::Close(_) if self.scanner.depth() < level => {
                        self.leaving_out = None;
                        out.push(b'}');
                    }
                    _ => {}
                }
                continue;
            }
            match piece {
                ScannedPiece::Open(kind) => {
                    self.written &= !self.level();
                    out.push(if kind == LevelKind::Object { b'{' } else { b'[' });
                }
                ScannedPiece::Close(kind) => out.push(if kind == LevelKind::Object { b'}' } else { b']' }),
                // A comma of an object is written together with the next member that is kept.
                ScannedPiece::Comma if self.scanner.is_in_object() => {}
                ScannedPiece::Comma => out.push(b','),
                ScannedPiece::NameBegin => {
                    let comma = if self.written & self.level() != 0 { &b",\""[..] } else { b"\"" };
                    self.name.extend_from_slice(comma);
                }
                ScannedPiece::Name(part) if self.scanner.is_name_open() => self.name.extend_from_slice(part),
                ScannedPiece::Name(part) => {
                    out.append(&mut self.name);
                    out.extend_from_slice(part);
                }
                ScannedPiece::NameEnd(0) => {
                    out.append(&mut self.name);
                    self.written |= self.level();
                    out.push(b':');
                }
                // Every occurrence of a name is removed, also a repeated one.
                ScannedPiece::NameEnd(_) => {
                    self.name.clear();
                    self.leaving_out = Some(self.scanner.depth());
                    self.removed += 1;
                }
                ScannedPiece::Scalar(part) => out.extend_from_slice(part),
            }
        }
        Ok(())
    }

    /// Checks that the answer was complete.
    ///
    /// # Errors
    /// The answer ended too early.
    pub fn finish(&self) -> Result<(), JsonError> {
        self.scanner.finish()
    }

    /// How many members were removed so far.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.name.len()
    }

    /// The bit of the innermost level.
    fn level(&self) -> u64 {
        1 << self.scanner.depth().saturating_sub(1)
    }
}
