//! Why a request was not served: status, stable code and text, in one place.
//!
//! The one rule: a client learns the status, the code and a fixed sentence. The database's own words stay in the
//! log.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use thiserror::Error;

use super::html::fault::FormFault;
use fedgate_base::db::{DbError, WaitReason};
use fedgate_core::assertion::{BUSY_HEADER, CLOCK_HEADER};
use fedgate_core::json::JsonError;

/// The type of every body that is not HTML.
pub(super) const JSON: &str = "application/json";

/// The answer of a handler, or the reason why it has none.
pub(super) type HandlerResult = Result<Response, HisError>;

/// Why a request was not served. Texts that Thalamus has are kept to the letter.
#[derive(Debug, Clone, Error)]
pub(super) enum HisError {
    #[error("the request carries no valid assertion of the gateway")]
    NoAssertion,
    #[error("the assertion has expired or is not valid yet: the clocks of gateway and service differ")]
    ClockDiffers,
    #[error("the assertion is for another request")]
    OtherRequest,
    #[error("not found")]
    NoRoute,
    #[error("the method is not allowed for this resource")]
    MethodNotAllowed,
    #[error("an id in the path is empty, too long or not text, or is not allowed for a person")]
    BadId,
    #[error("`{0}` in the query is not usable")]
    BadQuery(String),
    #[error("{0}")]
    BadJson(JsonError),
    #[error("the body could not be read")]
    BodyUnreadable,
    #[error("the body did not arrive in time")]
    BodyTimeout,
    #[error("the body is too large")]
    TooLarge,
    #[error("the record would exceed the size limit of stored records")]
    RecordTooLarge,
    #[error("the stored record is not an object, and cannot be changed until an operator repairs it")]
    NotARecord,
    #[error("this content type or encoding is not accepted here")]
    UnsupportedMediaType,
    #[error("a form is taken here, as application/x-www-form-urlencoded and not compressed")]
    NotAForm,
    #[error("the document has no such bytes")]
    NoSuchRange(u64),
    #[error("`document` is missing: the bytes in base64; or send the bytes under their own content type")]
    NoBytes,
    #[error("the body must be a JSON object")]
    NotAnObject,
    #[error("not permitted: `{0}` needs the `account` permission")]
    NeedsAccount(&'static str),
    #[error("not permitted: a password is changed at /password/<person_id>")]
    PasswordHere,
    #[error("`{0}` has the wrong type")]
    BadMember(&'static str),
    #[error("User already exists")]
    UserExists,
    #[error("Password is too long")]
    PasswordTooLong,
    #[error("Password is too long: here at most {0} bytes are read of it, and letters with accents take two or more")]
    PasswordTooLongFor(usize),
    #[error("Password is too short")]
    PasswordTooShort,
    #[error("Password has a line break or NUL, which no sign-in accepts")]
    PasswordUnusable,
    #[error("Password is a hash that a Thalamus on the same database cannot read; bcrypt is kept here")]
    PasswordUnreadable,
    #[error("{0}")]
    BadForm(FormFault),
    #[error("Not allowed to change the person ID")]
    PersonIdChange,
    #[error("User not found")]
    UserNotFound,
    #[error("User does not exist")]
    UserDoesNotExist,
    #[error("The user is active.")]
    UserActive,
    #[error("The user has pages or documents.")]
    UserInUse,
    #[error("Person not found")]
    PersonNotFound,
    #[error("wrong format on person or page ID")]
    NoPageId,
    #[error("Not allowed to change the page ID")]
    PageIdChange,
    #[error("the page's `book` differs from the path")]
    BookMismatch,
    #[error("Page already exists")]
    PageExists,
    #[error("the person has reached the limit of stored pages")]
    TooManyPages,
    #[error("Book or page or not found")]
    BookOrPageNotFound,
    #[error("Page not found")]
    PageNotFound,
    #[error("The page has documents.")]
    PageInUse,
    #[error("Document not found")]
    DocumentNotFound,
    #[error("Document already exists")]
    DocumentExists,
    #[error("the person has reached the limit of stored documents")]
    TooManyDocuments,
    #[error("the document's `{0}` differs from the path")]
    DocumentMismatch(&'static str),
    #[error("`document` must be base64")]
    NotBase64,
    #[error("Unit not found")]
    UnitNotFound,
    #[error("Unit already exists")]
    UnitExists,
    #[error("Not allowed to change the unit ID")]
    UnitIdChange,
    #[error("the document has changed since that version")]
    Stale,
    #[error("too many wrong current passwords, try again later")]
    TooManyGuesses(Duration),
    #[error("too many passwords are being hashed, try again")]
    Busy,
    #[error("too many requests wait for the database, try again")]
    Crowded,
    #[error("the database took too long for this, ask for less or try again later")]
    TooSlow,
    #[error("another session keeps this locked, try again")]
    Locked,
    #[error("too many bytes are in flight, try again")]
    NoRoom,
    #[error("the database is unavailable, try again")]
    DatabaseUnavailable,
    #[error("the database takes no writes now, try again")]
    DatabaseReadOnly,
    #[error("the service is stopping")]
    Stopping,
    #[error("internal error")]
    Internal,
}

impl HisError {
    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoAssertion | Self::ClockDiffers | Self::OtherRequest => StatusCode::UNAUTHORIZED,
            // The JSON is well-formed but not acceptable.
            Self::BadJson(JsonError::NumberTooLong(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BadId | Self::BadQuery(_) | Self::BadJson(_) | Self::BodyUnreadable => StatusCode::BAD_REQUEST,
            Self::BadForm(fault) => fault.status(),
            Self::NeedsAccount(_) | Self::PasswordHere => StatusCode::FORBIDDEN,
            Self::NoRoute
            | Self::UserNotFound
            | Self::UserDoesNotExist
            | Self::PersonNotFound
            | Self::BookOrPageNotFound
            | Self::PageNotFound
            | Self::DocumentNotFound
            | Self::UnitNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UserInUse | Self::PageInUse | Self::NotARecord => StatusCode::CONFLICT,
            Self::Stale => StatusCode::PRECONDITION_FAILED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge | Self::RecordTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType | Self::NotAForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoSuchRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::NotAnObject
            | Self::BadMember(_)
            | Self::UserExists
            | Self::PasswordTooLong
            | Self::PasswordTooLongFor(_)
            | Self::PasswordTooShort
            | Self::PasswordUnusable
            | Self::PasswordUnreadable
            | Self::PersonIdChange
            | Self::UserActive
            | Self::NoPageId
            | Self::PageIdChange
            | Self::BookMismatch
            | Self::PageExists
            | Self::TooManyPages
            | Self::TooManyDocuments
            | Self::DocumentExists
            | Self::DocumentMismatch(_)
            | Self::NotBase64
            | Self::NoBytes
            | Self::UnitExists
            | Self::UnitIdChange => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyGuesses(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy
            | Self::Crowded
            | Self::NoRoom
            | Self::TooSlow
            | Self::Locked
            | Self::DatabaseUnavailable
            | Self::DatabaseReadOnly
            | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable code of the answer.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoAssertion | Self::ClockDiffers => "no_assertion",
            Self::OtherRequest => "assertion_mismatch",
            Self::NoRoute => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BadId => "bad_id",
            Self::BadQuery(_) => "bad_query",
            Self::BadJson(error) => error.code(),
            Self::BodyUnreadable => "body_unreadable",
            Self::BodyTimeout => "body_timeout",
            Self::TooLarge => "body_too_large",
            Self::RecordTooLarge => "record_too_large",
            Self::NotARecord => "record_not_an_object",
            Self::UnsupportedMediaType | Self::NotAForm => "unsupported_media_type",
            Self::NoSuchRange(_) => "range_not_satisfiable",
            Self::NoBytes => "document_missing",
            Self::NotAnObject => "not_an_object",
            Self::BadForm(fault) => fault.code(),
            Self::NeedsAccount(_) | Self::PasswordHere => "not_permitted",
            Self::BadMember(_) => "bad_member",
            Self::UserExists => "user_exists",
            Self::PasswordTooLong | Self::PasswordTooLongFor(_) => "password_too_long",
            Self::PasswordTooShort => "password_too_short",
            Self::PasswordUnusable => "password_unusable",
            Self::PasswordUnreadable => "password_unreadable",
            Self::PersonIdChange => "person_id_change",
            Self::UserNotFound | Self::UserDoesNotExist => "user_not_found",
            Self::UserActive => "user_active",
            Self::UserInUse => "user_in_use",
            Self::PersonNotFound => "person_not_found",
            Self::NoPageId => "page_id_missing",
            Self::PageIdChange => "page_id_change",
            Self::BookMismatch => "book_mismatch",
            Self::PageExists => "page_exists",
            Self::TooManyPages => "too_many_pages",
            Self::TooManyDocuments => "too_many_documents",
            Self::BookOrPageNotFound | Self::PageNotFound => "page_not_found",
            Self::PageInUse => "page_in_use",
            Self::DocumentNotFound => "document_not_found",
            Self::DocumentExists => "document_exists",
            Self::DocumentMismatch(_) => "document_mismatch",
            Self::NotBase64 => "not_base64",
            Self::UnitNotFound => "unit_not_found",
            Self::UnitExists => "unit_exists",
            Self::UnitIdChange => "unit_id_change",
            Self::Stale => "precondition_failed",
            Self::TooManyGuesses(_) => "too_many_guesses",
            Self::Busy | Self::Crowded | Self::NoRoom => "busy",
            Self::TooSlow => "query_timeout",
            Self::Locked => "record_locked",
            Self::Stopping => "stopping",
            Self::DatabaseUnavailable => "database_unavailable",
            Self::DatabaseReadOnly => "database_read_only",
            Self::Internal => "internal",
        }
    }
}

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
                    tracing::warn!("{error}");
                    match reason {
                        WaitReason::Turn => Self::Crowded,
                        WaitReason::Statement => Self::TooSlow,
                        WaitReason::Lock => Self::Locked,
                    }
                }
                // The store has logged it once.
                None => {
                    tracing::debug!("{error}");
                    Self::DatabaseUnavailable
                }
            },
            DbError::Failed(_) | DbError::Settings { .. } => {
                tracing::error!("{error}");
                Self::Internal
            }
        }
    }
}

impl IntoResponse for HisError {
    /// An answer without a body: the guard completes it.
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
