//! Routes: method and path lead to the endpoint that roles.cfg names, and to the person whose record is touched.
//!
//! The one rule: at most one route matches a request. Two patterns that could match the same path are an error when
//! the table is built, so the order of routes never decides which permission is required.
//!
//! The pipeline calls it. It knows nothing of principals or policy.

mod compile;
mod pattern;
mod thalamus;

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use compile::RouteDefaults;
use fedgate_base::config::Config;
use fedgate_core::admission;
use fedgate_core::fields::{FoldedNames, GuardedMembers};
use fedgate_core::path::CanonicalPath;
pub use fedgate_core::path::MAX_ID_BYTES;
use fedgate_core::policy::{EndpointId, EndpointTable, Method, OwnIds, ReviewedQuestion};
use fedgate_core::subject::{RequestSubject, SubjectRule};
use pattern::PathPattern;

/// The permission to write `roles` and `active` of a person.
pub const ACCOUNT_ENDPOINT: &str = "account";
/// The permission to look for persons by what describes them. A new person is compared with all; who else may learn
/// whom it is like is asked of the policy.
pub const MATCH_ENDPOINT: &str = "match";
/// The endpoint at which an account's password is changed.
const PASSWORD_ENDPOINT: &str = "password";
/// The methods that write a person; the permission has an effect under these alone.
const ACCOUNT_METHODS: [Method; 2] = [Method::Post, Method::Patch];

/// All routes, compiled.
#[derive(Debug, Default)]
pub struct RouteTable {
    routes: Vec<CompiledRoute>,
    /// The indexes of the routes whose pattern begins with this literal segment.
    by_first: HashMap<String, Vec<usize>>,
    /// The indexes of all others: `/`, and patterns that begin with a parameter.
    rest: Vec<usize>,
    endpoints: EndpointTable,
    account: Option<EndpointId>,
    matching: Option<EndpointId>,
    password: Option<EndpointId>,
    /// Built-in routes that are left out, and the operator's route that is served instead.
    yielded: Vec<(&'static str, String)>,
}

/// One pattern with the actions of its methods.
#[derive(Debug)]
pub struct CompiledRoute {
    /// The pattern as written.
    path: String,
    pattern: PathPattern,
    subject: Option<usize>,
    actions: [Option<RouteAction>; Method::ALL.len()],
    allow: String,
}

/// The action of one method on one pattern.
#[derive(Debug, Clone)]
pub struct RouteAction {
    /// The endpoint that roles.cfg grants; none on a public route.
    pub endpoint: Option<EndpointId>,
    /// The upstream's index in the configuration.
    pub upstream: usize,
    /// The largest request body, in bytes.
    pub max_body_bytes: u64,
    /// Members of the request body that need a permission.
    pub guard: Option<WriteGuard>,
    /// Whether answers are streams or long polls.
    pub stream: bool,
    /// Whether a WebSocket may be opened.
    pub websocket: bool,
    /// Members that are removed from answers.
    pub hidden: Option<Arc<FoldedNames>>,
    /// The member in which a record names its person, where the upstream finds records by their id alone.
    pub owner_member: Option<&'static str>,
    /// The other places where a request names its subject, apart from the path.
    pub subject: Option<Arc<SubjectRule>>,
}

/// Members of a request body that need a permission.
#[derive(Debug, Clone)]
pub struct WriteGuard {
    /// The members.
    pub members: Arc<GuardedMembers>,
    /// The permission that each member requires, in their order. None means that no caller may write it.
    permissions: Arc<[Option<EndpointId>]>,
}

impl RouteAction {
    /// What a decision needs beside the head of a request, if anything.
    fn needs_more(&self, method: Method) -> Option<&'static str> {
        let rule = self.subject.as_deref();
        if self.guard.is_some() && method != Method::Get {
            return Some("its body has guarded members");
        }
        if self.hidden.is_some() {
            return Some("its answers have hidden members");
        }
        if self.owner_member.is_some() {
            return Some("the record's owner is looked up");
        }
        if self.stream {
            return Some("its answer is a stream");
        }
        match rule {
            Some(rule) if rule.reads_body(method) => Some("its body names the subject"),
            Some(rule) if rule.reads_answer(method) => Some("its answer names the subject"),
            Some(rule) if rule.leads_links(method) => Some("links of its answer lead back"),
            Some(rule) if rule.fills_query => Some("its query may be completed"),
            Some(_) | None => None,
        }
    }
}

