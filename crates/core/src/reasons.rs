//! The decision and the reason in the record of a request.
//!
//! The one rule: both are enum values until a record or a metric is written, and only this module has their words.
//! Operators search and count by these words, so a word never gets another meaning. docs/RECORDS.md lists them.
//!
//! The gateway chooses them, and its recorder writes them.

use crate::assertion::RecordScope;
use crate::codes::AnswerCode;
use crate::path::PathError;
use crate::policy::DenyReason;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordDecision {
    /// It was admitted.
    Allow,
    /// The caller has no right to it.
    Deny,
    /// It was not served, for another reason than rights.
    Refuse,
    /// It was admitted, and failed.
    Fail,
    /// It was answered, and no decision was needed.
    Answer,
}

impl RecordDecision {
    /// The word in records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Refuse => "refuse",
            Self::Fail => "fail",
            Self::Answer => "answer",
        }
    }

    /// Whether the request was served as it was meant.
    pub const fn is_served(self) -> bool {
        match self {
            Self::Allow | Self::Answer => true,
            Self::Deny | Self::Refuse | Self::Fail => false,
        }
    }
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordReason {
    /// The code of the answer, if there is no more precise reason.
    Answer(AnswerCode),
    /// The path has no single reading.
    Path(PathError),
    /// No role allows it.
    Denied(DenyReason),
    /// A role allows it, with this reach; or anybody may.
    Admitted(RecordScope),
    /// No credential was sent.
    NoCredential,
    /// The header holds no credential.
    MalformedCredential,
    /// The credential names no account that has a password.
    UnknownAccount,
    /// The password is another.
    WrongPassword,
    /// The account is switched off.
    InactiveAccount,
    /// `Sec-Fetch-Site` shows a page of another origin.
    ForeignSite,
    /// `Referer` shows a page of another origin.
    ForeignReferer,
    /// The record is another person's.
    OtherRecord,
    /// OPTIONS, which tells the methods of a path.
    Options,
    /// A service asked who may do what; each answer is one of several.
    Search,
    /// The request ended before any decision.
    Undecided,
    /// The client left before it was answered.
    ClientGone,
    /// A stream begins; its end has a record, too.
    StreamBegins,
    /// The gateway ended a stream.
    Stream(StreamEnd),
}

/// Why the gateway ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamEnd {
    /// The account is gone or inactive, or its password is another.
    AccountChanged,
    /// The roles of the account, or the policy, do not allow it any more.
    RightRevoked,
    /// The client's certificate has expired or was revoked.
    CertificateLapsed,
    /// The person has other ids than before, so its own records are others.
    OwnIdsChanged,
    /// The account could not be confirmed within the freshness bound.
    AccountsUnconfirmed,
    /// The gateway stops, or a successor has taken over.
    GatewayStops,
    /// It has run for as long as streams may.
    StreamTooLong,
    /// The upstream has sent nothing for too long, or has taken nothing.
    UpstreamSilent,
    /// Neither side of a WebSocket has sent anything for too long.
    Idle,
}

impl StreamEnd {
    /// The word in records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccountChanged => "account_changed",
            Self::RightRevoked => "right_revoked",
            Self::CertificateLapsed => "certificate_lapsed",
            Self::OwnIdsChanged => "own_ids_changed",
            Self::AccountsUnconfirmed => "accounts_unconfirmed",
            Self::GatewayStops => "gateway_stops",
            Self::StreamTooLong => "stream_too_long",
            Self::UpstreamSilent => "upstream_silent",
            Self::Idle => "stream_idle",
        }
    }

    /// The decision in its record.
    pub const fn decision(self) -> RecordDecision {
        match self {
            Self::AccountChanged | Self::RightRevoked | Self::CertificateLapsed => RecordDecision::Deny,
            Self::OwnIdsChanged | Self::AccountsUnconfirmed | Self::UpstreamSilent => RecordDecision::Fail,
            Self::GatewayStops | Self::StreamTooLong | Self::Idle => RecordDecision::Allow,
        }
    }

    /// Whether the answer ends as a whole one does, so that its client goes on elsewhere. Otherwise it breaks off.
    pub const fn is_orderly(self) -> bool {
        matches!(self, Self::GatewayStops | Self::StreamTooLong | Self::Idle)
    }

    /// Whether the same client may ask again at once.
    pub const fn asks_again(self) -> bool {
        self.is_orderly() || matches!(self, Self::OwnIdsChanged)
    }

    /// The answer to a client that has not received any part of one.
    pub const fn answer(self) -> AnswerCode {
        match self {
            Self::AccountChanged | Self::CertificateLapsed => AnswerCode::Unauthenticated,
            Self::RightRevoked => AnswerCode::NotPermitted,
            Self::AccountsUnconfirmed => AnswerCode::AccountsUnavailable,
            Self::GatewayStops | Self::StreamTooLong | Self::OwnIdsChanged | Self::Idle => AnswerCode::ServiceBusy,
            Self::UpstreamSilent => AnswerCode::UpstreamTimeout,
        }
    }
}

impl RecordReason {
    /// The word in records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answer(answer) => answer.code(),
            Self::Path(fault) => fault.as_str(),
            Self::Denied(reason) => reason.as_str(),
            Self::Admitted(RecordScope::Public) => "public",
            Self::Admitted(RecordScope::Own) => "own",
            Self::Admitted(RecordScope::Global) => "global",
            Self::NoCredential => "no_credential",
            Self::MalformedCredential => "malformed_credential",
            Self::UnknownAccount => "unknown_account",
            Self::WrongPassword => "wrong_password",
            Self::InactiveAccount => "inactive_account",
            Self::ForeignSite => "foreign_site",
            Self::ForeignReferer => "foreign_referer",
            Self::OtherRecord => "other_record",
            Self::Options => "options",
            Self::Search => "search",
            Self::Undecided => "undecided",
            Self::ClientGone => "client_gone",
            Self::StreamBegins => "stream_begins",
            Self::Stream(end) => end.as_str(),
        }
    }
}

impl From<AnswerCode> for RecordReason {
    fn from(answer: AnswerCode) -> Self {
        Self::Answer(answer)
    }
}
