//! Faults of a submitted form: shown beside the field to people, and sent as status and code to programs.

use http::StatusCode;
use thiserror::Error;

use super::words::PageWords;

/// A fault of a form, or of one of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum FormFault {
    #[error("the form is not of this service, or has expired: request it again")]
    NotOurs,
    #[error("your own current password is missing")]
    CurrentMissing,
    #[error("your own current password is wrong")]
    CurrentWrong,
    #[error("the new password or its repetition is missing")]
    Missing,
    #[error("Password is too short")]
    TooShort,
    #[error("Password is too long")]
    TooLong,
    #[error("Password is too long: letters with accents take two bytes or more")]
    TooManyBytes,
    /// Where a Thalamus reads the same passwords.
    #[error("Password is too long for a Thalamus on the same database: letters with accents take two bytes or more")]
    TooManyBytesBeside,
    #[error("Password has a line break or NUL, which no sign-in accepts")]
    LineBreak,
    #[error("Password is the account id, which attackers try first")]
    OwnId,
    #[error("Password is one of the most common, which attackers try first")]
    Common,
    #[error("the new password and its repetition differ")]
    Mismatch,
    #[error("Password is the current one; nothing was changed")]
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
            Self::LineBreak => words.line_break,
            Self::OwnId => words.own_id,
            Self::Common => words.common,
            Self::Mismatch => words.mismatch,
            Self::Unchanged => words.same,
        }
    }

    /// The status for programs.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NotOurs | Self::CurrentMissing | Self::CurrentWrong => StatusCode::FORBIDDEN,
            Self::Missing
            | Self::TooShort
            | Self::TooLong
            | Self::TooManyBytes
            | Self::TooManyBytesBeside
            | Self::LineBreak
            | Self::OwnId
            | Self::Common
            | Self::Mismatch
            | Self::Unchanged => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }

    /// The code for programs.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::NotOurs => "form_expired",
            Self::CurrentMissing | Self::CurrentWrong => "current_password_wrong",
            Self::Missing => "password_missing",
            Self::TooShort => "password_too_short",
            Self::TooLong | Self::TooManyBytes | Self::TooManyBytesBeside => "password_too_long",
            Self::LineBreak => "password_unusable",
            Self::OwnId | Self::Common => "password_too_common",
            Self::Mismatch => "password_mismatch",
            Self::Unchanged => "password_unchanged",
        }
    }
}
