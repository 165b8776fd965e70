//! `fedgate policy explain`: how a request would be decided, and which role and line decide.

use anyhow::anyhow;
use fedgate::accounts::StoredAccount;
use fedgate::routes::{RouteTable, RouteTarget};
use fedgate_base::config::{ClientCertificates, Config};
use fedgate_core::escape::shown;
use fedgate_core::policy::{
    DenyReason, EndpointId, Method, OwnIds, PolicyDecision, PolicyExplanation, PolicyQuestion, PolicyReach, PolicySet,
    RoleRights, RoleSays, RoleStatement, belongs_to_nobody, hint,
};
use fedgate_core::subject::RequestSubject;
use serde_json::{Value, json};

use super::PolicyReport;
use super::asked::{AskedGateway, UnreadQuestion};
use crate::account::{has_usable_password, missing};
use crate::{open_store, store_fault};
use fedgate_base::command::CommandFailure;

/// The caller of a question.
pub(super) struct AskingRoles {
    id: String,
    /// The other ids of the same person, and the ids of related persons; none for a caller whose account is not read.
    same: Vec<String>,
    related: Vec<String>,
    roles: Vec<String>,
    /// Why the gateway would not authenticate this caller, if known.
    barred: Option<&'static str>,
}

impl AskingRoles {
    /// A caller with these roles, stored or not.
    pub(super) fn with_roles(id: String, roles: Vec<String>) -> Self {
        let roles = roles.into_iter().filter(|role| !role.is_empty()).collect();
        Self { id, same: vec![], related: vec![], roles, barred: None }
    }

    /// An account of the configured store.
    pub(super) async fn stored(id: String, config: &Config) -> Result<Self, CommandFailure> {
        let accounts = open_store(config).await?;
        let account = accounts.read(&id).await.map_err(|error| store_fault(config, error))?;
        let Some(account) = account else {
            return Err(anyhow!("{}; name the roles with --roles", missing(&accounts, &id).await).into());
        };
        let barred = barred(&account, config);
        let related = account.linked.map_or_else(Vec::new, |linked| linked.related.to_vec());
        Ok(Self { id, same: account.same, related, roles: account.roles, barred })
    }

    fn own(&self) -> OwnIds<'_> {
        OwnIds::new(&self.id, &self.same).with_related(&self.related)
    }
}

/// Why an account cannot authenticate, if it cannot.
fn barred(account: &StoredAccount, config: &Config) -> Option<&'static str> {
    let clients = &config.tls.clients;
    let is_certified = config.tls.client_certificates != ClientCertificates::Off
        && (clients.common_name || clients.accounts.values().any(|id| *id == account.id));
    if !account.active {
        return Some("the account is inactive: the gateway answers 401");
    }
    let can_come = has_usable_password(account) || is_certified;
    (!can_come).then_some("the account has no usable password and cannot log in: the gateway answers 401")
}

/// The decision for a caller with these roles: in lines for a reader, and as JSON.
pub(crate) fn explained(
    policy: &PolicySet,
    routes: &RouteTable,
    principal: OwnIds<'_>,
    roles: &[String],
    (method, path): (&str, &str),
    recorded: RequestSubject<'_>,
) -> (Vec<String>, Value) {
    let who = AskingRoles::with_roles(principal.account().to_owned(), roles.to_owned());
    let (same, related) = (principal.others().to_vec(), principal.related().to_vec());
    let who = AskingRoles { same, related, ..who };
    let PolicyReport { lines, json, .. } =
        report(policy, AskedGateway::with(routes), &who, (method, path), Some(recorded));
    (lines, json)
}

