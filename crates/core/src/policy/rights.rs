//! The rights of one principal: its roles, compiled, so that a request needs one index lookup.
//!
//! The one rule: [`RoleRights`] answer exactly as [`PolicySet::decide`] would. They hold only what the roles grant,
//! nothing of the principal, so principals with the same roles have the same rights.

use std::collections::HashMap;

use super::{DenyReason, Method, OwnIds, PolicyDecision, PolicyReach, PolicySet};

/// The number of an endpoint in one [`EndpointTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId(u16);

/// The endpoints that routes lead to, with their numbers.
#[derive(Debug, Default, Clone)]
pub struct EndpointTable {
    names: Vec<String>,
    numbers: HashMap<String, EndpointId>,
}

impl EndpointTable {
    /// The number of a name, assigned now if it has none; none once 65,535 are assigned.
    pub fn intern(&mut self, name: &str) -> Option<EndpointId> {
        if let Some(known) = self.numbers.get(name) {
            return Some(*known);
        }
        let endpoint = EndpointId(u16::try_from(self.names.len()).ok()?);
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), endpoint);
        Some(endpoint)
    }

    /// The number of a known name.
    pub fn find(&self, name: &str) -> Option<EndpointId> {
        self.numbers.get(name).copied()
    }

    /// The name that has a number.
    pub fn name(&self, endpoint: EndpointId) -> &str {
        self.names.get(usize::from(endpoint.0)).map(String::as_str).unwrap_or_default()
    }

    /// All names, in the order of their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// The rights of one set of roles under one policy: each (endpoint, method) maps to nothing, own, related or global.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRights {
    reaches: Box<[Option<PolicyReach>]>,
    any_role: bool,
}

impl RoleRights {
    /// Compiles the rights of `roles` under `policy` for the endpoints of `endpoints`.
    ///
    /// Cost: proportional to the grants of those roles, some microseconds.
    pub fn compile(policy: &PolicySet, roles: &[String], endpoints: &EndpointTable) -> Self {
        let mut reaches = vec![None; endpoints.names.len() * Method::ALL.len()].into_boxed_slice();
        let mut any_role = false;
        for role in roles.iter().flat_map(|name| policy.definitions(name)) {
            any_role = true;
            for grant in &role.grants {
                let Some(method) = Method::of_key(&grant.method) else { continue };
                // An endpoint without a route cannot be requested, so its grants have no effect.
                let Some(endpoint) = endpoints.find(&grant.endpoint) else { continue };
                if let Some(reach) = reaches.get_mut(index(endpoint, method)) {
                    // The widest reach wins, as in `PolicySet::decide`, so that the order of roles never matters.
                    *reach = (*reach).max(Some(role.reach));
                }
            }
        }
        Self { reaches, any_role }
    }

    /// Answers as [`PolicySet::decide`] does for these roles.
    pub fn decide<'a>(
        &self,
        principal: impl Into<OwnIds<'a>>,
        method: Method,
        endpoint: EndpointId,
        subject: Option<&str>,
    ) -> PolicyDecision {
        match (self.reach(method, endpoint), subject) {
            // Byte for byte: an id that differs only in case is another person's.
            (Some(reach), Some(subject)) if !principal.into().reaches(subject, reach) => {
                PolicyDecision::Deny(DenyReason::NotOwn)
            }
            (Some(reach), _) => PolicyDecision::Allow(reach),
            (None, _) if self.any_role => PolicyDecision::Deny(DenyReason::NotGranted),
            (None, _) => PolicyDecision::Deny(DenyReason::NoRole),
        }
    }

    /// The reach of these roles with this method on this endpoint.
    pub fn reach(&self, method: Method, endpoint: EndpointId) -> Option<PolicyReach> {
        self.reaches.get(index(endpoint, method)).copied().flatten()
    }
}

fn index(endpoint: EndpointId, method: Method) -> usize {
    usize::from(endpoint.0) * Method::ALL.len() + method as usize
}
