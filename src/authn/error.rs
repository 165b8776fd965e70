//! Why a caller was not authenticated.

use std::time::Duration;

use thiserror::Error;

use super::hasher::HasherBusy;
use crate::accounts::AccountsError;
use fedgate_core::basic::CredentialError;
use fedgate_core::reasons::RecordReason;

/// Why a caller was not authenticated.
#[derive(Debug, Error)]
pub enum AuthnError {
    /// No `Authorization` header.
    #[error("no credentials")]
    NoCredential,
    /// The header holds no credential.
    #[error(transparent)]
    Malformed(#[from] CredentialError),
    /// The credential is well-formed but wrong. Only records have the reason.
    #[error("{}", .reason.as_str())]
    Rejected {
        /// The account that it names, existing or not.
        account: String,
        /// The reason.
        reason: RejectReason,
    },
    /// The accounts cannot be read at the moment.
    #[error(transparent)]
    Unavailable(#[from] AccountsError),
    /// Too many wrong passwords came from this client address, or for this account.
    #[error("too many wrong passwords")]
    Throttled {
        /// The account that it names, existing or not.
        account: String,
        /// How long to wait.
        wait: Duration,
    },
    /// Too many passwords wait to be verified.
    #[error(transparent)]
    Busy(#[from] HasherBusy),
}

/// Why a credential was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// There is no such account, or it has no password.
    UnknownAccount,
    /// The password is wrong.
    WrongPassword,
    /// The account is not active.
    Inactive,
}

impl RejectReason {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        RecordReason::from(self).as_str()
    }
}

impl From<RejectReason> for RecordReason {
    fn from(reason: RejectReason) -> Self {
        match reason {
            RejectReason::UnknownAccount => Self::UnknownAccount,
            RejectReason::WrongPassword => Self::WrongPassword,
            RejectReason::Inactive => Self::InactiveAccount,
        }
    }
}
