//! Faults of a submitted form: shown beside the field to people, and sent as status and code to programs.

use std::fmt::{self, Display, Formatter};

use super::words::PageWords;
use fedgate_core::codes::AnswerCode;

/// A fault of a form, or of one of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormFault {
    NotOurs,
    CurrentMissing,
    CurrentWrong,
    Missing,
    TooShort,
    TooLong,
    TooManyBytes,
    /// The limit if a Thalamus reads the same passwords.
    TooManyBytesBeside,
    Blank,
    LineBreak,
    OwnId,
    Common,
    Mismatch,
    Unchanged,
}

impl FormFault {
    /// The text for people.
    pub(crate) fn text(self, words: &PageWords) -> &'static str {
        match self {
            Self::NotOurs => words.expired,
            Self::CurrentMissing | Self::Missing => words.required,
            Self::CurrentWrong => words.wrong,
            Self::TooShort | Self::TooLong => words.length,
            Self::TooManyBytes => words.bytes,
            Self::TooManyBytesBeside => words.bytes_beside,
            Self::Blank => words.blank,
            Self::LineBreak => words.line_break,
            Self::OwnId => words.own_id,
            Self::Common => words.common,
            Self::Mismatch => words.mismatch,
            Self::Unchanged => words.same,
        }
    }

    /// The answer to programs.
    pub(crate) fn answer(self) -> AnswerCode {
        match self {
            Self::NotOurs => AnswerCode::FormExpired,
            Self::CurrentMissing | Self::CurrentWrong => AnswerCode::CurrentPasswordWrong,
            Self::Missing => AnswerCode::PasswordMissing,
            Self::TooShort => AnswerCode::PasswordTooShort,
            Self::TooLong | Self::TooManyBytes | Self::TooManyBytesBeside => AnswerCode::PasswordTooLong,
            Self::Blank | Self::LineBreak => AnswerCode::PasswordUnusable,
            Self::OwnId | Self::Common => AnswerCode::PasswordTooCommon,
            Self::Mismatch => AnswerCode::PasswordMismatch,
            Self::Unchanged => AnswerCode::PasswordUnchanged,
        }
    }
}

impl Display for FormFault {
    /// The text of the answer to programs, and what it is about in this case.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.answer().text();
        match self {
            Self::TooManyBytes => write!(f, "{text}: letters with accents take two bytes or more"),
            Self::TooManyBytesBeside => {
                write!(
                    f,
                    "{text}: a Thalamus on the same database reads fewer bytes, and letters with accents take two or \
                     more"
                )
            }
            _ => f.write_str(text),
        }
    }
}
