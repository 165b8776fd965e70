//! The pipeline: turns one request into a [`Permit`] or a [`Refusal`]. It is the only place that admits.
//!
//! The one rule: nothing is forwarded without a permit, and only [`Pipeline::admit`] makes one. Any fault on the way
//! is a refusal; no path through this code allows a request by default.
//!
//! `gateway` calls it once per request, upgrade requests included. It knows nothing of pingora.

mod binding;
mod page_link;
mod judge;
mod permit;
mod refusal;
mod sign;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::authn::{AskingClient, Authenticator};
use crate::routes::{RouteTable, RouteTarget};
pub use binding::AnswerReach;
use binding::{SubjectBinding, filled_query};
use fedgate_core::admission::{GuardedRefusal, OpenedRequest, open};
use fedgate_core::fields::BodyFault;
use fedgate_core::path::parse_target;
use fedgate_core::policy::{DenyReason, PolicyReach, PolicySet};
use fedgate_core::subject::RequestSubject;
pub use judge::AskedAccount;
pub use page_link::{PageAddresses, PageLinkKey};
pub use permit::Permit;
use permit::{GrantedAccess, JudgedRequest};
pub use refusal::Refusal;
pub(crate) use sign::PermitSigner;
pub use stream::StreamPermit;

/// The parts of a request that decide, as received.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target, byte for byte.
    pub target: &'a [u8],
    /// The `Authorization` headers.
    pub authorization: AuthorizationHeaders<'a>,
    /// The address, the page of another site that sent the request, and the connection.
    pub client: AskingClient<'a>,
    /// The account of the client's certificate, whose key the client has proved to hold.
    pub certified: Option<&'a str>,
}

/// The `Authorization` headers of a request.
#[derive(Clone, Copy)]
pub enum AuthorizationHeaders<'a> {
    /// None.
    Absent,
    /// Exactly one, with this value.
    One(&'a [u8]),
    /// More than one: recipients disagree about which of them counts.
    Several,
}

impl std::fmt::Debug for AuthorizationHeaders<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::One(_) => "One(***)",
            Self::Several => "Several",
        })
    }
}

/// Everything that a decision needs; one per gateway.
pub struct Pipeline {
    authenticator: Arc<Authenticator>,
    routes: Arc<RouteTable>,
    policy: Arc<ArcSwap<PolicySet>>,
    page_links: Option<PageLinkKey>,
}

impl Pipeline {
    /// Builds a pipeline.
    pub fn new(authenticator: Arc<Authenticator>, routes: Arc<RouteTable>, policy: Arc<ArcSwap<PolicySet>>) -> Self {
        Self { authenticator, routes, policy, page_links: None }
    }

    /// When a caller who found the hashers busy should ask again.
    pub fn busy_wait(&self) -> Duration {
        self.authenticator.busy_wait()
    }

