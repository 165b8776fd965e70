//! The section `[policy]`.

use std::path::PathBuf;

use serde::Deserialize;

use super::check::ValueCheck;
use super::section::section;

/// The place of the policy.
#[derive(Debug, Clone)]
pub struct PolicyConfig {
    /// The `roles.cfg` file.
    pub roles: PathBuf,
    /// The directory in which the last policies are kept, by fingerprint.
    pub history: Option<PathBuf>,
}

section!(PolicySection { roles: PathBuf = "policies/roles.cfg".into(), history: String = "policy-history".into() });

impl PolicySection {
    pub(super) fn check(self, check: &ValueCheck<'_>) -> PolicyConfig {
        PolicyConfig { roles: check.path(self.roles), history: check.optional_path(&self.history) }
    }
}
