//! Views of a policy for its author: why a question is answered as it is, what each role may do, what an edit changes.
//!
//! The one rule: these views use the same definitions as [`PolicySet::decide`], and never decide on their own. The
//! operator's commands call them. Pure, as all of `policy`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Method, PolicyDecision, PolicyQuestion, PolicyReach, PolicySet};

/// Why a question is answered as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyExplanation {
    /// The answer.
    pub decision: PolicyDecision,
    /// The statement of each of the principal's roles, in their order. A role name that is defined twice has two.
    pub roles: Vec<RoleSays>,
}

/// The answer of one role to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSays {
    /// The role's name.
    pub role: String,
    /// Its statement.
    pub says: RoleStatement,
}

/// The statement of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleStatement {
    /// It grants the endpoint under the method, on this line of the file, and reaches the record.
    Grants {
        /// The line of the grant, from 1.
        line: usize,
        /// Whose records the role reaches.
        reach: PolicyReach,
    },
    /// It grants the endpoint on this line, but only for records that it reaches, and this one is another person's.
    OwnOnly {
        /// The line of the grant, from 1.
        line: usize,
        /// Whose records the role reaches.
        reach: PolicyReach,
    },
    /// It is defined on this line, and does not list the endpoint under the method.
    Silent {
        /// The line of the role, from 1.
        line: usize,
    },
    /// The policy does not define it.
    Undefined,
}

/// The reach of each (role, endpoint, method); a missing entry grants nothing.
pub type RightsMatrix = BTreeMap<(String, String, &'static str), PolicyReach>;

/// The questions that routes can ask: for each endpoint, the methods under which a grant of it has an effect.
pub type ReviewedQuestion<'a> = BTreeMap<&'a str, BTreeSet<Method>>;

/// A cell of the matrix that an edit changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellChange {
    /// The role.
    pub role: String,
    /// The endpoint.
    pub endpoint: String,
    /// The method.
    pub method: &'static str,
    /// The reach before.
    pub before: Option<PolicyReach>,
    /// The reach after.
    pub after: Option<PolicyReach>,
}

impl CellChange {
    /// Whether the role may do more after the edit.
    pub fn widens(&self) -> bool {
        self.after > self.before
    }
}

impl PolicySet {
    /// Answers a question as [`PolicySet::decide`] does, with the reasons.
    pub fn explain(&self, question: PolicyQuestion<'_>) -> PolicyExplanation {
        let mut roles = Vec::new();
        for name in question.roles {
            let before = roles.len();
            for role in self.definitions(name) {
                let mut grants = role.grants.iter();
                let grant = grants
                    .find(|grant| grant.method == question.method.as_str() && grant.endpoint == question.endpoint);
                let foreign = question.subject.is_some_and(|subject| !question.principal.reaches(subject, role.reach));
                let says = match grant {
                    None => RoleStatement::Silent { line: role.line },
                    Some(grant) if foreign => RoleStatement::OwnOnly { line: grant.line, reach: role.reach },
                    Some(grant) => RoleStatement::Grants { line: grant.line, reach: role.reach },
                };
                roles.push(RoleSays { role: name.clone(), says });
            }
            if roles.len() == before {
                roles.push(RoleSays { role: name.clone(), says: RoleStatement::Undefined });
            }
        }
        PolicyExplanation { decision: self.decide(question), roles }
    }

    /// The rights of each role: one cell for each endpoint and method that it grants.
    pub fn matrix(&self) -> RightsMatrix {
        let mut matrix = RightsMatrix::new();
        for role in self.roles() {
            for grant in &role.grants {
                let Some(method) = Method::of_key(&grant.method) else { continue };
                let cell = (role.name.clone(), grant.endpoint.clone(), method.as_str());
                let cell = matrix.entry(cell).or_insert(role.reach);
                *cell = (*cell).max(role.reach);
            }
        }
        matrix
    }

    /// The cells in which this policy and its successor differ, ordered by role, endpoint and method.
    pub fn changes_to(&self, successor: &Self) -> Vec<CellChange> {
        let (before, after) = (self.matrix(), successor.matrix());
        let cells: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
        cells
            .into_iter()
            .map(|cell| (before.get(&cell).copied(), after.get(&cell).copied(), cell))
            .filter(|(before, after, _)| before != after)
            .map(|(before, after, (role, endpoint, method))| CellChange { role, endpoint, method, before, after })
            .collect()
    }
}
