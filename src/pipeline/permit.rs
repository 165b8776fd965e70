//! The permit: what forwarding a request requires.

use std::sync::Arc;

use crate::authn::Principal;
use crate::routes::WriteGuard;
use fedgate_core::assertion::RecordScope;
use fedgate_core::fields::{BodyCheck, FoldedNames, MemberRemover};
use fedgate_core::policy::{EndpointId, PolicySet};

/// Proof that a request was authenticated and allowed, or leads to a public page.
///
/// Only the pipeline makes one, and forwarding requires one. So a request that skipped the pipeline cannot be
/// forwarded.
pub struct Permit {
    pub(super) principal: Option<Arc<Principal>>,
    pub(super) policy: Arc<PolicySet>,
    pub(super) target: Box<str>,
    pub(super) path_bytes: usize,
    pub(super) endpoint: Option<EndpointId>,
    pub(super) subject: Option<Box<str>>,
    pub(super) scope: RecordScope,
    pub(super) account_granted: bool,
    pub(super) upstream: usize,
    pub(super) max_body_bytes: u64,
    pub(super) guarded: Option<MemberChecks>,
    pub(super) hidden: Option<Arc<FoldedNames>>,
    pub(super) owner_member: Option<&'static str>,
}

/// The guarded members of the body that this caller may not write, one bit for each.
pub(super) struct MemberChecks {
    pub(super) guard: WriteGuard,
    pub(super) withheld: u64,
}

impl Permit {
    /// The admitted caller; none on public pages.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_deref()
    }

    /// The target to forward, which is the one that was judged.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The path of the target.
    pub fn path(&self) -> &str {
        self.target.get(..self.path_bytes).unwrap_or_default()
    }

    /// The person whose record the request is about.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Whose records the decision reaches.
    pub fn scope(&self) -> RecordScope {
        self.scope
    }

    /// The policy that decided.
    pub fn policy(&self) -> &PolicySet {
        &self.policy
    }

    /// The upstream's index in the configuration.
    pub fn upstream(&self) -> usize {
        self.upstream
    }

    /// The largest request body, in bytes.
    pub fn max_body_bytes(&self) -> u64 {
        self.max_body_bytes
    }

    /// The check that the whole body must pass before any of it is forwarded; none if no member is guarded.
    pub fn body_check(&self) -> Option<BodyCheck> {
        let guarded = self.guarded.as_ref()?;
        Some(BodyCheck::new(Arc::clone(&guarded.guard.members), guarded.withheld, self.subject()))
    }

    /// The member in which a record must name the person of the path before it is shown or changed; none where the
    /// upstream checks that itself.
    pub fn owner_member(&self) -> Option<&'static str> {
        self.owner_member
    }

    /// The filter that every answer must pass; none if no member is hidden.
    pub fn remover(&self) -> Option<MemberRemover> {
        self.hidden.as_ref().map(|names| MemberRemover::new(Arc::clone(names)))
    }
}
