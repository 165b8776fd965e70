//! Why a request was not served. [`fedgate_core::codes`] has the status, code and text of each answer.
//!
//! The one rule: a client receives the status, the code, a fixed sentence, and at most a detail of its own request.
//! Messages of the database appear only in the log.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use super::html::fault::FormFault;
use fedgate_base::db::{DbError, WaitReason};
use fedgate_core::assertion::{BUSY_HEADER, CLOCK_HEADER};
use fedgate_core::codes::AnswerCode;
use fedgate_core::json::JsonError;

/// The type of every body that is not HTML.
pub(super) const JSON: &str = "application/json";

/// The answer of a handler, or the reason why it has none.
pub(super) type HandlerResult = Result<Response, HisError>;

/// Why a request was not served. Texts that Thalamus has are kept to the letter.
#[derive(Debug, Clone)]
pub(super) enum HisError {
    NoAssertion,
    ClockDiffers,
    OtherRequest,
    NoRoute,
    MethodNotAllowed,
    BadId,
    BadQuery(String),
    BadJson(JsonError),
    BodyUnreadable,
    BodyTimeout,
    TooLarge,
    RecordTooLarge,
    NotARecord,
    UnsupportedMediaType,
    NotAForm,
    NotADocument,
    NoSuchRange(u64),
    NoBytes,
    NotAnObject,
    NeedsAccount(&'static str),
    PasswordHere,
    BadMember(&'static str),
    UserExists,
    /// With the candidates as JSON, if the caller may know them.
    MatchesPerson(Option<Arc<str>>),
    PairNotFound,
    PasswordTooLong,
    PasswordTooLongFor(usize),
    PasswordTooShort,
    PasswordUnusable,
    PasswordUnreadable,
    PasswordUnknownHash,
    BadForm(FormFault),
    PersonIdChange,
    UserNotFound,
    UserDoesNotExist,
    UserActive,
    UserInUse,
    PersonNotFound,
    NoPageId,
    PageIdChange,
    BookMismatch,
    PageExists,
    TooManyPages,
    BookOrPageNotFound,
    PageNotFound,
    PageInUse,
    DocumentNotFound,
    DocumentExists,
    TooManyDocuments,
    DocumentMismatch(&'static str),
    NotBase64,
    UnitNotFound,
    UnitExists,
    UnitIdChange,
    MessagesGone(u64),
    PositionUnknown(u64),
    OtherHistory,
    CursorNotFound,
    CursorAhead(u64),
    TooManyCursors,
    MessageNotFound,
    MessageExists,
    TooManyMessages,
    WebhookNotFound,
    BadWebhook(String),
    TooManyWebhooks,
    WebhooksOff,
    MergeNotFound,
    MergeNotNewest(u64),
    MergeWithItself,
    PersonMerged(Option<String>),
    TooManyIds,
    NeedsGlobal,
    Stale,
    TooManyGuesses(Duration),
    Busy,
    Crowded,
    TooSlow,
    Locked,
    NoRoom,
    DatabaseUnavailable,
    DatabaseReadOnly,
    Stopping,
    Internal,
}

impl HisError {
    /// A parameter of the query is not usable.
    pub(super) fn bad_query(name: &str) -> Self {
        Self::BadQuery(name.to_owned())
    }

    /// The answer to the client: status, code and text.
    pub(super) fn answer(&self) -> AnswerCode {
        match self {
            Self::NoAssertion | Self::ClockDiffers => AnswerCode::NoAssertion,
            Self::OtherRequest => AnswerCode::AssertionMismatch,
            Self::NoRoute => AnswerCode::NotFound,
            Self::MethodNotAllowed => AnswerCode::MethodNotAllowed,
            Self::BadId => AnswerCode::BadId,
            Self::BadQuery(_) => AnswerCode::BadQuery,
            Self::BadJson(error) => error.answer(),
            Self::BodyUnreadable => AnswerCode::BodyUnreadable,
            Self::BodyTimeout => AnswerCode::BodyTimeout,
            Self::TooLarge => AnswerCode::BodyTooLarge,
            Self::RecordTooLarge => AnswerCode::RecordTooLarge,
            Self::NotARecord => AnswerCode::RecordNotAnObject,
            Self::UnsupportedMediaType | Self::NotAForm | Self::NotADocument => AnswerCode::UnsupportedMediaType,
            Self::NoSuchRange(_) => AnswerCode::RangeNotSatisfiable,
            Self::NoBytes => AnswerCode::DocumentMissing,
            Self::NotAnObject => AnswerCode::NotAnObject,
            Self::BadForm(fault) => fault.answer(),
            Self::NeedsAccount(_) | Self::PasswordHere | Self::NeedsGlobal => AnswerCode::NotPermitted,
            Self::BadMember(_) => AnswerCode::BadMember,
            Self::UserExists => AnswerCode::UserExists,
            Self::MatchesPerson(_) => AnswerCode::MatchesPerson,
            Self::PairNotFound => AnswerCode::PairNotFound,
            Self::PasswordTooLong | Self::PasswordTooLongFor(_) => AnswerCode::PasswordTooLong,
            Self::PasswordTooShort => AnswerCode::PasswordTooShort,
            Self::PasswordUnusable => AnswerCode::PasswordUnusable,
            Self::PasswordUnreadable => AnswerCode::PasswordUnreadable,
            Self::PasswordUnknownHash => AnswerCode::PasswordUnknownHash,
            Self::PersonIdChange => AnswerCode::PersonIdChange,
            Self::UserNotFound => AnswerCode::UserNotFound,
            Self::UserDoesNotExist => AnswerCode::UserDoesNotExist,
            Self::UserActive => AnswerCode::UserActive,
            Self::UserInUse => AnswerCode::UserInUse,
            Self::PersonNotFound => AnswerCode::PersonNotFound,
            Self::NoPageId => AnswerCode::PageIdMissing,
            Self::PageIdChange => AnswerCode::PageIdChange,
            Self::BookMismatch => AnswerCode::BookMismatch,
            Self::PageExists => AnswerCode::PageExists,
            Self::TooManyPages => AnswerCode::TooManyPages,
            Self::TooManyDocuments => AnswerCode::TooManyDocuments,
            Self::BookOrPageNotFound => AnswerCode::BookOrPageNotFound,
            Self::PageNotFound => AnswerCode::PageNotFound,
            Self::PageInUse => AnswerCode::PageInUse,
            Self::DocumentNotFound => AnswerCode::DocumentNotFound,
            Self::DocumentExists => AnswerCode::DocumentExists,
            Self::DocumentMismatch(_) => AnswerCode::DocumentMismatch,
            Self::NotBase64 => AnswerCode::NotBase64,
            Self::UnitNotFound => AnswerCode::UnitNotFound,
            Self::UnitExists => AnswerCode::UnitExists,
            Self::UnitIdChange => AnswerCode::UnitIdChange,
            Self::MessagesGone(_) => AnswerCode::MessagesGone,
            Self::PositionUnknown(_) | Self::OtherHistory => AnswerCode::PositionUnknown,
            Self::CursorNotFound => AnswerCode::CursorNotFound,
            Self::CursorAhead(_) => AnswerCode::CursorAhead,
            Self::TooManyCursors => AnswerCode::TooManyCursors,
            Self::MessageNotFound => AnswerCode::MessageNotFound,
            Self::MessageExists => AnswerCode::MessageExists,
            Self::TooManyMessages => AnswerCode::TooManyMessages,
            Self::WebhookNotFound => AnswerCode::WebhookNotFound,
            Self::BadWebhook(_) => AnswerCode::BadWebhook,
            Self::TooManyWebhooks => AnswerCode::TooManyWebhooks,
            Self::WebhooksOff => AnswerCode::WebhooksOff,
            Self::MergeNotFound => AnswerCode::MergeNotFound,
            Self::MergeNotNewest(_) => AnswerCode::MergeNotNewest,
            Self::MergeWithItself => AnswerCode::MergeWithItself,
            Self::PersonMerged(_) => AnswerCode::PersonMerged,
            Self::TooManyIds => AnswerCode::TooManyIds,
            Self::Stale => AnswerCode::PreconditionFailed,
            Self::TooManyGuesses(_) => AnswerCode::TooManyGuesses,
            Self::Busy | Self::Crowded | Self::NoRoom => AnswerCode::ServiceBusy,
            Self::TooSlow => AnswerCode::QueryTimeout,
            Self::Locked => AnswerCode::RecordLocked,
            Self::Stopping => AnswerCode::ServiceStopping,
            Self::DatabaseUnavailable => AnswerCode::DatabaseUnavailable,
            Self::DatabaseReadOnly => AnswerCode::DatabaseReadOnly,
            Self::Internal => AnswerCode::InternalError,
        }
    }

    /// Persons whom the request is about, as JSON, if the caller may know them.
    pub(super) fn candidates(&self) -> Option<&str> {
        match self {
            Self::MatchesPerson(candidates) => candidates.as_deref(),
            _ => None,
        }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        http_status(self.answer())
    }
}

/// The status of an answer, as the HTTP library has it.
fn http_status(answer: AnswerCode) -> StatusCode {
    StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl Display for HisError {
    /// The text of the answer, and what it is about in this case.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.answer().text();
        match self {
            Self::BadJson(error) => error.fmt(f),
            Self::BadForm(fault) => fault.fmt(f),
            Self::BadWebhook(fault) => write!(f, "{text}: {fault}"),
            Self::BadQuery(name) => write!(f, "{text}: `{name}`"),
            Self::NeedsAccount(member) => write!(f, "{text}: `{member}` needs the `account` permission"),
            Self::PasswordHere => write!(f, "{text}: a password is changed at /password/<person_id>"),
            Self::BadMember(member) | Self::DocumentMismatch(member) => write!(f, "{text}: `{member}`"),
            Self::PasswordTooLongFor(most) => {
                write!(f, "{text}: here at most {most} bytes are used, and letters with accents take two or more")
            }
            Self::ClockDiffers => {
                write!(f, "{text}: it has expired or is not valid yet: the clocks of gateway and service differ")
            }
            Self::UnsupportedMediaType => write!(f, "{text}: send JSON as application/json, not compressed"),
            Self::NotAForm => {
                write!(f, "{text}: a form is, as application/x-www-form-urlencoded and not compressed")
            }
            Self::NotADocument => write!(
                f,
                "{text}: send the bytes of the document alone, under their own type such as application/pdf and not \
                 compressed; or JSON as application/json with the bytes in base64 in `document`"
            ),
            Self::NoBytes => {
                write!(f, "{text}: the bytes in base64; or send the bytes under their own content type")
            }
            Self::MessagesGone(first) => write!(f, "{text}: the first one that is left is {first}"),
            Self::PositionUnknown(last) => write!(f, "{text}: the last one is {last}"),
            Self::OtherHistory => {
                write!(f, "{text}: it is of a history that the hub does not have, or has lost in part")
            }
            Self::MergeNotNewest(later) => write!(f, "{text}: number {later}"),
            Self::PersonMerged(Some(survivor)) => write!(f, "{text}: the id that stays is `{survivor}`"),
            Self::NeedsGlobal => write!(f, "{text}: this needs the scope `global`"),
            Self::CursorAhead(position) => write!(f, "{text}: it is at {position}"),
            Self::Busy => write!(f, "{text}: too many passwords are being hashed"),
            Self::Crowded => write!(f, "{text}: too many requests wait for the database"),
            Self::NoRoom => write!(f, "{text}: too many bytes are in flight"),
            _ => f.write_str(text),
        }
    }
}

impl std::error::Error for HisError {}

impl From<JsonError> for HisError {
    fn from(error: JsonError) -> Self {
        Self::BadJson(error)
    }
}

impl From<DbError> for HisError {
    fn from(error: DbError) -> Self {
        match error {
            // The watch over the database has logged it once.
            error if error.is_read_only() => Self::DatabaseReadOnly,
            DbError::Unavailable(_) => match error.waited_for() {
                Some(reason) => {
                    let (words, answer) = match reason {
                        WaitReason::Turn => ("too many writes wait", Self::Crowded),
                        WaitReason::Statement => ("a statement took too long", Self::TooSlow),
                        WaitReason::Lock => ("another session keeps a record, or the store, locked", Self::Locked),
                    };
                    tracing::warn!("{words}: {}", error.in_short());
                    answer
                }
                // The store has logged it once.
                None => {
                    tracing::debug!("{error}");
                    Self::DatabaseUnavailable
                }
            },
            DbError::Failed(_) | DbError::Settings { .. } => {
                match error.lacks_schema() {
                    true => tracing::error!("{error}; run `fedhis migrate` again"),
                    false => tracing::error!("{error}"),
                }
                Self::Internal
            }
        }
    }
}

impl IntoResponse for HisError {
    /// An answer without a body: `verify_assertion` completes it.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        let is_busy = matches!(self, Self::Busy | Self::Crowded | Self::NoRoom | Self::TooSlow | Self::Locked);
        if is_busy || matches!(self, Self::DatabaseUnavailable | Self::DatabaseReadOnly) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Self::TooManyGuesses(wait) = self {
            // Rounded up: a client that came back earlier would be refused again.
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        if let Self::NoSuchRange(length) = self
            && let Ok(value) = HeaderValue::try_from(format!("bytes */{length}"))
        {
            response.headers_mut().insert(CONTENT_RANGE, value);
            response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        if matches!(self, Self::ClockDiffers) {
            response.headers_mut().insert(CLOCK_HEADER, HeaderValue::from_static("1"));
        }
        // Tells the gateway that this server is busy, not broken, so that it is not ejected.
        if is_busy {
            response.headers_mut().insert(BUSY_HEADER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
        response
    }
}
