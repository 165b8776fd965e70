//! Lists of roles with their compiled rights, each in memory once, however many principals have it.
//!
//! The one rule: what is shared depends on the policy and the roles alone, so principals with the same roles under the same
//! policy have the same set. A hospital has thousands of accounts and a handful of such lists; with many routes, the rights
//! of one list take kilobytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fedgate_core::policy::{EndpointTable, PolicySet, RoleRights};

/// The most lists that are shared. Beyond it, all are forgotten, and shared again as they are asked for.
const MOST: usize = 1024;

/// A list of roles, and its rights under one policy.
pub(super) struct RoleSet {
    pub(super) roles: Box<[String]>,
    pub(super) rights: RoleRights,
    /// The fingerprint alone, so that no cached principal keeps an old policy in memory.
    pub(super) policy: Arc<str>,
}

/// The sets of the latest policy.
#[derive(Default)]
pub(super) struct RoleSets(Mutex<HashMap<Box<[String]>, Arc<RoleSet>>>);

impl RoleSets {
    /// The set of these roles under a policy.
    pub(super) fn of(&self, policy: &PolicySet, roles: &[String], endpoints: &EndpointTable) -> Arc<RoleSet> {
        let fingerprint = policy.shared_fingerprint();
        let is_current = |set: &Arc<RoleSet>| Arc::ptr_eq(&set.policy, fingerprint) || *set.policy == **fingerprint;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(roles).cloned();
        if let Some(known) = known.filter(is_current) {
            return known;
        }
        // Not under the lock: with a thousand roles it takes a while.
        let rights = RoleRights::compile(policy, roles, endpoints);
        let set = Arc::new(RoleSet { roles: roles.into(), rights, policy: Arc::clone(fingerprint) });
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() >= MOST && !sets.contains_key(roles) {
            sets.clear();
        }
        sets.insert(roles.into(), Arc::clone(&set));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_list_under_one_policy_is_one_set() {
        let policy = |permissions: &str| {
            let text =
                format!(r#"[{{"role": "a", "permissions": {permissions}}}, {{"role": "b", "permissions": {{}}}}]"#);
            PolicySet::parse(text.as_bytes()).unwrap()
        };
        let (sets, endpoints) = (RoleSets::default(), EndpointTable::default());
        let (first, second) = (policy("{}"), policy(r#"{"GET": ["person"]}"#));
        let roles = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let of = |policy: &PolicySet, names: &[&str]| sets.of(policy, &roles(names), &endpoints);
        let one = of(&first, &["a", "b"]);
        assert!(Arc::ptr_eq(&one, &of(&first, &["a", "b"])));
        assert!(Arc::ptr_eq(&one, &of(&policy("{}"), &["a", "b"])), "the same file, read again");
        for other in [of(&first, &["b", "a"]), of(&first, &["a"]), of(&first, &[]), of(&second, &["a", "b"])] {
            assert!(!Arc::ptr_eq(&one, &other));
            assert!(other.policy != one.policy || other.roles != one.roles);
        }
        assert_eq!(of(&second, &["a", "b"]).policy, *second.shared_fingerprint());
        (0..2 * MOST).for_each(|number| drop(of(&second, &[&format!("r{number}")])));
        assert!(sets.0.lock().unwrap().len() <= MOST);
    }
}
