//! Why bytes are not JSON with exactly one reading.

use thiserror::Error;

use super::{MAX_DEPTH, MAX_DIGITS};

/// Why bytes are not accepted as JSON. Positions count from 0.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum JsonError {
    /// The bytes are not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// A byte order mark comes first (RFC 8259, section 8.1).
    #[error("the body begins with a byte order mark")]
    ByteOrderMark,
    /// Not RFC 8259, at this byte.
    #[error("the body is not JSON: unexpected input at byte {0}")]
    Malformed(usize),
    /// Something follows the value, at this byte.
    #[error("the body goes on after the JSON value, at byte {0}")]
    TrailingGarbage(usize),
    /// Nested deeper than 64 levels.
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// `\u0000`, or an unpaired surrogate, which is not text.
    #[error("the body has an escape that is no character, at byte {0}")]
    UnpairedOrNul(usize),
    /// A number that readers may take for different values: it has too many digits when written out.
    #[error("the body has a number of more than {MAX_DIGITS} digits when it is written out, at byte {0}")]
    NumberTooLong(usize),
}

impl JsonError {
    /// The stable code of the answer.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUtf8 | Self::ByteOrderMark => "not_utf8",
            Self::Malformed(_) | Self::TrailingGarbage(_) => "malformed_json",
            Self::TooDeep => "json_too_deep",
            Self::UnpairedOrNul(_) => "json_not_text",
            Self::NumberTooLong(_) => "json_number_too_long",
        }
    }
}
