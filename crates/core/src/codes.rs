//! The catalogue of answers: every refusal and failure that either program answers with.
//!
//! The one rule: the status, code and text of an answer are in this table and nowhere else. Clients and operators rely
//! on the codes, so a code never gets another meaning. A code has one text of this project. Texts of Thalamus are
//! copied to the letter, because its clients compare them.
//!
//! The gateway and the HIS turn their errors into an [`AnswerCode`]. A test compares the table of docs/API.md with
//! this one, and writes it (`just codes`). Knows nothing of HTTP libraries.

/// The program that answers with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnsweringProgram {
    /// The gateway alone.
    Gateway,
    /// The HIS alone.
    His,
    /// Both of them.
    Both,
}

/// Whose wording a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextOrigin {
    /// This project's: it may be reworded.
    Fedgate,
    /// That of Thalamus, which its clients know: it stays to the letter.
    Thalamus,
}

macro_rules! codes {
    ($($status:literal $code:literal $program:ident $origin:ident $name:ident $text:literal;)*) => {
        /// The answer to a request that was not served: status, stable code and text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum AnswerCode {
            $(
                #[doc = concat!(stringify!($status), " `", $code, "`: ", $text, ".")]
                $name,
            )*
        }

        impl AnswerCode {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// The text, for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The program that answers with it.
            pub const fn program(self) -> AnsweringProgram {
                match self { $(Self::$name => AnsweringProgram::$program),* }
            }

            /// Whose the text is.
            pub const fn origin(self) -> TextOrigin {
                match self { $(Self::$name => TextOrigin::$origin),* }
            }
        }
    };
}

