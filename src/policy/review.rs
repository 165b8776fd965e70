//! Looking at a policy: why a question is answered as it is, what each role may do, what an edit changes.
//!
//! The one rule: these are views of the same definitions that [`PolicySet::decide`] reads, never a second opinion.
//! Called by the operator's tools. Pure, as all of `policy`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Decision, Grant, Method, PolicySet, Question, Reach, RoleDefinition};

/// Why a question was answered as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The answer.
    pub decision: Decision,
    /// What each role of the principal had to say, in their order; a role name that stands twice has two.
    pub roles: Vec<RoleSays>,
}

/// What one role says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSays {
    /// The role's name.
    pub role: String,
    /// What it says.
    pub says: Says,
}

/// What a role says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// It grants the endpoint under the method, on this line of the file, and reaches the record.
    Grants {
        /// The line of the grant, from 1.
        line: usize,
        /// Whose records the role reaches.
        reach: Reach,
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
pub type Matrix = BTreeMap<(String, String, &'static str), Reach>;

/// What routes ask of a policy: for each endpoint, the methods under which a grant of it counts.
pub type Asked<'a> = BTreeMap<&'a str, BTreeSet<Method>>;

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
    pub before: Option<Reach>,
    /// What it reaches after.
    pub after: Option<Reach>,
}

impl CellChange {
    /// Whether the edit lets the role do more than before.
    pub fn widens(&self) -> bool {
        self.after > self.before
    }
}

/// Something in a policy that is valid and hardly meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The line it is about, from 1.
    pub line: usize,
    /// What is odd, and what follows.
    pub text: String,
}

impl PolicySet {
    /// Answers a question as [`PolicySet::decide`] does, and says why.
    pub fn explain(&self, question: Question<'_>) -> Explanation {
        let mut roles = Vec::new();
        for name in question.roles {
            let before = roles.len();
            for role in self.definitions(name) {
                let mut grants = role.grants.iter();
                let grant = grants
                    .find(|grant| grant.method == question.method.as_str() && grant.endpoint == question.endpoint);
                let foreign = question.subject.is_some_and(|subject| subject != question.principal);
                let says = match grant {
                    None => Says::Silent { line: role.line },
                    Some(grant) if role.reach == Reach::Own && foreign => Says::OwnOnly { line: grant.line },
                    Some(grant) => Says::Grants { line: grant.line, reach: role.reach },
                };
                roles.push(RoleSays { role: name.clone(), says });
            }
            if roles.len() == before {
                roles.push(RoleSays { role: name.clone(), says: Says::Undefined });
            }
        }
        Explanation { decision: self.decide(question), roles }
    }

    /// What each role may do: one cell for each endpoint and method it grants.
    pub fn matrix(&self) -> Matrix {
        let mut matrix = Matrix::new();
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

    /// What is valid in this policy and hardly meant, given what the routes ask for.
    pub fn warnings(&self, asked: &Asked<'_>) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |line, text: String| warnings.push(Warning { line, text });
        let mut first_lines: BTreeMap<&str, usize> = BTreeMap::new();
        for role in self.roles() {
            let name = &role.name;
            if let Some(first) = first_lines.get(name.as_str()) {
                let text =
                    format!("role `{name}` stands on line {first} too; each entry counts, with its own `global`");
                warn(role.line, text);
            }
            first_lines.entry(name).or_insert(role.line);
            if role.global_is_boolean && role.reach == Reach::Global {
                let text = format!(
                    "`global` of role `{name}` is true, not \"True\": Thalamus would read it as own records only"
                );
                warn(role.line, text);
            }
            let mut seen = BTreeSet::new();
            for grant in &role.grants {
                if let Some(text) = oddity(role, grant, asked) {
                    warn(grant.line, text);
                }
                if !seen.insert((&grant.method, &grant.endpoint)) {
                    let text = format!("`{}` stands twice under `{}` of role `{name}`", grant.endpoint, grant.method);
                    warn(grant.line, text);
                }
            }
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }
}

/// What is odd about one grant, if anything.
fn oddity(role: &RoleDefinition, Grant { method: key, endpoint, .. }: &Grant, asked: &Asked<'_>) -> Option<String> {
    let name = &role.name;
    let Some(method) = Method::of_key(key) else {
        return Some(format!(
            "`{key}` of role `{name}` is no method that is judged (HEAD is judged as GET); it grants nothing"
        ));
    };
    let Some(methods) = asked.get(endpoint.as_str()) else {
        return Some(format!("no route leads to endpoint `{endpoint}`; role `{name}` gains nothing by it"));
    };
    if !methods.contains(&method) {
        let methods: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
        return Some(format!(
            "no route asks for `{endpoint}` under `{key}`, but under {}; role `{name}` gains nothing by it",
            methods.join(", ")
        ));
    }
    match (role.reach, endpoint.as_str(), method) {
        (Reach::Own, "account", Method::Post | Method::Patch) => Some(format!(
            "role `{name}` may write its own roles: `account` with own records lets everyone who has it become anything"
        )),
        (Reach::Own, "people", Method::Get) => Some(format!(
            "role `{name}` is not global, so that `people` shows it its own record alone; Thalamus would show everybody's"
        )),
        _ => None,
    }
}
