//! `fedgate policy test`: the cases beside a policy, judged by the code that serves.

use std::path::Path;

use anyhow::anyhow;
use fedgate::path::parse_target;
use fedgate::policy::{Case, Decision, PolicySet, parse_cases};
use fedgate::routes::Routes;
use serde_json::json;

use super::{FileFault, Report, explain::question};

pub(super) fn test(policy: &PolicySet, routes: &Routes, file: &Path) -> Result<Report, super::Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| FileFault::usage(file, format!("the cases cannot be read: {error}")))?;
    let cases = parse_cases(&text).map_err(|fault| FileFault::usage(file, fault))?;
    if cases.is_empty() {
        return Err(FileFault::usage(file, "there are no cases"));
    }
    let (mut passed, mut failed, mut lines, mut results) = (0, 0, Vec::new(), Vec::new());
    for case in &cases {
        let found = decide(policy, routes, case);
        let met = matches!(&found, Ok(decision) if case.expect.is_met_by(*decision));
        let found = found.map_or_else(|sentence| sentence, |decision| decision.to_string());
        let Case { name, principal, request, expect, .. } = case;
        match met {
            true => passed += 1,
            false => {
                failed += 1;
                lines.push(format!("not met  {name}: {request} as {principal} expects {expect}, is {found}"));
            }
        }
        results.push(
            json!({ "name": name, "request": request, "expected": expect.to_string(), "found": found, "met": met }),
        );
    }
    lines.push(format!("{passed} passed, {failed} failed"));
    let json = json!({ "policy": policy.fingerprint(), "passed": passed, "failed": failed, "cases": results });
    let unmet = || anyhow!("{failed} cases of {} are not met", file.display()).into();
    Ok(Report { failure: (failed > 0).then(unmet), ..Report::new(lines, json) })
}

fn decide(policy: &PolicySet, routes: &Routes, case: &Case) -> Result<Decision, String> {
    let (method, target) = case.request.split_once(' ').ok_or("`request` is not METHOD PATH")?;
    let (path, _) = parse_target(target.as_bytes()).map_err(|fault| fault.to_string())?;
    let resolved = routes.resolve(method, &path);
    Ok(policy.decide(question(routes, &case.principal, &case.roles, method, &resolved)?))
}