impl WriteGuard {
    /// The permission that a member requires, by its position; none if no caller may write it.
    pub fn permission(&self, at: usize) -> Option<EndpointId> {
        self.permissions.get(at).copied().flatten()
    }

    /// The permissions that the members require, in their order.
    pub fn permissions(&self) -> impl Iterator<Item = EndpointId> {
        self.permissions.iter().copied().flatten()
    }

    /// The members that a caller with these permissions may not write, one bit for each.
    pub fn withheld(&self, is_granted: impl Fn(EndpointId) -> bool) -> u64 {
        // A member without a permission is withheld from every caller.
        let withheld = |permission: &Option<EndpointId>| !permission.is_some_and(&is_granted);
        let bits = self.permissions.iter().enumerate().filter(|(_, permission)| withheld(permission));
        bits.fold(0, |bits, (at, _)| bits | 1 << at)
    }
}

/// The result of looking up a request.
pub type RouteResolution<'r, 'p> = admission::RouteResolution<'r, 'p, RouteAction>;

/// The target of a request.
pub type RouteTarget<'r, 'p> = admission::RouteTarget<'r, 'p, RouteAction>;

/// Why a route table is unusable; the text names the route and the remedy.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RouteError {
    /// The pattern is malformed.
    #[error("route `{0}`: {1}")]
    Pattern(String, String),
    /// Two routes could match the same request.
    #[error("routes `{0}` and `{1}` could both match a request; make one of them more specific or leave it out")]
    Ambiguous(String, String),
}

impl RouteTable {
    /// Compiles the built-in routes, if configured, and the operator's own.
    ///
    /// # Errors
    /// A pattern is malformed, or two routes could match the same request.
    pub fn from_config(config: &Config) -> Result<Self, RouteError> {
        let (routes, faults) = Self::examine(config);
        faults.into_iter().next().map_or(Ok(routes), Err)
    }

    /// As [`RouteTable::from_config`], with all faults; faulty routes are left out.
    pub fn examine(config: &Config) -> (Self, Vec<RouteError>) {
        let mut routes = Self::default();
        let defaults = RouteDefaults {
            upstreams: config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect(),
            max_body_bytes: config.gateway.max_body_bytes,
            max_document_bytes: config.his.max_document_bytes as u64,
            guard_built_in: config.gateway.thalamus_field_guard,
        };
        let mut faults = Vec::new();
        if config.gateway.thalamus_routes {
            faults.extend(routes.add_built_in(&defaults, &config.routes, config.his.fhir.enabled).err());
        }
        faults.extend(config.routes.iter().filter_map(|route| routes.add(&defaults, route, None).err()));
        (routes, faults)
    }

    /// The built-in routes alone, to examine a policy without a configuration.
    ///
    /// # Errors
    /// None in practice, because a test builds the table.
    pub fn built_in() -> Result<Self, RouteError> {
        let mut routes = Self::default();
        let defaults = RouteDefaults {
            upstreams: vec!["his"],
            max_body_bytes: 1 << 20,
            max_document_bytes: 16 << 20,
            guard_built_in: false,
        };
        routes.add_built_in(&defaults, &[], true)?;
        Ok(routes)
    }

