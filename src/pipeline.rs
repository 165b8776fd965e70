//! The pipeline: one request to a [`Permit`] or a [`Refusal`]. The one place that admits.
//!
//! The one rule: nothing is forwarded without a permit, and only [`Pipeline::admit`] makes one. Any fault on the way is a
//! refusal; there is no path through here that ends in "allowed" by default.
//!
//! Called by `gateway`, once per request, upgrade requests included. Knows nothing of pingora.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use thiserror::Error;

use crate::assertion::{Claims, Minter, Scope};
use crate::authn::{Authenticator, AuthnError, Principal};
use crate::fields::{BodyCheck, BodyFault, Names, Remover};
use crate::path::{PathError, parse_target};
use crate::policy::{Decision, DenyReason, Endpoint, PolicySet, Reach};
use crate::routes::{ACCOUNT_ENDPOINT, Resolution, Routes, Target, WriteGuard};

/// What the pipeline is told of a request: the parts that decide, as received.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target, byte for byte.
    pub target: &'a [u8],
    /// The `Authorization` headers.
    pub authorization: Authorization<'a>,
    /// The address it came from; none on a Unix socket.
    pub client: Option<IpAddr>,
    /// The account that a certificate stands for whose key its client holds.
    pub certified: Option<&'a str>,
}

/// The `Authorization` headers of a request.
#[derive(Clone, Copy)]
pub enum Authorization<'a> {
    /// None.
    Absent,
    /// Exactly one, with this value.
    One(&'a [u8]),
    /// More than one: which of them counts is anyone's guess.
    Several,
}

impl std::fmt::Debug for Authorization<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::One(_) => "One(***)",
            Self::Several => "Several",
        })
    }
}

/// Proof that a request was authenticated and allowed, or leads to a public page.
///
/// Only the pipeline makes one, and forwarding asks for one, so a request that skipped the pipeline has nothing to be
/// forwarded with.
pub struct Permit {
    principal: Option<Arc<Principal>>,
    policy: Arc<PolicySet>,
    target: Box<str>,
    path_bytes: usize,
    endpoint: Option<Endpoint>,
    subject: Option<Box<str>>,
    scope: Scope,
    account_granted: bool,
    upstream: usize,
    max_body_bytes: u64,
    guarded: Option<Guarded>,
    hidden: Option<Arc<Names>>,
}

/// Members of the body that this caller may not write, a bit for each.
struct Guarded {
    guard: WriteGuard,
    withheld: u64,
}

