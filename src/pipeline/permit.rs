//! The permit: the proof that forwarding a request requires.

use std::sync::Arc;

use super::binding::SubjectBinding;
use crate::authn::Principal;
use crate::routes::{RouteAction, RouteTable, WriteGuard};
use fedgate_core::assertion::RecordScope;
use fedgate_core::fields::{BodyCheck, FoldedNames, MemberRemover};
use fedgate_core::methods::may_have_body;
use fedgate_core::path::CanonicalPath;
use fedgate_core::policy::{EndpointId, Method, PolicyDecision, PolicyReach, PolicySet};
use fedgate_core::subject::SubjectRule;

/// Proof that a request was authenticated and allowed, or leads to a public page.
///
/// Only the pipeline makes one, and forwarding requires one. So a request that skipped the pipeline cannot be
/// forwarded.
pub struct Permit {
    pub(super) principal: Option<Arc<Principal>>,
    pub(super) policy: Arc<PolicySet>,
    target: Box<str>,
    path_bytes: usize,
    pub(super) endpoint: Option<EndpointId>,
    pub(super) subject: Option<Box<str>>,
    scope: RecordScope,
    /// Whether the caller may write accounts.
    pub(super) account_granted: bool,
    /// Whether the caller may look for persons by what describes them.
    pub(super) match_granted: bool,
    upstream: usize,
    max_body_bytes: u64,
    stream: bool,
    websocket: bool,
    pub(super) guarded: Option<MemberChecks>,
    hidden: Option<Arc<FoldedNames>>,
    owner_member: Option<&'static str>,
    /// The judged method; that of reading on public routes.
    pub(super) method: Method,
    /// How the request is bound to its subject, where that takes more than the path.
    pub(super) binding: Option<SubjectBinding>,
    /// The rule that names the links of the answer, where the route leads them back.
    pub(super) linked: Option<Arc<SubjectRule>>,
}

/// The guarded members of the body that this caller may not write, one bit for each.
pub(super) struct MemberChecks {
    pub(super) guard: WriteGuard,
    withheld: u64,
}

/// A request whose path and method a route serves, under the policy that decides.
pub(super) struct JudgedRequest<'a> {
    pub(super) path: &'a CanonicalPath<'a>,
    pub(super) query: Option<&'a str>,
    pub(super) action: &'a RouteAction,
    pub(super) policy: Arc<PolicySet>,
}

/// The rights that the policy gave an authenticated caller.
pub(super) struct GrantedAccess<'a> {
    pub(super) principal: Arc<Principal>,
    pub(super) endpoint: EndpointId,
    pub(super) method: Method,
    pub(super) subject: Option<&'a str>,
    pub(super) reach: PolicyReach,
    pub(super) binding: Option<SubjectBinding>,
    pub(super) routes: &'a RouteTable,
}

impl Permit {
    /// For a public route. A credential that came along is not verified, and admits nobody: an anonymous caller has no
    /// permissions, so every guarded member is withheld.
    pub(super) fn public(request: JudgedRequest<'_>) -> Self {
        let withheld = request.action.guard.as_ref().map_or(0, |guard| guard.withheld(|_| false));
        Self::with_rights(request, None, RecordScope::Public, withheld)
    }

    /// For an authenticated caller whom the policy allows this.
    pub(super) fn granted(request: JudgedRequest<'_>, granted: GrantedAccess<'_>) -> Self {
        let GrantedAccess { principal, endpoint, method, subject, reach, binding, routes } = granted;
        // Further permissions are judged for the same method and subject, so `own` never reaches another person's
        // account.
        let is_granted = |permission| {
            let own = routes.own(permission, principal.own());
            let decision = principal.rights().decide(own, method, permission, subject);
            // While the subject is not known, it is taken for an own one: another ends the request. What belongs to an
            // account is not asked for with every own id, so it is not granted then.
            match decision {
                PolicyDecision::Allow(PolicyReach::Global) => true,
                PolicyDecision::Allow(_) => subject.is_some() || binding.is_none() || own == principal.own(),
                PolicyDecision::Deny(_) => false,
            }
        };
        let account_granted = routes.account().is_some_and(is_granted);
        let match_granted = routes.matching().is_some_and(is_granted);
        let withheld = request.action.guard.as_ref().map_or(0, |guard| guard.withheld(is_granted));
        let scope = scope_of(reach);
        let subject = subject.map(Box::from);
        let linked = request.action.subject.clone().filter(|rule| rule.leads_links(method));
        let permit = Self::with_rights(request, Some(principal), scope, withheld);
        Self { endpoint: Some(endpoint), subject, method, binding, linked, account_granted, match_granted, ..permit }
    }

    fn with_rights(
        JudgedRequest { path, query, action, policy }: JudgedRequest<'_>,
        principal: Option<Arc<Principal>>,
        scope: RecordScope,
        withheld: u64,
    ) -> Self {
        Self {
            principal,
            policy,
            target: whole(path.as_str(), query),
            path_bytes: path.as_str().len(),
            endpoint: None,
            subject: None,
            scope,
            account_granted: false,
            match_granted: false,
            upstream: action.upstream,
            max_body_bytes: action.max_body_bytes,
            stream: action.stream,
            websocket: action.websocket,
            guarded: action.guard.as_ref().map(|guard| MemberChecks { guard: guard.clone(), withheld }),
            hidden: action.hidden.clone(),
            owner_member: action.owner_member,
            method: Method::Get,
            binding: None,
            linked: None,
        }
    }

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

    /// Whether the answer is a stream, a long poll or that of a call.
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Whether a WebSocket may be opened by it.
    pub fn opens_websockets(&self) -> bool {
        self.websocket
    }

    /// The check that the whole body must pass before any of it is forwarded; none if no member is guarded, and the
    /// body does not name the subject.
    pub fn body_check(&self) -> Option<BodyCheck> {
        match &self.guarded {
            Some(guarded) => Some(BodyCheck::new(Arc::clone(&guarded.guard.members), guarded.withheld, self.subject())),
            // Read as strictly, because the subject is read from it.
            None if self.awaits_body() => Some(BodyCheck::new(Arc::default(), 0, self.subject())),
            None => None,
        }
    }

    /// Whether the head alone has decided: no body, answer or record is to be read, no member is taken out of the answer,
    /// and nothing runs on beyond the decision.
    pub fn is_settled_by_head(&self, method: &str) -> bool {
        let reads_body = self.awaits_body() || (may_have_body(method) && self.guarded.is_some());
        let reads_answer =
            self.awaits_answer() || self.owner_member.is_some() || self.hidden.is_some() || self.linked.is_some();
        !(reads_body || reads_answer || self.stream)
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

/// The scope in records and assertions.
pub(super) fn scope_of(reach: PolicyReach) -> RecordScope {
    match reach {
        // The upstream is told whose record it is, and shows that alone.
        PolicyReach::Own | PolicyReach::Related => RecordScope::Own,
        PolicyReach::Global => RecordScope::Global,
    }
}

/// Path and query as judged, which is as received.
fn whole(path: &str, query: Option<&str>) -> Box<str> {
    match query {
        None => path.into(),
        Some(query) => [path, "?", query].concat().into(),
    }
}
