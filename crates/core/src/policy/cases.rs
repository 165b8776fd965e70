//! `*.cases.toml` beside a policy: its tests, in the author's words.
//!
//! ```toml
//! [[case]]
//! name = "a patient reads her own record"
//! as = "ESPGNU777ORG"
//! roles = ["end_user"]
//! request = "GET /people/ESPGNU777ORG"
//! expect = "allow own"
//!
//! [[case]]
//! name = "a patient gives herself no roles"    # what no route leads to, and where it matters, whose record it is
//! as = "ESPGNU777ORG"
//! roles = ["end_user"]
//! method = "PATCH"
//! endpoint = "account"
//! subject = "ESPGNU777ORG"
//! expect = "deny"
//!
//! [[case]]
//! name = "what a nurse may do, and nothing else"
//! as = "NUR"
//! roles = ["nurse"]
//! expect = "allow global"
//! [case.only]                                  # every other method and endpoint is denied
//! person = ["GET", "PATCH"]
//! page = ["GET"]
//! ```
//!
//! The one rule: the code that serves requests also judges a case. This module reads the file; the command that runs
//! it resolves the request.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use thiserror::Error;

use super::{DenyReason, Method, PolicyDecision, PolicyReach};
use crate::escape;

/// The most characters of a reported fault, which may quote the file.
const MOST_OF_A_FAULT: usize = 240;

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "CaseEntry")]
pub struct PolicyCase {
    /// The name of the case.
    pub name: String,
    /// The principal's account id.
    pub principal: String,
    /// The principal's roles.
    pub roles: Vec<String>,
    /// The question.
    pub asks: CaseQuestion,
    /// The answer that the policy must give.
    pub expect: ExpectedDecision,
}

/// The question of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaseQuestion {
    /// Whether a request is allowed: method and path, as in a request line.
    Request(String),
    /// Whether a method of an endpoint is allowed, with or without a route to it.
    Cell {
        /// The method.
        method: Method,
        /// The endpoint.
        endpoint: String,
        /// The person whose record is touched; none if no particular record is.
        subject: Option<String>,
    },
    /// Whether exactly these methods of these endpoints are allowed.
    Only(BTreeMap<String, BTreeSet<Method>>),
}

/// The expected answer of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ExpectedDecision {
    /// Allowed, with any reach.
    Allow,
    /// Allowed with this reach.
    AllowReach(PolicyReach),
    /// Denied, for any reason.
    Deny,
    /// Denied for this reason.
    DenyReason(DenyReason),
}

/// A case file that cannot be read.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct CasesError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CasesFile {
    case: Vec<PolicyCase>,
}

/// A case as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseEntry {
    name: String,
    r#as: String,
    roles: Vec<String>,
    request: Option<String>,
    method: Option<MethodKey>,
    endpoint: Option<String>,
    subject: Option<String>,
    only: Option<BTreeMap<String, BTreeSet<MethodKey>>>,
    expect: ExpectedDecision,
}

/// A method, named as in roles.cfg.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct MethodKey(Method);

/// Parses the text of a case file.
///
/// # Errors
/// The text is not TOML of the shape above. The error names line and key.
pub fn parse_cases(text: &str) -> Result<Vec<PolicyCase>, CasesError> {
    let file: CasesFile = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        CasesError(format!("line {line}: {}", escape::start(&error.message().replace('\n', " "), MOST_OF_A_FAULT)))
    })?;
    Ok(file.case)
}

impl TryFrom<CaseEntry> for PolicyCase {
    type Error = String;

    fn try_from(entry: CaseEntry) -> Result<Self, String> {
        let CaseEntry { name, r#as: principal, roles, request, method, endpoint, subject, only, expect } = entry;
        let asks = match (request, (method, endpoint, subject), only) {
            (Some(request), (None, None, None), None) => CaseQuestion::Request(request),
            (None, (Some(MethodKey(method)), Some(endpoint), subject), None) => {
                CaseQuestion::Cell { method, endpoint, subject }
            }
            (None, (None, None, None), Some(only)) => {
                if !matches!(expect, ExpectedDecision::Allow | ExpectedDecision::AllowReach(_)) {
                    return Err(format!("case `{name}`: `only` lists allowed requests, but `expect` is `{expect}`"));
                }
                let methods = |keys: BTreeSet<MethodKey>| keys.into_iter().map(|MethodKey(method)| method).collect();
                CaseQuestion::Only(only.into_iter().map(|(endpoint, keys)| (endpoint, methods(keys))).collect())
            }
            _ => {
                return Err(format!(
                    "case `{name}` must ask one of `request`, `method` with `endpoint` (and `subject`), or `only`"
                ));
            }
        };
        Ok(Self { name, principal, roles, asks, expect })
    }
}

impl TryFrom<String> for MethodKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let method = Method::of_key(&text);
        method.map(Self).ok_or_else(|| format!("`{text}` is none of GET, POST, PUT, PATCH, DELETE"))
    }
}

impl TryFrom<String> for ExpectedDecision {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "allow" => Self::Allow,
            "allow own" => Self::AllowReach(PolicyReach::Own),
            "allow related" => Self::AllowReach(PolicyReach::Related),
            "allow global" => Self::AllowReach(PolicyReach::Global),
            "deny" => Self::Deny,
            "deny no_role" => Self::DenyReason(DenyReason::NoRole),
            "deny not_granted" => Self::DenyReason(DenyReason::NotGranted),
            "deny not_own" => Self::DenyReason(DenyReason::NotOwn),
            "deny not_bound" => Self::DenyReason(DenyReason::NotBound),
            _ => {
                return Err(format!(
                    "`{text}` is none of allow, allow own, allow related, allow global, deny, deny no_role, deny \
                     not_granted, deny not_own, deny not_bound"
                ));
            }
        })
    }
}

impl ExpectedDecision {
    /// Whether a decision meets the expectation.
    pub fn is_met_by(self, decision: PolicyDecision) -> bool {
        match (self, decision) {
            (Self::Allow, PolicyDecision::Allow(_)) | (Self::Deny, PolicyDecision::Deny(_)) => true,
            (Self::AllowReach(expected), PolicyDecision::Allow(reach)) => expected == reach,
            (Self::DenyReason(expected), PolicyDecision::Deny(reason)) => expected == reason,
            _ => false,
        }
    }
}

impl std::fmt::Display for ExpectedDecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::AllowReach(reach) => write!(f, "allow {}", reach.as_str()),
            Self::Deny => f.write_str("deny"),
            Self::DenyReason(reason) => write!(f, "deny {}", reason.as_str()),
        }
    }
}
