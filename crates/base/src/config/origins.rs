//! The origins of values: the keys that the environment has set, and the files that hold secrets. With them a fault
//! names its variable or file, wherever it is found.

use std::path::PathBuf;

use super::environment::Environment;
use super::overrides::KeyOverride;

/// The origins of values, by key.
#[derive(Debug, Clone, Default)]
pub struct ValueOrigins {
    variables: Vec<(String, String)>,
    files: Vec<(&'static str, PathBuf)>,
}

impl ValueOrigins {
    pub(super) fn of(environment: &Environment, files: &[(&'static str, PathBuf)]) -> Self {
        let of = |over: &KeyOverride| (over.key(), over.variable().to_owned());
        Self { variables: environment.overrides.iter().map(of).collect(), files: files.to_vec() }
    }

    /// The problem, with the variables that set the keys it names, and the files that keys of secrets name.
    pub fn with_origin(&self, problem: &str) -> String {
        let is_named = |key: &str| problem.contains(&format!("`{key}`"));
        let files = self.files.iter().map(|(key, path)| (*key, path.display().to_string()));
        let files = files.filter(|(key, path)| is_named(key) && !problem.contains(path.as_str()));
        let files = files.map(|(key, path)| format!("`{key}` is {path}"));
        let variables = self.variables.iter();
        let variables = variables.filter(|(key, variable)| is_named(key) && !problem.contains(variable.as_str()));
        let variables = variables.map(|(key, variable)| format!("`{key}` is set by {variable}"));
        let found: Vec<_> = files.chain(variables).collect();
        if found.is_empty() { problem.to_owned() } else { format!("{problem} ({})", found.join(", ")) }
    }
}
