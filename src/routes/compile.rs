//! How a route of the configuration, or a built-in one, joins the table.
//!
//! The one rule: a route is checked as a whole before it changes the table. A faulty one leaves no entry.

use std::sync::Arc;

use super::pattern::PathPattern;
use super::{
    ACCOUNT_ENDPOINT, CompiledRoute, MATCH_ENDPOINT, PASSWORD_ENDPOINT, RouteAction, RouteError, RouteTable,
    WriteGuard, thalamus,
};
use fedgate_base::config::{GuardConfig, RouteConfig, SubjectConfig};
use fedgate_core::fields::{FoldedNames, FreeValue, GuardedMember, GuardedMembers};
use fedgate_core::methods::{METHODS, RequestMethod};
use fedgate_core::policy::Method;

/// Defaults of routes that do not set their own.
pub(super) struct RouteDefaults<'a> {
    pub(super) upstreams: Vec<&'a str>,
    pub(super) max_body_bytes: u64,
    pub(super) max_document_bytes: u64,
    pub(super) guard_built_in: bool,
}

impl RouteTable {
    /// Adds the built-in routes, but for those that yield to the operator's own.
    pub(super) fn add_built_in(
        &mut self,
        defaults: &RouteDefaults<'_>,
        own: &[RouteConfig],
        fhir: bool,
    ) -> Result<(), RouteError> {
        let mut routes = thalamus::ROUTES.to_vec();
        for added in thalamus::ADDED {
            let displacing = own.iter().find(|route| added.routes.iter().any(|(path, ..)| overlaps(path, &route.path)));
            match displacing {
                _ if added.name == thalamus::FHIR && !fhir => {}
                Some(route) => self.yielded.push((added.name, route.path.clone())),
                None => routes.extend_from_slice(added.routes),
            }
        }
        for (path, methods, endpoint, subject) in &routes {
            let document = path.ends_with("{document_id}");
            for method in methods.split(' ') {
                let guarded = defaults.guard_built_in;
                let route = RouteConfig {
                    path: (*path).to_owned(),
                    methods: vec![method.to_owned()],
                    endpoint: (!endpoint.is_empty()).then(|| (*endpoint).to_owned()),
                    subject: SubjectConfig { path: subject.then(|| "person_id".to_owned()), rule: None },
                    upstream: defaults.upstreams.first().copied().unwrap_or_default().to_owned(),
                    // Base64 makes four bytes of three. The rest leaves room for the other members.
                    max_body_bytes: document.then_some(defaults.max_document_bytes / 3 * 4 + 64 * 1024),
                    guards: if guarded { thalamus::guards(endpoint, method) } else { Vec::new() },
                    stream: thalamus::is_stream(path, method),
                    // The HIS has none.
                    websocket: false,
                    only_object: guarded && thalamus::takes_objects_alone(endpoint, method),
                    hide: if guarded && path.starts_with("/people") { vec!["password".into()] } else { Vec::new() },
                };
                let owner_member = if guarded { thalamus::owner_member(endpoint, method) } else { None };
                self.add(defaults, &route, owner_member)?;
            }
        }
        self.account = self.endpoints.intern(ACCOUNT_ENDPOINT);
        self.matching = self.endpoints.intern(MATCH_ENDPOINT);
        self.password = self.endpoints.intern(PASSWORD_ENDPOINT);
        Ok(())
    }

    /// Adds one route: a new pattern, or further methods of a known one.
    pub(super) fn add(
        &mut self,
        defaults: &RouteDefaults<'_>,
        route: &RouteConfig,
        owner_member: Option<&'static str>,
    ) -> Result<(), RouteError> {
        let pattern = PathPattern::parse(&route.path)?;
        let subject = subject_of(route, &pattern)?;
        let known = self.known(route, &pattern, subject)?;
        let methods = methods_of(route)?;
        let served = known.and_then(|index| self.routes.get(index)).map(|entry| &entry.actions);
        let is_served =
            |method: Method| served.and_then(|actions| actions.get(method as usize)).is_some_and(Option::is_some);
        // A method that is served twice would leave the choice of the permission to the order of routes.
        let mut before = methods.iter().enumerate();
        let twice = before.find(|(at, method)| is_served(**method) || methods.iter().take(*at).any(|m| m == *method));
        if let Some((_, method)) = twice {
            let again = format!("{} {}", method.as_str(), route.path);
            return Err(RouteError::Ambiguous(route.path.clone(), again));
        }
        let action = self.action(defaults, route, owner_member)?;
        let index = known.unwrap_or_else(|| self.begin(route, pattern, subject));
        let Some(entry) = self.routes.get_mut(index) else { return Ok(()) };
        for method in methods {
            if let Some(slot) = entry.actions.get_mut(method as usize) {
                *slot = Some(action.clone());
            }
        }
        entry.allow = allow(&entry.actions);
        Ok(())
    }

    /// The action of a route's methods.
    fn action(
        &mut self,
        defaults: &RouteDefaults<'_>,
        route: &RouteConfig,
        owner_member: Option<&'static str>,
    ) -> Result<RouteAction, RouteError> {
        let fault = |problem: &str| fault(route, problem);
        let upstream = defaults.upstreams.iter().position(|upstream| *upstream == route.upstream);
        let endpoint = match &route.endpoint {
            None => None,
            Some(name) => {
                Some(self.endpoints.intern(name).ok_or_else(|| fault("there are more than 65535 endpoints"))?)
            }
        };
        let guard = self.write_guard(&route.guards, route.only_object);
        let hidden = match route.hide.as_slice() {
            [] => None,
            hide => {
                let names = FoldedNames::new(hide.iter().map(String::as_str));
                Some(Arc::new(names.ok_or_else(|| fault("it hides more than 64 members"))?))
            }
        };
        Ok(RouteAction {
            endpoint,
            upstream: upstream.ok_or_else(|| fault("its upstream does not exist"))?,
            max_body_bytes: route.max_body_bytes.unwrap_or(defaults.max_body_bytes),
            guard: guard.ok_or_else(|| fault("it guards more than 64 members"))?,
            hidden,
            stream: route.stream,
            websocket: route.websocket,
            owner_member,
            subject: route.subject.rule.clone().map(Arc::new),
        })
    }

