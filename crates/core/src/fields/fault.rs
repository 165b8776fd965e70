//! Why bytes are not JSON with exactly one reading.

use thiserror::Error;

use crate::codes::AnswerCode;

/// Why bytes are not accepted as JSON. Positions count from 0.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum JsonError {
    /// The bytes are not UTF-8.
    #[error("{}", AnswerCode::NotUtf8.text())]
    NotUtf8,
    /// A byte order mark comes first (RFC 8259, section 8.1).
    #[error("{}: it begins with one", AnswerCode::NotUtf8.text())]
    ByteOrderMark,
    /// Not RFC 8259, at this byte.
    #[error("{text}: unexpected input at byte {0}", text = AnswerCode::MalformedJson.text())]
    Malformed(usize),
    /// Something follows the value, at this byte.
    #[error("{text}: it goes on after the value, at byte {0}", text = AnswerCode::MalformedJson.text())]
    TrailingGarbage(usize),
    /// Nested deeper than 64 levels.
    #[error("{}", AnswerCode::JsonTooDeep.text())]
    TooDeep,
    /// `\u0000`, or an unpaired surrogate, which is not text.
    #[error("{text}: at byte {0}", text = AnswerCode::JsonNotText.text())]
    UnpairedOrNul(usize),
    /// A number that readers may take for different values: it has too many digits when written out.
    #[error("{text}: at byte {0}", text = AnswerCode::JsonNumberTooLong.text())]
    NumberTooLong(usize),
}

impl JsonError {
    /// The answer to the client. Its text is the beginning of this error's own.
    pub fn answer(&self) -> AnswerCode {
        match self {
            Self::NotUtf8 | Self::ByteOrderMark => AnswerCode::NotUtf8,
            Self::Malformed(_) | Self::TrailingGarbage(_) => AnswerCode::MalformedJson,
            Self::TooDeep => AnswerCode::JsonTooDeep,
            Self::UnpairedOrNul(_) => AnswerCode::JsonNotText,
            Self::NumberTooLong(_) => AnswerCode::JsonNumberTooLong,
        }
    }
}
