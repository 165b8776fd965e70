//! The pipeline: turns one request into a [`Permit`] or a [`Refusal`]. It is the only place that admits.
//!
//! The one rule: nothing is forwarded without a permit, and only [`Pipeline::admit`] makes one. Any fault on the way
//! is a refusal; no path through this code allows a request by default.
//!
//! `gateway` calls it once per request, upgrade requests included. It knows nothing of pingora.

mod permit;
mod refusal;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::authn::{AskingClient, Authenticator};
use crate::minting::AssertionMinter;
use crate::routes::{ACCOUNT_ENDPOINT, RouteResolution, RouteTable, RouteTarget};
use fedgate_core::assertion::{AssertionClaims, RecordScope};
use fedgate_core::fields::BodyFault;
use fedgate_core::path::{PathError, parse_target};
use fedgate_core::policy::{PolicyDecision, PolicyReach, PolicySet};
use permit::MemberChecks;
pub use permit::Permit;
pub use refusal::Refusal;

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
}

impl Pipeline {
    /// Builds a pipeline.
    pub fn new(authenticator: Arc<Authenticator>, routes: Arc<RouteTable>, policy: Arc<ArcSwap<PolicySet>>) -> Self {
        Self { authenticator, routes, policy }
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
        let resolution = self.routes.resolve(request.method, &path);
        // Before authentication: OPTIONS tells the methods of a path to everybody anyway.
        if let RouteResolution::MethodNotAllowed(allow) = resolution {
            return Err(Refusal::MethodNotAllowed { allow: allow.to_owned() });
        }
        // Loaded once: a reload in the middle of a decision must not mix two policies.
        let policy = self.policy.load_full();
        if let RouteResolution::Found(RouteTarget { action, .. }) = &resolution
            && action.endpoint.is_none()
        {
            // A public route. A credential that came with the request is not verified, and admits no caller.
            return Ok(Permit {
                principal: None,
                policy,
                target: whole(path.as_str(), query),
                path_bytes: path.as_str().len(),
                endpoint: None,
                subject: None,
                scope: RecordScope::Public,
                account_granted: false,
                upstream: action.upstream,
                max_body_bytes: action.max_body_bytes,
                // An anonymous caller has no permissions, so every guarded member is withheld.
                guarded: action
                    .guard
                    .as_ref()
                    .map(|guard| MemberChecks { guard: guard.clone(), withheld: guard.withheld(|_| false) }),
                hidden: action.hidden.clone(),
                owner_member: action.owner_member,
            });
        }
        let principal = match (authorization, request.certified) {
            // A password takes precedence over a certificate: a person at a shared workstation signs in by name.
            (None, Some(account)) => self.authenticator.authenticate_certificate(account, &policy).await?,
            (authorization, _) => self.authenticator.authenticate(authorization, request.client, &policy).await?,
        };
        // Unknown path: 404 for authenticated callers, 401 otherwise. So an anonymous caller cannot list the routes.
        let RouteResolution::Found(RouteTarget { method, action, subject, .. }) = resolution else {
            return Err(Refusal::NotFound { principal });
        };
        let Some(endpoint) = action.endpoint else { return Err(Refusal::NotFound { principal }) };
        let subject_id = subject.as_deref();
        let reach = match principal.rights().decide(principal.account(), method, endpoint, subject_id) {
            PolicyDecision::Allow(reach) => reach,
            PolicyDecision::Deny(reason) => {
                let endpoint = self.routes.endpoints().name(endpoint).to_owned();
                return Err(Refusal::Denied { principal, endpoint, subject: subject.map(Into::into), reason });
            }
        };
        // Further permissions are judged for the same method and subject, so `own` never reaches another person's
        // account.
        let is_granted = |permission| {
            matches!(
                principal.rights().decide(principal.account(), method, permission, subject_id),
                PolicyDecision::Allow(_)
            )
        };
        let account_granted = self.routes.account().is_some_and(is_granted);
        let guarded = action
            .guard
            .as_ref()
            .map(|guard| MemberChecks { guard: guard.clone(), withheld: guard.withheld(is_granted) });
        // The only permit for an authenticated caller: every fault above has already returned.
        Ok(Permit {
            principal: Some(principal),
            policy,
            target: whole(path.as_str(), query),
            path_bytes: path.as_str().len(),
            endpoint: Some(endpoint),
            subject: subject.map(|subject| Box::from(&*subject)),
            scope: match reach {
                PolicyReach::Own => RecordScope::Own,
                PolicyReach::Global => RecordScope::Global,
            },
            account_granted,
            upstream: action.upstream,
            max_body_bytes: action.max_body_bytes,
            guarded,
            hidden: action.hidden.clone(),
            owner_member: action.owner_member,
        })
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

    /// The methods of a path as in the `Allow` header, if some route has the path.
    ///
    /// # Errors
    /// The target has no canonical reading.
    pub fn allowed_methods(&self, target: &[u8]) -> Result<Option<&str>, PathError> {
        let (path, _) = parse_target(target)?;
        Ok(match self.routes.resolve("OPTIONS", &path) {
            RouteResolution::MethodNotAllowed(allow) => Some(allow),
            RouteResolution::Found(target) => Some(target.allow),
            RouteResolution::NotFound => None,
        })
    }

    /// The name of the permitted endpoint, for records.
    pub fn endpoint_name(&self, permit: &Permit) -> &str {
        permit.endpoint.map_or("", |endpoint| self.routes.endpoints().name(endpoint))
    }

    /// The routes in use.
    pub fn routes(&self) -> &Arc<RouteTable> {
        &self.routes
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<PolicySet> {
        self.policy.load_full()
    }

    /// Mints the assertion of an admitted request. `method` is the judged one.
    pub fn assertion(
        &self,
        permit: &Permit,
        method: &str,
        request_id: &str,
        minter: &AssertionMinter,
        now: SystemTime,
    ) -> String {
        let (iat, exp) = minter.validity(now);
        let account_grant = [ACCOUNT_ENDPOINT.to_owned()];
        let grants: &[String] = if permit.account_granted { &account_grant } else { &[] };
        minter.mint(&AssertionClaims {
            iss: minter.issuer().into(),
            aud: minter.audience().into(),
            sub: permit.principal.as_ref().map_or("", |principal| principal.account()).into(),
            roles: permit.principal.as_ref().map_or(&[][..], |principal| principal.roles()).into(),
            endpoint: self.endpoint_name(permit).into(),
            method: method.into(),
            path: permit.path().into(),
            scope: permit.scope,
            subject: permit.subject.as_deref().map(Into::into),
            grants: grants.into(),
            rid: request_id.into(),
            pol: permit.policy.fingerprint().into(),
            iat,
            exp,
        })
    }
}

/// Path and query as judged, which is as received.
fn whole(path: &str, query: Option<&str>) -> Box<str> {
    match query {
        None => path.into(),
        Some(query) => [path, "?", query].concat().into(),
    }
}
