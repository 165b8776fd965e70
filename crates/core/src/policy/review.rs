//! Looking at a policy: why a question is answered as it is, what each role may do, what an edit changes.
//!
//! The one rule: these are views of the same definitions that [`PolicySet::decide`] reads, never a second opinion.
//! Called by the operator's tools. Pure, as all of `policy`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Method, PolicyDecision, PolicyQuestion, PolicyReach, PolicySet};

/// Why a question was answered as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyExplanation {
    /// The answer.
    pub decision: PolicyDecision,
    /// What each role of the principal had to say, in their order; a role name that stands twice has two.
    pub roles: Vec<RoleSays>,
}

/// What one role says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSays {
    /// The role's name.
    pub role: String,
    /// What it says.
    pub says: RoleStatement,
}

/// What a role says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleStatement {
    /// It grants the endpoint under the method, on this line of the file, and reaches the record.
    Grants {
        /// The line of the grant, from 1.
        line: usize,
        /// Whose records the role reaches.
        reach: PolicyReach,
    },
    /// It grants it on this line, but for one's own record alone, and the record is another's.
    OwnOnly {
        /// The line of the grant, from 1.
        line: usize,
    },
    /// It is defined on this line and does not list the endpoint under the method.
    Silent {
        /// The line of the role, from 1.
        line: usize,
    },
    /// The policy does not define it.
    Undefined,
}

/// One (role, endpoint, method) with whose records it reaches; nothing where it is missing.
pub type RightsMatrix = BTreeMap<(String, String, &'static str), PolicyReach>;

/// What routes ask of a policy: for each endpoint, the methods under which a grant of it counts.
pub type ReviewedQuestion<'a> = BTreeMap<&'a str, BTreeSet<Method>>;

/// One cell of the matrix that an edit changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellChange {
    /// The role.
    pub role: String,
    /// The endpoint.
    pub endpoint: String,
    /// The method.
    pub method: &'static str,
    /// What it reached before.
    pub before: Option<PolicyReach>,
    /// What it reaches after.
    pub after: Option<PolicyReach>,
}

impl CellChange {
    /// Whether the edit lets the role do more than before.
    pub fn widens(&self) -> bool {
        self.after > self.before
    }
}

impl PolicySet {
    /// Answers a question as [`PolicySet::decide`] does, and says why.
    pub fn explain(&self, question: PolicyQuestion<'_>) -> PolicyExplanation {
        let mut roles = Vec::new();
        for name in question.roles {
            let before = roles.len();
            for role in self.definitions(name) {
                let mut grants = role.grants.iter();
                let grant = grants
                    .find(|grant| grant.method == question.method.as_str() && grant.endpoint == question.endpoint);
                let foreign = question.subject.is_some_and(|subject| subject != question.principal);
                let says = match grant {
                    None => RoleStatement::Silent { line: role.line },
                    Some(grant) if role.reach == PolicyReach::Own && foreign => {
                        RoleStatement::OwnOnly { line: grant.line }
                    }
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

    /// What each role may do: one cell for each endpoint and method it grants.
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

    /// The cells that differ between this policy and its successor, in order of role, endpoint and method.
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
