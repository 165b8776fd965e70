//! What is valid in a policy and hardly meant.
//!
//! The one rule: a warning names its line and what follows, and changes no decision. Called when a policy comes into force
//! and by the operator's tools. Pure, as all of `policy`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, Grant, Method, PolicySet, Reach, RoleDefinition};
use crate::escape;

/// Something in a policy that is valid and hardly meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The line it is about, from 1.
    pub line: usize,
    /// What is odd, and what follows; names in it are bounded, and each of their characters is seen.
    pub text: String,
}

/// Asks whether a known name was meant that differs from an unknown one by case alone; nothing where there is none.
pub fn hint<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let folded = unknown.to_lowercase();
    // The first in order, so that the hint is always the same.
    let alike = known.into_iter().filter(|known| known.to_lowercase() == folded).min();
    alike
        .map_or(String::new(), |known| format!(" (did you mean `{}`? names are compared exactly)", escape::name(known)))
}

/// As [`hint`], and where there is none, asks whether a known name was meant that differs by a letter or two.
pub fn suggestion<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let hint = hint(unknown, known.clone());
    // Half a name that is otherwise spelled is another name. And what is long costs its square.
    let most = (unknown.chars().count() / 2).min(2);
    if !hint.is_empty() || unknown.len() > 100 {
        return hint;
    }
    let folded = unknown.to_lowercase();
    let near = known.into_iter().map(|known| (edits(&folded, &known.to_lowercase()), known));
    let nearest = near.filter(|(edits, _)| *edits <= most).min();
    nearest.map_or(String::new(), |(_, known)| format!(" (did you mean `{}`?)", escape::name(known)))
}

/// How many letters must be inserted, left out or replaced to make one name the other (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut next = vec![line + 1];
        for (known, pair) in other.iter().zip(row.windows(2)) {
            let (diagonal, up) = (pair.first().copied().unwrap_or(0), pair.last().copied().unwrap_or(0));
            let left = next.last().copied().unwrap_or(0);
            next.push((diagonal + usize::from(*known != letter)).min(up + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

impl PolicySet {
    /// What is valid in this policy and hardly meant, given what the routes ask for.
    pub fn warnings(&self, asked: &Asked<'_>) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |line, text: String| warnings.push(Warning { line, text });
        let mut first_lines: BTreeMap<&str, usize> = BTreeMap::new();
        for role in self.roles() {
            let name = escape::name(&role.name);
            if let Some(first) = first_lines.get(role.name.as_str()) {
                let text =
                    format!("role `{name}` stands on line {first} too; each entry counts, with its own `global`");
                warn(role.line, text);
            }
            first_lines.entry(&role.name).or_insert(role.line);
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
                    let (endpoint, key) = (escape::name(&grant.endpoint), escape::name(&grant.method));
                    warn(grant.line, format!("`{endpoint}` stands twice under `{key}` of role `{name}`"));
                }
            }
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }
}

/// The methods that Thalamus 0.9.18 judges; it looks each up in a role by its key.
const OF_THALAMUS: [Method; 4] = [Method::Get, Method::Post, Method::Patch, Method::Delete];

impl PolicySet {
    /// What this policy would make Thalamus 0.9.18 fail at, for who runs both: it is nothing to fedgate.
    ///
    /// Thalamus asks the roles of an account in their order, and each of them for the method and then for `global`; a key
    /// that is not there ends the request with 500, unless a role before it allowed it.
    pub fn thalamus_warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for role in self.roles() {
            let name = escape::name(&role.name);
            let lacks = |key: &str| !role.keys.iter().any(|known| known == key);
            let methods: Vec<_> = OF_THALAMUS.into_iter().map(Method::as_str).filter(|key| lacks(key)).collect();
            if !methods.is_empty() {
                let text = format!(
                    "role `{name}` has no `{}`: Thalamus would answer 500, not 401, to who has it and asks by such a method; an empty \
                     list says the same",
                    methods.join("`, `")
                );
                warnings.push(Warning { line: role.line, text });
            }
            let grants =
                role.grants.iter().any(|grant| OF_THALAMUS.iter().any(|method| method.as_str() == grant.method));
            if lacks("global") && grants {
                let text = format!(
                    "role `{name}` has no `global`: Thalamus would answer 500, not 401, to who has it and asks for the record of \
                     another; \"False\" says the same"
                );
                warnings.push(Warning { line: role.line, text });
            }
        }
        warnings
    }
}

/// What is odd about one grant, if anything.
fn oddity(role: &RoleDefinition, grant: &Grant, asked: &Asked<'_>) -> Option<String> {
    let (name, key, endpoint) = (escape::name(&role.name), escape::name(&grant.method), escape::name(&grant.endpoint));
    let Some(method) = Method::of_key(&grant.method) else {
        return Some(format!(
            "`{key}` of role `{name}` is no method that is judged (HEAD is judged as GET); it grants nothing"
        ));
    };
    let Some(methods) = asked.get(grant.endpoint.as_str()) else {
        return Some(format!(
            "no route leads to endpoint `{endpoint}`{}; role `{name}` gains nothing by it",
            hint(&grant.endpoint, asked.keys().copied())
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
        (Reach::Own, "account", Method::Post | Method::Patch) => Some(format!(
            "role `{name}` may write its own roles: `account` with own records lets everyone who has it become anything"
        )),
        (Reach::Own, "people", Method::Get) => Some(format!(
            "role `{name}` is not global, so that `people` shows it its own record alone; Thalamus would show everybody's"
        )),
        _ => None,
    }
}
