//! Refusals: why a request is not forwarded, what its client receives, and what its record says.

use std::sync::Arc;

use thiserror::Error;

use crate::authn::{AuthnError, Principal};
use fedgate_core::fields::BodyFault;
use fedgate_core::path::PathError;
use fedgate_core::policy::DenyReason;

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
    /// The status for the client.
    pub fn status(&self) -> u16 {
        match self {
            Self::Path(PathError::TooLong) => 414,
            Self::Path(_) | Self::SeveralAuthorizations => 400,
            // One status for all three: a client must not learn whether the account exists.
            Self::Authn(AuthnError::NoCredential | AuthnError::Malformed(_) | AuthnError::Rejected { .. }) => 401,
            Self::Authn(AuthnError::Throttled { .. }) => 429,
            // A technical fault is 503, never 401: otherwise an outage would look like a wrong password.
            Self::Authn(AuthnError::Unavailable(_) | AuthnError::Busy(_)) => 503,
            Self::NotFound { .. } => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::Denied { .. } => 403,
            Self::Body { fault, .. } => fault.status(),
        }
    }

    /// The stable code for the client.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Path(PathError::TooLong) => "uri_too_long",
            Self::Path(_) => "bad_request_target",
            Self::SeveralAuthorizations => "several_authorizations",
            Self::Authn(AuthnError::NoCredential | AuthnError::Malformed(_) | AuthnError::Rejected { .. }) => {
                "unauthenticated"
            }
            Self::Authn(AuthnError::Throttled { .. }) => "too_many_attempts",
            Self::Authn(AuthnError::Unavailable(_)) => "accounts_unavailable",
            Self::Authn(AuthnError::Busy(_)) => "busy",
            Self::NotFound { .. } => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::Denied { .. } => "not_permitted",
            Self::Body { fault, .. } => fault.code(),
        }
    }

    /// The text for the client. It says no more than the code.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Path(PathError::TooLong) => "The request target is too long",
            Self::Path(_) => "The request target has no single reading",
            Self::SeveralAuthorizations => "There is more than one Authorization header",
            Self::Authn(AuthnError::NoCredential | AuthnError::Malformed(_) | AuthnError::Rejected { .. }) => {
                "Unauthorized Access"
            }
            Self::Authn(AuthnError::Throttled { .. }) => "Too many wrong passwords; try again later",
            Self::Authn(AuthnError::Unavailable(_)) => "Accounts cannot be checked at the moment",
            Self::Authn(AuthnError::Busy(_)) => "Too many passwords are being checked at the moment",
            Self::NotFound { .. } => "Not found",
            Self::MethodNotAllowed { .. } => "The method is not allowed for the requested URL.",
            Self::Denied { .. } => "Not permitted",
            Self::Body { fault, .. } => fault.message(),
        }
    }

    /// A stable word for the record: the code, or a more exact word where there is one.
    pub fn reason(&self) -> &'static str {
        match self {
            // Only the operator reads records, so they may state what the client must not learn.
            Self::Path(error) => error.as_str(),
            Self::Denied { reason, .. } => reason.as_str(),
            Self::Authn(AuthnError::NoCredential) => "no_credential",
            Self::Authn(AuthnError::Malformed(_)) => "malformed_credential",
            Self::Authn(AuthnError::Rejected { reason, .. }) => reason.as_str(),
            Self::Authn(AuthnError::Throttled { .. } | AuthnError::Unavailable(_) | AuthnError::Busy(_))
            | Self::SeveralAuthorizations
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. }
            | Self::Body { .. } => self.code(),
        }
    }

    /// The missing permission that decided, if it is not the permission on the endpoint.
    pub fn lacks(&self) -> Option<&str> {
        match self {
            Self::Body { lacks, .. } => lacks.as_deref(),
            Self::Denied { .. }
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
            Self::NotFound { .. } | Self::Denied { .. } => false,
            Self::Body { principal, .. } => principal.is_none(),
            Self::Path(_) | Self::SeveralAuthorizations | Self::Authn(_) | Self::MethodNotAllowed { .. } => true,
        }
    }

    /// The account id of the refused caller, verified or claimed.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::NotFound { principal } | Self::Denied { principal, .. } => Some(principal.account()),
            Self::Authn(AuthnError::Rejected { account, .. } | AuthnError::Throttled { account, .. }) => Some(account),
            Self::Body { principal, .. } => principal.as_ref().map(|principal| principal.account()),
            Self::Path(_) | Self::SeveralAuthorizations | Self::MethodNotAllowed { .. } | Self::Authn(_) => None,
        }
    }
}