    /// The built-in routes that yield to the operator's own: what they are, and the path of the operator's route.
    pub fn yielded(&self) -> &[(&'static str, String)] {
        &self.yielded
    }

    /// The endpoints that these routes lead to.
    pub fn endpoints(&self) -> &EndpointTable {
        &self.endpoints
    }

    /// The number of [`ACCOUNT_ENDPOINT`], if the built-in routes are served.
    pub fn account(&self) -> Option<EndpointId> {
        self.account
    }

    /// The number of [`MATCH_ENDPOINT`], if the built-in routes are served.
    pub fn matching(&self) -> Option<EndpointId> {
        self.matching
    }

    /// The ids that are a caller's own where this endpoint is asked for. A password, roles and the `active` mark belong to
    /// an account, so the other ids of the same person do not count there.
    pub fn own<'i>(&self, endpoint: EndpointId, own: OwnIds<'i>) -> OwnIds<'i> {
        match [self.account, self.password].contains(&Some(endpoint)) {
            true => own.of_account(),
            false => own,
        }
    }

    /// The questions that these routes ask of a policy: their endpoints, and the permissions of guarded members.
    pub fn asked(&self) -> ReviewedQuestion<'_> {
        let mut asked = ReviewedQuestion::new();
        let mut ask = |endpoint, method| asked.entry(self.endpoints.name(endpoint)).or_default().insert(method);
        for (route, method) in self.routes.iter().flat_map(|route| Method::ALL.map(|method| (route, method))) {
            let Some(Some(action)) = route.actions.get(method as usize) else { continue };
            // A GET has no body whose members could be guarded.
            let guard = action.guard.as_ref().filter(|_| method != Method::Get);
            let guarded = guard.into_iter().flat_map(|guard| guard.permissions.iter().flatten());
            for endpoint in action.endpoint.iter().chain(guarded) {
                ask(*endpoint, method);
            }
        }
        if let Some(account) = self.account {
            for method in ACCOUNT_METHODS {
                ask(account, method);
            }
        }
        asked
    }

    /// Every pattern, for messages.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|route| route.path.as_str())
    }

    /// Each method and pattern that is not decided for a request that another proxy holds, and why.
    pub fn not_decided_beside(&self) -> impl Iterator<Item = (Method, &str, &'static str)> {
        let all = self.routes.iter().flat_map(|route| Method::ALL.map(|method| (route, method)));
        all.filter_map(|(route, method)| {
            let action = route.actions.get(method as usize)?.as_ref()?;
            Some((method, route.path.as_str(), action.needs_more(method)?))
        })
    }

    /// Finds the only route of a request. Cost: one hash of the first segment, and one comparison per candidate.
    pub fn resolve<'r, 'p>(
        &'r self,
        method: &str,
        path: &CanonicalPath<'p>,
        query: Option<&'p str>,
    ) -> RouteResolution<'r, 'p> {
        let candidates =
            path.segments().next().and_then(|first| self.by_first.get(first)).map_or(&[][..], Vec::as_slice);
        let mut matching = candidates.iter().chain(&self.rest).filter_map(|index| self.routes.get(*index));
        // The first match is the only one: `add` refuses patterns that overlap.
        let Some(route) = matching.find(|route| route.pattern.matches(path)) else { return RouteResolution::NotFound };
        let action =
            Method::parse(method).and_then(|method| Some((method, route.actions.get(method as usize)?.as_ref()?)));
        match action {
            // Methods that no policy can grant end here as well.
            None => RouteResolution::MethodNotAllowed(&route.allow),
            Some((method, action)) => {
                // The subject is decoded once, here. The policy compares it with the account id, and the assertion
                // carries it.
                let named = route.subject.and_then(|at| path.segments().nth(at)).map(|segment| path.decode(segment));
                let subject = match &action.subject {
                    Some(rule) => rule.of_head(method, named, query),
                    None => named.map_or(RequestSubject::Unnamed, RequestSubject::One),
                };
                RouteResolution::Found(RouteTarget {
                    method,
                    endpoint: action.endpoint,
                    action,
                    allow: &route.allow,
                    subject,
                })
            }
        }
    }

    /// The methods of a path, as in the `Allow` header, if some route has it.
    pub fn allowed_methods(&self, path: &CanonicalPath<'_>) -> Option<&str> {
        match self.resolve("OPTIONS", path, None) {
            RouteResolution::MethodNotAllowed(allow) => Some(allow),
            RouteResolution::Found(target) => Some(target.allow),
            RouteResolution::NotFound => None,
        }
    }
}

#[cfg(test)]
mod tests;
