//! The policy decision point: which principal may use which method on which endpoint, and for whose record.
//!
//! It has the semantics of Thalamus's roles.cfg, made strict. A request is allowed iff some role of the principal is
//! defined in the file, lists the endpoint under the method, and reaches the record. A role reaches the record if the
//! route touches no person's record, the role is global, or the record is the principal's own ([`OwnIds`]); if the role
//! says `related`, also if it is that of a related person. Silence denies, and the order of roles never matters.
//!
//! Pure: no I/O, no clock, no runtime. A decision cannot fail or wait. The pipeline, the operator's commands and the
//! tests all call this same code.

mod own;
mod roles_cfg;
mod rights;
mod names;
mod review;
mod warnings;
mod cases;

use std::collections::HashMap;
use std::sync::Arc;

pub use crate::methods::Method;
pub use cases::{CaseQuestion, CasesError, ExpectedDecision, PolicyCase, parse_cases};
pub use names::{hint, suggestion};
pub use own::OwnIds;
pub use review::{CellChange, PolicyExplanation, ReviewedQuestion, RightsMatrix, RoleSays, RoleStatement};
pub use rights::{EndpointId, EndpointTable, RoleRights};
pub use roles_cfg::{MAX_POLICY_BYTES, PolicyError, RoleDefinition, RoleGrant};
pub use warnings::{PolicyWarning, belongs_to_nobody};

/// Whose records a role's permission reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyReach {
    /// The principal's own.
    Own,
    /// The principal's own, and those of related persons.
    Related,
    /// Any person's.
    Global,
}

/// The answer of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyDecision {
    /// Forward the request, with this reach.
    Allow(PolicyReach),
    /// Refuse it.
    Deny(DenyReason),
}

/// Why a request is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// No role of the principal is defined in the policy.
    NoRole,
    /// No role of the principal lists the endpoint under the method.
    NotGranted,
    /// A role does, but reaches only the principal's own record, or also those of related persons, and the record is
    /// another person's.
    NotOwn,
    /// A role does, but reaches only the principal's own record, and the request does not say clearly whose it is.
    NotBound,
}

/// One question to the policy.
#[derive(Debug, Clone, Copy)]
pub struct PolicyQuestion<'a> {
    /// The principal's account id, the other ids of the same person, and those of related persons.
    pub principal: OwnIds<'a>,
    /// The principal's roles.
    pub roles: &'a [String],
    /// The method of the request.
    pub method: Method,
    /// The endpoint the route leads to.
    pub endpoint: &'a str,
    /// The person whose record the request touches, if the route has one.
    pub subject: Option<&'a str>,
}

/// All roles of one policy file.
#[derive(Debug)]
pub struct PolicySet {
    roles: Vec<RoleDefinition>,
    by_name: HashMap<String, Vec<usize>>,
    fingerprint: Arc<str>,
    source: Box<[u8]>,
}

impl PolicySet {
    /// Parses the bytes of a roles.cfg file.
    ///
    /// # Errors
    /// See [`PolicyError`]. A file with any fault is refused as a whole.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        let roles = roles_cfg::parse(bytes)?;
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, role) in roles.iter().enumerate() {
            by_name.entry(role.name.clone()).or_default().push(index);
        }
        // 64 bits suffice: only an operator could construct a collision, and an operator can grant any right anyway.
        let fingerprint = blake3::hash(bytes).to_hex().get(..16).unwrap_or_default().into();
        Ok(Self { roles, by_name, fingerprint, source: bytes.into() })
    }

    /// The faults of a roles.cfg file: the one for which [`PolicySet::parse`] refuses it, and further ones, up to
    /// `most`.
    pub fn faults(bytes: &[u8], most: usize) -> Vec<PolicyError> {
        roles_cfg::faults(bytes, most)
    }

    /// The first 16 hexadecimal digits of the file's BLAKE3 hash. It names this policy in records and assertions.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The fingerprint, to keep without the policy.
    pub fn shared_fingerprint(&self) -> &Arc<str> {
        &self.fingerprint
    }

    /// The bytes that the policy was parsed from.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// The role definitions, in the order of the file.
    pub fn roles(&self) -> &[RoleDefinition] {
        &self.roles
    }

    /// The defined names, each once, in no order.
    pub fn role_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.by_name.keys().map(String::as_str)
    }

    /// All definitions of a role name. A name may have several definitions, and each counts.
    pub fn definitions<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a RoleDefinition> + use<'a> {
        let indexes = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        indexes.iter().filter_map(|index| self.roles.get(*index))
    }

    /// Answers one question directly from the file's definitions.
    ///
    /// Requests use [`RoleRights`] instead, which is compiled from these definitions and gives the same answers.
    pub fn decide(&self, question: PolicyQuestion<'_>) -> PolicyDecision {
        // The reason narrows from "no role" over "not granted" to "not own"; an allow by any role beats all of them.
        let mut denied = DenyReason::NoRole;
        let mut widest = None;
        for role in question.roles.iter().flat_map(|name| self.definitions(name)) {
            if denied == DenyReason::NoRole {
                denied = DenyReason::NotGranted;
            }
            if !role.grants(question.method, question.endpoint) {
                continue;
            }
            match question.subject {
                Some(subject) if !question.principal.reaches(subject, role.reach) => denied = DenyReason::NotOwn,
                // The widest reach wins, so that the order of roles never matters.
                _ => widest = widest.max(Some(role.reach)),
            }
        }
        widest.map_or(PolicyDecision::Deny(denied), PolicyDecision::Allow)
    }
}

impl PolicyReach {
    /// The word in records, tables and cases.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Related => "related",
            Self::Global => "global",
        }
    }
}

impl std::fmt::Display for PolicyDecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow(reach) => write!(f, "allow {}", reach.as_str()),
            Self::Deny(reason) => write!(f, "deny {}", reason.as_str()),
        }
    }
}

impl DenyReason {
    /// A stable word for records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRole => "no_role",
            Self::NotGranted => "not_granted",
            Self::NotOwn => "not_own",
            Self::NotBound => "not_bound",
        }
    }
}

#[cfg(test)]
mod tests;
