//! `[[route.guard]]` and `hide`: the field guard of a route.

use serde::Deserialize;

use super::error::ConfigError;
use fedgate_core::methods::RequestMethod;

/// Members of request bodies that need a permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardConfig {
    /// Their names.
    pub members: Vec<String>,
    /// The endpoint name that roles.cfg must grant for the request's method; without one, no caller may write the
    /// members.
    pub permission: Option<String>,
    /// Whether every caller may write them with the subject of the route as the value.
    pub may_name_subject: bool,
    /// Whether every caller may also write null or an empty text.
    pub may_be_empty: bool,
    /// Whether every caller may write the values of a new account: the defaults of `roles` and `active`, and a
    /// `password` in clear.
    pub may_be_default: bool,
    /// Whether they are looked for at any depth.
    pub anywhere: bool,
}

/// A guard as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GuardSection {
    members: Vec<String>,
    permission: Option<String>,
    #[serde(default)]
    may_name_subject: bool,
    #[serde(default)]
    anywhere: bool,
}

/// Checks the guards and hidden names of a route; `fault` takes key, problem and remedy.
pub(super) fn check(
    guards: Vec<GuardSection>,
    hide: &[String],
    methods: &[String],
    has_subject: bool,
    fault: impl Fn(&str, &str, &str) -> ConfigError,
) -> Result<Vec<GuardConfig>, ConfigError> {
    if hide.iter().any(String::is_empty) {
        return Err(fault("hide", "holds an empty name", "name members such as \"password\""));
    }
    let has_bodies = methods.iter().filter_map(|name| RequestMethod::find(name)).any(|method| method.may_have_body);
    let guard = |guard: GuardSection| {
        if guard.members.is_empty() || guard.members.iter().any(String::is_empty) {
            return Err(fault("guard.members", "is empty or holds an empty name", "name members such as \"roles\""));
        }
        if guard.permission.as_ref().is_some_and(String::is_empty) {
            let remedy = "name an endpoint of roles.cfg, or leave it out: then nobody may write these members";
            return Err(fault("guard.permission", "is empty", remedy));
        }
        if guard.may_name_subject && !has_subject {
            return Err(fault(
                "guard.may_name_subject",
                "is set where there is no subject",
                "set the route's `subject`",
            ));
        }
        // A guard without bodies would promise a protection that does not exist.
        if !has_bodies {
            return Err(fault(
                "guard",
                "guards nothing",
                "put it on a route with POST, PUT or PATCH among its methods",
            ));
        }
        Ok(GuardConfig {
            members: guard.members,
            permission: guard.permission,
            may_name_subject: guard.may_name_subject,
            may_be_empty: false,
            may_be_default: false,
            anywhere: guard.anywhere,
        })
    };
    guards.into_iter().map(guard).collect()
}