#[rustfmt::skip]
codes! {
    400 "bad_request_target"     Gateway Fedgate  BadRequestTarget     "The request target has no single reading";
    400 "bad_request_line"       Gateway Fedgate  BadRequestLine       "The request line has no single reading";
    400 "bad_header"             Gateway Fedgate  BadHeader            "A header line is malformed";
    400 "bad_host"               Gateway Fedgate  BadHost              "The request names no host or several, or one that is neither a name nor an address";
    400 "bad_connection_header"  Gateway Fedgate  BadConnectionHeader  "The Connection header names a header that must arrive";
    400 "bad_framing"            Gateway Fedgate  BadFraming           "The body has no single reading";
    400 "body_not_expected"      Gateway Fedgate  BodyNotExpected      "This method has no body";
    400 "several_authorizations" Gateway Fedgate  SeveralAuthorizations "There is more than one Authorization header";
    400 "upgrade_not_served"     Gateway Fedgate  UpgradeNotServed     "No other protocol is served on this connection";
    400 "bad_websocket"          Gateway Fedgate  BadWebSocket         "The WebSocket handshake is not one of RFC 6455, or data came before its answer";
    400 "connection_credential"  Gateway Fedgate  ConnectionCredential "A credential that authenticates a connection cannot be forwarded";
    400 "original_unclear"       Gateway Fedgate  OriginalUnclear      "The proxy does not tell clearly which request it holds";
    400 "bad_request"            Gateway Fedgate  BadRequest           "The request cannot be read";
    400 "malformed_json"         Both    Fedgate  MalformedJson        "The body is not JSON";
    400 "not_utf8"               Both    Fedgate  NotUtf8              "The body is not UTF-8 without a byte order mark";
    400 "json_too_deep"          Both    Fedgate  JsonTooDeep          "The body is nested deeper than 64 levels";
    400 "json_not_text"          Both    Fedgate  JsonNotText          "The body has an escape that is no character";
    400 "body_unreadable"        His     Fedgate  BodyUnreadable       "The body could not be read";
    400 "bad_id"                 His     Fedgate  BadId                "An id in the path is empty, too long or not text, or is not allowed for a person";
    400 "bad_query"              His     Fedgate  BadQuery             "A parameter of the query is not usable";
    401 "unauthenticated"        Gateway Thalamus Unauthenticated      "Unauthorized Access";
    401 "no_assertion"           His     Fedgate  NoAssertion          "The request carries no valid assertion of the gateway";
    401 "assertion_mismatch"     His     Fedgate  AssertionMismatch    "The assertion is for another request";
    403 "foreign_origin"         Gateway Fedgate  ForeignOrigin        "A page of another origin may not send this";
    403 "foreign_credential"     Gateway Fedgate  ForeignCredential    "Pages of this origin may not send a password here";
    403 "not_permitted"          Both    Fedgate  NotPermitted         "Not permitted";
    403 "not_decided_beside"     Gateway Fedgate  NotDecidedBeside     "This can be decided only for a request that passes through the gateway";
    403 "proxy_unknown"          Gateway Fedgate  ProxyUnknown         "Only a proxy that is configured may ask here";
    403 "member_not_permitted"   Gateway Fedgate  MemberNotPermitted   "The body holds a member that you may not write";
    403 "page_link_invalid"      Gateway Fedgate  PageLinkInvalid      "This link to a page is not yours, or has expired; search again";
    403 "form_expired"           His     Fedgate  FormExpired          "The form is not of this service, or has expired; request it again";
    403 "current_password_wrong" His     Fedgate  CurrentPasswordWrong "Your own current password is missing or wrong";
    404 "not_found"              Both    Fedgate  NotFound             "Not found";
    404 "not_found"              Gateway Thalamus OwnPageNotRead       "Book or page or not found";
    404 "not_found"              Gateway Thalamus OwnPageNotWritten    "Page not found";
    404 "user_not_found"         His     Thalamus UserNotFound         "User not found";
    404 "user_not_found"         His     Thalamus UserDoesNotExist     "User does not exist";
    404 "person_not_found"       His     Thalamus PersonNotFound       "Person not found";
    404 "page_not_found"         His     Thalamus BookOrPageNotFound   "Book or page or not found";
    404 "page_not_found"         His     Thalamus PageNotFound         "Page not found";
    404 "document_not_found"     His     Thalamus DocumentNotFound     "Document not found";
    404 "unit_not_found"         His     Thalamus UnitNotFound         "Unit not found";
    404 "cursor_not_found"       His     Fedgate  CursorNotFound       "Cursor not found";
    404 "message_not_found"      His     Fedgate  MessageNotFound      "Message not found";
    404 "merge_not_found"        His     Fedgate  MergeNotFound        "Merge not found";
    404 "webhook_not_found"      His     Fedgate  WebhookNotFound      "Webhook not found";
    404 "pair_not_found"         His     Fedgate  PairNotFound         "Pair not found";
    405 "method_not_allowed"     Both    Thalamus MethodNotAllowed     "The method is not allowed for the requested URL.";
    408 "request_timeout"        Gateway Fedgate  RequestTimeout       "The request took too long";
    408 "body_timeout"           His     Fedgate  BodyTimeout          "The body did not arrive in time";
    409 "user_in_use"            His     Thalamus UserInUse            "The user has pages or documents.";
    409 "matches_person"         His     Fedgate  MatchesPerson        "The person is registered already, under another id";
    409 "page_in_use"            His     Thalamus PageInUse            "The page has documents.";
    409 "record_not_an_object"   His     Fedgate  RecordNotAnObject    "The stored record is not an object, and cannot be changed until an operator repairs it";
    409 "position_unknown"       His     Fedgate  PositionUnknown      "No message has that position";
    409 "cursor_ahead"           His     Fedgate  CursorAhead          "The cursor has passed that position already";
    409 "merge_not_newest"       His     Fedgate  MergeNotNewest       "Another merge must be undone first";
    409 "person_merged"          His     Fedgate  PersonMerged         "The person is merged with another one";
    410 "messages_gone"          His     Fedgate  MessagesGone         "Messages that follow that position are kept no longer";
    411 "length_required"        Gateway Fedgate  LengthRequired       "A body of this size needs a Content-Length";
    412 "precondition_failed"    Both    Fedgate  PreconditionFailed   "The condition in If-Match or If-None-Match does not hold";
    413 "body_too_large"         Both    Fedgate  BodyTooLarge         "The body is too large";
    413 "record_too_large"       His     Fedgate  RecordTooLarge       "The record would exceed the size limit of stored records";
    414 "uri_too_long"           Gateway Fedgate  UriTooLong           "The request target is too long";
    415 "unsupported_media_type" Both    Fedgate  UnsupportedMediaType "This content type or encoding is not accepted here";
    416 "range_not_satisfiable"  His     Fedgate  RangeNotSatisfiable  "The document has no such bytes";
    421 "host_not_served"        Gateway Fedgate  HostNotServed        "This host is not served here";
    422 "not_an_object"          Both    Fedgate  NotAnObject          "The body must be a JSON object";
    422 "json_number_too_long"   Both    Fedgate  JsonNumberTooLong    "The body has a number of more than 64 digits when it is written out";
    422 "bad_member"             His     Fedgate  BadMember            "A member has the wrong type or value";
    422 "user_exists"            His     Thalamus UserExists           "User already exists";
    422 "user_active"            His     Thalamus UserActive           "The user is active.";
    422 "person_id_change"       His     Thalamus PersonIdChange       "Not allowed to change the person ID";
    422 "password_too_long"      His     Thalamus PasswordTooLong      "Password is too long";
    422 "password_too_short"     His     Thalamus PasswordTooShort     "Password is too short";
    422 "password_unusable"      His     Fedgate  PasswordUnusable     "Password is blanks alone, or has a line break or NUL, which no sign-in accepts";
    422 "password_unreadable"    His     Fedgate  PasswordUnreadable   "Password is a hash that a Thalamus on the same database cannot read; bcrypt is kept here";
    422 "password_unknown_hash"  His     Fedgate  PasswordUnknownHash  "Password looks like a hash of a kind that no sign-in reads; bcrypt ($2a$, $2b$, $2y$) and argon2id are read";
    422 "password_missing"       His     Fedgate  PasswordMissing      "The new password or its repetition is missing";
    422 "password_too_common"    His     Fedgate  PasswordTooCommon    "Password is the account id or one of the most common, which attackers try first";
    422 "password_mismatch"      His     Fedgate  PasswordMismatch     "The new password and its repetition differ";
    422 "password_unchanged"     His     Fedgate  PasswordUnchanged    "Password is the current one; nothing was changed";
    422 "page_id_missing"        His     Thalamus PageIdMissing        "wrong format on person or page ID";
    422 "page_id_change"         His     Thalamus PageIdChange         "Not allowed to change the page ID";
    422 "book_mismatch"          His     Fedgate  BookMismatch         "The page's `book` differs from the path";
    422 "page_exists"            His     Thalamus PageExists           "Page already exists";
    422 "too_many_pages"         His     Fedgate  TooManyPages         "The person has reached the limit of stored pages";
    422 "too_many_documents"     His     Fedgate  TooManyDocuments     "The person has reached the limit of stored documents";
    422 "document_exists"        His     Thalamus DocumentExists       "Document already exists";
    422 "document_mismatch"      His     Fedgate  DocumentMismatch     "The document differs from the path";
    422 "document_missing"       His     Fedgate  DocumentMissing      "`document` is missing";
    422 "not_base64"             His     Fedgate  NotBase64            "`document` must be base64";
    422 "unit_exists"            His     Thalamus UnitExists           "Unit already exists";
    422 "unit_id_change"         His     Thalamus UnitIdChange         "Not allowed to change the unit ID";
    422 "too_many_cursors"       His     Fedgate  TooManyCursors       "The account has reached the limit of cursors";
    422 "message_exists"         His     Fedgate  MessageExists        "You have used this id for another message";
    422 "merge_with_itself"      His     Fedgate  MergeWithItself      "A person cannot be merged with itself";
    422 "too_many_ids"           His     Fedgate  TooManyIds           "The person would have too many ids";
    422 "bad_webhook"            His     Fedgate  BadWebhook           "The webhook cannot be as the body says";
    422 "too_many_webhooks"      His     Fedgate  TooManyWebhooks      "The account or the service has reached the limit of webhooks";
    429 "too_many_attempts"      Gateway Fedgate  TooManyAttempts      "Too many wrong passwords; try again later";
    429 "too_many_guesses"       His     Fedgate  TooManyGuesses       "Too many wrong current passwords; try again later";
    429 "too_many_messages"      His     Fedgate  TooManyMessages      "The account has reached the limit of messages that are kept";
    431 "head_too_large"         Gateway Fedgate  HeadTooLarge         "The head is too large";
    500 "internal_error"         Both    Fedgate  InternalError        "The request could not be served";
    501 "webhooks_off"           His     Fedgate  WebhooksOff          "This service sends no webhooks";
    502 "upstream_unreachable"   Gateway Fedgate  UpstreamUnreachable  "The upstream cannot be reached";
    502 "upstream_refused"       Gateway Fedgate  UpstreamRefused      "The upstream does not trust this gateway";
    502 "answer_withheld"        Gateway Fedgate  AnswerWithheld       "The answer of the upstream cannot be shown";
    502 "owner_unknown"          Gateway Fedgate  OwnerUnknown         "The upstream did not say whose record this is; nothing was changed";
    503 "not_recorded"           Gateway Fedgate  NotRecorded          "The request cannot be recorded now";
    503 "accounts_unavailable"   Gateway Fedgate  AccountsUnavailable  "Accounts cannot be read now; try again";
    503 "busy"                   Both    Fedgate  ServiceBusy          "The service is busy; try again";
    503 "record_locked"          His     Fedgate  RecordLocked         "Another session keeps this locked; try again";
    503 "query_timeout"          His     Fedgate  QueryTimeout         "The database took too long for this; ask for less, or try again later";
    503 "database_unavailable"   His     Fedgate  DatabaseUnavailable  "The database is unavailable; try again";
    503 "database_read_only"     His     Fedgate  DatabaseReadOnly     "The database takes no writes now; try again";
    503 "stopping"               His     Fedgate  ServiceStopping      "The service is stopping";
    504 "upstream_timeout"       Gateway Fedgate  UpstreamTimeout      "The upstream took too long";
    505 "http2_needed"           Gateway Fedgate  Http2Needed          "This call is served over HTTP/2 alone";
}

impl AnswerCode {
    /// The answer with this code; of several, the first.
    pub fn find(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|answer| answer.code() == code)
    }

    /// The gateway's answer as JSON, in its one shape.
    pub fn json(self, request_id: &str) -> String {
        serde_json::json!({ "error": self.text(), "code": self.code(), "request_id": request_id }).to_string()
    }
}

#[cfg(test)]
mod tests;
