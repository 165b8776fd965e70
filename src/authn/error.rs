//! Why nobody was authenticated.

use std::time::Duration;

use thiserror::Error;

use super::hasher::HasherBusy;
use crate::accounts::AccountsError;
use fedgate_core::basic::CredentialError;

/// Why nobody was authenticated.
#[derive(Debug, Error)]
pub enum AuthnError {
    /// No `Authorization` header.
    #[error("no credentials")]
    NoCredential,
    /// A header that holds no credential.
    #[error(transparent)]
    Malformed(#[from] CredentialError),
    /// A well-formed credential that is not right; the reason is for the records alone.
    #[error("{}", .reason.as_str())]
    Rejected {
        /// The account it named, whether there is one or not.
        account: String,
        /// Why.
        reason: RejectReason,
    },
    /// The accounts cannot be read now.
    #[error(transparent)]
    Unavailable(#[from] AccountsError),
    /// Too many wrong passwords came from there.
    #[error("too many wrong passwords")]
    Throttled {
        /// The account it named, whether there is one or not.
        account: String,
        /// How long to wait.
        wait: Duration,
    },
    /// Too many passwords are waiting to be verified.
    #[error(transparent)]
    Busy(#[from] HasherBusy),
}

/// Why a credential was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// There is no such account, or it has no password.
    UnknownAccount,
    /// The password is another.
    WrongPassword,
    /// The account is switched off.
    Inactive,
}

impl RejectReason {
    /// A stable word for records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownAccount => "unknown_account",
            Self::WrongPassword => "wrong_password",
            Self::Inactive => "inactive_account",
        }
    }
}