pub(super) fn report(
    policy: &PolicySet,
    gateway: AskedGateway<'_>,
    who: &AskingRoles,
    (method, target): (&str, &str),
    recorded: Option<RequestSubject<'_>>,
) -> PolicyReport {
    let request = format!("{method} {target}");
    let line = match gateway.screen(method, target) {
        Ok(line) => line,
        Err(unasked) => return without_policy(&request, who, &unasked),
    };
    let guarded = match gateway.open(method, &line) {
        Ok(guarded) => guarded,
        Err(unasked) => return without_policy(&request, who, &unasked),
    };
    let is_elsewhere = guarded.target().is_some_and(|(_, target)| target.action.subject.is_some());
    let is_replay = recorded.is_some();
    let guarded = match recorded.filter(|_| is_elsewhere) {
        Some(subject) => guarded.with_subject(subject),
        None => guarded,
    };
    let own = guarded.target().map_or(who.own(), |(endpoint, _)| gateway.routes.own(endpoint, who.own()));
    let asked = gateway.question(own, &who.roles, &guarded);
    let question = match (asked, who.barred.map(UnreadQuestion::barred)) {
        (Ok(question), None) => question,
        (Ok(_) | Err(UnreadQuestion { to_everybody: false, .. }), Some(barred)) => {
            return without_policy(&request, who, &barred);
        }
        (Err(unasked), _) => return without_policy(&request, who, &unasked),
    };
    let mut explanation = policy.explain(question);
    // The decision is that of the code that serves; the roles say why.
    let rights = RoleRights::compile(policy, &who.roles, gateway.routes.endpoints());
    explanation.decision = guarded.decision(own, &rights).unwrap_or(explanation.decision);
    let says = |of: &RoleSays| {
        let says = says_in_words(of, &question, policy);
        json!({ "role": of.role, "finding": finding(of.says), "says": says, "line": line_of(of.says) })
    };
    let roles: Vec<_> = explanation.roles.iter().map(says).collect();
    let status = match explanation.decision {
        // The upstream's status is not known here.
        PolicyDecision::Allow(_) => None,
        PolicyDecision::Deny(_) => Some(403),
    };
    let mut json = json!({
        "request": request, "as": who.id, "endpoint": question.endpoint, "subject": question.subject,
        "decision": explanation.decision.to_string(), "status": status, "policy": policy.fingerprint(), "roles": roles,
    });
    let mut lines = lines(policy, &question, &explanation, &request);
    let is_limited = matches!(explanation.decision, PolicyDecision::Allow(reach) if reach != PolicyReach::Global);
    let further = guarded.target().filter(|_| is_limited && !is_replay);
    let further = further.map(|(_, target)| still_to_read(target, own.account())).unwrap_or_default();
    lines.extend(further.iter().map(|line| format!("  {line}")));
    if let Some(object) = json.as_object_mut().filter(|_| !further.is_empty()) {
        object.insert("further".to_owned(), json!(further));
    }
    let is_allowed = matches!(explanation.decision, PolicyDecision::Allow(_));
    if let Some(runs_on) = guarded.target().filter(|_| is_allowed && !is_replay).and_then(runs_on) {
        lines.insert(2, format!("  {runs_on}"));
        if let Some(members) = json.as_object_mut() {
            members.insert("stream".to_owned(), true.into());
        }
    }
    PolicyReport::new(lines, json)
}

/// What else decides a request of a caller who may reach only own records.
fn still_to_read(target: &RouteTarget<'_, '_>, account: &str) -> Vec<&'static str> {
    let Some(rule) = &target.action.subject else { return vec![] };
    let mut further = Vec::new();
    match &target.subject {
        RequestSubject::Callers if rule.forms.write(account).is_none() => {
            further.push("but the caller's id cannot stand in a query of this route, so the gateway answers 403");
        }
        RequestSubject::Callers => further.push("the gateway adds the caller's own id to the query"),
        RequestSubject::Unnamed | RequestSubject::One(_) | RequestSubject::Unbound | RequestSubject::Later => {}
    }
    if rule.reads_body(target.method) {
        further.push("the body must name an own record too; otherwise the gateway answers 403");
    }
    match (rule.reads_answer(target.method), target.method) {
        (true, Method::Get) => {
            further.push("the answer must name an own record too; otherwise the gateway answers 404")
        }
        (true, _) => further.push("the stored record must name an own record too; otherwise the gateway answers 404"),
        (false, _) => {}
    }
    further
}

/// What the decision means where the answer does not end.
fn runs_on((_, target): (EndpointId, &RouteTarget<'_, '_>)) -> Option<&'static str> {
    match (target.action.websocket, target.action.stream) {
        (true, _) => Some(
            "an answer may run on, and a WebSocket (HTTP/1.1, of no page of another origin) is opened; both end with \
             this right",
        ),
        (false, true) if target.method == Method::Post => {
            Some("a call over HTTP/2 alone (505 otherwise): body and answer flow both ways, and end with this right")
        }
        (false, true) => Some("an answer may run on, and ends with this right; an Upgrade is refused (400)"),
        (false, false) => None,
    }
}

/// The gateway's answer without asking the policy.
fn without_policy(
    request: &str,
    who: &AskingRoles,
    UnreadQuestion { status, sentence, to_everybody }: &UnreadQuestion,
) -> PolicyReport {
    let json = json!({ "request": request, "as": who.id, "decision": null, "status": status, "reason": sentence });
    let whose = if *to_everybody { String::new() } else { format!(" as {}", who.id) };
    PolicyReport::new(vec![format!("{request}{whose}: {sentence}")], json)
}

