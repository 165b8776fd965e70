//! Who is calling.
//!
//! The one rule: only the authenticator makes a principal, so that holding one is the proof that somebody was verified.

use std::sync::Arc;

use super::cache::CacheGeneration;
use super::proof::PasswordProof;
use fedgate_base::moment::BootMoment;
use fedgate_core::policy::RoleRights;

/// Who is calling, verified, with what its roles may do under one policy.
///
/// Only the [`Authenticator`](super::Authenticator) makes one.
pub struct Principal {
    pub(super) account: Box<str>,
    pub(super) roles: Vec<String>,
    pub(super) rights: RoleRights,
    /// Its fingerprint alone, so that no cached principal keeps an old policy in memory.
    pub(super) policy: Arc<str>,
    /// How its password was proved; nothing when a certificate was its proof.
    pub(super) password: Option<ProvedPrincipal>,
    pub(super) epoch: u64,
    pub(super) generation: CacheGeneration,
    /// When it was first made.
    pub(super) since: BootMoment,
}

/// A password that was proved against the hash that is stored.
#[derive(Clone)]
pub(super) struct ProvedPrincipal {
    pub(super) stored_hash: Arc<str>,
    pub(super) proof: Arc<PasswordProof>,
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Principal").field("account", &self.account).field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl Principal {
    /// The account id.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The roles, as stored.
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// What the roles may do under [`Principal::policy`].
    pub fn rights(&self) -> &RoleRights {
        &self.rights
    }

    /// The fingerprint of the policy that the rights were compiled from.
    pub fn policy(&self) -> &str {
        &self.policy
    }
}
