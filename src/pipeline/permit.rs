//! What a request is forwarded with.

use std::sync::Arc;

use crate::authn::Principal;
use crate::routes::WriteGuard;
use fedgate_core::assertion::RecordScope;
use fedgate_core::fields::{BodyCheck, FoldedNames, MemberRemover};
use fedgate_core::policy::{EndpointId, PolicySet};

/// Proof that a request was authenticated and allowed, or leads to a public page.
///
/// Only the pipeline makes one, and forwarding asks for one, so a request that skipped the pipeline has nothing to be
/// forwarded with.
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

/// Members of the body that this caller may not write, a bit for each.
pub(super) struct MemberChecks {
    pub(super) guard: WriteGuard,
    pub(super) withheld: u64,
}

impl Permit {
    /// Who was admitted; nobody on public pages.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_deref()
    }

    /// The target to forward: what was judged.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The path of the target.
    pub fn path(&self) -> &str {
        self.target.get(..self.path_bytes).unwrap_or_default()
    }

    /// The person whose record it is about.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Whose records were permitted.
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

    /// Largest request body, in bytes.
    pub fn max_body_bytes(&self) -> u64 {
        self.max_body_bytes
    }

    /// The judgement that the body has to pass, whole, before any of it is forwarded; none where nothing is guarded.
    pub fn body_check(&self) -> Option<BodyCheck> {
        let guarded = self.guarded.as_ref()?;
        Some(BodyCheck::new(Arc::clone(&guarded.guard.members), guarded.withheld, self.subject()))
    }

    /// The member by which the record must name the person whose it is, before it is shown or changed; none where the service
    /// behind sees to that.
    pub fn owner_member(&self) -> Option<&'static str> {
        self.owner_member
    }

    /// What every answer has to pass; none where nothing is hidden.
    pub fn remover(&self) -> Option<MemberRemover> {
        self.hidden.as_ref().map(|names| MemberRemover::new(Arc::clone(names)))
    }
}