fn lines(
    policy: &PolicySet,
    question: &PolicyQuestion<'_>,
    explanation: &PolicyExplanation,
    request: &str,
) -> Vec<String> {
    let whose = match question.subject {
        None => "no particular record".to_owned(),
        Some(subject) if subject == question.principal.account() => "the caller's own record".to_owned(),
        Some(subject) if question.principal.holds(subject) => {
            format!("the record of {subject}, which is the same person")
        }
        Some(subject) if question.principal.is_related(subject) => {
            format!("the record of {subject}, who is a related person")
        }
        Some(subject) => format!("the record of {subject}"),
    };
    let decided = match explanation.roles.is_empty() {
        true => "denied, no role grants it",
        false => in_words(explanation.decision, question.endpoint),
    };
    let mut lines = vec![
        format!("{request} as {}: {}", question.principal.account(), decided),
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
    let says = |says: &RoleSays| format!("  {:<24} {}", shown(&says.role), says_in_words(says, question, policy));
    lines.extend(explanation.roles.iter().map(says));
    lines
}

fn in_words(decision: PolicyDecision, endpoint: &str) -> &'static str {
    match decision {
        PolicyDecision::Allow(_) if belongs_to_nobody(endpoint) => "allowed, any record",
        PolicyDecision::Allow(PolicyReach::Own) => "allowed, own records",
        PolicyDecision::Allow(PolicyReach::Related) => "allowed, own records and those of related persons",
        PolicyDecision::Allow(PolicyReach::Global) => "allowed, any record",
        PolicyDecision::Deny(DenyReason::NoRole) => "denied, the policy defines none of the roles",
        PolicyDecision::Deny(DenyReason::NotGranted) => "denied, no role grants it",
        PolicyDecision::Deny(DenyReason::NotOwn) => "denied, the role grants it only for the caller's own record",
        PolicyDecision::Deny(DenyReason::NotBound) => {
            "denied, the role grants it only for the caller's own record, and the request does not say clearly whose it is"
        }
    }
}

fn says_in_words(of: &RoleSays, question: &PolicyQuestion<'_>, policy: &PolicySet) -> String {
    match of.says {
        RoleStatement::Grants { line, reach: PolicyReach::Global } => format!("grants it for any record (line {line})"),
        RoleStatement::Grants { line, reach: PolicyReach::Own | PolicyReach::Related }
            if belongs_to_nobody(question.endpoint) =>
        {
            format!("grants it for any record, since these belong to no person (line {line})")
        }
        RoleStatement::Grants { line, reach: PolicyReach::Own } => {
            format!("grants it for the caller's own record (line {line})")
        }
        RoleStatement::Grants { line, reach: PolicyReach::Related } => {
            format!("grants it for the caller's own record and those of related persons (line {line})")
        }
        RoleStatement::OwnOnly { line, reach: PolicyReach::Related } => {
            format!("grants it, but only for the caller's own record and those of related persons (line {line})")
        }
        RoleStatement::OwnOnly { line, .. } => {
            format!("grants it, but only for the caller's own record (line {line})")
        }
        RoleStatement::Silent { line } => {
            format!("does not list `{}` under {} (role on line {line})", question.endpoint, question.method.as_str())
        }
        RoleStatement::Undefined => format!("is not defined in the policy{}", hint(&of.role, policy.role_names())),
    }
}

/// The same in a stable word.
fn finding(says: RoleStatement) -> &'static str {
    match says {
        RoleStatement::Grants { reach: PolicyReach::Global, .. } => "grants_any",
        RoleStatement::Grants { reach: PolicyReach::Related, .. } => "grants_related",
        RoleStatement::Grants { reach: PolicyReach::Own, .. } => "grants_own",
        RoleStatement::OwnOnly { reach: PolicyReach::Related, .. } => "related_only",
        RoleStatement::OwnOnly { .. } => "own_only",
        RoleStatement::Silent { .. } => "silent",
        RoleStatement::Undefined => "undefined",
    }
}

fn line_of(says: RoleStatement) -> Option<usize> {
    match says {
        RoleStatement::Grants { line, .. } | RoleStatement::OwnOnly { line, .. } | RoleStatement::Silent { line } => {
            Some(line)
        }
        RoleStatement::Undefined => None,
    }
}
