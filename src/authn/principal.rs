//! The verified caller.
//!
//! The one rule: only the authenticator makes a principal, so holding one proves that its caller was verified.

use std::sync::Arc;

use super::Authenticator;
use super::cache::CacheGeneration;
use super::proof::PasswordProof;
use super::role_sets::RoleSet;
use crate::accounts::{LinkedIds, StoredAccount};
use fedgate_base::moment::BootMoment;
use fedgate_core::policy::{OwnIds, PolicySet, RoleRights};

/// The verified caller, with the rights of its roles under one policy.
///
/// Only the [`Authenticator`] makes one.
pub struct Principal {
    pub(super) account: Box<str>,
    /// The other ids of the same person.
    pub(super) same: Box<[String]>,
    /// The ids in other systems, and related persons; none for most.
    pub(super) linked: Option<Arc<LinkedIds>>,
    /// From this moment on it is not used: a relation begins or ends by the calendar.
    pub(super) until: BootMoment,
    /// Its roles with their rights, shared with others of the same roles.
    pub(super) set: Arc<RoleSet>,
    /// The proof of its password; none if it was authenticated by a certificate.
    pub(super) password: Option<ProvedPrincipal>,
    pub(super) epoch: u64,
    pub(super) generation: CacheGeneration,
    /// When the principal was first made.
    pub(super) since: BootMoment,
}

/// A password that was proved against the stored hash.
#[derive(Clone)]
pub(super) struct ProvedPrincipal {
    pub(super) stored_hash: Arc<str>,
    pub(super) proof: Arc<PasswordProof>,
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Principal")
            .field("account", &self.account)
            .field("roles", &self.set.roles)
            .finish_non_exhaustive()
    }
}

impl Principal {
    /// The account id.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The ids whose records are the caller's own, and those of related persons.
    pub fn own(&self) -> OwnIds<'_> {
        let related = self.linked.as_ref().map_or(&[][..], |linked| &linked.related);
        OwnIds::new(&self.account, &self.same).with_related(related)
    }

    /// The same in another system: the ids that are linked with the caller and with related persons. Never the account's
    /// own id, which may be another person's there. Without a system, [`Principal::own`].
    pub fn own_in(&self, system: Option<&str>) -> OwnIds<'_> {
        let Some(system) = system else { return self.own() };
        let (own, related) = self.linked.as_ref().map_or((&[][..], &[][..]), |linked| linked.of(system));
        OwnIds::in_system(&self.account, own, related)
    }

    /// Whether both have the same ids, in every system.
    pub fn has_ids_of(&self, other: &Self) -> bool {
        self.account == other.account && self.same == other.same && self.linked == other.linked
    }

    /// The roles, as stored.
    pub fn roles(&self) -> &[String] {
        &self.set.roles
    }

    /// The rights of the roles under [`Principal::policy`].
    pub fn rights(&self) -> &RoleRights {
        &self.set.rights
    }

    /// The fingerprint of the policy that the rights were compiled from.
    pub fn policy(&self) -> &str {
        &self.set.policy
    }
}

impl Authenticator {
    /// The principal of an account that was read in `generation`.
    pub(super) fn principal(
        &self,
        account: StoredAccount,
        password: Option<ProvedPrincipal>,
        policy: &Arc<PolicySet>,
        generation: CacheGeneration,
    ) -> Principal {
        Principal {
            set: self.role_sets.of(policy, &account.roles, self.routes.endpoints()),
            account: account.id.into(),
            same: account.same.into(),
            linked: account.linked,
            until: account.linked_until.unwrap_or(BootMoment::NEVER),
            password,
            epoch: account.epoch,
            generation,
            since: BootMoment::now(),
        }
    }
}
