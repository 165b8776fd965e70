//! Which keys the environment has set, so that a fault of one names the variable wherever it is found.

use super::environment::Environment;

/// The variables that override keys, by those keys.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<(String, String)>);

impl Origins {
    pub(super) fn of(environment: &Environment) -> Self {
        let of = |over: &super::environment::Override| (over.key(), over.variable().to_owned());
        Self(environment.overrides.iter().map(of).collect())
    }

    /// What is wrong, with the variables that have set the keys it names.
    pub fn told(&self, problem: &str) -> String {
        let named = self
            .0
            .iter()
            .filter(|(key, variable)| problem.contains(&format!("`{key}`")) && !problem.contains(variable.as_str()));
        let set: Vec<_> = named.map(|(key, variable)| format!("`{key}` is set by {variable}")).collect();
        if set.is_empty() { problem.to_owned() } else { format!("{problem} ({})", set.join(", ")) }
    }
}
