//! `fedgate policy explain`: how a request would be decided, and which role and line decide.

use anyhow::anyhow;
use fedgate::accounts::Account;
use fedgate::config::{ClientCertificates, Config};
use fedgate::escape::shown;
use fedgate::path::{CanonicalPath, parse_target};
use fedgate::policy::{Decision, DenyReason, Explanation, PolicySet, Question, Reach, RoleSays, Says};
use fedgate::routes::{Resolution, Routes};
use serde_json::{Value, json};

use super::Report;
use crate::account::{has_usable_password, missing};
use crate::{Failure, open_store, store_fault};

/// Who asks.
pub(super) struct Who {
    id: String,
    roles: Vec<String>,
    /// Why the gateway would not even let them ask, where that is known.
    barred: Option<&'static str>,
}

impl Who {
    /// Somebody who has these roles, stored or not.
    pub(super) fn with_roles(id: String, roles: Vec<String>) -> Self {
        Self { id, roles: roles.into_iter().filter(|role| !role.is_empty()).collect(), barred: None }
    }

    /// An account of the configured store.
    pub(super) async fn stored(id: String, config: &Config) -> Result<Self, Failure> {
        let accounts = open_store(config).await?;
        let account = accounts.read(&id).await.map_err(|error| store_fault(config, error))?;
        let Some(account) = account else {
            return Err(anyhow!("{}; name the roles with --roles", missing(&accounts, &id).await).into());
        };
        let barred = barred(&account, config);
        Ok(Self { id, roles: account.roles, barred })
    }
}

/// Why an account cannot authenticate, if it cannot.
fn barred(account: &Account, config: &Config) -> Option<&'static str> {
    let clients = &config.tls.clients;
    let is_certified = config.tls.client_certificates != ClientCertificates::Off
        && (clients.common_name || clients.accounts.values().any(|id| *id == account.id));
    if !account.active {
        return Some("the account is inactive: the gateway answers 401");
    }
    let can_come = has_usable_password(account) || is_certified;
    (!can_come).then_some("the account has no usable password and cannot log in: the gateway answers 401")
}

/// How a request is decided for somebody with these roles: in lines for a reader, and for machines.
pub(crate) fn explained(
    policy: &PolicySet,
    routes: &Routes,
    principal: &str,
    roles: &[String],
    method: &str,
    path: &str,
) -> Result<(Vec<String>, Value), Failure> {
    let who = Who::with_roles(principal.to_owned(), roles.to_owned());
    let Report { lines, json, .. } = report(policy, routes, &who, method, path)?;
    Ok((lines, json))
}

pub(super) fn report(
    policy: &PolicySet,
    routes: &Routes,
    who: &Who,
    method: &str,
    path: &str,
) -> Result<Report, Failure> {
    let (canonical, _) = parse(path)?;
    let request = format!("{method} {path}");
    let resolved = routes.resolve(method, &canonical);
    let question = match question(routes, &who.id, &who.roles, method, &resolved) {
        Ok(question) => question,
        Err(sentence) => {
            let json = json!({ "request": request, "decision": null, "reason": sentence });
            return Ok(Report::new(vec![format!("{request}: {sentence}")], json));
        }
    };
    if let Some(sentence) = who.barred {
        let json = json!({ "request": request, "as": who.id, "decision": null, "reason": sentence });
        return Ok(Report::new(vec![format!("{request} as {}: {sentence}", who.id)], json));
    }
    let explanation = policy.explain(question);
    let says = |says: &RoleSays| json!({ "role": says.role, "says": says_in_words(says.says, &question), "line": line_of(says.says) });
    let roles: Vec<_> = explanation.roles.iter().map(says).collect();
    let json = json!({
        "request": request, "as": who.id, "endpoint": question.endpoint, "subject": question.subject,
        "decision": explanation.decision.to_string(), "policy": policy.fingerprint(), "roles": roles,
    });
    Ok(Report::new(lines(policy, &question, &explanation, &request), json))
}

fn parse(path: &str) -> Result<(CanonicalPath<'_>, Option<&str>), Failure> {
    parse_target(path.as_bytes()).map_err(|fault| Failure::Usage(anyhow!("`{path}`: {fault}; the gateway answers 400")))
}

/// What a request asks of the policy: the question, or the sentence that says why there is none.
pub(super) fn question<'a>(
    routes: &'a Routes,
    principal: &'a str,
    roles: &'a [String],
    method: &str,
    resolved: &'a Resolution<'a, '_>,
) -> Result<Question<'a>, String> {
    match resolved {
        Resolution::NotFound if method == "OPTIONS" => Err("no route has this path: 404 to everybody".into()),
        Resolution::NotFound => Err("no route has this path: 404 to who is authenticated, 401 to others".into()),
        Resolution::MethodNotAllowed(allow) if method == "OPTIONS" => {
            Err(format!("answered to everybody without asking the policy; the path serves {allow}"))
        }
        Resolution::MethodNotAllowed(allow) => {
            Err(format!("the path does not serve {method} (405); it serves {allow}"))
        }
        Resolution::Found(target) => match target.action.endpoint {
            None => Err("public: the route asks nobody who they are".into()),
            Some(endpoint) => Ok(Question {
                principal,
                roles,
                method: target.method,
                endpoint: routes.endpoints().name(endpoint),
                subject: target.subject.as_deref(),
            }),
        },
    }
}

fn lines(policy: &PolicySet, question: &Question<'_>, explanation: &Explanation, request: &str) -> Vec<String> {
    let whose = match question.subject {
        None => "nobody's record in particular".to_owned(),
        Some(subject) if subject == question.principal => "one's own record".to_owned(),
        Some(subject) => format!("the record of {subject}"),
    };
    let mut lines = vec![
        format!("{request} as {}: {}", question.principal, in_words(explanation.decision)),
        format!(
            "  asks for {} under {}, {whose}; policy {}",
            question.endpoint,
            question.method.as_str(),
            policy.fingerprint()
        ),
    ];
    if explanation.roles.is_empty() {
        lines.push("  the account has no roles".to_owned());
    }
    let says = |says: &RoleSays| format!("  {:<24} {}", shown(&says.role), says_in_words(says.says, question));
    lines.extend(explanation.roles.iter().map(says));
    lines
}

fn in_words(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow(Reach::Own) => "allowed, own records",
        Decision::Allow(Reach::Global) => "allowed, any record",
        Decision::Deny(DenyReason::NoRole) => "denied, the policy defines none of the roles",
        Decision::Deny(DenyReason::NotGranted) => "denied, no role grants it",
        Decision::Deny(DenyReason::NotOwn) => "denied, it is granted for one's own record alone",
    }
}

fn says_in_words(says: Says, question: &Question<'_>) -> String {
    match says {
        Says::Grants { line, reach: Reach::Global } => format!("grants it for any record (line {line})"),
        Says::Grants { line, reach: Reach::Own } => format!("grants it for one's own record (line {line})"),
        Says::OwnOnly { line } => format!("grants it, but for one's own record alone (line {line})"),
        Says::Silent { line } => {
            format!("does not list `{}` under {} (role on line {line})", question.endpoint, question.method.as_str())
        }
        Says::Undefined => "is not defined in the policy".into(),
    }
}

fn line_of(says: Says) -> Option<usize> {
    match says {
        Says::Grants { line, .. } | Says::OwnOnly { line } | Says::Silent { line } => Some(line),
        Says::Undefined => None,
    }
}