    /// Decides on one request.
    ///
    /// The whole decision uses one policy: the one in force when it begins.
    ///
    /// # Errors
    /// A [`Refusal`]. A caller that lacks a right was authenticated before.
    pub async fn admit(&self, request: RequestHead<'_>) -> Result<Permit, Refusal> {
        // The path first: nothing below ever sees a spelling that the upstream could read as another path.
        let (path, query) = parse_target(request.target)?;
        let authorization = match request.authorization {
            AuthorizationHeaders::Absent => None,
            AuthorizationHeaders::One(value) => Some(value),
            // With two credentials, the gateway would verify one and the upstream might use the other.
            AuthorizationHeaders::Several => return Err(Refusal::SeveralAuthorizations),
        };
        // Before authentication: OPTIONS tells the methods of a path to everybody anyway.
        let opened = open(self.routes.resolve(request.method, &path, query))
            .map_err(|allow| Refusal::MethodNotAllowed { allow: allow.to_owned() })?;
        // Loaded once: a reload in the middle of a decision must not mix two policies.
        let policy = self.policy.load_full();
        let guarded = match opened {
            OpenedRequest::Public(RouteTarget { action, .. }) => {
                return Ok(Permit::public(JudgedRequest { path: &path, query, action, policy }));
            }
            OpenedRequest::Guarded(guarded) => guarded,
        };
        let principal = match (authorization, request.certified) {
            // A password takes precedence over a certificate: a person at a shared workstation signs in by name.
            // Boxed: other requests have no room for it.
            (None, Some(account)) => Box::pin(self.authenticator.authenticate_certificate(account, &policy)).await?,
            (authorization, _) => self.authenticator.authenticate(authorization, request.client, &policy).await?,
        };
        let own = guarded.target().map_or(principal.own(), |(endpoint, _)| self.routes.own(endpoint, principal.own()));
        let (target, endpoint, reach) = match guarded.decide(own, principal.rights()) {
            Ok(decided) => decided,
            // Unknown path: 404 for authenticated callers, 401 otherwise. So an anonymous caller cannot list the routes.
            Err(GuardedRefusal::NotFound) => return Err(Refusal::NotFound { principal }),
            Err(GuardedRefusal::Denied { endpoint, subject, reason }) => {
                let endpoint = self.routes.endpoints().name(endpoint).to_owned();
                let subject = subject.id().map(Into::into);
                return Err(Refusal::Denied { principal, endpoint, subject, reason });
            }
        };
        // The only permit for an authenticated caller: every fault above has already returned.
        let RouteTarget { method, action, subject, .. } = target;
        let routes = &self.routes;
        // A reach over everybody's records is bound to nobody.
        let rule = action.subject.as_ref().filter(|_| reach != PolicyReach::Global);
        let filled = match (&subject, rule) {
            (RequestSubject::Callers, Some(rule)) => {
                let own = routes.own(endpoint, principal.own()).account();
                let Some(query) = filled_query(rule, query, own) else {
                    let endpoint = routes.endpoints().name(endpoint).to_owned();
                    return Err(Refusal::Denied { principal, endpoint, subject: None, reason: DenyReason::NotBound });
                };
                Some((own.to_owned(), query))
            }
            _ => None,
        };
        let token = action.subject.as_ref().and_then(|rule| rule.page_token(method, query));
        let page = match token {
            Some(token) => Some(self.followed_page(token, &principal, endpoint, path.as_str(), reach)?),
            None => None,
        };
        let (path, query, subject) = match (&page, &filled) {
            (Some(page), _) => {
                let (path, query) = parse_target(page.target.as_bytes())?;
                (path, query, page.subject.as_deref())
            }
            (None, Some((own, query))) => (path, Some(query.as_str()), Some(own.as_str())),
            (None, None) => (path, query, subject.id()),
        };
        let binding = rule.map(|rule| SubjectBinding {
            rule: Arc::clone(rule),
            body: rule.reads_body(method),
            answer: rule.reads_answer(method),
        });
        let granted = GrantedAccess { principal, endpoint, method, subject, reach, binding, routes };
        Ok(Permit::granted(JudgedRequest { path: &path, query, action, policy }, granted))
    }

    /// Refuses an admitted request because of its body.
    pub fn refuse_body(&self, permit: Permit, fault: BodyFault) -> Refusal {
        let endpoint = self.endpoint_name(&permit).to_owned();
        let lacks = match (fault, &permit.guarded) {
            (BodyFault::MemberNotPermitted(at), Some(guarded)) => guarded.guard.permission(at),
            _ => None,
        };
        let lacks = lacks.map(|permission| self.routes.endpoints().name(permission).to_owned());
        Refusal::Body { principal: permit.principal, endpoint, subject: permit.subject.map(Into::into), fault, lacks }
    }

    /// The name of the permitted endpoint, for records.
    pub fn endpoint_name(&self, permit: &Permit) -> &str {
        permit.endpoint.map_or("", |endpoint| self.routes.endpoints().name(endpoint))
    }

    /// The routes in use.
    pub fn routes(&self) -> &Arc<RouteTable> {
        &self.routes
    }

    /// The guaranteed freshness of a right.
    pub fn freshness_bound(&self) -> Duration {
        self.authenticator.freshness_bound()
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<PolicySet> {
        self.policy.load_full()
    }
}
