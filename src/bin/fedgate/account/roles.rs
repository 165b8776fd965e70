//! Roles that are named on the command line.
//!
//! The one rule: a role that the policy does not define grants nothing, and is usually a typing error. It is stored
//! only with `--force`.

use anyhow::anyhow;
use fedgate::gateway::load_policy;
use fedgate_base::config::Config;
use fedgate_core::policy::suggestion;

use crate::print::CommandReport;
use fedgate_base::command::CommandFailure;

/// Longest list, in bytes as JSON, as in the HIS. Logins ignore a list that is more than twice as long.
const MOST_BYTES: usize = 8 * 1024;

/// The named roles, trimmed, each once.
///
/// # Errors
/// The policy does not define one of them, and force was not asked for; or the list is too long.
pub(super) fn checked(
    config: &Config,
    named: Vec<String>,
    is_forced: bool,
    report: &mut CommandReport,
) -> Result<Vec<String>, CommandFailure> {
    let mut roles: Vec<String> = Vec::new();
    for role in named.iter().map(|role| role.trim()).filter(|role| !role.is_empty()) {
        if !roles.iter().any(|known| known == role) {
            roles.push(role.to_owned());
        }
    }
    if serde_json::json!(roles).to_string().len() + roles.len() > MOST_BYTES {
        return Err(CommandFailure::Usage(anyhow!(
            "these roles are longer than {MOST_BYTES} bytes together; name fewer"
        )));
    }
    let file = config.policy.roles.display();
    let policy = match load_policy(config) {
        Ok(policy) => policy,
        // An operator who must remove a role now may have no policy at hand.
        Err(_) if is_forced || roles.is_empty() => return Ok(roles),
        Err(error) => {
            let error = anyhow::Error::from(error);
            return Err(CommandFailure::Usage(
                error.context("the roles cannot be checked; `--force` stores them unchecked"),
            ));
        }
    };
    for role in roles.iter().filter(|role| policy.definitions(role).next().is_none()) {
        let unknown = format!("{file} defines no role `{role}`{}", suggestion(role, policy.role_names()));
        if !is_forced {
            return Err(CommandFailure::Usage(anyhow!(
                "{unknown}; nothing was changed (`--force` stores it all the same)"
            )));
        }
        report.warn(format!("{unknown}; it grants nothing"));
    }
    Ok(roles)
}

/// Roles as text.
pub(super) fn named(roles: &[String]) -> String {
    if roles.is_empty() { "(none)".to_owned() } else { roles.join(", ") }
}