    /// The entry that has this pattern already; none if the pattern is new. The same pattern may occur again with
    /// other methods; only a different pattern that overlaps is ambiguous.
    fn known(
        &self,
        route: &RouteConfig,
        pattern: &PathPattern,
        subject: Option<usize>,
    ) -> Result<Option<usize>, RouteError> {
        match self.routes.iter().enumerate().find(|(_, known)| known.pattern.overlaps(pattern)) {
            None => Ok(None),
            Some((_, known)) if known.pattern != *pattern => {
                Err(RouteError::Ambiguous(known.path.clone(), route.path.clone()))
            }
            // Otherwise the method would decide whether `own` is checked for a path.
            Some((_, known)) if known.subject != subject => {
                Err(fault(route, "another entry of the same path has another `subject`"))
            }
            Some((_, known))
                if known
                    .actions
                    .iter()
                    .flatten()
                    .any(|action| action.subject.is_some() != route.subject.rule.is_some()) =>
            {
                Err(fault(
                    route,
                    "another entry of the same path has a table as its `subject`, and this one has none, or the other way about",
                ))
            }
            Some((index, _)) => Ok(Some(index)),
        }
    }

    /// Begins an entry without methods, and returns its index.
    fn begin(&mut self, route: &RouteConfig, pattern: PathPattern, subject: Option<usize>) -> usize {
        let index = self.routes.len();
        match pattern.first() {
            Some(first) => self.by_first.entry(first.to_owned()).or_default().push(index),
            None => self.rest.push(index),
        }
        let (path, actions, allow) = (route.path.clone(), Default::default(), String::new());
        self.routes.push(CompiledRoute { path, pattern, subject, actions, allow });
        index
    }

    /// Combines the guards of one route; none if there are too many members or endpoints.
    fn write_guard(&mut self, guards: &[GuardConfig], only_object: bool) -> Option<Option<WriteGuard>> {
        if guards.is_empty() && !only_object {
            return Some(None);
        }
        let (mut names, mut members, mut permissions) = (Vec::new(), Vec::new(), Vec::new());
        for guard in guards {
            let permission = match &guard.permission {
                None => None,
                Some(name) => Some(self.endpoints.intern(name)?),
            };
            for name in &guard.members {
                names.push(name.as_str());
                let free = match (guard.may_name_subject, guard.may_be_empty) {
                    (false, _) if guard.may_be_default => FreeValue::default_of(name),
                    (false, _) => FreeValue::None,
                    (true, false) => FreeValue::Subject,
                    (true, true) => FreeValue::SubjectOrNothing,
                };
                members.push(GuardedMember { free, anywhere: guard.anywhere });
                permissions.push(permission);
            }
        }
        let members =
            GuardedMembers { names: Arc::new(FoldedNames::new(names)?), members: members.into(), only_object };
        Some(Some(WriteGuard { members: Arc::new(members), permissions: permissions.into() }))
    }
}

/// Whether some path matches both patterns. One with a fault matches none.
fn overlaps(pattern: &str, own: &str) -> bool {
    let (pattern, own) = (PathPattern::parse(pattern), PathPattern::parse(own));
    pattern.is_ok_and(|pattern| own.is_ok_and(|own| pattern.overlaps(&own)))
}

fn fault(route: &RouteConfig, problem: &str) -> RouteError {
    RouteError::Pattern(route.path.clone(), problem.to_owned())
}

/// The segment that names the subject, by its place in the path.
fn subject_of(route: &RouteConfig, pattern: &PathPattern) -> Result<Option<usize>, RouteError> {
    let Some(name) = &route.subject.path else { return Ok(None) };
    let unknown = || fault(route, &format!("`subject` is `{name}`, which is no {{parameter}} of the path"));
    pattern.parameter(name).map(Some).ok_or_else(unknown)
}

/// The methods of a route.
fn methods_of(route: &RouteConfig) -> Result<Vec<Method>, RouteError> {
    if route.methods.is_empty() {
        return Err(fault(route, "`methods` is empty"));
    }
    let unknown = route.methods.iter().filter(|name| Method::of_key(name).is_none());
    let unknown: Vec<_> = unknown.map(|name| format!("`{name}`")).collect();
    if !unknown.is_empty() {
        let are = if unknown.len() == 1 { "is no method" } else { "are no methods" };
        let unknown = unknown.join(", ");
        return Err(fault(route, &format!("{unknown} {are} of GET, POST, PUT, PATCH, DELETE (GET covers HEAD)")));
    }
    Ok(route.methods.iter().filter_map(|name| Method::of_key(name)).collect())
}

fn allow(actions: &[Option<RouteAction>]) -> String {
    // OPTIONS, which no policy grants, is answered on every path.
    let is_served = |method: &RequestMethod| {
        method.granted_by.is_none_or(|granted| actions.get(granted as usize).is_some_and(Option::is_some))
    };
    let names: Vec<_> = METHODS.iter().filter(|method| is_served(method)).map(|method| method.name).collect();
    names.join(", ")
}
