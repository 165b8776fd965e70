//! `*.cases.toml` beside a policy: its tests, in the words of who wrote it.
//!
//! ```toml
//! [[case]]
//! name = "a patient reads her own record"
//! as = "ESPGNU777ORG"
//! roles = ["end_user"]
//! request = "GET /people/ESPGNU777ORG"
//! expect = "allow own"
//! ```
//!
//! The one rule: a case is judged by the code that serves. The file is read here; who runs it resolves the request.

use serde::Deserialize;
use thiserror::Error;

use super::{Decision, DenyReason, Reach};

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// The principal's account id.
    #[serde(rename = "as")]
    pub principal: String,
    /// The principal's roles.
    pub roles: Vec<String>,
    /// Method and path, as in a request line.
    pub request: String,
    /// What the policy must answer.
    pub expect: Expectation,
}

/// What a case expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Expectation {
    /// Allowed, whatever it reaches.
    Allow,
    /// Allowed with this reach.
    AllowReach(Reach),
    /// Denied, whatever the reason.
    Deny,
    /// Denied for this reason.
    DenyReason(DenyReason),
}

/// A case file that cannot be read.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct CasesError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// Parses the text of a case file.
///
/// # Errors
/// It is not TOML of the shape above; the text names line and key.
pub fn parse_cases(text: &str) -> Result<Vec<Case>, CasesError> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        CasesError(format!("line {line}: {}", error.message().replace('\n', " ")))
    })?;
    Ok(file.case)
}

impl TryFrom<String> for Expectation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Ok(match text.as_str() {
            "allow" => Self::Allow,
            "allow own" => Self::AllowReach(Reach::Own),
            "allow global" => Self::AllowReach(Reach::Global),
            "deny" => Self::Deny,
            "deny no_role" => Self::DenyReason(DenyReason::NoRole),
            "deny not_granted" => Self::DenyReason(DenyReason::NotGranted),
            "deny not_own" => Self::DenyReason(DenyReason::NotOwn),
            _ => {
                return Err(format!(
                    "`{text}` is none of allow, allow own, allow global, deny, deny no_role, deny not_granted, deny not_own"
                ));
            }
        })
    }
}

impl Expectation {
    /// Whether a decision is what was expected.
    pub fn is_met_by(self, decision: Decision) -> bool {
        match (self, decision) {
            (Self::Allow, Decision::Allow(_)) | (Self::Deny, Decision::Deny(_)) => true,
            (Self::AllowReach(expected), Decision::Allow(reach)) => expected == reach,
            (Self::DenyReason(expected), Decision::Deny(reason)) => expected == reason,
            _ => false,
        }
    }
}

impl std::fmt::Display for Expectation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::AllowReach(reach) => write!(f, "allow {}", reach.as_str()),
            Self::Deny => f.write_str("deny"),
            Self::DenyReason(reason) => write!(f, "deny {}", reason.as_str()),
        }
    }
}
