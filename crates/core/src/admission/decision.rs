//! Decides a request whose path and method lead to a route, or to none.
//!
//! The one rule: an anonymous caller learns nothing about a path except the methods that it serves, and a right that
//! no role grants does not exist.

use crate::policy::{DenyReason, EndpointId, Method, OwnIds, PolicyDecision, PolicyReach, RoleRights};
use crate::subject::RequestSubject;

/// The result of looking up a method and a path in a table of routes; `A` is the action of a route.
#[derive(Debug)]
pub enum RouteResolution<'r, 'p, A> {
    /// A route and method.
    Found(RouteTarget<'r, 'p, A>),
    /// The path is known, the method is not served there; the value of the `Allow` header.
    MethodNotAllowed(&'r str),
    /// No route has this path.
    NotFound,
}

/// The target of a request.
#[derive(Debug)]
pub struct RouteTarget<'r, 'p, A> {
    /// The matched method.
    pub method: Method,
    /// The endpoint that roles.cfg grants; none on a public route.
    pub endpoint: Option<EndpointId>,
    /// Its action.
    pub action: &'r A,
    /// The methods of this path, as in the `Allow` header.
    pub allow: &'r str,
    /// The person whose record the request touches, as far as its head tells.
    pub subject: RequestSubject<'p>,
}

/// A request whose path serves its method, or has no route.
#[derive(Debug)]
pub enum OpenedRequest<'r, 'p, A> {
    /// Anybody may have it.
    Public(RouteTarget<'r, 'p, A>),
    /// The caller is to be authenticated first.
    Guarded(GuardedRequest<'r, 'p, A>),
}

/// A request that is decided once its caller is authenticated.
#[derive(Debug)]
pub struct GuardedRequest<'r, 'p, A>(Option<(EndpointId, RouteTarget<'r, 'p, A>)>);

/// Why an authenticated caller is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuardedRefusal<'p> {
    /// No route has the path.
    NotFound,
    /// The policy denies it.
    Denied {
        /// The endpoint that was asked for.
        endpoint: EndpointId,
        /// The person whose record it was.
        subject: RequestSubject<'p>,
        /// Why.
        reason: DenyReason,
    },
}

/// Opens a request by what the routes say of it.
///
/// # Errors
/// The path does not serve the method, which anybody may know, as OPTIONS tells it; the value of `Allow`.
pub fn open<'r, 'p, A>(resolution: RouteResolution<'r, 'p, A>) -> Result<OpenedRequest<'r, 'p, A>, &'r str> {
    match resolution {
        RouteResolution::MethodNotAllowed(allow) => Err(allow),
        RouteResolution::NotFound => Ok(OpenedRequest::Guarded(GuardedRequest(None))),
        RouteResolution::Found(target) => Ok(match target.endpoint {
            None => OpenedRequest::Public(target),
            Some(endpoint) => OpenedRequest::Guarded(GuardedRequest(Some((endpoint, target)))),
        }),
    }
}

impl<'r, 'p, A> GuardedRequest<'r, 'p, A> {
    /// Its target, if it has one.
    pub fn target(&self) -> Option<(EndpointId, &RouteTarget<'r, 'p, A>)> {
        self.0.as_ref().map(|(endpoint, target)| (*endpoint, target))
    }

    /// The same request with another subject: for one that was decided before, by more than its head.
    #[must_use]
    pub fn with_subject(mut self, subject: RequestSubject<'p>) -> Self {
        if let Some((_, target)) = &mut self.0 {
            target.subject = subject;
        }
        self
    }

    /// The decision of the policy for a caller with these rights, if the path has a route.
    pub fn decision<'i>(&self, caller: impl Into<OwnIds<'i>>, rights: &RoleRights) -> Option<PolicyDecision> {
        let (endpoint, target) = self.target()?;
        let decision = rights.decide(caller, target.method, endpoint, target.subject.id());
        match (decision, &target.subject) {
            // Only a reach over everybody's records reaches a record of nobody in particular.
            (PolicyDecision::Allow(reach), RequestSubject::Unbound) if reach != PolicyReach::Global => {
                Some(PolicyDecision::Deny(DenyReason::NotBound))
            }
            (decision, _) => Some(decision),
        }
    }

    /// Decides for an authenticated caller with these rights.
    ///
    /// # Errors
    /// The path has no route, or the policy denies it.
    pub fn decide<'i>(
        self,
        caller: impl Into<OwnIds<'i>>,
        rights: &RoleRights,
    ) -> Result<(RouteTarget<'r, 'p, A>, EndpointId, PolicyReach), GuardedRefusal<'p>> {
        let decision = self.decision(caller, rights).ok_or(GuardedRefusal::NotFound)?;
        let (endpoint, target) = self.0.ok_or(GuardedRefusal::NotFound)?;
        match decision {
            PolicyDecision::Allow(reach) => Ok((target, endpoint, reach)),
            PolicyDecision::Deny(reason) => Err(GuardedRefusal::Denied { endpoint, subject: target.subject, reason }),
        }
    }
}
