//! Refusals: why a request is not forwarded, what its client receives, and what its record says.

use std::sync::Arc;

use thiserror::Error;

use crate::authn::{AuthnError, Principal};
use fedgate_core::codes::AnswerCode;
use fedgate_core::fields::BodyFault;
use fedgate_core::path::PathError;
use fedgate_core::policy::DenyReason;
use fedgate_core::reasons::RecordReason;

/// Why a request is not forwarded.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The target has no canonical reading.
    #[error(transparent)]
    Path(#[from] PathError),
    /// More than one `Authorization` header.
    #[error("more than one Authorization header")]
    SeveralAuthorizations,
    /// No caller was authenticated.
    #[error(transparent)]
    Authn(#[from] AuthnError),
    /// An authenticated caller asked for a path that no route has.
    #[error("no such resource")]
    NotFound {
        /// The caller.
        principal: Arc<Principal>,
    },
    /// The path is known, but this method is not served there.
    #[error("method not allowed")]
    MethodNotAllowed {
        /// The value of the `Allow` header.
        allow: String,
    },
    /// The policy denies it.
    #[error("{}", .reason.as_str())]
    Denied {
        /// The caller.
        principal: Arc<Principal>,
        /// The requested endpoint.
        endpoint: String,
        /// The person whose record was requested.
        subject: Option<String>,
        /// The reason.
        reason: DenyReason,
    },
    /// The link that the request follows was not signed for it, or has expired.
    #[error("the link to a page is not valid")]
    PageLink {
        /// The caller.
        principal: Arc<Principal>,
        /// The requested endpoint.
        endpoint: String,
    },
    /// The request was admitted, but its body must not pass.
    #[error("{fault}")]
    Body {
        /// The caller; none on public routes.
        principal: Option<Arc<Principal>>,
        /// The requested endpoint.
        endpoint: String,
        /// The person whose record was requested.
        subject: Option<String>,
        /// Why the body must not pass.
        fault: BodyFault,
        /// The permission that a member of the body needs; none if no caller may write it.
        lacks: Option<String>,
    },
}

impl Refusal {
    /// The answer to the client.
    pub fn answer(&self) -> AnswerCode {
        match self {
            Self::Path(fault) => fault.answer(),
            Self::SeveralAuthorizations => AnswerCode::SeveralAuthorizations,
            // One answer for all three: a client must not learn whether the account exists.
            Self::Authn(AuthnError::NoCredential | AuthnError::Malformed(_) | AuthnError::Rejected { .. }) => {
                AnswerCode::Unauthenticated
            }
            Self::Authn(AuthnError::Throttled { .. }) => AnswerCode::TooManyAttempts,
            // A technical fault is 503, never 401: otherwise an outage would look like a wrong password.
            Self::Authn(AuthnError::Unavailable(_)) => AnswerCode::AccountsUnavailable,
            Self::Authn(AuthnError::Busy(_)) => AnswerCode::ServiceBusy,
            Self::NotFound { .. } => AnswerCode::NotFound,
            Self::MethodNotAllowed { .. } => AnswerCode::MethodNotAllowed,
            Self::Denied { .. } => AnswerCode::NotPermitted,
            Self::PageLink { .. } => AnswerCode::PageLinkInvalid,
            Self::Body { fault, .. } => fault.answer(),
        }
    }

    /// The reason in the record: the answer, or more exactly where there is more to say.
    pub fn reason(&self) -> RecordReason {
        match self {
            // Only the operator reads records, so they may state what the client must not learn.
            Self::Path(fault) => RecordReason::Path(*fault),
            Self::Denied { reason, .. } => RecordReason::Denied(*reason),
            Self::Authn(AuthnError::NoCredential) => RecordReason::NoCredential,
            Self::Authn(AuthnError::Malformed(_)) => RecordReason::MalformedCredential,
            Self::Authn(AuthnError::Rejected { reason, .. }) => (*reason).into(),
            Self::Authn(AuthnError::Throttled { .. } | AuthnError::Unavailable(_) | AuthnError::Busy(_))
            | Self::SeveralAuthorizations
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. }
            | Self::PageLink { .. }
            | Self::Body { .. } => self.answer().into(),
        }
    }

    /// The missing permission that decided, if it is not the permission on the endpoint.
    pub fn lacks(&self) -> Option<&str> {
        match self {
            Self::Body { lacks, .. } => lacks.as_deref(),
            Self::Denied { .. }
            | Self::PageLink { .. }
            | Self::Path(_)
            | Self::SeveralAuthorizations
            | Self::Authn(_)
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. } => None,
        }
    }

    /// The caller, the endpoint and the subject, where they were known when the request was refused.
    pub fn concerns(&self) -> Option<(&Principal, &str, Option<&str>)> {
        match self {
            Self::Denied { principal, endpoint, subject, .. }
            | Self::Body { principal: Some(principal), endpoint, subject, .. } => {
                Some((principal, endpoint, subject.as_deref()))
            }
            Self::PageLink { principal, endpoint } => Some((principal, endpoint, None)),
            Self::Body { principal: None, .. }
            | Self::Path(_)
            | Self::SeveralAuthorizations
            | Self::Authn(_)
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. } => None,
        }
    }

    /// Whether the request was refused before authentication, or on a public route.
    pub fn is_anonymous(&self) -> bool {
        match self {
            Self::NotFound { .. } | Self::Denied { .. } | Self::PageLink { .. } => false,
            Self::Body { principal, .. } => principal.is_none(),
            Self::Path(_) | Self::SeveralAuthorizations | Self::Authn(_) | Self::MethodNotAllowed { .. } => true,
        }
    }

    /// The account id of the refused caller, verified or claimed.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::NotFound { principal } | Self::Denied { principal, .. } | Self::PageLink { principal, .. } => {
                Some(principal.account())
            }
            Self::Authn(AuthnError::Rejected { account, .. } | AuthnError::Throttled { account, .. }) => Some(account),
            Self::Body { principal, .. } => principal.as_ref().map(|principal| principal.account()),
            Self::Path(_) | Self::SeveralAuthorizations | Self::MethodNotAllowed { .. } | Self::Authn(_) => None,
        }
    }
}
