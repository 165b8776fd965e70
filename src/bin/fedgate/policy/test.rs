//! `fedgate policy test`: runs the cases beside a policy with the code that serves.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::anyhow;
use fedgate::routes::RouteTable;
use fedgate_base::regular;
use fedgate_core::policy::{
    CaseQuestion, DenyReason, ExpectedDecision, Method, PolicyCase, PolicyDecision, PolicyQuestion, PolicySet,
    ReviewedQuestion, RoleRights, hint, parse_cases,
};
use serde_json::json;

use super::asked::{AskedGateway, UnreadQuestion};
use super::{FileFault, PolicyReport};
use crate::print::count;

/// Largest file of cases.
const MOST_BYTES: u64 = 8 << 20;

/// One question of a case: in words, with the expected and the found decision, or why there is none.
struct CaseAnswer {
    asked: String,
    expected: ExpectedDecision,
    found: Result<PolicyDecision, String>,
}

pub(super) fn test(
    policy: &PolicySet,
    routes: &RouteTable,
    file: &Path,
) -> Result<PolicyReport, super::CommandFailure> {
    let text = regular::read_to_string(file, MOST_BYTES)
        .map_err(|error| FileFault::usage(file, format!("the cases cannot be read: {error}")))?;
    let cases = parse_cases(&text).map_err(|fault| FileFault::usage(file, fault))?;
    if cases.is_empty() {
        return Err(FileFault::usage(file, "there are no cases"));
    }
    let (mut passed, mut failed, mut lines, mut results) = (0, 0, Vec::new(), Vec::new());
    for case in &cases {
        for CaseAnswer { asked, expected, found } in answers(policy, routes, case) {
            let met = matches!(&found, Ok(decision) if expected.is_met_by(*decision));
            let found = found.map_or_else(|sentence| sentence, |decision| decision.to_string());
            match met {
                true => passed += 1,
                false => {
                    failed += 1;
                    let PolicyCase { name, principal, .. } = case;
                    lines.push(format!("not met  {name}: {asked} as {principal} expects {expected}, is {found}"));
                }
            }
            results.push(json!({ "name": case.name, "request": asked, "expected": expected.to_string(), "found": found, "met": met }));
        }
    }
    lines.push(format!("{passed} passed, {failed} failed"));
    let warnings = hardly_meant(policy, &routes.asked(), &cases);
    let list: Vec<_> =
        warnings.iter().map(|(case, warning)| json!({ "case": case.name, "warning": warning })).collect();
    let warnings = warnings.into_iter().map(|(case, warning)| format!("case `{}`: {warning}", case.name)).collect();
    let json = json!({
        "policy": policy.fingerprint(), "passed": passed, "failed": failed, "cases": results, "warnings": list,
    });
    let unmet = || {
        let are = if failed == 1 { "is" } else { "are" };
        anyhow!("{} of {} {are} not met", count(failed, "expectation", "expectations"), file.display()).into()
    };
    Ok(PolicyReport { warnings, failure: (failed > 0).then(unmet), ..PolicyReport::new(lines, json) })
}

/// Warnings about cases: an endpoint that no route asks for, or a role that the policy does not define.
fn hardly_meant<'a>(
    policy: &PolicySet,
    asked: &ReviewedQuestion<'_>,
    cases: &'a [PolicyCase],
) -> Vec<(&'a PolicyCase, String)> {
    let mut warnings = Vec::new();
    let mut names = BTreeSet::new();
    for case in cases {
        let mut warn = |text: String| warnings.push((case, text));
        if !names.insert(case.name.as_str()) {
            warn("another case has this name".to_owned());
        }
        let endpoints: Vec<&str> = match &case.asks {
            CaseQuestion::Request(_) => Vec::new(),
            CaseQuestion::Cell { endpoint, .. } => vec![endpoint],
            CaseQuestion::Only(allowed) => allowed.keys().map(String::as_str).collect(),
        };
        for endpoint in endpoints.into_iter().filter(|endpoint| !asked.contains_key(endpoint)) {
            warn(format!("no route asks for endpoint `{endpoint}`{}", hint(endpoint, asked.keys().copied())));
        }
        // The undefined role may be the point of the case.
        let is_meant = matches!(case.expect, ExpectedDecision::DenyReason(DenyReason::NoRole));
        let is_defined = |role: &String| policy.definitions(role).next().is_some();
        for role in case.roles.iter().filter(|role| !is_meant && !is_defined(role)) {
            warn(format!("the policy defines no role `{role}`{}", hint(role, policy.role_names())));
        }
    }
    warnings
}

fn answers(policy: &PolicySet, routes: &RouteTable, case: &PolicyCase) -> Vec<CaseAnswer> {
    let decide = |method, endpoint: &str, subject| {
        policy.decide(PolicyQuestion {
            principal: (&case.principal).into(),
            roles: &case.roles,
            method,
            endpoint,
            subject,
        })
    };
    match &case.asks {
        CaseQuestion::Request(request) => {
            let found = requested(policy, routes, case, request);
            vec![CaseAnswer { asked: request.clone(), expected: case.expect, found }]
        }
        CaseQuestion::Cell { method, endpoint, subject } => {
            let of = subject.as_ref().map(|subject| format!(" of {subject}")).unwrap_or_default();
            let found = Ok(decide(*method, endpoint, subject.as_deref()));
            vec![CaseAnswer { asked: format!("{} {endpoint}{of}", method.as_str()), expected: case.expect, found }]
        }
        CaseQuestion::Only(allowed) => {
            // All endpoints that routes ask for, and those that only this policy or this case names.
            let mut endpoints: BTreeSet<&str> = routes.asked().into_keys().collect();
            endpoints.extend(policy.roles().iter().flat_map(|role| &role.grants).map(|grant| grant.endpoint.as_str()));
            endpoints.extend(allowed.keys().map(String::as_str));
            let cells = endpoints.into_iter().flat_map(|endpoint| Method::ALL.map(|method| (endpoint, method)));
            let answer = |(endpoint, method): (&str, Method)| {
                let is_listed = allowed.get(endpoint).is_some_and(|methods| methods.contains(&method));
                let expected = if is_listed { case.expect } else { ExpectedDecision::Deny };
                let found = Ok(decide(method, endpoint, None));
                CaseAnswer { asked: format!("{} {endpoint}", method.as_str()), expected, found }
            };
            cells.map(answer).collect()
        }
    }
}

fn requested(
    policy: &PolicySet,
    routes: &RouteTable,
    case: &PolicyCase,
    request: &str,
) -> Result<PolicyDecision, String> {
    let (method, target) = request.split_once(' ').ok_or("`request` is not METHOD PATH")?;
    let gateway = AskedGateway::with(routes);
    let decided = || {
        let line = gateway.screen(method, target)?;
        let guarded = gateway.open(method, &line)?;
        let question = gateway.question(&case.principal, &case.roles, &guarded)?;
        let rights = RoleRights::compile(policy, &case.roles, routes.endpoints());
        Ok(guarded.decision(&case.principal, &rights).unwrap_or_else(|| policy.decide(question)))
    };
    decided().map_err(|unasked: UnreadQuestion| unasked.sentence)
}
