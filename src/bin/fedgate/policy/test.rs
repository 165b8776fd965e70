//! `fedgate policy test`: the cases beside a policy, judged by the code that serves.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::anyhow;
use fedgate::policy::{Asks, Case, Decision, Expectation, Method, PolicySet, Question, parse_cases};
use fedgate::regular;
use fedgate::routes::Routes;
use serde_json::json;

use super::asked::{parse, question};
use super::{FileFault, Report};
use crate::print::count;

/// Largest file of cases.
const MOST_BYTES: u64 = 8 << 20;

/// One question of a case: in words, with what was expected and what was found, or why there is nothing to find.
struct Answer {
    asked: String,
    expected: Expectation,
    found: Result<Decision, String>,
}

pub(super) fn test(policy: &PolicySet, routes: &Routes, file: &Path) -> Result<Report, super::Failure> {
    let text = regular::read_to_string(file, MOST_BYTES)
        .map_err(|error| FileFault::usage(file, format!("the cases cannot be read: {error}")))?;
    let cases = parse_cases(&text).map_err(|fault| FileFault::usage(file, fault))?;
    if cases.is_empty() {
        return Err(FileFault::usage(file, "there are no cases"));
    }
    let (mut passed, mut failed, mut lines, mut results) = (0, 0, Vec::new(), Vec::new());
    for case in &cases {
        for Answer { asked, expected, found } in answers(policy, routes, case) {
            let met = matches!(&found, Ok(decision) if expected.is_met_by(*decision));
            let found = found.map_or_else(|sentence| sentence, |decision| decision.to_string());
            match met {
                true => passed += 1,
                false => {
                    failed += 1;
                    let Case { name, principal, .. } = case;
                    lines.push(format!("not met  {name}: {asked} as {principal} expects {expected}, is {found}"));
                }
            }
            results.push(json!({ "name": case.name, "request": asked, "expected": expected.to_string(), "found": found, "met": met }));
        }
    }
    lines.push(format!("{passed} passed, {failed} failed"));
    let json = json!({ "policy": policy.fingerprint(), "passed": passed, "failed": failed, "cases": results });
    let unmet = || {
        let are = if failed == 1 { "is" } else { "are" };
        anyhow!("{} of {} {are} not met", count(failed, "expectation", "expectations"), file.display()).into()
    };
    Ok(Report { failure: (failed > 0).then(unmet), ..Report::new(lines, json) })
}

fn answers(policy: &PolicySet, routes: &Routes, case: &Case) -> Vec<Answer> {
    let decide = |method, endpoint: &str, subject| {
        policy.decide(Question { principal: &case.principal, roles: &case.roles, method, endpoint, subject })
    };
    match &case.asks {
        Asks::Request(request) => {
            let found = requested(policy, routes, case, request);
            vec![Answer { asked: request.clone(), expected: case.expect, found }]
        }
        Asks::Cell { method, endpoint, subject } => {
            let of = subject.as_ref().map(|subject| format!(" of {subject}")).unwrap_or_default();
            let found = Ok(decide(*method, endpoint, subject.as_deref()));
            vec![Answer { asked: format!("{} {endpoint}{of}", method.as_str()), expected: case.expect, found }]
        }
        Asks::Only(allowed) => {
            // What routes ask for, and besides what this policy or this case may have invented.
            let mut endpoints: BTreeSet<&str> = routes.asked().into_keys().collect();
            endpoints.extend(policy.roles().iter().flat_map(|role| &role.grants).map(|grant| grant.endpoint.as_str()));
            endpoints.extend(allowed.keys().map(String::as_str));
            let cells = endpoints.into_iter().flat_map(|endpoint| Method::ALL.map(|method| (endpoint, method)));
            let answer = |(endpoint, method): (&str, Method)| {
                let is_listed = allowed.get(endpoint).is_some_and(|methods| methods.contains(&method));
                let expected = if is_listed { case.expect } else { Expectation::Deny };
                let found = Ok(decide(method, endpoint, None));
                Answer { asked: format!("{} {endpoint}", method.as_str()), expected, found }
            };
            cells.map(answer).collect()
        }
    }
}

fn requested(policy: &PolicySet, routes: &Routes, case: &Case, request: &str) -> Result<Decision, String> {
    let (method, target) = request.split_once(' ').ok_or("`request` is not METHOD PATH")?;
    let path = parse(method, target).map_err(|unasked| unasked.sentence)?;
    let resolved = routes.resolve(method, &path);
    let asked = question(routes, &case.principal, &case.roles, method, &resolved);
    Ok(policy.decide(asked.map_err(|unasked| unasked.sentence)?))
}