/// Why a request was not forwarded.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The target has no canonical reading.
    #[error(transparent)]
    Path(#[from] PathError),
    /// More than one `Authorization` header.
    #[error("more than one Authorization header")]
    SeveralAuthorizations,
    /// Nobody was authenticated.
    #[error(transparent)]
    Authn(#[from] AuthnError),
    /// An authenticated principal asked for a path that no route has.
    #[error("no such resource")]
    NotFound {
        /// Who asked.
        principal: Arc<Principal>,
    },
    /// The path is known, the method is not served there.
    #[error("method not allowed")]
    MethodNotAllowed {
        /// The value of the `Allow` header.
        allow: String,
    },
    /// The policy denies it.
    #[error("{}", .reason.as_str())]
    Denied {
        /// Who asked.
        principal: Arc<Principal>,
        /// The endpoint that was asked for.
        endpoint: String,
        /// The person whose record it was.
        subject: Option<String>,
        /// Why.
        reason: DenyReason,
    },
    /// The body of a request that was admitted may not pass.
    #[error("{fault}")]
    Body {
        /// Who asked; nobody on public routes.
        principal: Option<Arc<Principal>>,
        /// The endpoint that was asked for.
        endpoint: String,
        /// The person whose record it was.
        subject: Option<String>,
        /// Why.
        fault: BodyFault,
        /// The permission that a member needs which the body holds; none where nobody may write it.
        lacks: Option<String>,
    },
}

/// Everything a decision needs; one per gateway.
pub struct Pipeline {
    authenticator: Arc<Authenticator>,
    routes: Arc<Routes>,
    policy: Arc<ArcSwap<PolicySet>>,
}

impl Pipeline {
    /// Puts the parts together.
    pub fn new(authenticator: Arc<Authenticator>, routes: Arc<Routes>, policy: Arc<ArcSwap<PolicySet>>) -> Self {
        Self { authenticator, routes, policy }
    }

    /// Decides on one request.
    ///
    /// The whole decision is made under one policy: the one that is current when it begins.
    ///
    /// # Errors
    /// A [`Refusal`]; whoever is refused for lack of a right was authenticated before.
    pub async fn admit(&self, request: RequestHead<'_>) -> Result<Permit, Refusal> {
        let (path, query) = parse_target(request.target)?;
        let authorization = match request.authorization {
            Authorization::Absent => None,
            Authorization::One(value) => Some(value),
            Authorization::Several => return Err(Refusal::SeveralAuthorizations),
        };
        let resolution = self.routes.resolve(request.method, &path);
        if let Resolution::MethodNotAllowed(allow) = resolution {
            return Err(Refusal::MethodNotAllowed { allow: allow.to_owned() });
        }
        let policy = self.policy.load_full();
        if let Resolution::Found(Target { action, .. }) = &resolution
            && action.endpoint.is_none()
        {
            return Ok(Permit {
                principal: None,
                policy,
                target: whole(path.as_str(), query),
                path_bytes: path.as_str().len(),
                endpoint: None,
                subject: None,
                scope: Scope::Public,
                account_granted: false,
                upstream: action.upstream,
                max_body_bytes: action.max_body_bytes,
                // What needs a permission is withheld from who is nobody.
                guarded: action
                    .guard
                    .as_ref()
                    .map(|guard| Guarded { guard: guard.clone(), withheld: guard.withheld(|_| false) }),
                hidden: action.hidden.clone(),
            });
        }
        let principal = match (authorization, request.certified) {
            // Who says a name and a password is that one, whatever machine speaks.
            (None, Some(account)) => self.authenticator.authenticate_certificate(account, &policy).await?,
            (authorization, _) => self.authenticator.authenticate(authorization, request.client, &policy).await?,
        };
        // A path that no route has is told apart from a forbidden one to those alone who have proved who they are.
        let Resolution::Found(Target { method, action, subject, .. }) = resolution else {
            return Err(Refusal::NotFound { principal });
        };
        let Some(endpoint) = action.endpoint else { return Err(Refusal::NotFound { principal }) };
        let subject_id = subject.as_deref();
        let reach = match principal.rights().decide(principal.account(), method, endpoint, subject_id) {
            Decision::Allow(reach) => reach,
            Decision::Deny(reason) => {
                let endpoint = self.routes.endpoints().name(endpoint).to_owned();
                return Err(Refusal::Denied { principal, endpoint, subject: subject.map(Into::into), reason });
            }
        };
        let is_granted = |permission| {
            matches!(principal.rights().decide(principal.account(), method, permission, subject_id), Decision::Allow(_))
        };
        let account_granted = self.routes.account().is_some_and(is_granted);
        let guarded =
            action.guard.as_ref().map(|guard| Guarded { guard: guard.clone(), withheld: guard.withheld(is_granted) });
        Ok(Permit {
            principal: Some(principal),
            policy,
            target: whole(path.as_str(), query),
            path_bytes: path.as_str().len(),
            endpoint: Some(endpoint),
            subject: subject.map(|subject| Box::from(&*subject)),
            scope: match reach {
                Reach::Own => Scope::Own,
                Reach::Global => Scope::Global,
            },
            account_granted,
            upstream: action.upstream,
            max_body_bytes: action.max_body_bytes,
            guarded,
            hidden: action.hidden.clone(),
        })
    }

    /// Refuses an admitted request for what its body holds.
    pub fn refuse_body(&self, permit: Permit, fault: BodyFault) -> Refusal {
        let endpoint = self.endpoint_name(&permit).to_owned();
        let lacks = match (fault, &permit.guarded) {
            (BodyFault::MemberNotPermitted(at), Some(guarded)) => guarded.guard.permission(at),
            _ => None,
        };
        let lacks = lacks.map(|permission| self.routes.endpoints().name(permission).to_owned());
        Refusal::Body { principal: permit.principal, endpoint, subject: permit.subject.map(Into::into), fault, lacks }
    }

    /// The methods of a path, as in the `Allow` header, if some route has it.
    ///
    /// # Errors
    /// The target has no canonical reading.
    pub fn allowed_methods(&self, target: &[u8]) -> Result<Option<&str>, PathError> {
        let (path, _) = parse_target(target)?;
        Ok(match self.routes.resolve("OPTIONS", &path) {
            Resolution::MethodNotAllowed(allow) => Some(allow),
            Resolution::Found(target) => Some(target.allow),
            Resolution::NotFound => None,
        })
    }

    /// The name of an endpoint, for records.
    pub fn endpoint_name(&self, permit: &Permit) -> &str {
        permit.endpoint.map_or("", |endpoint| self.routes.endpoints().name(endpoint))
    }

    /// The routes that requests are led by.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// The policy that decides now.
    pub fn policy(&self) -> Arc<PolicySet> {
        self.policy.load_full()
    }

    /// Mints the assertion of an admitted request. `method` is the one that was judged.
    pub fn assertion(
        &self,
        permit: &Permit,
        method: &str,
        request_id: &str,
        minter: &Minter,
        now: SystemTime,
    ) -> String {
        let (iat, exp) = minter.validity(now);
        let account_grant = [ACCOUNT_ENDPOINT.to_owned()];
        let grants: &[String] = if permit.account_granted { &account_grant } else { &[] };
        minter.mint(&Claims {
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

/// Path and query as they were judged, which is how they were received.
fn whole(path: &str, query: Option<&str>) -> Box<str> {
    match query {
        None => path.into(),
        Some(query) => [path, "?", query].concat().into(),
    }
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
    pub fn scope(&self) -> Scope {
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

    /// What every answer has to pass; none where nothing is hidden.
    pub fn remover(&self) -> Option<Remover> {
        self.hidden.as_ref().map(|names| Remover::new(Arc::clone(names)))
    }
}

impl Refusal {
    /// The status the client is told.
    pub fn status(&self) -> u16 {
        match self {
            Self::Path(PathError::TooLong) => 414,
            Self::Path(_) | Self::SeveralAuthorizations => 400,
            Self::Authn(AuthnError::NoCredential | AuthnError::Malformed(_) | AuthnError::Rejected { .. }) => 401,
            Self::Authn(AuthnError::Throttled { .. }) => 429,
            Self::Authn(AuthnError::Unavailable(_) | AuthnError::Busy(_)) => 503,
            Self::NotFound { .. } => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::Denied { .. } => 403,
            Self::Body { fault, .. } => fault.status(),
        }
    }

    /// The stable code the client is told.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Path(PathError::TooLong) => "uri_too_long",
            Self::Path(_) => "bad_request_target",
            Self::SeveralAuthorizations => "several_authorizations",
            Self::Authn(AuthnError::NoCredential | AuthnError::Malformed(_) | AuthnError::Rejected { .. }) => {
                "unauthenticated"
            }
            Self::Authn(AuthnError::Throttled { .. }) => "too_many_attempts",
            Self::Authn(AuthnError::Unavailable(_)) => "accounts_unavailable",
            Self::Authn(AuthnError::Busy(_)) => "busy",
            Self::NotFound { .. } => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::Denied { .. } => "not_permitted",
            Self::Body { fault, .. } => fault.code(),
        }
    }

    /// What the client is told in words: no more than the code says.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Path(PathError::TooLong) => "The request target is too long",
            Self::Path(_) => "The request target has no single reading",
            Self::SeveralAuthorizations => "There is more than one Authorization header",
            Self::Authn(AuthnError::NoCredential | AuthnError::Malformed(_) | AuthnError::Rejected { .. }) => {
                "Unauthorized Access"
            }
            Self::Authn(AuthnError::Throttled { .. }) => "Too many wrong passwords; try again later",
            Self::Authn(AuthnError::Unavailable(_)) => "Accounts cannot be checked at the moment",
            Self::Authn(AuthnError::Busy(_)) => "Too many passwords are being checked at the moment",
            Self::NotFound { .. } => "Not found",
            Self::MethodNotAllowed { .. } => "The method is not allowed for the requested URL.",
            Self::Denied { .. } => "Not permitted",
            Self::Body { fault, .. } => fault.message(),
        }
    }

    /// A stable word for the record: the code, or more exactly where there is more to say.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Path(error) => error.as_str(),
            Self::Denied { reason, .. } => reason.as_str(),
            Self::Authn(AuthnError::NoCredential) => "no_credential",
            Self::Authn(AuthnError::Malformed(_)) => "malformed_credential",
            Self::Authn(AuthnError::Rejected { reason, .. }) => reason.as_str(),
            Self::Authn(AuthnError::Throttled { .. } | AuthnError::Unavailable(_) | AuthnError::Busy(_))
            | Self::SeveralAuthorizations
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. }
            | Self::Body { .. } => self.code(),
        }
    }

    /// The permission whose lack decided, where it is not that of the endpoint.
    pub fn lacks(&self) -> Option<&str> {
        match self {
            Self::Body { lacks, .. } => lacks.as_deref(),
            Self::Denied { .. }
            | Self::Path(_)
            | Self::SeveralAuthorizations
            | Self::Authn(_)
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. } => None,
        }
    }

    /// Who was refused what, of whose record, where that had been found out.
    pub fn concerns(&self) -> Option<(&Principal, &str, Option<&str>)> {
        match self {
            Self::Denied { principal, endpoint, subject, .. }
            | Self::Body { principal: Some(principal), endpoint, subject, .. } => {
                Some((principal, endpoint, subject.as_deref()))
            }
            Self::Body { principal: None, .. }
            | Self::Path(_)
            | Self::SeveralAuthorizations
            | Self::Authn(_)
            | Self::NotFound { .. }
            | Self::MethodNotAllowed { .. } => None,
        }
    }

    /// The account id of whoever was refused, verified or claimed.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::NotFound { principal } | Self::Denied { principal, .. } => Some(principal.account()),
            Self::Authn(AuthnError::Rejected { account, .. } | AuthnError::Throttled { account, .. }) => Some(account),
            Self::Body { principal, .. } => principal.as_ref().map(|principal| principal.account()),
            Self::Path(_) | Self::SeveralAuthorizations | Self::MethodNotAllowed { .. } | Self::Authn(_) => None,
        }
    }
}
