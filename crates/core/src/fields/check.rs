//! Judges the body of a request while it arrives.

use std::sync::Arc;

use thiserror::Error;

use super::fault::JsonError;
use super::free::{FreeCandidate, FreeValue, NotFree};
use super::names::FoldedNames;
use super::scan::{JsonScanner, LevelKind, ScannedPiece};
use super::text::JsonReading;
use crate::codes::AnswerCode;

/// A guarded member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardedMember {
    /// The value that every caller may write there.
    pub free: FreeValue,
    /// Whether it is looked for at any depth. Otherwise only in the document itself, or in the elements of a list of
    /// documents.
    pub anywhere: bool,
}

/// The guarded members of a route. Each has one bit, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuardedMembers {
    /// Their names.
    pub names: Arc<FoldedNames>,
    /// The members themselves.
    pub members: Box<[GuardedMember]>,
    /// Whether the body must be an object: some services append a list to the stored value.
    pub only_object: bool,
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum BodyFault {
    /// It is not JSON with one reading.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It is JSON, but neither an object nor a list.
    #[error("the body is no object")]
    NotAnObject,
    /// It holds a member that the caller may not write: this one of the route's members, counted from 0.
    #[error("the body holds a member that the caller may not write")]
    MemberNotPermitted(usize),
    /// Its content type or encoding allows another reading than JSON.
    #[error("the body is not sent as JSON")]
    MediaType,
    /// It is too long to be held, and had no `Content-Length`.
    #[error("the body has no length")]
    NoLength,
    /// It is longer than the route allows.
    #[error("the body is too long")]
    TooLong,
    /// Too many bodies are held at this moment.
    #[error("too many bodies are held at the moment")]
    NoRoom,
}

impl BodyFault {
    /// The answer to the client.
    pub fn answer(self) -> AnswerCode {
        match self {
            Self::Json(error) => error.answer(),
            Self::MemberNotPermitted(_) => AnswerCode::MemberNotPermitted,
            Self::NoLength => AnswerCode::LengthRequired,
            Self::TooLong => AnswerCode::BodyTooLarge,
            Self::MediaType => AnswerCode::UnsupportedMediaType,
            Self::NotAnObject => AnswerCode::NotAnObject,
            Self::NoRoom => AnswerCode::ServiceBusy,
        }
    }
}

/// One body under judgement.
pub struct BodyCheck {
    scanner: JsonScanner,
    members: Arc<GuardedMembers>,
    /// The members that this caller may not write.
    withheld: u64,
    /// The person whose record the request is about.
    subject: Option<Box<str>>,
    /// An incomplete guarded member whose value every caller may write, if it turns out to be the right one.
    candidate: Option<FreeCandidate>,
}

impl BodyCheck {
    /// Starts a body with the members withheld from the caller and the subject of the request.
    pub fn new(members: Arc<GuardedMembers>, withheld: u64, subject: Option<&str>) -> Self {
        let scanner = JsonScanner::new(JsonReading::Request, Arc::clone(&members.names));
        Self { scanner, members, withheld, subject: subject.map(Box::from), candidate: None }
    }

    /// Judges the next bytes.
    ///
    /// # Errors
    /// The body must be refused, whatever follows.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), BodyFault> {
        while let Some(piece) = self.scanner.next(&mut bytes)? {
            match piece {
                // Judged at the end of each name, before its value: a refusal needs no more of the body, and repeated
                // names count each time.
                ScannedPiece::NameEnd(names) => self.judge(names & self.withheld)?,
                ScannedPiece::Scalar(_) if self.scanner.depth() == 0 => return Err(BodyFault::NotAnObject),
                ScannedPiece::Scalar(part) => {
                    let subject = self.subject.as_deref();
                    Self::go_on(&mut self.candidate, |candidate| candidate.push(part, subject))?;
                }
                // Thalamus would append the list to the stored document (`data || patch`).
                ScannedPiece::Open(LevelKind::Array) if self.members.only_object && self.scanner.depth() == 1 => {
                    return Err(BodyFault::NotAnObject);
                }
                ScannedPiece::Open(LevelKind::Array) => {
                    Self::go_on(&mut self.candidate, FreeCandidate::open_list)?;
                }
                ScannedPiece::Open(LevelKind::Object) => {
                    Self::go_on(&mut self.candidate, |_| Err::<(), _>(NotFree))?;
                }
                ScannedPiece::Comma => {
                    let is_own = Self::go_on(&mut self.candidate, FreeCandidate::comma)?;
                    self.settle(is_own)?;
                }
                ScannedPiece::Close(LevelKind::Object | LevelKind::Array) => {
                    let is_own = Self::go_on(&mut self.candidate, FreeCandidate::close)?;
                    self.settle(is_own)?;
                }
                ScannedPiece::NameBegin | ScannedPiece::Name(_) => {}
            }
        }
        Ok(())
    }

    /// Checks that the body is complete.
    ///
    /// # Errors
    /// The body ended too early.
    pub fn finish(&self) -> Result<(), BodyFault> {
        Ok(self.scanner.finish()?)
    }

    /// Judges a member whose name matches these withheld bits.
    fn judge(&mut self, withheld: u64) -> Result<(), BodyFault> {
        let outermost = self.scanner.is_in_outermost_object();
        for (at, member) in self.members.members.iter().enumerate() {
            // Only at a depth where the upstream reads it as this member.
            if withheld >> at & 1 == 0 || !(member.anywhere || outermost) {
                continue;
            }
            if !member.free.can_be(self.subject.as_deref()) {
                return Err(BodyFault::MemberNotPermitted(at));
            }
            self.candidate = Some(FreeCandidate::new(at, member.free));
        }
        Ok(())
    }

    /// Passes the next piece to the value that may be free, if there is one.
    fn go_on<T>(
        candidate: &mut Option<FreeCandidate>,
        next: impl FnOnce(&mut FreeCandidate) -> Result<T, NotFree>,
    ) -> Result<Option<T>, BodyFault> {
        let Some(candidate) = candidate else { return Ok(None) };
        next(candidate).map(Some).map_err(|NotFree| BodyFault::MemberNotPermitted(candidate.at))
    }

    /// Ends the current value, unless the piece is part of it. A value that had to be free must be free now.
    fn settle(&mut self, is_part: Option<bool>) -> Result<(), BodyFault> {
        if is_part == Some(true) {
            return Ok(());
        }
        let Some(candidate) = self.candidate.take() else { return Ok(()) };
        let is_free = candidate.is_free(self.subject.as_deref());
        if is_free { Ok(()) } else { Err(BodyFault::MemberNotPermitted(candidate.at)) }
    }
}
