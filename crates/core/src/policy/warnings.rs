//! Finds parts of a policy that are valid but probably mistakes.
//!
//! The one rule: a warning names its line and the consequence, and changes no decision. It is called when a policy
//! comes into force, and by the operator's commands. Pure, as all of `policy`.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{look_alikes, oddity_of_name, suggestion};
use super::{Method, PolicyReach, PolicySet, ReviewedQuestion, RoleDefinition, RoleGrant};
use crate::escape;

/// A valid part of a policy that its author hardly meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyWarning {
    /// Its line, from 1.
    pub line: usize,
    /// The oddity and its consequence. Names in it are bounded, and all of their characters are visible.
    pub text: String,
}

impl PolicySet {
    /// The valid parts of this policy that its author hardly meant, given the questions that routes ask.
    pub fn warnings(&self, asked: &ReviewedQuestion<'_>) -> Vec<PolicyWarning> {
        let mut warnings = Vec::new();
        let mut warn = |line, text: String| warnings.push(PolicyWarning { line, text });
        let mut first_lines: BTreeMap<&str, usize> = BTreeMap::new();
        for role in self.roles() {
            let name = escape::name(&role.name);
            if let Some(first) = first_lines.get(role.name.as_str()) {
                let text = format!("role `{name}` is also on line {first}; each entry counts, with its own `global`");
                warn(role.line, text);
            }
            first_lines.entry(&role.name).or_insert(role.line);
            if let Some(oddity) = oddity_of_name(&role.name) {
                warn(role.line, format!("the name of role `{name}` {oddity}; roles of accounts are compared exactly"));
            }
            if role.global_is_boolean && role.reach == PolicyReach::Global {
                let text = format!(
                    "`global` of role `{name}` is true, not \"True\": Thalamus would read it as own records only"
                );
                warn(role.line, text);
            }
            if role.is_related_void {
                let text = format!("`related` of role `{name}` has no effect, since the role is global");
                warn(role.line, text);
            }
            let mut seen = BTreeSet::new();
            for grant in &role.grants {
                if let Some(text) = oddity(role, grant, asked) {
                    warn(grant.line, text);
                }
                if !seen.insert((&grant.method, &grant.endpoint)) {
                    let (endpoint, key) = (escape::name(&grant.endpoint), escape::name(&grant.method));
                    warn(grant.line, format!("`{endpoint}` occurs twice under `{key}` of role `{name}`"));
                }
            }
        }
        for (one, other) in look_alikes(first_lines.keys().copied()) {
            let (one, line) = (escape::name(one), first_lines.get(one).copied().unwrap_or_default());
            warn(line, format!("role `{one}` looks like role `{}`, and is another", escape::name(other)));
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }
}

/// The endpoint that covers the guarded members of an account: its roles, and whether it may sign in.
const ACCOUNT: &str = "account";

impl PolicySet {
    /// Gaps in this policy that may well be intended, given the questions that routes ask.
    pub fn notes(&self, asked: &ReviewedQuestion<'_>) -> Vec<String> {
        let grants = |role: &RoleDefinition| Method::ALL.iter().any(|method| role.grants(*method, ACCOUNT));
        let nobody = asked.contains_key(ACCOUNT) && !self.roles().iter().any(grants);
        let note = || {
            format!(
                "no role is granted `{ACCOUNT}`: nobody can give roles or switch accounts off over HTTP; only \
                 `fedgate account` can"
            )
        };
        nobody.then(note).into_iter().collect()
    }
}

/// The methods that Thalamus 0.9.18 judges. It looks each up in a role by its key.
const OF_THALAMUS: [Method; 4] = [Method::Get, Method::Post, Method::Patch, Method::Delete];

impl PolicySet {
    /// The parts of this policy at which Thalamus 0.9.18 would fail, for operators who run both. They do not affect
    /// fedgate.
    ///
    /// Thalamus goes through the roles of an account in order, and looks up the method and then `global` in each. A
    /// missing key ends the request with 500, unless an earlier role allowed it.
    pub fn thalamus_warnings(&self) -> Vec<PolicyWarning> {
        let mut warnings = Vec::new();
        for role in self.roles() {
            let name = escape::name(&role.name);
            let lacks = |key: &str| !role.keys.iter().any(|known| known == key);
            let methods: Vec<_> = OF_THALAMUS.into_iter().map(Method::as_str).filter(|key| lacks(key)).collect();
            if !methods.is_empty() {
                let text = format!(
                    "role `{name}` has no `{}`: Thalamus would answer 500, not 401, to a holder of the role who uses \
                     such a method; an empty list has the same meaning here",
                    methods.join("`, `")
                );
                warnings.push(PolicyWarning { line: role.line, text });
            }
            let grants =
                role.grants.iter().any(|grant| OF_THALAMUS.iter().any(|method| method.as_str() == grant.method));
            if lacks("global") && grants {
                let text = format!(
                    "role `{name}` has no `global`: Thalamus would answer 500, not 401, to a holder of the role who \
                     asks for the record of another; \"False\" has the same meaning here"
                );
                warnings.push(PolicyWarning { line: role.line, text });
            }
        }
        warnings
    }
}

/// The oddity of one grant, if it has one.
fn oddity(role: &RoleDefinition, grant: &RoleGrant, asked: &ReviewedQuestion<'_>) -> Option<String> {
    let (name, key, endpoint) = (escape::name(&role.name), escape::name(&grant.method), escape::name(&grant.endpoint));
    let Some(method) = Method::of_key(&grant.method) else {
        let meant = suggestion(&grant.method, Method::ALL.map(Method::as_str));
        return Some(format!(
            "`{key}` of role `{name}` is no method that is judged (HEAD is judged as GET){meant}; it grants nothing"
        ));
    };
    let Some(methods) = asked.get(grant.endpoint.as_str()) else {
        return Some(format!(
            "no route leads to endpoint `{endpoint}`{}; role `{name}` gains nothing by it",
            suggestion(&grant.endpoint, asked.keys().copied())
        ));
    };
    if !methods.contains(&method) {
        let methods: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
        return Some(format!(
            "no route asks for `{endpoint}` under `{key}`, but under {}; role `{name}` gains nothing by it",
            methods.join(", ")
        ));
    }
    match (role.reach, grant.endpoint.as_str(), method) {
        (PolicyReach::Own | PolicyReach::Related, "account", Method::Post | Method::Patch) => Some(format!(
            "role `{name}` may write its own roles: `account` with own records lets its holders take any role"
        )),
        (PolicyReach::Own | PolicyReach::Related, "people", Method::Get) => Some(format!(
            "role `{name}` is not global, so that `people` shows it only its own record; Thalamus would show \
             everybody's"
        )),
        (PolicyReach::Own | PolicyReach::Related, endpoint, Method::Post | Method::Patch | Method::Delete)
            if belongs_to_nobody(endpoint) =>
        {
            Some(format!(
                "role `{name}` is not global, but `{endpoint}` belong to no person: it may {key} every one of them"
            ))
        }
        _ => None,
    }
}

/// Whether the records of an endpoint belong to no person, so that a role which is not global reaches all of them.
pub fn belongs_to_nobody(endpoint: &str) -> bool {
    matches!(endpoint, "domiciliaryunits" | "institutions")
}
